"""A trainer killed at random steps sees, when it goes on, the very clips and frames that it would have seen."""

import multiprocessing
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drnet.pipelines.loader import Batch, FrameStream
from drnet.pipelines.progress import Silent
from drnet.pipelines.run import latest_checkpoint
from drnet.pipelines.source import open_shards
from drnet.pipelines.train import Logging, train

STEPS = 24
SETTINGS: dict[str, Any] = {"width": 4, "batch_size": 8, "seed": 9}
Seen = dict[int, set[str]]  # step -> what its batch was, in every attempt that came to it


class Slowly(Silent):
    """Makes sure that there is time to kill."""

    def advance(self, count: int, **values: float) -> None:
        time.sleep(0.02)


def train_and_tell(shards: Path, run: Path, told: Path, slowly: bool = False) -> None:
    """Train, and write down every batch that a training step was given."""
    keys = list(open_shards(shards).keys())
    batches = FrameStream.batches

    def telling(stream: FrameStream) -> Iterator[Batch]:
        with told.open("a", buffering=1) as file:
            for batch in batches(stream):
                names = ",".join(keys[clip] for clip in batch.clips)
                file.write(f"{batch.step} {names} {batch.times.tolist()}\n")
                yield batch

    FrameStream.batches = telling  # type: ignore[method-assign,assignment]
    try:
        progress = Slowly() if slowly else Silent()
        logging = Logging(log_every=5, checkpoint_every=3, sample_every=100)
        train(shards, run, steps=STEPS, overrides=SETTINGS, device="cpu", logging=logging, progress=progress)
    finally:
        FrameStream.batches = batches  # type: ignore[method-assign]


def seen(told: Path) -> Seen:
    found: Seen = {}
    for line in told.read_text().splitlines():
        step, _, rest = line.partition(" ")
        if rest.endswith("]]"):  # the last line of a killed process may be cut
            found.setdefault(int(step), set()).add(rest)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_clips_and_frames_after_kills_are_those_without(digits: Path, tmp_path: Path, seed: int) -> None:
    train_and_tell(digits, tmp_path / "through", tmp_path / "through.txt")
    draw, kills = random.Random(seed), 0
    fork = multiprocessing.get_context("fork")
    for _ in range(8):
        process = fork.Process(
            target=train_and_tell, args=(digits, tmp_path / "killed", tmp_path / "killed.txt", True), daemon=True
        )
        process.start()
        process.join(draw.uniform(0.3, 1.0))
        if process.exitcode == 0:
            break
        process.kill()
        process.join()
        kills += 1
    train_and_tell(digits, tmp_path / "killed", tmp_path / "killed.txt")
    assert kills
    truth, found = seen(tmp_path / "through.txt"), seen(tmp_path / "killed.txt")
    assert set(truth) >= set(range(STEPS))
    assert set(found) >= set(range(STEPS))
    assert {step: found[step] for step in range(STEPS)} == {step: truth[step] for step in range(STEPS)}
    ends = [latest_checkpoint(tmp_path / name) for name in ("through", "killed")]
    weights = {end.sha256 for end in ends if end is not None and end.step == STEPS}
    assert len(weights) == 1
    assert None not in ends
