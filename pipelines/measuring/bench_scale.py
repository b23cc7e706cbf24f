"""What a build of very many clips costs the process that runs it: memory, messages, the manifest, time beside the jobs."""

import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

from drnet.pipelines.build import build, plan_build, refuse_other_build
from drnet.pipelines.building.finish import finish
from drnet.pipelines.building.jobs import write_shard
from drnet.pipelines.building.workers import local_pool
from drnet.pipelines.looking.dots import Dots
from drnet.pipelines.measuring.bench import scratch
from drnet.pipelines.progress import Progress, Silent
from drnet.pipelines.shards.manifest import ACCOUNTING, MANIFEST, read_manifest
from drnet.pipelines.shards.shard import sidecar_path

SIZES = ((1_000, 100), (10_000, 100), (100_000, 100), (100_000, 1000), (100_000, 10))  # clips, clips in each shard


def bench_scale(
    sizes: Sequence[tuple[int, int]] = SIZES, folder: Path | None = None, progress: Progress | None = None
) -> list[dict[str, float]]:
    """Build data sets of ever more clips, each in a process of its own with one worker, and look at that process.

    Args:
        sizes: for each data set its clips, and clips in each shard.
        folder: where to build; by default a temporary folder, in memory where that exists.
        progress: told of each data set.

    Returns:
        For each data set: `clips`, `shards`; `build`, seconds. Seconds of processor time of the building process:
        `job`, for each job; `look`, until a build that goes on has looked at what is there; `finish`, its end; `load`,
        to load the manifest. Bytes: `message`, sent with each job; `manifest`, `accounting` and `sidecars`. `memory`:
        peak in MB of the building process.
    """
    progress = progress or Silent()
    context = multiprocessing.get_context("spawn")
    rows = []
    progress.start("bench scale", len(sizes), "data sets")
    try:
        for clips, per_shard in sizes:
            with tempfile.TemporaryDirectory(dir=folder or scratch(), prefix="drnet-scale-") as name:
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_measure, args=(theirs, clips, per_shard, Path(name) / "data"))
                process.start()
                theirs.close()
                rows.append(ours.recv())
                process.join()
            progress.advance(1)
    finally:
        progress.stop()
    return rows


def _measure(pipe: Connection, clips: int, per_shard: int, out: Path) -> None:
    began, cpu = time.perf_counter(), time.process_time()
    plan = plan_build(Dots(clips, frames=2), "raw", per_shard)
    with local_pool(1) as pool:  # the jobs' own memory is not this process's
        build(plan, out, executor=pool)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3  # MB; kB are given
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    works = (lambda: refuse_other_build(out, plan), lambda: finish(plan, out), lambda: read_manifest(out))
    look, finished, load = map(_seconds, works)
    call = partial(write_shard, plan.recipe, folder=out, again=False)
    sidecars = sum(sidecar_path(out / job.name).stat().st_size for job in plan.jobs)
    pipe.send(
        {
            "clips": clips,
            "shards": len(plan.jobs),
            "build": seconds,
            "job": (cpu - finished) / len(plan.jobs),
            "look": look,
            "finish": finished,
            "load": load,
            "message": len(ForkingPickler.dumps((call, plan.jobs[-1]))),
            "manifest": (out / MANIFEST).stat().st_size,
            "accounting": (out / ACCOUNTING).stat().st_size,
            "sidecars": sidecars,
            "memory": memory,
        }
    )


def _seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
