"""Build a data set: plan the shards, write them in any order on any number of workers, then the manifest.

A shard is a pure function of (data set, parameters, seed, shard number). Running a build again keeps the shards
whose hash is right and writes the others, so any interruption is continued and the folder ends up the same.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from drnet.datasets.catalogue import BUILDERS, restore
from drnet.datasets.contract import SPLITS, DataError, DataSet
from drnet.pipelines.building.engine import Engine, check_engine, open_engine, wait_until_visible
from drnet.pipelines.building.failures import Budget, Teller, failures_line
from drnet.pipelines.building.finish import BuildPlan, finish
from drnet.pipelines.building.jobs import Job, modules_of, shard_is_done, tool_versions, write_shard
from drnet.pipelines.claim import locked, refuse_file, refuse_others
from drnet.pipelines.files import remove_temporaries
from drnet.pipelines.progress import Progress, Silent
from drnet.pipelines.shards.codec import EXTENSIONS, Codec
from drnet.pipelines.shards.manifest import CARD, PICTURE, Manifest, build_id, read_manifest
from drnet.pipelines.shards.shard import sidecar_path

__all__ = [
    "BuildPlan",
    "BuildReport",
    "build",
    "plan_build",
    "refuse_other_build",
    "restore_plan",
    "retry",
    "shard_is_done",
    "write_shard",
]

SHARDS_AIMED_AT = 16
LARGEST_SHARD = 1000  # clips, unless the user asks for more
PATIENCE = 2.0  # seconds of work without a bar before that is told


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Attributes:
        manifest: as it was written.
        folder: of the data set.
        written: shards written.
        kept: shards that were there already.
        counts: for each split, how many source items ended in which way.
        left_out: for each split, clips of items that were left out on purpose, for each reason.
        failed: source items that failed, in the whole data set.
        over_budget: whether these are more than may fail.
        line: where they are, what to say of it; else empty.
    """

    manifest: Manifest
    folder: Path
    written: int
    kept: int
    counts: dict[str, dict[str, int]]
    left_out: dict[str, dict[str, int]]
    failed: int
    over_budget: bool
    line: str


def plan_build(
    data: DataSet, codec: Codec = "raw", clips_per_shard: int | None = None, progress: Progress | None = None
) -> BuildPlan:
    """Plan the shards of a data set.

    Args:
        data: the data set.
        codec: `raw` or `zstd`.
        clips_per_shard: items in each shard; by default a sixteenth of the train split, at most 1000. It
            influences the bytes.
        progress: told where reading the sources takes long.

    Raises:
        DataError: where an argument is not allowed or the source is not as expected.
    """
    if codec not in EXTENSIONS:
        raise DataError(f"codec {codec!r} is not allowed; supported are {', '.join(EXTENSIONS)}")
    if clips_per_shard is not None and clips_per_shard < 1:
        raise DataError(f"clips per shard {clips_per_shard} is not allowed; it must be at least 1")
    per_shard = clips_per_shard or max(1, min(LARGEST_SHARD, -(-data.count("train") // SHARDS_AIMED_AT)))
    with _told_after(PATIENCE, progress or Silent(), f"reading the sources of {data.about.name} for their SHA-256"):
        sources = tuple(data.sources())
    jobs = []
    for split in SPLITS:
        starts = range(0, data.count(split), per_shard)
        jobs += [Job(split, n, at, min(at + per_shard, data.count(split))) for n, at in enumerate(starts)]
    hashes = [(source.name, source.sha256) for source in sources]
    build = build_id(data.about.name, data.about.version, data.parameters(), codec, per_shard, hashes)
    return BuildPlan(data, codec, build, tool_versions(), per_shard, tuple(jobs), sources)


@contextmanager
def _told_after(seconds: float, progress: Progress, line: str) -> Iterator[None]:
    """Say what is going on where the block takes longer."""
    timer = threading.Timer(seconds, progress.note, [line])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def build(
    plan: BuildPlan,
    folder: Path,
    workers: int = 1,
    progress: Progress | None = None,
    executor: Executor | None = None,
    *,
    scheduler: str | None = None,
    budget: Budget | None = None,
    again: bool = False,
) -> BuildReport:
    """Carry out a plan; continue one that was interrupted. Items that fail are counted, and never end the build.

    Args:
        plan: from `plan_build`.
        folder: the data set's folder; made where it is missing.
        workers: processes; 1 builds in this one. The bytes do not depend on it.
        progress: told of each shard, and of the first items that fail.
        executor: runs the jobs instead of local processes.
        scheduler: a Dask scheduler whose workers run the jobs instead; see `engine.open_engine`.
        budget: how many items may fail before `over_budget` is reported; none by default.
        again: write only the shards that are missing or of which items failed; see `retry`.

    Raises:
        DataError: where the folder holds another build, other files, or another process builds into it.
        BuilderError: for a mistake of the data set's class, with the item.
        OSError: where a file cannot be written; nothing half-written is left under a final name.
    """
    progress, budget = progress or Silent(), budget or Budget()
    check_engine(workers, executor, scheduler)
    fresh = not folder.exists()
    refuse_file(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder):
            refuse_other_build(folder, plan)
            remove_temporaries(folder, plan.names)
            try:
                engine = open_engine(workers, progress, executor, scheduler, modules_of(plan.data))
                written = _run_jobs(plan, folder, again, progress, engine)
                with _told_after(PATIENCE, progress, f"writing the accounting of {plan.items} items"):
                    manifest, first, left_out = finish(plan, folder)
            finally:
                remove_temporaries(folder, plan.names)  # of workers that were ended
    except BaseException:
        if fresh and not any(folder.iterdir()):
            folder.rmdir()
        raise
    counts = {split: dict(c) for split, c in manifest.accounting.items()}
    failed = sum(counted.get("failed", 0) for counted in counts.values())
    over = not budget.allows(failed, plan.items)
    line = failures_line(failed, plan.items, budget, first, str(folder)) if over else ""
    return BuildReport(manifest, folder, written, len(plan.jobs) - written, counts, left_out, failed, over, line)


def restore_plan(
    folder: Path, name: str | None = None, source: str | None = None, progress: Progress | None = None
) -> BuildPlan:
    """Plan a data set's own build again, from what its manifest records.

    Args:
        folder: of the data set.
        name: of its class, `module:Class`, where it is not one of the catalogue.
        source: where its source is; no manifest records that.
        progress: told where reading the sources takes long.

    Raises:
        DataError: where it cannot be planned again.
    """
    found = read_manifest(folder)
    recorded = found.about["data_set"]
    if name is None and recorded not in BUILDERS:  # a manifest must not name what is imported
        raise DataError(
            f"{folder}: data set {recorded!r} is none of drnet's own; name its class: --data-set MODULE:CLASS"
        )
    # What is missing or may be fetched was decided when it was built, and is no parameter of it.
    others = {"allow_missing": True} | ({} if source is None else {"source": source})
    data = restore(name or recorded, found.parameters, **others)
    return plan_build(data, found.codec, found.clips_per_shard, progress)  # type: ignore[arg-type]


def retry(plan: BuildPlan, folder: Path, **options: Any) -> BuildReport:
    """Try again the items of a data set that failed, where that may help: an error of reading that was a passing one.

    Only shards of which items failed are written again, and only where fewer fail now. The result is what an
    uninterrupted build would have made. A source that was repaired has another SHA-256, so it is another build.

    Args:
        plan: the data set's own, planned anew from its recorded parameters.
        folder: of the data set.
        options: as of `build`.

    Raises:
        DataError: where the folder holds no finished build, or the sources have changed.
    """
    found = read_manifest(folder)
    if found.build != plan.build:
        theirs = sorted((source["name"], source["sha256"]) for source in found.sources)
        changed = theirs != sorted((source.name, source.sha256) for source in plan.sources)
        what = (
            "its sources are not the files it was built from" if changed else "its settings are not the recorded ones"
        )
        raise DataError(f"{folder}: {what}, so this would be another data set; build it anew into another --out")
    return build(plan, folder, **options, again=True)


def _run_jobs(
    plan: BuildPlan, folder: Path, again: bool, progress: Progress, opened: AbstractContextManager[Engine]
) -> int:
    jobs = tuple(job for job in plan.jobs if _to_try(folder / job.name)) if again else plan.jobs
    counted = getattr(plan.data, "items_are", "items")  # an item may be many clips
    progress.start(f"building {plan.data.about.name}", sum(job.stop - job.start for job in jobs), counted)
    write = partial(write_shard, plan.recipe, folder=folder.absolute(), again=again)
    teller, written = Teller(progress), 0
    try:
        with opened as engine, closing(engine.results(write, jobs)) as results:
            for job, outcome in results:
                if engine.remote and outcome.written and not written:
                    wait_until_visible(folder / job.name)
                written += outcome.written
                teller.add(outcome.failures, outcome.first)
                progress.advance(job.stop - job.start, **({"failed": teller.failures} if teller.failures else {}))
        teller.end()
    finally:
        progress.stop()
    return written


def _to_try(tar: Path) -> bool:
    """Whether a shard is missing, or items of it failed. Its hash is not looked at: `verify` is for that."""
    try:
        row = orjson.loads(sidecar_path(tar).read_bytes())
        return tar.stat().st_size != row["tar"]["bytes"] or any(fate["fate"] == "failed" for fate in row["left_out"])
    except (OSError, ValueError, KeyError, TypeError):
        return True


def refuse_other_build(folder: Path, plan: BuildPlan) -> None:
    """Raise DataError where a folder holds anything but this build, or the beginning of it."""
    settings = {"data set": plan.data.about.name, **plan.data.parameters(), "codec": plan.codec}
    refuse_others(folder, plan.build, plan.names | {CARD, PICTURE}, settings)
