"""Builds: the same bytes whatever happened on the way, and nothing of anybody else's overwritten."""

import gc
import io
import json
import os
import tarfile
import threading
import tracemalloc
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset

from drnet.datasets.contract import About, Clip, DataError, ItemFailed, ItemFiltered, Label, SourceFile, Split
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.build import BuildPlan, build, plan_build
from drnet.pipelines.building.jobs import BuilderError
from drnet.pipelines.files import sha256_of
from drnet.pipelines.shards.codec import Codec
from drnet.pipelines.shards.manifest import ACCOUNTING, MANIFEST
from drnet.pipelines.source import open_shards
from drnet.pipelines.verify import verify_data

ABOUT = About("bars", 1, "bars", "none", "nobody", "half", "number")


@dataclass
class Bars:
    """Grey clips of rising length; some items are left out, give two clips or raise."""

    train: int = 10
    test: int = 2
    shade: int = 7
    odd: Mapping[int, str] = field(default_factory=dict)
    about: About = ABOUT
    labels: Mapping[str, Label] = field(default_factory=lambda: {"number": Label("number", unit="id")})

    def parameters(self) -> dict[str, Any]:
        return {"train": self.train, "test": self.test, "shade": self.shade}

    def sources(self) -> list[SourceFile]:
        return [SourceFile("bars.bin", 3, sha256_of(b"abc"))]

    def frame_shape(self) -> tuple[int, int, int]:
        return 8, 6, 1

    def count(self, split: Split) -> int:
        return self.train if split == "train" else self.test

    def item(self, split: Split, index: int) -> str:
        return f"{split} {index}"

    def clips(self, split: Split, index: int) -> Iterator[Clip]:
        odd = self.odd.get(index, "") if split == "train" else ""
        if odd == "filtered":
            raise ItemFiltered("too dark")
        for part in range(2 if odd in ("two", "half") else 1):
            if odd in ("failed", "half") and part == (odd == "half"):
                raise ItemFailed("line one\nline two")
            frames = np.full((2 + index % 4, 8, 6, 1), self.shade, np.uint8)
            frames[:, index % 8] = 255
            if odd == "shape":
                frames = frames[:, :4]
            if odd == "raises":
                raise RuntimeError("a mistake")
            yield Clip(f"{split}-{index:04d}-{part}", frames, {"number": index, "half": split})


def digits(**changes: Any) -> BouncingDigits:
    return BouncingDigits("optdigits", **({"clips": 12, "test_clips": 3, "frames": 5, "size": 16} | changes))


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.iterdir()}


def built(folder: Path, data: Any = None, codec: Codec = "raw", per_shard: int = 4, **options: Any) -> BuildPlan:
    plan = plan_build(data or Bars(), codec, per_shard)
    build(plan, folder, **options)
    return plan


def test_a_build_holds_the_files_it_promises_and_no_other(tmp_path: Path) -> None:
    plan = built(tmp_path)
    names = ("train-000000", "train-000001", "train-000002", "test-000000")
    shards = {f"{name}.{end}" for name in names for end in ("tar", "json")}
    assert set(tree(tmp_path)) == shards | {MANIFEST, ACCOUNTING} == plan.names


@pytest.mark.parametrize("codec", ["raw", "zstd"])
def test_every_clip_is_in_the_build_as_the_data_set_gave_it(codec: Codec, tmp_path: Path) -> None:
    data = Bars()
    built(tmp_path, data, codec)
    for split in ("train", "test"):
        collection = open_shards(tmp_path, [split])
        clips = [clip for index in range(data.count(split)) for clip in data.clips(split, index)]
        assert list(collection.keys()) == [clip.key for clip in clips]
        for number, clip in enumerate(clips):
            assert np.array_equal(collection.frames(number), clip.frames)
            assert collection.labels(number) == clip.labels


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves tars open
def test_webdataset_and_tarfile_read_every_sample_of_a_raw_build(tmp_path: Path) -> None:
    data = digits()
    built(tmp_path, data)
    expected = {clip.key: clip for index in range(12) for clip in data.clips("train", index)}
    url = f"{tmp_path}/train-{{000000..000002}}.tar"
    stream = webdataset.WebDataset(url, shardshuffle=False, empty_check=False).decode()
    samples = {sample["__key__"]: sample for sample in stream}
    del stream
    gc.collect()
    assert list(samples) == sorted(expected)
    for key, sample in samples.items():
        assert np.array_equal(sample["npy"], expected[key].frames)
        assert sample["json"] == expected[key].labels
    for tar in sorted(tmp_path.glob("train-*.tar")):
        with tarfile.open(tar) as archive:
            for member in archive:
                key, extension = member.name.split(".")
                content = archive.extractfile(member)
                assert content is not None
                if extension == "npy":
                    assert np.array_equal(np.load(io.BytesIO(content.read())), expected[key].frames)
                else:
                    assert json.load(content) == expected[key].labels


def test_building_twice_writes_the_same_bytes_anywhere(tmp_path: Path) -> None:
    built(tmp_path / "one", digits(), "zstd")
    built(tmp_path / "two" / "deeper", digits(), "zstd")
    assert tree(tmp_path / "one") == tree(tmp_path / "two" / "deeper")


def test_any_executor_gives_the_same_bytes(tmp_path: Path) -> None:
    built(tmp_path / "one", digits())
    with ThreadPoolExecutor(3) as threads:
        built(tmp_path / "two", digits(), executor=threads)
        done = threads.submit(int, "7").result()
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert done == 7  # the user's executor is left running


def test_running_again_touches_nothing(tmp_path: Path) -> None:
    plan = built(tmp_path)
    before = stamps(tmp_path)
    report = build(plan, tmp_path)
    assert (report.written, report.kept) == (0, 4)
    assert stamps(tmp_path) == before


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "longer", "no sidecar", "bad sidecar", "cut sidecar"])
def test_only_what_is_damaged_is_written_again(tmp_path: Path, damage: str) -> None:
    plan = built(tmp_path)
    before, times = tree(tmp_path), stamps(tmp_path)
    tar, sidecar = tmp_path / "train-000001.tar", tmp_path / "train-000001.json"
    data = bytearray(tar.read_bytes())
    if damage == "missing":
        tar.unlink()
    elif damage == "no sidecar":
        sidecar.unlink()
    elif damage == "bad sidecar":
        sidecar.write_bytes(sidecar.read_bytes().replace(b'"length":', b'"lenght":', 1))
    elif damage == "cut sidecar":
        sidecar.write_bytes(sidecar.read_bytes()[:50])
    else:
        data[700] ^= damage == "flipped"
        tar.write_bytes({"cut": data[:1024], "longer": data + b"\0"}.get(damage, data))
    report = build(plan, tmp_path)
    assert (report.written, report.kept) == (1, 3)
    assert tree(tmp_path) == before
    changed = {name for name, stamp in stamps(tmp_path).items() if times[name] != stamp}
    assert changed == {"train-000001.tar", "train-000001.json"}


@pytest.mark.parametrize("text", [b"", b"{}", b'{"format": 1}'])
def test_a_damaged_manifest_or_accounting_is_put_right(tmp_path: Path, text: bytes) -> None:
    plan = built(tmp_path)
    before = tree(tmp_path)
    for name in (MANIFEST, ACCOUNTING):
        (tmp_path / name).write_bytes(text)
        assert build(plan, tmp_path).written == 0
        assert tree(tmp_path) == before


def test_what_killed_writers_left_is_cleared_away(tmp_path: Path) -> None:
    plan = built(tmp_path)
    before = tree(tmp_path)
    for name in (".train-000001.tar.123.tmp", f".{MANIFEST}.9.tmp", f".{ACCOUNTING}.9.tmp", ".test-000000.json.4.tmp"):
        (tmp_path / name).write_bytes(b"half")
    build(plan, tmp_path)
    assert tree(tmp_path) == before


def test_every_source_item_is_accounted_for(tmp_path: Path) -> None:
    odd = {1: "filtered", 2: "failed", 3: "two", 5: "half"}
    built(tmp_path, Bars(odd=odd))
    rows = [json.loads(line) for line in (tmp_path / ACCOUNTING).read_text().splitlines()]
    assert [(row["split"], row["item"]) for row in rows] == [
        (split, f"{split} {n}") for split, count in (("train", 10), ("test", 2)) for n in range(count)
    ]
    train = [row for row in rows if row["split"] == "train"]
    assert {n: (train[n]["fate"], train[n]["clips"]) for n in (0, 1, 2, 3, 5)} == {
        0: ("written", 1),
        1: ("filtered", 0),
        2: ("failed", 0),
        3: ("written", 2),
        5: ("failed", 1),
    }
    assert (train[1]["why"], train[2]["why"]) == ("too dark", "line one\nline two")
    body = json.loads((tmp_path / MANIFEST).read_text())
    assert body["accounting"] == {"train": {"failed": 2, "filtered": 1, "written": 7}, "test": {"written": 2}}
    assert sum(row["clips"] for row in train) == body["splits"]["train"]["clips"] == len(open_shards(tmp_path))
    assert verify_data(tmp_path)[0] == []


def test_a_shard_of_which_nothing_is_left_is_still_a_shard(tmp_path: Path) -> None:
    odd = dict.fromkeys(range(4), "filtered")
    built(tmp_path, Bars(odd=odd))
    collection = open_shards(tmp_path)
    assert len(collection) == 6
    assert next(collection.keys()) == "train-0004-0"
    assert verify_data(tmp_path)[0] == []


@pytest.mark.parametrize(("odd", "message"), [("shape", r"frames of \(4, 6, 1\)"), ("raises", "a mistake")])
def test_a_mistake_of_a_data_set_ends_the_build_and_leaves_whole_shards_only(
    tmp_path: Path, odd: str, message: str
) -> None:
    with pytest.raises((ValueError, RuntimeError), match=message):
        built(tmp_path, Bars(odd={6: odd}))
    assert set(tree(tmp_path)) == {"train-000000.tar", "train-000000.json"}


def test_a_mistake_in_the_first_shard_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(BuilderError, match="a mistake"):
        built(tmp_path / "new", Bars(odd={0: "raises"}))
    assert not (tmp_path / "new").exists()


def test_keys_must_rise_from_shard_to_shard(tmp_path: Path) -> None:
    class Falling(Bars):
        def clips(self, split: Split, index: int) -> Iterator[Clip]:
            for clip in super().clips(split, index):
                yield Clip(f"{split}-{index % 4}", clip.frames, clip.labels)

    with pytest.raises(ValueError, match="'train-0' is not allowed after 'train-3'"):
        built(tmp_path, Falling())
    assert not (tmp_path / MANIFEST).exists()


@pytest.mark.parametrize("at", [1, 5, 9, 14])
def test_a_full_disk_leaves_whole_shards_only_and_the_build_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    built(tmp_path / "whole")
    calls, real = iter(range(1000)), os.fsync

    def full(descriptor: int) -> None:
        if next(calls) >= at:
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left") as error:
            built(tmp_path / "out")
    assert error.value.filename is not None
    names = set(tree(tmp_path / "out")) if (tmp_path / "out").exists() else set()
    assert not any(name.startswith(".") for name in names)
    assert MANIFEST not in names
    built(tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.parametrize(
    "change",
    [{"clips": 13}, {"test_clips": 4}, {"frames": 6}, {"size": 32}, {"seed": 1}, {"overlap": "add"}],
    ids=str,
)
def test_the_build_id_changes_with_every_parameter(change: dict[str, Any]) -> None:
    assert plan_build(digits(), "raw", 4).build != plan_build(digits(**change), "raw", 4).build


def test_the_build_id_changes_with_codec_shard_size_version_name_and_sources() -> None:
    class Other(Bars):
        def sources(self) -> list[SourceFile]:
            return [SourceFile("bars.bin", 3, sha256_of(b"abd"))]

    plans = [
        plan_build(Bars(), "raw", 4),
        plan_build(Bars(), "zstd", 4),
        plan_build(Bars(), "raw", 5),
        plan_build(Other(), "raw", 4),
        plan_build(Bars(about=About("bars", 2, "", "", "", "half", "number")), "raw", 4),
        plan_build(Bars(about=About("rods", 1, "", "", "", "half", "number")), "raw", 4),
    ]
    assert len({plan.build for plan in plans}) == len(plans)


def test_the_build_id_is_the_same_in_every_version_of_the_project() -> None:
    assert plan_build(Bars(), "raw", 4).build == "697c2e2971d7e8ac1cedc675fad682f4ca7189b9d7a24fad9ba58f771fb929ae"


@pytest.mark.parametrize(("codec", "per_shard", "message"), [("jpeg", 4, "raw, zstd"), ("raw", 0, "at least 1")])
def test_a_plan_that_is_not_allowed_says_what_is(codec: Any, per_shard: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        plan_build(Bars(), codec, per_shard)
    with pytest.raises(DataError, match="workers 0"):
        build(plan_build(Bars()), Path("never"), workers=0)


@pytest.mark.parametrize("clips", [1, 15, 16, 17, 100_000])
def test_the_shards_hold_each_item_once(clips: int) -> None:
    plan = plan_build(Bars(clips, 3))
    for split, count in (("train", clips), ("test", 3)):
        ranges = [range(job.start, job.stop) for job in plan.jobs if job.split == split]
        assert [n for part in ranges for n in part] == list(range(count))
        assert all(0 < len(part) <= 1000 for part in ranges)


def test_two_builds_into_one_folder_at_once_are_refused(tmp_path: Path) -> None:
    inside, go = threading.Event(), threading.Event()

    class Slow(Bars):
        def clips(self, split: Split, index: int) -> Iterator[Clip]:
            inside.set()
            assert go.wait(20)
            return super().clips(split, index)

    first = threading.Thread(target=lambda: built(tmp_path / "out", Slow()))
    first.start()
    try:
        assert inside.wait(20)
        with pytest.raises(DataError, match="another process is building into it"):
            built(tmp_path / "out")
    finally:
        go.set()
        first.join()
    built(tmp_path / "alone")
    assert tree(tmp_path / "out") == tree(tmp_path / "alone")


def test_memory_does_not_grow_with_the_number_of_clips(tmp_path: Path) -> None:
    peaks = []
    for clips in (200, 1600):
        tracemalloc.start()
        built(tmp_path / str(clips), Bars(clips), "zstd", 50)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 300_000  # bytes; the plan and the manifest have a row for each shard
