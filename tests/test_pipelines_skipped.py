"""Damaged clips: by default training stops at the first; with a budget they are left out, named and counted."""

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drnet.datasets.contract import DataError
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.building.failures import parse_budget
from drnet.pipelines.loader import PlannedFrames
from drnet.pipelines.looking.dots import Dots
from drnet.pipelines.plan import Plan
from drnet.pipelines.progress import Silent
from drnet.pipelines.run import read_metrics
from drnet.pipelines.shards.reading import Shard
from drnet.pipelines.source import Collection, open_shards
from drnet.pipelines.train import Logging, train

BAD = (3, 17, 18)


@pytest.fixture
def damaged(digits: Path, tmp_path: Path) -> Path:
    """A copy of the digits in which some clips have a flipped bit in every frame."""
    copy = shutil.copytree(digits, tmp_path / "damaged")
    for clip in BAD:
        damage(copy, clip)
    return copy


def damage(folder: Path, clip: int) -> None:
    """Flip bits of every frame of a clip."""
    shard, index = open_shards(folder).locate(clip)
    sample = shard.sidecar.samples[index]
    data = bytearray(shard.path.read_bytes())
    for place in range(sample.frames[0] + 200, sum(sample.frames), 256):
        data[place] ^= 1
    shard.path.write_bytes(data)


def frames_of(folder: Path, tolerant: bool) -> PlannedFrames:
    shards: Collection = open_shards(folder)
    plan = Plan(shards.order_key, 1, [place.clips for place in shards.places], 16)
    return PlannedFrames(shards, plan, 3, tolerant=tolerant)


def test_without_tolerance_a_damaged_clip_is_an_error_that_names_it(damaged: Path) -> None:
    frames = frames_of(damaged, tolerant=False)
    with pytest.raises(DataError, match=r"train-0000\d\d\.tar: clip \S+: frame \d is damaged"):
        list(map(frames.read, range(3)))  # an epoch


def test_the_others_of_a_batch_are_what_they_would_have_been(digits: Path, damaged: Path) -> None:
    whole, rest = frames_of(digits, tolerant=False), frames_of(damaged, tolerant=True)
    left_out: list[int] = []
    for step in range(3):
        right, found = whole.read(step), rest.read(step)
        kept = np.isin(right.clips, [clip for clip, _ in found.skipped], invert=True)
        assert np.array_equal(found.clips, right.clips[kept])
        assert np.array_equal(found.times, right.times[kept])
        assert np.array_equal(found.frames, right.frames[kept])
        left_out += [clip for clip, _ in found.skipped]
    assert sorted(left_out) == list(BAD)


def test_tolerance_changes_nothing_where_all_is_well(digits: Path) -> None:
    one, other = frames_of(digits, tolerant=True).read(5), frames_of(digits, tolerant=False).read(5)
    assert one.skipped == ()
    assert np.array_equal(one.frames, other.frames)
    assert np.array_equal(one.times, other.times)


def few(folder: Path, clips: int, bad: tuple[int, ...], batch: int) -> tuple[PlannedFrames, Plan]:
    """Return what reads a few clips, some of them damaged, in batches that span epochs."""
    build(plan_build(Dots(clips), "raw", clips), folder)
    for clip in bad:
        damage(folder, clip)
    shards = open_shards(folder)
    plan = Plan(shards.order_key, 0, [clips], batch)
    return PlannedFrames(shards, plan, 3, tolerant=True), plan


def test_no_clip_meets_itself_where_those_between_are_left_out(tmp_path: Path) -> None:
    frames, plan = few(tmp_path, 9, (4,), 8)
    met = 0
    for step in range(60):
        found, planned = frames.read(step), plan.batch(step).clips
        left = planned[planned != 4]
        assert sorted(found.clips.tolist()) == sorted(left.tolist())
        assert (found.clips != np.roll(found.clips, 1)).all()
        assert (found.frames == found.clips.astype(np.uint8)[:, None, None, None, None]).all()
        met += (left == np.roll(left, 1)).any()
    assert met, "no step put the rule to the test"


@pytest.mark.parametrize(("world", "parts"), [(2, 1), (3, 1), (1, 2), (2, 2)])
def test_shares_of_several_processes_and_parts_keep_their_size(
    digits: Path, damaged: Path, world: int, parts: int
) -> None:
    found = {}
    for name, folder in (("whole", digits), ("rest", damaged)):
        shards = open_shards(folder)
        plan = Plan(shards.order_key, 1, [place.clips for place in shards.places], 24)
        found[name] = [
            PlannedFrames(shards, plan, 3, rank=rank, world_size=world, tolerant=True, parts=parts)
            for rank in range(world)
        ]
    left_out = []
    for step in range(2):  # an epoch
        for one, other in zip(found["whole"], found["rest"], strict=True):
            right, rest = one.read(step), other.read(step)
            kept = ~np.isin(right.clips, BAD)
            assert len(rest.frames) == len(rest.clips) == len(rest.times) == 24 // world
            assert right.skipped == ()
            assert np.array_equal(rest.clips[kept], right.clips[kept])
            assert np.array_equal(rest.frames[kept], right.frames[kept])
            left_out += [clip for clip, _ in rest.skipped]
            for row in np.flatnonzero(~kept):
                same = np.flatnonzero(right.clips == rest.clips[row])
                assert np.array_equal(rest.frames[row], right.frames[same[0]])
                assert np.array_equal(rest.times[row], right.times[same[0]])
    assert sorted(left_out) == list(BAD)


def test_a_batch_whose_clips_cannot_be_kept_apart_stops(tmp_path: Path) -> None:
    frames, _ = few(tmp_path, 4, (0, 1), 7)  # three of a batch may be left, of two clips
    said = r"^step \d+: too few clips are left to pair each with another; \S+: clip \S+: frame \d is damaged[^\n]*$"
    with pytest.raises(DataError, match=said):
        list(map(frames.read, range(50)))


def test_too_many_open_files_are_no_fault_of_a_clip(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Shard, "read_frames", full)
    with pytest.raises(OSError, match="Too many open files"):
        frames_of(digits, tolerant=True).read(0)


def test_a_clip_whose_content_key_is_damaged_is_left_out_too(digits: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(digits, tmp_path / "copy"))
    shard, index = open_shards(copy).locate(5)
    data = bytearray(shard.path.read_bytes())
    data[shard.sidecar.samples[index].labels[0]] ^= 1
    shard.path.write_bytes(data)
    shards = open_shards(copy)
    plan = Plan(shards.order_key, 1, [place.clips for place in shards.places], 16)
    frames = PlannedFrames(shards, plan, 3, tolerant=True, keyed=True)
    found = [frames.read(step) for step in range(3)]  # an epoch
    assert [clip for batch in found for clip, _ in batch.skipped] == [5]
    assert all(batch.keys is not None and len(batch.keys) == len(batch.clips) for batch in found)


def test_samples_have_no_place_for_what_is_left_out_so_it_ends_them(damaged: Path) -> None:
    with pytest.raises(DataError, match=r"clip \S+: frame \d is damaged"):
        list(zip(range(48), frames_of(damaged, tolerant=True), strict=False))


class Notes(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


def run(shards: Path, folder: Path, budget: str, notes: Silent, **settings: Any) -> None:
    logging = Logging(2, 100, 100, max_skipped=parse_budget(budget))
    train(
        shards,
        folder,
        steps=8,
        overrides={"width": 4, "batch_size": 8, **settings},
        device="cpu",
        logging=logging,
        progress=notes,
    )


def test_a_run_within_its_budget_ends_and_says_what_it_left_out(damaged: Path, tmp_path: Path) -> None:
    notes = Notes()
    run(damaged, tmp_path / "run", "3", notes)
    assert len([line for line in notes.lines if "left out:" in line and "is damaged" in line]) == 3
    assert read_metrics(tmp_path / "run")[-1]["data/skipped"] == 3


@pytest.mark.parametrize("budget", ["2", "5%"])
def test_a_run_past_its_budget_stops_in_one_line(damaged: Path, tmp_path: Path, budget: str) -> None:
    with pytest.raises(
        DataError, match=rf"3 of 48 clips could not be read, more than --max-skipped {budget} allows"
    ) as e:
        run(damaged, tmp_path / "run", budget, Silent())
    assert "\n" not in str(e.value)


def test_a_batch_of_which_nothing_is_left_stops(damaged: Path, tmp_path: Path) -> None:
    for path in damaged.glob("train-*.tar"):
        path.unlink()
        path.write_bytes(b"")
    shards = frames_of(damaged, tolerant=True)
    with pytest.raises(DataError, match="step 0: fewer than two clips of its batch can be read"):
        shards.read(0)


def test_the_command_takes_a_budget_and_refuses_nonsense(
    damaged: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    words = ["train", "--shards", damaged, "--width", 4, "--batch-size", 8, "--steps", 8, "--device", "cpu"]
    ended = command(*words, "--out", tmp_path / "run", "--max-skipped", "10%")
    assert ended.code == 0, ended.err
    assert "left out: " in ended.err
    ended = command(*words, "--out", tmp_path / "other", "--max-skipped", "some")
    assert ended.code == 1
    assert "max-skipped 'some' is not allowed; give a number" in ended.err
    ended = command(*words, "--out", tmp_path / "third")
    assert ended.code == 1
    assert "is damaged" in ended.err
