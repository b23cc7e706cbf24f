"""Small NORB: a miniature under the true names, in the true format, through the true path; only the pins are its own."""

import dataclasses
import gzip
import pickle
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drnet.datasets import cache
from drnet.datasets.contract import SPLITS, DataError, ItemFailed, ItemMissing, SourceFile, Split
from drnet.datasets.fetching.originals import originals_of
from drnet.datasets.norb import AZIMUTHS, CATEGORIES, ORIGINAL, Edition, Part, SmallNorb, Toy
from drnet.datasets.reading import matrices
from drnet.datasets.reading.matrices import map_matrix, write_matrix
from drnet.datasets.reading.norb_miniature import EYES, render, write_miniature
from drnet.datasets.reading.source_files import sha256_file
from drnet.datasets.scale import scale
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.verify import verify_data

Mini = tuple[Path, Edition]


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Mini:
    """One train and one test toy of each category under two lights; read only."""
    folder = tmp_path_factory.mktemp("norb")
    return folder, write_miniature(folder, train=(4,), test=(0,), elevations=(2,), lightings=(0, 3))


@pytest.fixture
def own(mini: Mini, tmp_path: Path) -> Mini:
    """The same, to be changed, with a cache of its own."""
    return Path(shutil.copytree(mini[0], tmp_path / "own")), mini[1]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRNET_CACHE", str(tmp_path / "cache"))


def made(mini: Mini, **others: Any) -> SmallNorb:
    return SmallNorb(mini[0], edition=mini[1], **others)


def error_of(call: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


def pack(folder: Path) -> None:
    for path in list(folder.glob("*.mat")):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 1, mtime=0))
        path.unlink()


def repinned(folder: Path, part: Part) -> Part:
    """The part with the hashes and rows of the files as they are now."""
    rows = (folder / part.cat.name).stat().st_size // 4 - 5
    files = [
        dataclasses.replace(f, shape=(rows, *f.shape[1:]), sha256=sha256_file(folder / f.name)) for f in part.files
    ]
    return dataclasses.replace(part, dat=files[0], cat=files[1], info=files[2])


def rewritten(own: Mini, change: Callable[[list[np.ndarray]], list[np.ndarray]]) -> SmallNorb:
    """The data set with changed train matrices, pinned as they are."""
    folder, edition = own
    part = edition.train
    matrices_ = change([np.array(map_matrix(folder / file.name, file)) for file in part.files])
    for file, matrix in zip(part.files, matrices_, strict=True):
        write_matrix(folder / file.name, matrix)
    return made((folder, dataclasses.replace(edition, train=repinned(folder, part))))


def test_the_originals_are_pinned_as_published() -> None:
    assert [file.size for file in ORIGINAL.train.files] == [447_897_624, 97_220, 388_820]
    assert [file.size for file in ORIGINAL.test.files] == [447_897_624, 97_220, 388_820]
    assert ORIGINAL.train.info.name == "smallnorb-5x46789x9x18x6x2x96x96-training-info.mat"
    assert ORIGINAL.test.dat.name == "smallnorb-5x01235x9x18x6x2x96x96-testing-dat.mat"
    assert len({file.sha256 for part in (ORIGINAL.train, ORIGINAL.test) for file in part.files}) == 5  # cat is the same
    assert all(len(file.sha256) == 64 for part in (ORIGINAL.train, ORIGINAL.test) for file in part.files)


def test_the_files_that_are_fetched_are_those_that_are_expected() -> None:
    fetched = {file.name: file.unpacked for file in originals_of("norb").files}
    for file in ORIGINAL.train.files + ORIGINAL.test.files:
        assert fetched[file.name] == SourceFile(file.name, file.size, file.sha256)


def test_the_toys_are_divided_as_published() -> None:
    data = SmallNorb()
    assert (data.count("train"), data.count("test")) == (1350, 1350)
    assert ORIGINAL.train.instances == (4, 6, 7, 8, 9)
    assert ORIGINAL.test.instances == (0, 1, 2, 3, 5)
    names = [data.item("train", index) for index in range(1350)]
    assert len(set(names)) == 1350
    assert names[0] == "animal-4-elevation-30-lighting-0"
    assert names[-1] == "car-9-elevation-70-lighting-5"


def test_a_clip_is_one_full_turn_with_its_azimuths_in_order(mini: Mini) -> None:
    data = made(mini, size=96)
    for split in SPLITS:
        for index in range(data.count(split)):
            (clip,) = data.clips(split, index)
            assert clip.labels["azimuth"] == list(range(0, 360, 20))
            facts = clip.labels
            toy = Toy(facts["category"], facts["instance"], (facts["elevation"] - 30) // 5, facts["lighting"])
            drawn = [render(toy, azimuth - EYES / 2) for azimuth in facts["azimuth"]]
            assert np.array_equal(clip.frames[..., 0], drawn)
            name = f"{CATEGORIES[toy.category]}-{toy.instance}-elevation-40-lighting-{toy.lighting}"
            assert data.item(split, index) == name
            assert facts["object"] == 10 * toy.category + toy.instance


def test_the_rows_of_the_files_are_shuffled(mini: Mini) -> None:
    info = map_matrix(mini[0] / mini[1].train.info.name, mini[1].train.info)
    assert not np.array_equal(np.sort(info[:18, 2]), np.array(AZIMUTHS))


def test_no_object_is_in_both_splits(mini: Mini) -> None:
    data = made(mini)
    seen: dict[str, set[tuple[int, int]]] = {
        split: {
            (clip.labels["instance"], clip.labels["object"])
            for index in range(data.count(split))
            for clip in data.clips(split, index)
        }
        for split in SPLITS
    }
    assert {instance for instance, _ in seen["train"]} == {4}
    assert {instance for instance, _ in seen["test"]} == {0}
    assert {number for _, number in seen["train"]} == {4, 14, 24, 34, 44}


def test_both_cameras_give_two_clips_that_differ(mini: Mini) -> None:
    both = list(made(mini, camera="both").clips("train", 3))
    assert [clip.labels["camera"] for clip in both] == [0, 1]
    assert [clip.key for clip in both] == ["train-0003-left", "train-0003-right"]
    for number, camera in enumerate(("left", "right")):
        (alone,) = made(mini, camera=camera).clips("train", 3)
        assert alone.key == both[number].key
        assert alone.labels == both[number].labels
        assert np.array_equal(alone.frames, both[number].frames)
    assert not np.array_equal(both[0].frames, both[1].frames)


@pytest.mark.parametrize("size", [32, 48, 64, 128])
def test_other_sizes_are_the_originals_resized(mini: Mini, size: int) -> None:
    (clip,) = made(mini, size=size).clips("test", 1)
    (original,) = made(mini, size=96).clips("test", 1)
    assert np.array_equal(clip.frames, scale(original.frames, size, size))
    assert clip.frames.shape == (18, *made(mini, size=size).frame_shape())


def test_one_and_two_workers_build_the_same_verified_data_set(mini: Mini, tmp_path: Path) -> None:
    plan = plan_build(made(mini, camera="both"), "zstd", 4)
    report = build(plan, tmp_path / "one")
    build(plan, tmp_path / "two", workers=2)
    assert report.counts == {"train": {"written": 10}, "test": {"written": 10}}
    assert sum(row.clips for row in report.manifest.splits["train"]) == 20
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    assert verify_data(tmp_path / "one")[0] == []
    assert any("wraps" in note for note in report.manifest.about["notes"])


def test_gzip_files_give_the_same_build(own: Mini, mini: Mini) -> None:
    plain = plan_build(made(mini), "raw")
    pack(own[0])
    packed = plan_build(made(own), "raw")
    assert packed.build == plain.build
    (clip,), (again,) = made(own).clips("train", 2), made(mini).clips("train", 2)
    assert np.array_equal(clip.frames, again.frames)


def test_gzip_files_are_unpacked_once(own: Mini, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(own[0])
    made(own).sources()
    monkeypatch.setattr(matrices, "_unpack", lambda *_: pytest.fail("unpacked again"))
    made(own).sources()
    list(made(own).clips("test", 0))


def test_an_unpacked_copy_that_was_damaged_is_made_again(own: Mini) -> None:
    pack(own[0])
    rows = made(own).sources()
    (copy,) = cache.cache_folder().rglob(own[1].train.dat.name)
    with copy.open("r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    assert made(own).sources() == rows


def cut(data: bytes) -> bytes:
    return data[:-10]


def flipped(data: bytes) -> bytes:
    return data[:500] + bytes([data[500] ^ 1]) + data[501:]


def longer(data: bytes) -> bytes:
    return data + b"x"


def other_header(data: bytes) -> bytes:
    return np.array([0x1E3D4C54, 4, 99, 2, 96, 96], "<i4").tobytes() + data[24:]


def text(data: bytes) -> bytes:
    return b"<html>not found</html>"


@pytest.mark.parametrize("change", [cut, flipped, longer, other_header, text, lambda data: b""])
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_is_not_the_pinned_one_is_refused_by_name(
    own: Mini, change: Callable[[bytes], bytes], packed: bool
) -> None:
    file = own[1].test.dat
    path = own[0] / file.name
    path.write_bytes(change(path.read_bytes()))
    if packed:
        pack(own[0])
    message = error_of(lambda: made(own).sources())
    assert str(own[0] / file.name) in message
    assert "expected" in message
    if packed:
        assert not list(cache.cache_folder().rglob(f"{file.name}*"))


def test_a_refusal_says_what_was_found_and_what_was_expected(own: Mini) -> None:
    file = own[1].train.dat
    path = own[0] / file.name
    content = path.read_bytes()
    path.write_bytes(other_header(content))
    assert "holds int32 values of 99 x 2 x 96 x 96; expected uint8 values of 180 x 2" in error_of(
        lambda: made(own).sources()
    )
    path.write_bytes(cut(content))
    assert f"has {file.size - 10:,} bytes; expected {file.size:,}" in error_of(lambda: made(own).sources())
    path.write_bytes(flipped(content))
    message = error_of(lambda: made(own).sources())
    assert sha256_file(path) in message
    assert file.sha256 in message


def test_the_miniature_is_not_taken_for_the_original(mini: Mini) -> None:
    message = error_of(lambda: SmallNorb(mini[0]).sources())
    assert "180 x 2 x 96 x 96" in message
    assert "24300 x 2 x 96 x 96" in message


def test_a_turn_without_all_its_azimuths_fails_and_one_without_any_is_missing(own: Mini, tmp_path: Path) -> None:
    def without(matrices_: list[np.ndarray]) -> list[np.ndarray]:
        dat, cat, info = matrices_
        truck = (cat == 3) & (info[:, 3] == 0) & np.isin(info[:, 2], (4, 30))
        human = (cat == 1) & (info[:, 3] == 3)
        return [matrix[~(truck | human)] for matrix in (dat, cat, info)]

    data = rewritten(own, without)
    with pytest.raises(ItemFailed, match="azimuth 40, 300"):
        list(data.clips("train", 6))
    with pytest.raises(ItemMissing):
        list(data.clips("train", 3))
    assert data.missing_items("train") == [data.item("train", 3)]
    report = build(plan_build(data), tmp_path / "data")
    assert report.counts["train"] == {"written": 8, "failed": 1, "missing": 1}


def test_facts_that_the_format_does_not_know_are_refused(own: Mini) -> None:
    def change(matrices_: list[np.ndarray]) -> list[np.ndarray]:
        matrices_[2][7, 2] = 5  # azimuths are even
        return matrices_

    assert "row 7 of smallnorb" in error_of(lambda: list(rewritten(own, change).clips("train", 0)))


def test_two_rows_that_say_the_same_are_refused(own: Mini) -> None:
    def change(matrices_: list[np.ndarray]) -> list[np.ndarray]:
        matrices_[1][9], matrices_[2][9] = matrices_[1][4], matrices_[2][4]
        return matrices_

    assert "rows 4 and 9 of smallnorb" in error_of(lambda: list(rewritten(own, change).clips("train", 0)))


def test_missing_files_name_both_ways_out(tmp_path: Path) -> None:
    for data, folder in ((SmallNorb(tmp_path / "none"), tmp_path / "none"), (SmallNorb(), cache.cache_folder())):
        message = error_of(data.sources)
        assert str(folder) in message
        assert "drnet data fetch norb" in message
        assert "--source DIR" in message


def test_without_a_source_the_cache_is_used(mini: Mini) -> None:
    shutil.copytree(mini[0], cache.cache_folder() / "norb")
    assert SmallNorb(edition=mini[1]).sources() == made(mini).sources()


@pytest.mark.parametrize("missing", [6, 1, 0])
def test_fetch_downloads_only_what_is_missing(
    own: Mini, mini: Mini, missing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in sorted(own[0].iterdir())[:missing]:
        path.unlink()
    calls = []

    def fetch(name: str, folder: Path, tell: Any) -> None:
        calls.append(name)
        shutil.copytree(mini[0], folder, dirs_exist_ok=True)

    fake = types.ModuleType("drnet.datasets.fetching.fetch")
    fake.fetch = fetch  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "drnet.datasets.fetching.fetch", fake)
    assert len(made(own, fetch=True).sources()) == 6
    assert calls == (["norb"] if missing else [])


@pytest.mark.parametrize(("name", "value"), [("size", 100), ("size", 0), ("camera", "middle")])
def test_values_that_are_not_allowed_are_refused(name: str, value: object) -> None:
    message = error_of(lambda: SmallNorb(**{name: value}))  # type: ignore[arg-type]
    assert f"{name} " in message
    assert str(value) in message


def test_it_travels_to_another_process(mini: Mini) -> None:
    data = made(mini, camera="right", size=32)
    again = pickle.loads(pickle.dumps(data))  # noqa: S301 - what a worker process receives
    assert again.parameters() == data.parameters() == {"camera": "right", "size": 32}
    assert np.array_equal(next(again.clips("test", 4)).frames, next(data.clips("test", 4)).frames)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads Linux's list of what is mapped")
def test_no_part_of_a_file_stays_mapped(mini: Mini) -> None:
    data = made(mini, size=96)
    clips = [clip for split in SPLITS for index in range(3) for clip in data.clips(split, index)]
    assert len(clips) == 6
    assert str(mini[0]) not in Path("/proc/self/maps").read_text()


def test_a_turn_that_is_not_there_is_no_clip(mini: Mini) -> None:
    split: Split = "train"
    with pytest.raises(IndexError):
        next(made(mini).clips(split, 10))
