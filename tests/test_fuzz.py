"""Fuzzing: whatever bytes are read as a shard, a member or a description, it ends in a result or in a DataError.

The tests draw a few hundred inputs, always the same. `fuzz.py` uses the same targets for as long as one likes, with
coverage as the guide.
"""

import atexit
import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from drnet.datasets.contract import SPLITS, About, Clip, DataError, ItemFailed, Label, LeftOut, SourceFile, Split
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.files import canonical_json, sha256_of
from drnet.pipelines.looking.inspect import describe_data
from drnet.pipelines.shards.accounting import Accounts
from drnet.pipelines.shards.codec import EXTENSIONS, HEAD, decode, encode, npy_header, stated_shape
from drnet.pipelines.shards.foreign import index_foreign
from drnet.pipelines.shards.manifest import ACCOUNTING, MANIFEST, read_manifest
from drnet.pipelines.shards.reading import Shard
from drnet.pipelines.shards.shard import read_sidecar
from drnet.pipelines.source import open_shards
from drnet.pipelines.verify import verify_data

BLOCK = 512
FOLDER = Path(tempfile.mkdtemp(prefix="drnet-fuzz-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
TAR, SIDECAR = FOLDER / "train-000000.tar", FOLDER / "train-000000.json"
FRAMES = np.arange(12, dtype=np.uint8).reshape(2, 3, 2, 1)


class Two:
    """A data set of two clips, and of an item that failed."""

    about = About("two", 1, "two", "none", "nobody", split_key="x", content_key="x", notes=("one",))
    labels: dict[str, Label] = {  # noqa: RUF012
        "x": Label("number", unit="id"),
        "y": Label("number", varying=True, unit="degree", period=360),
    }

    def parameters(self) -> dict[str, Any]:
        return {"size": 3, "deep": {"a": [1, None]}}

    def sources(self) -> list[SourceFile]:
        return [SourceFile("raw.bin", 3, "c" * 64)]

    def frame_shape(self) -> tuple[int, int, int]:
        return (3, 2, 1)

    def count(self, split: Split) -> int:
        return 3 if split == "train" else 0

    def item(self, split: Split, index: int) -> str:
        return f"item {index}"

    def clips(self, split: Split, index: int) -> Iterator[Clip | LeftOut]:
        if index == 2:
            yield LeftOut("still")
            raise ItemFailed("cut short")
        yield Clip(f"k{index}", FRAMES + index, {"x": index, "y": [1, 2.5], "z": "text"})


def built(codec: Any) -> dict[str, bytes]:
    """Return the files of a build."""
    folder = FOLDER / "built" / codec
    build(plan_build(Two(), codec, 3), folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def put(*names: str, codec: str = "raw") -> None:
    """Write files of a good data set."""
    for name in names:
        (FOLDER / name).write_bytes(BUILT[codec][name])


def sealed(body: dict[str, Any]) -> bytes:
    """Return a description with its right checksum, where it can have one."""
    rest = {key: value for key, value in body.items() if key != "checksum"}
    with contextlib.suppress(ValueError, RecursionError):
        rest["checksum"] = sha256_of(canonical_json(rest))
    return json.dumps(rest).encode()


def resealed(data: bytes) -> bytes:
    """Return a changed description with its right checksum, so that what it says is looked at."""
    try:
        body = json.loads(data)
        return sealed(body) if isinstance(body, dict) else data
    except (ValueError, RecursionError):
        return data


def resummed(data: bytes) -> bytes:
    """Return a changed tar with the right checksum in all its headers, so that what they say is looked at."""
    found = bytearray(data)
    for start in range(0, len(found) - BLOCK + 1, BLOCK):
        block = found[start : start + BLOCK]
        if block[257:262] == b"ustar":
            found[start + 148 : start + 156] = b"%06o\0 " % (sum(block[:148]) + sum(block[156:]) + 256)
    return bytes(found)


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def read_all(opened: Shard) -> None:
    """Read every clip in each way there is; each may be refused."""
    out = np.empty((1, 3, 2, 1), np.uint8)
    for index in range(len(opened)):
        for read in (opened.clip, opened.labels, opened.shape, lambda n: opened.read_frames(n, [0], out)):
            with contextlib.suppress(DataError):
                read(index)  # type: ignore[operator]


def read_shard(data: bytes) -> None:
    """A foreign shard, as it is and with its headers' checksums put right."""
    for content in (data, resummed(data)):
        with contextlib.suppress(DataError):
            path = written(FOLDER / "foreign.tar", content)
            read_all(Shard(path, index_foreign(path)))


def read_member(data: bytes) -> None:
    """A clip's frames."""
    for codec in EXTENSIONS:
        with contextlib.suppress(DataError):
            frames = decode(data, codec, "here")
            assert stated_shape(data[:HEAD], len(data), codec, "here") == frames.shape


def read_a_sidecar(data: bytes) -> None:
    """The sidecar of a good shard, as it is and with its checksum put right."""
    for content in (data, resealed(data)):
        for codec in ("raw", "zstd"):
            put(TAR.name, codec=codec)
            written(SIDECAR, content)
            with contextlib.suppress(DataError):
                sidecar = read_sidecar(TAR)
                Accounts().expect(TAR.name, sidecar)
                read_all(Shard(TAR, sidecar))


def read_a_manifest(data: bytes) -> None:
    """The manifest of a good shard, as it is and with its checksum put right."""
    put(TAR.name, SIDECAR.name)
    for content in (data, resealed(data)):
        path = written(FOLDER / MANIFEST, content)
        for use in (describe_data, verify_data, lambda folder: list(open_shards(folder, SPLITS).keys())):
            with contextlib.suppress(DataError):
                use(path.parent)
        path.unlink()


def read_an_accounting(data: bytes) -> None:
    """The accounting of a good shard."""
    put(TAR.name, SIDECAR.name, MANIFEST)
    accounts = Accounts()
    accounts.expect(TAR.name, read_sidecar(TAR))
    found = list(accounts.problems(written(FOLDER / ACCOUNTING, data), read_manifest(FOLDER)))
    assert bool(found) == (data != BUILT["raw"][ACCOUNTING])


BUILT = {codec: built(codec) for codec in EXTENSIONS}
LIAR = zstandard.compress(npy_header((1, 30000, 30000, 1)) + bytes(1 << 20))
TARGETS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {
    "shard": (read_shard, [files[TAR.name] for files in BUILT.values()]),
    "member": (read_member, [LIAR, encode(FRAMES, "raw"), encode(FRAMES, "zstd")]),
    "sidecar": (read_a_sidecar, [files[SIDECAR.name] for files in BUILT.values()]),
    "manifest": (read_a_manifest, [files[MANIFEST] for files in BUILT.values()]),
    "accounting": (read_an_accounting, [BUILT["raw"][ACCOUNTING]]),
}

NUMBERS = (b"-1", b"0.5", b"1e308", b"1e999", b"NaN", b"9007199254740993", b"9" * 5000, b"7" * 11)
VALUES = (b"null", b"true", b"[]", b"{}", b'""', b'"\\u001b[2J"', b'"\\ud800"', b"[" * 2000, b",", b":")
PARTS = (bytes(BLOCK), b"\xff" * 8, b"../", b"\x80", b"L", b"x", b"2", b"16 size=99999999\n", b"\x93NUMPY\x02\x00")
PIECES = st.one_of(st.binary(max_size=8), st.sampled_from([*NUMBERS, *VALUES, *PARTS]))
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), PIECES), min_size=1, max_size=4)


def edited(data: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    """Replace a few bytes here and there."""
    for place, length, piece in edits:
        at = int(place * len(data))
        data = data[:at] + piece + data[at + length :]
    return data


@pytest.mark.parametrize("codec", EXTENSIONS)
def test_what_is_not_changed_is_read(codec: str) -> None:
    put(*BUILT[codec], codec=codec)
    shutil.copy(TAR, FOLDER / "foreign.tar")
    for shard in (Shard(TAR, read_sidecar(TAR)), Shard(TAR, index_foreign(FOLDER / "foreign.tar"))):
        assert np.array_equal(shard.clip(1), FRAMES + 1)
        assert shard.labels(1)["z"] == "text"
    assert describe_data(FOLDER)["splits"]["train"]["items"] == {"failed": 1, "written": 2}
    read_an_accounting(BUILT["raw"][ACCOUNTING])


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(data=st.data())
def test_whatever_is_read_ends_in_a_result_or_a_data_error(name: str, data: st.DataObject) -> None:
    target, seeds = TARGETS[name]
    target(edited(data.draw(st.sampled_from(seeds)), data.draw(EDITS)))


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(data=st.binary(max_size=1200))
def test_any_bytes_end_in_a_result_or_a_data_error(name: str, data: bytes) -> None:
    TARGETS[name][0](data)
