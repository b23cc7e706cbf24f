"""Damaged clips: by default training stops at the first; with a budget they are left out, named and counted."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drnet.datasets.contract import DataError
from drnet.pipelines.failures import parse_budget
from drnet.pipelines.loader import PlannedFrames
from drnet.pipelines.plan import Plan
from drnet.pipelines.progress import Silent
from drnet.pipelines.run import read_metrics
from drnet.pipelines.source import Collection, open_shards
from drnet.pipelines.train import Logging, train

BAD = (3, 17, 18)


@pytest.fixture
def damaged(digits: Path, tmp_path: Path) -> Path:
    """A copy of the digits in which some clips have a flipped bit in every frame."""
    copy = shutil.copytree(digits, tmp_path / "damaged")
    shards = open_shards(copy)
    for clip in BAD:
        shard, index = shards.locate(clip)
        sample = shard.sidecar.samples[index]
        data = bytearray(shard.path.read_bytes())
        for place in range(sample.frames[0] + 200, sum(sample.frames), 1000):
            data[place] ^= 1
        shard.path.write_bytes(data)
    return copy


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
