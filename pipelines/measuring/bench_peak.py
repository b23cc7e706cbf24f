"""How much memory a build takes at its peak, for ever more of a data set: it must not grow with it."""

import multiprocessing
import re
import tempfile
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from drnet.datasets.contract import DataError, DataSet, Limited
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.measuring.bench import scratch
from drnet.pipelines.progress import Progress, Silent


def bench_peak(
    data: DataSet, limits: Sequence[int] = (1, 4, 16), progress: Progress | None = None
) -> list[dict[str, float]]:
    """Build the first items of a data set, each time in a process of its own with one worker, and look at its peak.

    Args:
        data: the data set.
        limits: items of each split, for each build.
        progress: told of each build.

    Returns:
        For each build: `limit`, `frames` written, and `peak`, MB of memory held at most, start-up included.

    Raises:
        DataError: where the data set cannot be built.
    """
    progress = progress or Silent()
    context, rows = multiprocessing.get_context("spawn"), []
    progress.start(f"bench build peak {data.about.name}", len(limits), "builds")
    try:
        for limit in limits:
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_build, args=(theirs, data, limit))
            process.start()
            theirs.close()
            try:
                found = ours.recv()
            except EOFError:
                found = "its process ended without a word"
            process.join()
            if isinstance(found, str):
                raise DataError(f"{data.about.name}, {limit} items: {found}")
            rows.append({"limit": limit, **found})
            progress.advance(1)
    finally:
        progress.stop()
    return rows


def _build(told: Connection, data: DataSet, limit: int) -> None:
    try:
        with tempfile.TemporaryDirectory(dir=scratch(), prefix="drnet-peak-") as name:
            report = build(plan_build(Limited(data, limit), "zstd"), Path(name) / "data")
        frames = sum(row.frames for rows in report.manifest.splits.values() for row in rows)
        told.send({"frames": frames, "peak": peak_megabytes()})
    except DataError as error:
        told.send(str(error))


def peak_megabytes() -> float:
    """Return the most memory that this program has held, in MB; Linux only.

    Not `getrusage`: what that tells of a process includes what the one that started it held.
    """
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None, "Linux tells the peak of every process"
    return int(found[1]) * 1024 / 1e6
