"""The loader: WebDataset outside, planned reads inside, and errors that reach the user."""

import pickle
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset

from drnet.datasets.contract import DataError
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.loader import READ_AHEAD, Batch, FrameStream, PlannedFrames, read_ahead, to_device
from drnet.pipelines.plan import Plan, frame_pairs
from drnet.pipelines.source import Collection, open_shards


def source_of(collection: Collection, batch: int = 8, start: int = 0, seed: int = 0) -> PlannedFrames:
    plan = Plan(collection.order_key, seed, [place.clips for place in collection.places], batch)
    return PlannedFrames(collection, plan, max_offset=5, start=start)


def first_batches(stream: FrameStream, count: int) -> list[Batch]:
    batches = stream.batches()
    try:
        return list(islice(batches, count))
    finally:
        batches.close()


@pytest.fixture
def collection(digits: Path) -> Collection:
    return open_shards(digits)


def test_the_loader_is_a_webdataset_pipeline(collection: Collection) -> None:
    stream = FrameStream(source_of(collection))
    assert isinstance(stream, webdataset.DataPipeline)
    sample = next(iter(stream))
    assert set(sample) == {"__key__", "__url__", "npy", "times", "clip", "step"}
    assert sample["__key__"] == collection.sample(sample["clip"]).key
    assert Path(sample["__url__"]).is_file()
    assert sample["npy"].shape == (2, 32, 32, 3)


def test_a_batch_holds_the_planned_frames_of_the_planned_clips(collection: Collection) -> None:
    source = source_of(collection)
    batch, planned = source.read(3), source.plan.batch(3)
    assert batch.clips.tolist() == planned.clips.tolist()
    assert batch.times.tolist() == frame_pairs(planned.raw, [8] * 8, 5).tolist()
    for clip, times, frames in zip(batch.clips, batch.times, batch.frames, strict=True):
        assert np.array_equal(frames, collection.frames(int(clip))[times])
    assert len(np.unique(batch.frames.reshape(8, -1), axis=0)) == 8


def test_samples_and_the_fast_path_give_the_same_batches(collection: Collection) -> None:
    fast = first_batches(FrameStream(source_of(collection, start=5)), 8)
    slow = first_batches(FrameStream(source_of(collection, start=5), webdataset.map(dict)), 8)
    assert [batch.step for batch in fast] == [batch.step for batch in slow] == list(range(5, 13))
    for one, other in zip(fast, slow, strict=True):
        assert np.array_equal(one.frames, other.frames)
        assert np.array_equal(one.clips, other.clips)
        assert np.array_equal(one.times, other.times)


def flipped(sample: dict[str, Any]) -> dict[str, Any]:
    return sample | {"npy": sample["npy"][:, :, ::-1]}


@pytest.mark.parametrize("appended", [True, False])
def test_a_stage_of_the_user_is_honoured(collection: Collection, appended: bool) -> None:
    plain = first_batches(FrameStream(source_of(collection)), 3)
    if appended:
        stream = FrameStream(source_of(collection))
        stream.append(webdataset.map(flipped))
    else:
        stream = FrameStream(source_of(collection)).compose(webdataset.map(flipped))
    for batch, mirrored in zip(plain, first_batches(stream, 3), strict=True):
        assert np.array_equal(mirrored.frames, batch.frames[:, :, :, ::-1])


def test_a_stage_that_drops_samples_leaves_full_batches(collection: Collection) -> None:
    stream = FrameStream(source_of(collection), webdataset.select(lambda sample: sample["clip"] % 2 == 0))
    for batch in first_batches(stream, 4):
        assert len(batch.clips) == 8
        assert (batch.clips % 2 == 0).all()


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_of_a_web_loader_keep_the_plans_order(collection: Collection, workers: int) -> None:
    loader = webdataset.WebLoader(
        FrameStream(source_of(collection)), batch_size=8, num_workers=workers, collate_fn=list, prefetch_factor=1
    )
    found = [[sample["clip"] for sample in batch] for batch in islice(loader, 5)]
    assert found == [source_of(collection).plan.batch(step).clips.tolist() for step in range(5)]


def test_starting_late_equals_reading_on(collection: Collection) -> None:
    through = first_batches(FrameStream(source_of(collection)), 20)[15:]
    late = first_batches(FrameStream(source_of(collection, start=15)), 5)
    for one, other in zip(through, late, strict=True):
        assert one.step == other.step
        assert np.array_equal(one.frames, other.frames)


def test_the_codec_changes_no_frame(digits: Path, collection: Collection, tmp_path: Path) -> None:
    build(
        plan_build(BouncingDigits("optdigits", clips=48, test_clips=16, frames=8, size=32), "zstd", 8), tmp_path / "z"
    )
    packed = open_shards(tmp_path / "z")
    for step in range(4):
        clips = source_of(collection).read(step).clips
        for clip in clips:
            assert np.array_equal(packed.frames(int(clip)), collection.frames(int(clip)))
    raw, zstd = np.empty((2, 3, 32, 32, 3), np.uint8)
    for opened, out in ((collection, raw), (packed, zstd)):
        shard, index = opened.locate(13)
        shard.read_frames(index, [0, 5, 2], out)
    assert np.array_equal(raw, zstd)
    assert raw.any()


def test_a_pattern_of_some_shards_reads_those_alone(digits: Path) -> None:
    part = open_shards(f"{digits}/train-{{000001..000002}}.tar")
    whole = open_shards(digits)
    assert len(part) == 16
    assert part.order_key != whole.order_key
    keys = {sample["__key__"] for sample in islice(FrameStream(source_of(part)), 16)}
    assert keys == {whole.sample(number).key for number in range(8, 24)}


def damage(tar: Path, place: int) -> None:
    data = bytearray(tar.read_bytes())
    data[place] ^= 1
    tar.write_bytes(data)


def copied(digits: Path, folder: Path) -> Path:
    folder.mkdir()
    for path in digits.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_a_flipped_bit_in_a_frame_that_is_read_is_refused(digits: Path, tmp_path: Path) -> None:
    folder = copied(digits, tmp_path / "data")
    sample = open_shards(folder).sample(9)
    offset, size = sample.frames
    damage(folder / "train-000001.tar", offset + size - 5 * 32 * 32 * 3 + 100)  # frame 4 of 8
    collection = open_shards(folder)
    shard, index = collection.locate(9)
    out = np.empty((2, 32, 32, 3), np.uint8)
    shard.read_frames(index, [2, 4], out)  # beside it: nothing wrong with these
    with pytest.raises(DataError, match=f"train-000001.tar: clip {sample.key}: frame 4 is damaged") as raised:
        shard.read_frames(index, [3, 4], out)
    assert "\n" not in str(raised.value)


def test_an_error_while_reading_ahead_reaches_the_training_loop(digits: Path, tmp_path: Path) -> None:
    folder = copied(digits, tmp_path / "data")
    collection = open_shards(folder)
    for number in range(8):
        offset, size = collection.sample(number).frames
        for frame in range(8):
            damage(folder / "train-000000.tar", offset + size - 1 - 3072 * frame)
    batches = FrameStream(source_of(open_shards(folder))).batches()
    with pytest.raises(DataError, match=r"train-000000\.tar: clip \S+: frame \d is damaged"):
        list(islice(batches, 12))  # two epochs
    assert not reading()


def reading() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "read-ahead"]


def test_the_thread_ends_with_the_loop_that_reads(collection: Collection) -> None:
    batches = FrameStream(source_of(collection)).batches()
    next(batches)
    assert len(reading()) == 1
    batches.close()
    assert not reading()


def test_a_closed_stream_that_was_never_read_starts_no_thread(collection: Collection) -> None:
    FrameStream(source_of(collection)).batches().close()
    assert not reading()


def test_the_thread_reads_a_few_batches_ahead_and_no_more(collection: Collection) -> None:
    batch, made = source_of(collection).read(0), []
    enough = threading.Event()

    def endless() -> Iterator[Batch]:
        while True:
            made.append(1)
            if len(made) == READ_AHEAD + 2:  # one with the reader, the queue full, one waiting for a place
                enough.set()
            yield batch

    batches = read_ahead(endless())
    next(batches)
    assert enough.wait(10)
    assert not threading.Event().wait(0.3)
    assert len(made) == READ_AHEAD + 2
    batches.close()


def test_a_read_that_does_not_end_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drnet.pipelines.loader.ENDS", 0.05)
    answered, batch = threading.Event(), Batch(0, np.empty(0, np.uint8), np.empty(0, np.int64), np.empty(0, np.int64))

    def silent() -> Iterator[Batch]:
        yield batch
        answered.wait(60)

    batches = read_ahead(silent())
    next(batches)
    began = time.monotonic()
    batches.close()
    assert time.monotonic() - began < 10
    assert len(reading()) == 1
    answered.set()
    for thread in reading():
        thread.join(10)
    assert not reading()


def test_a_stream_that_ends_ends_the_loop(collection: Collection) -> None:
    batch = source_of(collection).read(0)
    assert len(list(read_ahead(iter([batch] * 7)))) == 7
    assert not reading()


def test_frames_become_floats_in_the_models_order_of_axes() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 2, 5, 6, 3), np.uint8)
    tensor = to_device(frames, torch.device("cpu"))
    assert tensor.shape == (4, 2, 3, 5, 6)
    assert tensor.dtype == torch.float32
    assert torch.equal(tensor[1, 0, 2], torch.from_numpy(frames[1, 0, :, :, 2].astype(np.float32) / 255))
    assert frames.max() == 255  # the input is untouched


def test_a_negative_distance_is_refused(collection: Collection) -> None:
    source = source_of(collection)
    with pytest.raises(ValueError, match="max offset -1 is not allowed"):
        PlannedFrames(collection, source.plan, -1)


def test_the_order_in_which_shards_are_named_changes_nothing(digits: Path) -> None:
    forth, back = (open_shards(f"{digits}/train-{{{names}}}.tar") for names in ("000000,000001", "000001,000000"))
    assert forth.order_key == back.order_key
    assert list(forth.keys()) == list(back.keys())


def test_a_stream_travels_to_a_spawned_worker(digits: Path) -> None:
    collection = open_shards(digits)
    plan = Plan(collection.order_key, 0, [place.clips for place in collection.places], 8)
    source = PlannedFrames(collection, plan, max_offset=5)
    source.read(0)  # files are open and orders are cached
    there = pickle.loads(pickle.dumps(source))  # noqa: S301 - what a process pool does with its own jobs
    assert np.array_equal(there.read(3).frames, source.read(3).frames)
