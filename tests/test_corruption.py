"""The corruption matrix, first half: damage as disks, copies and hands do it.

`verify` finds all of it, by file and clip, and the loader gives no wrong frame or label. `test_forgery.py` is the other
half: damage under hashes that are right.
"""

import contextlib
import shutil
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drnet.datasets.contract import SPLITS, About, Clip, DataError, Label, SourceFile, Split
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.shards.codec import Codec
from drnet.pipelines.shards.manifest import ACCOUNTING, MANIFEST
from drnet.pipelines.shards.shard import Sidecar, read_sidecar
from drnet.pipelines.source import open_shards
from drnet.pipelines.verify import Groups, verify_data

DATA = BouncingDigits("optdigits", clips=6, test_clips=2, frames=3, size=16)
SHARD, KEY = "train-000001.tar", "train-00000002"  # the shard that is damaged, and its first clip
CODECS: tuple[Codec, ...] = ("raw", "zstd")


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A build of each codec: three train shards and one test shard of two clips; restored by whoever changes it."""
    folder = tmp_path_factory.mktemp("builds")
    for codec in CODECS:
        build(plan_build(DATA, codec, 2), folder / codec)
    return {codec: folder / codec for codec in CODECS}


@pytest.fixture(params=CODECS)
def folder(request: pytest.FixtureRequest, builds: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(builds[request.param], tmp_path / request.param))


def problems(folder: Path, full: bool = True) -> list[str]:
    """Return what verify finds; each line must name its file once and end with one remedy."""
    try:
        found, _ = verify_data(folder, full)
    except DataError as error:
        found = [str(error)]
    for line in found:
        assert line.count(str(folder)) == 1, line
        assert line.startswith(str(folder)), line
        assert "\n" not in line
        assert line.count("again") == 1 or "delete it" in line or "reads format 1" in line, line
    return found


def contents(folder: Path) -> list[tuple[str, bytes, dict[str, Any]]]:
    """Read everything as training, previews and exports do: key, frames and labels of every clip."""
    collection = open_shards(folder, SPLITS)
    found = []
    for number in range(len(collection)):
        sample, out = collection.sample(number), np.empty((1, *collection.frame_shape), np.uint8)
        shard, index = collection.locate(number)
        frames = []
        for time in range(sample.length):
            shard.read_frames(index, [time], out)
            frames.append(out.tobytes())
        found.append((sample.key, b"".join(frames), collection.labels(number)))
    return found


@contextlib.contextmanager
def changed(path: Path, data: bytes) -> Iterator[None]:
    """Give a file other content for a while."""
    whole = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(whole)


def flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def owner(sidecar: Sidecar, at: int) -> str:
    """Return the key of the clip to whose two members, headers and padding included, a byte belongs; else nothing."""
    for sample in sidecar.samples:
        if at < sum(sample.labels) + -sample.labels[1] % 512:
            return sample.key
    return ""


@pytest.mark.parametrize("codec", CODECS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_flipped_bit_of_a_shard_is_found_with_its_clip(
    builds: dict[str, Path], codec: Codec, data: st.DataObject
) -> None:
    path = builds[codec] / SHARD
    whole, sidecar, right = path.read_bytes(), read_sidecar(path), contents(builds[codec])
    at, bit = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 7))
    with changed(path, flipped(whole, at, bit)):
        found = problems(builds[codec])
        assert any(f"{SHARD}: its SHA-256 differs" in line for line in found)
        named = any(f"{SHARD}: " in line and owner(sidecar, at) in line for line in found[1:])
        # A few bits of a compressed member only say the same frames in another way: then no clip is damaged.
        assert named or (codec == "zstd" and in_frames(sidecar, at) and contents(builds[codec]) == right), found
        assert problems(builds[codec], full=False)


def in_frames(sidecar: Sidecar, at: int) -> bool:
    return any(0 <= at - sample.frames[0] < sample.frames[1] for sample in sidecar.samples)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("file", ["train-000001.json", MANIFEST, ACCOUNTING])
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_flipped_bit_of_a_description_is_found_with_its_file(
    builds: dict[str, Path], codec: Codec, file: str, data: st.DataObject
) -> None:
    path = builds[codec] / file
    whole = path.read_bytes()
    at, bit = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 7))
    with changed(path, flipped(whole, at, bit)):
        for full in (True, False):
            found = problems(builds[codec], full)
            assert any(file in line or (file != MANIFEST and SHARD in line) for line in found), found


@pytest.mark.parametrize("codec", CODECS)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_the_loader_gives_the_right_frames_and_labels_or_none(
    builds: dict[str, Path], codec: Codec, data: st.DataObject
) -> None:
    path = builds[codec] / SHARD
    whole, right = path.read_bytes(), contents(builds[codec])
    at, bit = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 7))
    with changed(path, flipped(whole, at, bit)), contextlib.suppress(DataError):
        assert contents(builds[codec]) == right  # the bit was one of a header or of padding, which it does not read


@pytest.mark.parametrize("codec", CODECS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_file_cut_anywhere_is_found(builds: dict[str, Path], codec: Codec, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from([SHARD, "train-000001.json", MANIFEST, ACCOUNTING]))
    path = builds[codec] / file
    whole, sidecar = path.read_bytes(), read_sidecar(builds[codec] / SHARD)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with changed(path, whole[:cut]):
        lines = [line for line in problems(builds[codec]) if Path(file).stem in line]
        assert lines
        if file == SHARD and cut < sum(sidecar.samples[-1].labels):
            lost = next(sample.key for sample in sidecar.samples if cut < sum(sample.labels))
            assert f"cut short: clip {lost} and all after it are lost" in lines[0]
            with pytest.raises(DataError, match=SHARD):
                contents(builds[codec])


@pytest.mark.parametrize("codec", CODECS)
def test_a_shard_cut_between_any_two_members_is_found(builds: dict[str, Path], codec: Codec) -> None:
    path = builds[codec] / SHARD
    whole, sidecar = path.read_bytes(), read_sidecar(path)
    starts = [offset - 512 for sample in sidecar.samples for offset, _ in (sample.frames, sample.labels)]
    for cut in [*starts, *(start + 512 for start in starts), len(whole) - 1024, len(whole) - 512]:
        with changed(path, whole[:cut]):
            assert any(SHARD in line and "cut short" in line for line in problems(builds[codec], full=False))


@pytest.mark.parametrize("file", [SHARD, "train-000001.json", ACCOUNTING, MANIFEST])
def test_a_missing_file_is_found(folder: Path, file: str) -> None:
    (folder / file).unlink()
    assert any(file in line and "missing" in line for line in problems(folder))


@pytest.mark.parametrize("file", ["train-000009.tar", "train-000009.json", "x.txt", ".train-000000.tar.7.tmp"])
def test_an_extra_file_is_found(folder: Path, file: str) -> None:
    (folder / file).write_bytes(b"more")
    (line,) = problems(folder)
    assert file in line
    assert "extra file" in line


def test_a_card_and_its_picture_are_no_extra_files(folder: Path) -> None:
    for name in ("README.md", "preview.png"):
        (folder / name).write_bytes(b"more")
    assert problems(folder) == []


@pytest.mark.parametrize("endings", [(".tar",), (".json",), (".tar", ".json")])
@pytest.mark.parametrize("other", ["train-000002", "test-000000"])
def test_swapped_shards_are_found(folder: Path, endings: tuple[str, ...], other: str) -> None:
    for ending in endings:
        one, two = folder / f"train-000001{ending}", folder / f"{other}{ending}"
        first, second = one.read_bytes(), two.read_bytes()
        one.write_bytes(second)
        two.write_bytes(first)
    found = problems(folder)
    for name in ("train-000001", other):
        assert any(name in line.partition(": ")[0] for line in found), found
    with pytest.raises(DataError):
        contents(folder)


@pytest.mark.parametrize("endings", [(".tar",), (".tar", ".json")])
def test_a_shard_that_is_a_copy_of_another_is_found(folder: Path, endings: tuple[str, ...]) -> None:
    for ending in endings:
        shutil.copy(folder / f"train-000000{ending}", folder / f"train-000001{ending}")
    assert any("train-000001" in line for line in problems(folder))
    with pytest.raises(DataError):
        contents(folder)


def test_the_sidecar_of_an_earlier_build_is_found(folder: Path, tmp_path: Path) -> None:
    codec: Any = folder.name
    build(plan_build(replaced(seed=1), codec, 2), tmp_path / "earlier")
    shutil.copy(tmp_path / "earlier/train-000001.json", folder)
    found = problems(folder)
    assert any("stale or swapped sidecar" in line and SHARD in line for line in found)
    assert any("another build" in line and SHARD in line for line in found)
    with pytest.raises(DataError, match=r"train-000001\.tar"):
        contents(folder)


def replaced(seed: int) -> BouncingDigits:
    return BouncingDigits("optdigits", clips=6, test_clips=2, frames=3, size=16, seed=seed)


class Specks:
    """Many clips of one pixel, each a group of its own."""

    about = About("specks", 1, "specks", "none", "nobody", split_key="number", content_key="number")
    labels: dict[str, Label] = {"number": Label("number", unit="id")}  # noqa: RUF012

    def __init__(self, clips: int) -> None:
        self.clips_of = {"train": clips, "test": 10}

    def parameters(self) -> dict[str, Any]:
        return {"clips": self.clips_of["train"]}

    def sources(self) -> list[SourceFile]:
        return []

    def frame_shape(self) -> tuple[int, int, int]:
        return (1, 1, 1)

    def count(self, split: Split) -> int:
        return self.clips_of[split]

    def item(self, split: Split, index: int) -> str:
        return f"{index}"

    def clips(self, split: Split, index: int) -> Iterator[Clip]:
        number = index + (1 << 40) * (split == "test")
        yield Clip(f"{split}-{index:08d}", np.full((1, 1, 1, 1), index % 251, np.uint8), {"number": number})


def test_the_memory_of_verifying_does_not_grow_with_the_clips(tmp_path: Path) -> None:
    peaks = []
    for clips in (200, 2000):
        build(plan_build(Specks(clips), "raw", 100), tmp_path / str(clips))
        tracemalloc.start()
        try:
            assert verify_data(tmp_path / str(clips)) == ([], {"shards": clips // 100 + 1, "clips": clips + 10})
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] - peaks[0] < 50 * 1800, peaks  # a set of keys and groups alone would take 200 bytes a clip


def test_a_group_is_elsewhere_only_where_a_split_before_has_it() -> None:
    groups = Groups()
    assert not any(groups.is_elsewhere(n % 7, "train") for n in range(100))
    assert [groups.is_elsewhere(n, "test") for n in (6, 7, "6", "x" * 9999, 6)] == [True, False, True, False, True]
