"""What grows with a data set, and what must not: opening it, the first batch, a far batch, and the rate of reading."""

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from drnet.pipelines.build import build, plan_build
from drnet.pipelines.looking.dots import Dots
from drnet.pipelines.measuring.bench import scratch
from drnet.pipelines.measuring.bench_stream import planned
from drnet.pipelines.progress import Progress, Silent
from drnet.pipelines.source import open_shards

CLIPS_PER_SHARD = 10
BATCH = 100
FAR = 1_000_000  # a step that no run reaches soon


def bench_growth(
    shard_counts: Sequence[int] = (10, 100, 1000, 10_000), batches: int = 100, progress: Progress | None = None
) -> list[dict[str, float]]:
    """Build data sets of ever more shards (ten small clips each) and time what reading does with them.

    Args:
        shard_counts: shards of each data set.
        batches: read for the rate.
        progress: told of each data set.

    Returns:
        For each data set: `shards`; `open`, seconds to open it; `first`, seconds to the first batch of 100 after that;
        `far`, seconds to batch number 1,000,000; `rate`, clips/s of the following batches; `manifest`, its bytes.
    """
    progress = progress or Silent()
    rows = []
    progress.start("bench growth", len(shard_counts), "data sets")
    try:
        with tempfile.TemporaryDirectory(dir=scratch()) as name:
            for shards in shard_counts:
                folder = Path(name) / str(shards)
                build(plan_build(Dots(shards * CLIPS_PER_SHARD), "raw", CLIPS_PER_SHARD), folder)
                rows.append({"shards": shards, **_times(folder, batches)})
                progress.advance(1)
    finally:
        progress.stop()
    return rows


def _times(folder: Path, batches: int) -> dict[str, float]:
    opening, first, far = list[float](), list[float](), list[float]()
    for _ in range(3):
        began = time.perf_counter()
        shards = open_shards(folder)
        opened = time.perf_counter()
        frames = planned(shards, BATCH)
        frames.read(0)
        read = time.perf_counter()
        frames.read(FAR)
        ended = time.perf_counter()
        for times, seconds in ((opening, opened - began), (first, read - opened), (far, ended - read)):
            times.append(seconds)
    began = time.perf_counter()
    for step in range(1, batches + 1):
        frames.read(step)
    rate = batches * BATCH / (time.perf_counter() - began)
    found = {"open": opening, "first": first, "far": far}
    medians = {key: statistics.median(times) for key, times in found.items()}
    return {**medians, "rate": rate, "manifest": float((folder / "manifest.json").stat().st_size)}
