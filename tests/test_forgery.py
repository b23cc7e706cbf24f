"""The corruption matrix, second half: forgeries, in which every hash, sum and checksum was made right again.

A builder with a mistake or an attacker leaves such data sets. `verify` finds what breaks a promise of the format, by file
and clip; what could mislead training, previews or exports in silence is refused by the loader too.
"""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pytest
import zstandard

from drnet.datasets.contract import SPLITS, DataError, Split
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.files import canonical_json, pretty_json, sha256_of
from drnet.pipelines.shards.accounting import fates_of
from drnet.pipelines.shards.codec import EXTENSIONS, Codec, check_of, encode, frame_checks
from drnet.pipelines.shards.manifest import ACCOUNTING, MANIFEST
from drnet.pipelines.shards.shard import Sample, pixel_hash, read_sidecar, tar_header
from drnet.pipelines.source import open_shards
from drnet.pipelines.verify import verify_data

DATA = BouncingDigits("optdigits", clips=6, test_clips=2, frames=3, size=16)
SHARD, KEY = "train-000001.tar", "train-00000002"  # the shard that is forged, and its first clip


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("builds")
    for codec in EXTENSIONS:
        build(plan_build(DATA, codec, 2), folder / codec)  # type: ignore[arg-type]
    return folder


def problems(folder: Path, full: bool = True) -> list[str]:
    """Return what verify finds; each line must name its file once and end with one remedy."""
    try:
        found, _ = verify_data(folder, full)
    except DataError as error:
        found = [str(error)]
    for line in found:
        assert line.startswith(str(folder)), line
        assert "\n" not in line
        assert line.count("again") == 1, line
    return found


def refused(folder: Path) -> str:
    """Read all frames and labels as training, previews and exports do; return why that was refused."""
    try:
        collection = open_shards(folder, SPLITS)
        for number in range(len(collection)):
            collection.frames(number)
            collection.labels(number)
    except DataError as error:
        return str(error)
    pytest.fail("all was read")


class Parts(NamedTuple):
    """A clip as it lies in a shard."""

    key: str
    frames: bytes
    labels: bytes
    length: int
    checks: str


def parts(codec: Codec, split: Split, index: int, key: str = "", **labels: Any) -> Parts:
    (clip,) = DATA.clips(split, index)
    text = orjson.dumps({**clip.labels, **labels})
    return Parts(key or clip.key, encode(clip.frames, codec), text, len(clip.frames), frame_checks(clip.frames))


class Forger:
    """Rewrites shards of a folder, and then makes every hash, sum and checksum right again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.codec = folder, folder.name
        self.names = {split: [f"{split}-{n:06d}.tar" for n in range(3 if split == "train" else 1)] for split in SPLITS}
        self.sidecars = {name: read_sidecar(folder / name) for part in self.names.values() for name in part}
        self.manifest = json.loads((folder / MANIFEST).read_text())

    def clips(self, split: Split = "train", first: int = 2) -> list[Parts]:
        codec: Any = self.codec
        return [parts(codec, split, first), parts(codec, split, first + 1)]

    def rewrite(self, clips: list[Parts], name: str = SHARD, tail: bytes = bytes(1024)) -> None:
        """Replace a shard by one of these clips."""
        file, samples = io.BytesIO(), []
        for clip in clips:
            places = []
            for ending, data in ((EXTENSIONS[self.codec], clip.frames), ("json", clip.labels)):
                file.write(tar_header(f"{clip.key}.{ending}", len(data)))
                places.append((file.tell(), len(data)))
                file.write(data + bytes(-len(data) % 512))
            check = f"{check_of(clip.labels):08x}"
            samples.append(Sample(clip.key, clip.key, clip.length, *places, clip.checks, check))
        file.write(tail)
        (self.folder / name).write_bytes(file.getvalue())
        self.sidecars[name] = replace(self.sidecars[name], name=name, samples=tuple(samples), fates=())

    def seal(self, change: Callable[[dict[str, Any]], object] = lambda manifest: None) -> Path:
        """Write sidecars, accounting and manifest, all in agreement."""
        rows, lines, counts = {}, [], {}
        for split, names in self.names.items():
            rows[split] = [self._settled(name) for name in names]
            fates = [fate for name in names for fate in fates_of(self.sidecars[name])]
            lines += [json.dumps(fate.to_json()).encode() + b"\n" for fate in fates]
            counts[split] = {"written": len(fates)}
        (self.folder / ACCOUNTING).write_bytes(b"".join(lines))
        for split, part in rows.items():
            sums = {name: sum(row[name] for row in part) for name in ("clips", "frames")}
            self.manifest["splits"][split] = {**sums, "shards": part}
        self.manifest |= {"accounting": counts, "accounting_sha256": sha256_of(b"".join(lines))}
        change(self.manifest)
        reseal(self.folder / MANIFEST, self.manifest, pretty_json)
        return self.folder

    def _settled(self, name: str) -> dict[str, Any]:
        data = (self.folder / name).read_bytes()
        sidecar = replace(self.sidecars[name], sha256=sha256_of(data), size=len(data))
        sidecar = replace(sidecar, pixels=pixel_hash(sample.checks for sample in sidecar.samples))
        self.sidecars[name] = sidecar
        (self.folder / name).with_suffix(".json").write_bytes(sidecar.to_bytes())
        counts = {"clips": len(sidecar.samples), "frames": sidecar.frames}
        return {"name": name, "sha256": sidecar.sha256, "bytes": sidecar.size, **counts}


def reseal(path: Path, body: dict[str, Any], write: Callable[[Any], bytes]) -> None:
    """Write a manifest or a sidecar with its right checksum."""
    body.pop("checksum", None)
    path.write_bytes(write(body | {"checksum": sha256_of(canonical_json(body))}))


@pytest.fixture(params=EXTENSIONS)
def forger(request: pytest.FixtureRequest, builds: Path, tmp_path: Path) -> Forger:
    return Forger(Path(shutil.copytree(builds / request.param, tmp_path / request.param)))


def test_a_forger_who_changes_nothing_leaves_no_problem(forger: Forger) -> None:
    forger.rewrite(forger.clips())
    assert problems(forger.seal()) == []


def test_a_key_that_is_there_twice_is_found(forger: Forger) -> None:
    clips = forger.clips()
    forger.rewrite([clips[0], clips[1]._replace(key=KEY)])
    assert any(SHARD in line and f"clip {KEY}: the key is there twice" in line for line in problems(forger.seal()))


@pytest.mark.parametrize(("name", "first"), [("train-000001.tar", 0), ("train-000002.tar", 0), ("train-000002.tar", 1)])
def test_a_key_of_a_shard_before_is_found(forger: Forger, name: str, first: int) -> None:
    forger.rewrite(forger.clips(first=first), name)
    found = problems(forger.seal())
    assert any(name in line and f"clip train-{first:08d}: the key" in line and "twice" in line for line in found), found


@pytest.mark.parametrize("first", [0, 2, 4])
def test_a_key_of_another_split_is_found(forger: Forger, first: int) -> None:
    forger.rewrite(forger.clips(first=first), "test-000000.tar")
    found = problems(forger.seal(), full=False)
    for key in (f"train-{first:08d}", f"train-{first + 1:08d}"):
        assert any(f"clip {key}: the key is in " in line for line in found), found


def test_keys_of_two_splits_may_lie_between_each_other(forger: Forger) -> None:
    one, two = forger.clips("test", 0)
    forger.rewrite([one._replace(key="train-00000000a"), two._replace(key="train-00000004a")], "test-000000.tar")
    assert problems(forger.seal()) == []


def test_a_dotted_key_is_found(forger: Forger) -> None:
    forger.rewrite([clip._replace(key=f"{clip.key}.a") for clip in forger.clips()])
    found = problems(forger.seal())
    assert any("train-000001" in line and f"'{KEY}.a'" in line for line in found), found
    assert f"'{KEY}.a'" in refused(forger.folder)


@pytest.mark.parametrize("name", ["key", "item", "length", "frames", "labels", "crc", "labels_crc"])
def test_a_missing_field_of_a_sidecar_is_found(forger: Forger, name: str) -> None:
    path = forger.folder / "train-000001.json"
    row = json.loads(path.read_text())
    del row["samples"][1][name]
    reseal(path, row, canonical_json)
    clip = "train-00000003" if name != "key" else "clip number 1"
    assert any(f"field '{name}' is missing" in line and clip in line for line in problems(forger.folder))
    assert f"field '{name}' is missing" in refused(forger.folder)


def test_a_missing_field_of_a_description_is_found(forger: Forger) -> None:
    folder = forger.folder
    for file, write in ((MANIFEST, pretty_json), ("train-000001.json", canonical_json)):
        before = (folder / file).read_bytes()
        whole = json.loads(before)
        for name in whole.keys() - {"format", "checksum", "clips", "frames"}:
            reseal(folder / file, {key: value for key, value in whole.items() if key != name}, write)
            assert any(f"field '{name}' is missing" in line for line in problems(folder)), name
        (folder / file).write_bytes(before)
    assert problems(folder) == []


@pytest.mark.parametrize("name", ["digit_red", "x_green", "file"])
def test_a_missing_label_is_found(forger: Forger, name: str) -> None:
    one, two = forger.clips()
    labels = {key: value for key, value in json.loads(one.labels).items() if key != name}
    forger.rewrite([one._replace(labels=json.dumps(labels).encode()), two])
    assert any(SHARD in line and KEY in line and f"label '{name}'" in line for line in problems(forger.seal()))


@pytest.mark.parametrize("value", [2, -1, 0.5, "one", None, True, [0], 1 << 70, 1e308])
def test_a_category_that_is_none_is_found(forger: Forger, value: object) -> None:
    one, two = forger.clips()
    labels = json.dumps({**json.loads(one.labels), "front": value}).encode()
    forger.rewrite([one._replace(labels=labels), two])
    assert any(SHARD in line and f"clip {KEY}: label 'front'" in line for line in problems(forger.seal()))


@pytest.mark.parametrize("text", ["NaN", "1e999", "1" + "0" * 30, '"3"', "[1]", "1" * 5000])
def test_a_number_that_is_none_is_found(forger: Forger, text: str) -> None:
    one, two = forger.clips()
    labels = {**json.loads(one.labels), "x_red": [0, 0, "?"]}
    forger.rewrite([one._replace(labels=json.dumps(labels).replace('"?"', text).encode()), two])
    found = problems(forger.seal())
    assert any(SHARD in line and f"clip {KEY}: " in line and "label" in line for line in found), found


@pytest.mark.parametrize("labels", [b"", b"[]", b"{", b"null", b"\xff", b"[" * 5000, b'{"a":' * 5000], ids=repr)
def test_labels_that_are_none_are_found(forger: Forger, labels: bytes) -> None:
    one, two = forger.clips()
    forger.rewrite([one._replace(labels=labels), two])
    assert any(SHARD in line and f"clip {KEY}: " in line and "label" in line for line in problems(forger.seal()))


@pytest.mark.parametrize(
    "member",
    [b"", b"\x93NUMPY", bytes(900), encode(np.ones((3, 16, 16, 3), np.uint8), "raw")[:-1], b"\x80\x04N." * 99],
    ids=["empty", "head", "zeros", "short", "pickle"],
)
def test_frames_that_cannot_be_decoded_are_found(forger: Forger, member: bytes) -> None:
    one, two = forger.clips()
    frames = member if forger.codec == "raw" else zstandard.compress(member)
    forger.rewrite([one._replace(frames=frames), two])
    found = problems(forger.seal())
    assert any(SHARD in line and f"clip {KEY}: " in line for line in found), found
    assert f"{SHARD}: clip {KEY}: " in refused(forger.folder)


@pytest.mark.parametrize("length", [1, 2, 4])
def test_a_wrong_number_of_frames_is_found(forger: Forger, length: int) -> None:
    one, two = forger.clips()
    forger.rewrite([one._replace(length=length, checks=(one.checks * 2)[: 8 * length]), two])
    assert any(f"clip {KEY}: 3 frames, where {length} are listed" in line for line in problems(forger.seal()))
    assert SHARD in refused(forger.folder)


def test_fewer_frames_than_labels_are_found(forger: Forger) -> None:
    one, two = forger.clips()
    frames = np.zeros((2, 16, 16, 3), np.uint8)
    codec: Any = forger.codec
    forger.rewrite([Parts(KEY, encode(frames, codec), one.labels, 2, frame_checks(frames)), two])
    assert any(f"clip {KEY}: label" in line and "list of 2 values" in line for line in problems(forger.seal()))


@pytest.mark.parametrize("shape", [(3, 8, 16, 3), (3, 16, 16, 1), (3, 8, 32, 3)])
def test_frames_of_another_shape_are_found(forger: Forger, shape: tuple[int, ...]) -> None:
    one, two = forger.clips()
    frames = np.zeros(shape, np.uint8)
    codec: Any = forger.codec
    forger.rewrite([Parts(KEY, encode(frames, codec), one.labels, 3, frame_checks(frames)), two])
    assert any(f"clip {KEY}: frames of {shape[1:]}, not (16, 16, 3)" in line for line in problems(forger.seal()))
    if forger.codec == "zstd":  # raw ones of as many bytes pass the loader: it reads no header
        with pytest.raises(DataError, match=f"{SHARD}: clip {KEY}: frames of"):
            open_shards(forger.folder).locate(2)[0].read_frames(0, [1], np.empty((1, 16, 16, 3), np.uint8))


@pytest.mark.parametrize("name", ["clips", "frames"])
def test_a_manifest_that_counts_otherwise_is_found(forger: Forger, name: str) -> None:
    def change(manifest: dict[str, Any]) -> None:
        part = manifest["splits"]["train"]
        part["shards"][1][name] += 1
        part[name] += 1

    found = problems(forger.seal(change))
    assert any(SHARD in line and "count other clips or frames" in line for line in found)


@pytest.mark.parametrize("name", ["clips", "frames"])
@pytest.mark.parametrize("file", ["sidecar", "manifest"])
def test_sums_that_are_wrong_are_found(forger: Forger, name: str, file: str) -> None:
    path = forger.folder / ("train-000001.json" if file == "sidecar" else MANIFEST)
    body = json.loads(path.read_text())
    (body if file == "sidecar" else body["splits"]["train"])[name] += 1
    reseal(path, body, canonical_json if file == "sidecar" else pretty_json)
    assert any("changed after the build" in line for line in problems(forger.folder))


def test_a_group_in_two_splits_is_found(forger: Forger) -> None:
    codec: Any = forger.codec
    name = json.loads(parts(codec, "train", 0).labels)["file"]
    forger.rewrite([parts(codec, "test", 0), parts(codec, "test", 1, file=name)], "test-000000.tar")
    (line,) = problems(forger.seal())
    assert "test-000000.tar: clip test-00000001: " in line
    assert f"'{name}' lies in two splits" in line


def test_another_codec_than_the_manifests_is_found(forger: Forger) -> None:
    other = "zstd" if forger.codec == "raw" else "raw"
    found = problems(forger.seal(lambda manifest: manifest.update(codec=other)))
    assert len([line for line in found if "another build" in line]) == 4


def test_a_sidecar_of_another_build_is_found(forger: Forger) -> None:
    forger.sidecars[SHARD] = replace(forger.sidecars[SHARD], build="0" * 64)
    (line,) = problems(forger.seal())
    assert SHARD in line
    assert "another build" in line


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"4", b"5", b"6", b"0"])
def test_a_member_that_no_sidecar_lists_is_found(forger: Forger, kind: bytes) -> None:
    header = bytearray(tar_header("train-00000009.npy", 0))
    header[156:157] = kind
    resum(header)
    forger.rewrite(forger.clips(), tail=bytes(header) + bytes(1024))
    assert any(SHARD in line and "end of the archive" in line for line in problems(forger.seal()))


@pytest.mark.parametrize("tail", [b"", bytes(512), bytes(1536), bytes(1023) + b"x"], ids=len)
def test_another_end_of_the_archive_is_found(forger: Forger, tail: bytes) -> None:
    forger.rewrite(forger.clips(), tail=tail)
    assert any(SHARD in line and "end of the archive" in line for line in problems(forger.seal()))


@pytest.mark.parametrize(
    ("at", "what"), [(0, "another name"), (100, "mode"), (124, "size"), (136, "time"), (156, "type"), (157, "link")]
)
def test_another_header_is_found_with_its_clip(forger: Forger, at: int, what: str) -> None:
    one, two = forger.sidecars[SHARD].samples
    whole = (forger.folder / SHARD).read_bytes()
    for key, start in ((one.key, 0), (one.key, one.labels[0] - 512), (two.key, two.frames[0] - 512)):
        data = bytearray(whole)
        data[start + at] = ord("7")
        resum(data, start)
        (forger.folder / SHARD).write_bytes(data)
        found = problems(forger.seal())
        assert any(SHARD in line and f"clip {key}: the header before" in line for line in found), found


def resum(data: bytearray, start: int = 0) -> None:
    """Make the checksum of a tar header right."""
    header = data[start : start + 512]
    data[start + 148 : start + 156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:]) + 256)


def test_a_sidecar_that_places_clips_elsewhere_is_found(forger: Forger) -> None:
    one, two = forger.sidecars[SHARD].samples
    moved = replace(one, frames=two.frames), replace(two, frames=one.frames)
    forger.sidecars[SHARD] = replace(forger.sidecars[SHARD], samples=moved)
    found = problems(forger.seal())
    for key in (KEY, "train-00000003"):
        assert any(f"clip {key}: its sidecar places" in line for line in found)
        assert any(f"clip {key}: frame 1 is damaged" in line for line in found)
    assert "is damaged" in refused(forger.folder)


def test_checks_of_other_frames_are_found(forger: Forger) -> None:
    one, two = forger.clips()
    forger.rewrite([one._replace(checks=two.checks), two])
    assert any(f"clip {KEY}: frame 1 is damaged" in line for line in problems(forger.seal()))


def test_a_pixel_hash_of_other_pixels_is_found(forger: Forger) -> None:
    path = forger.folder / "train-000001.json"
    body = json.loads(path.read_text()) | {"pixels": "0" * 64}
    reseal(path, body, lambda row: canonical_json(row) + b"\n")
    assert [line for line in problems(forger.folder, full=False) if "pixel hash" in line and SHARD in line]


def test_a_shard_listed_twice_is_found(forger: Forger) -> None:
    forger.names["train"].append(SHARD)
    assert any(f"{MANIFEST}: shard {SHARD} is listed twice" in line for line in problems(forger.seal()))


def test_a_shard_under_two_names_is_found(forger: Forger) -> None:
    forger.rewrite(forger.clips(), "train-000002.tar")
    found = problems(forger.seal())
    assert any("train-000002.tar: clip train-00000002: the key comes after train-00000003" in line for line in found)
