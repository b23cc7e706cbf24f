"""Benchmarks of reading read what they say, through the product's own path."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drnet.datasets.contract import Clip, DataError, Split
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.looking.dots import Dots
from drnet.pipelines.measuring.bench_growth import bench_growth
from drnet.pipelines.measuring.bench_stream import bench_memory, bench_step, bench_stream

STAND_IN = """
import pickle
class MDSWriter:
    def __init__(self, out, columns):
        assert set(columns) == {"frames", "labels"} and columns["frames"].startswith("ndarray:uint8:")
        self.rows, self.out = [], out
    def write(self, row): self.rows.append(row)
    def finish(self): pickle.dump(self.rows, open(self.out, "wb"))
class StreamingDataset:
    def __init__(self, local, shuffle, batch_size): self.rows = pickle.load(open(local, "rb"))
    def __getitem__(self, number): return self.rows[number]
"""

# webdataset leaves tars open
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def found(digits: Path) -> dict[str, Any]:
    return bench_stream(digits, ("webdataset",), batch_size=8, rounds=1)


def test_whole_clips_and_frames_asked_for_are_compared(found: dict[str, Any]) -> None:
    assert set(found["whole"]["rates"]) == {"drnet", "webdataset", "cat"}
    assert set(found["asked"]["rates"]) == {"drnet", "webdataset"}
    assert found["clips"] == 48
    frames = 8 * 32 * 32 * 3
    assert found["megabytes"] == pytest.approx(found["whole"]["rates"]["drnet"] * frames / 1e6)
    assert all(value > 0 for value in found["stages"].values())


def test_clips_of_different_lengths_are_measured_too(tmp_path: Path) -> None:
    class Growing(Dots):
        def clips(self, split: Split, index: int) -> Iterator[Clip]:
            for clip in super().clips(split, index):
                yield replace(clip, frames=np.repeat(clip.frames, 1 + index % 3, 0))

    build(plan_build(Growing(9), "raw", 4), tmp_path)
    found = bench_stream(tmp_path, ("webdataset",), batch_size=4, rounds=1)
    assert found["megabytes"] == pytest.approx(found["whole"]["rates"]["drnet"] * 8 * 16 * 16 / 1e6)


def test_a_peer_that_is_not_there_is_told(digits: Path) -> None:
    with pytest.raises(DataError, match="peer 'ffcv' is not known; there are webdataset"):
        bench_stream(digits, ("ffcv",), 8, 1)
    with pytest.raises(DataError, match="install it into an environment of its own"):
        bench_stream(digits, ("mosaicml-streaming",), 8, 1)


def test_a_peer_in_another_environment_is_asked_for_its_own_seconds(digits: Path, tmp_path: Path) -> None:
    """A stand-in for the package, with its interface, in a Python that has not ours."""
    (tmp_path / "streaming.py").write_text(STAND_IN)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    found = bench_stream(digits, ("mosaicml-streaming", "webdataset"), 8, 2, python=str(python))
    for kind in ("whole", "asked"):
        assert found[kind]["rates"]["mosaicml-streaming"] > 0
        assert len(found[kind]["ratios"]["mosaicml-streaming"]["rounds"]) == 2


def test_another_environment_without_the_package_is_told(digits: Path) -> None:
    with pytest.raises(ValueError, match="ended without reading a clip"):
        bench_stream(digits, ("mosaicml-streaming",), 8, 1, python=sys.executable)


def test_a_training_step_is_compared_with_a_cached_batch(digits: Path) -> None:
    found = bench_step(digits, "mnist-small", batch_size=4, rounds=1)
    assert set(found["rates"]) == {"loader", "cached batch"}


def test_memory_is_watched_over_the_samples_asked_for(digits: Path) -> None:
    found = bench_memory(digits, 800, batch_size=8)
    assert found["samples"] == 800
    assert len(found["resident"]) == 10
    assert found["resident"][0] > 10


def test_growth_has_a_row_for_each_number_of_shards() -> None:
    rows = bench_growth([2, 12], batches=2)
    assert [row["shards"] for row in rows] == [2, 12]
    assert all(row[key] > 0 for row in rows for key in ("open", "first", "far", "rate"))
    assert rows[1]["manifest"] > rows[0]["manifest"]


def test_the_commands_show_tables_and_json(digits: Path, command: Callable[..., Any]) -> None:
    shown = command("bench", "stream", digits, "--rounds", 1, "--batch-size", 8, "--memory", 400)
    assert shown.code == 0, shown.err
    assert "webdataset" in shown.out
    assert "memory over 400 samples" in shown.out
    assert '"rate"' in command("bench", "growth", "--shards", "2,3", "--json").out
