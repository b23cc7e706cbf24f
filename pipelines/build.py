"""Build a data set: plan the shards, write them in any order on any number of workers, then the manifest.

A shard is a pure function of (data set, parameters, seed, shard number). Running a build again keeps the shards
whose hash is right and writes the others, so any interruption is continued and the folder ends up the same.
"""

import importlib.metadata
import json
from collections import Counter
from collections.abc import Generator, Iterator
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from drnet import __version__
from drnet.datasets.contract import SPLITS, DataError, DataSet, ItemFailed, ItemFiltered, ItemMissing, LeftOut, Split
from drnet.pipelines.claim import locked, refuse_file, refuse_others
from drnet.pipelines.codec import EXTENSIONS, Codec
from drnet.pipelines.files import (
    canonical_json,
    remove_temporaries,
    sha256_file,
    sha256_of,
    sync_folder,
    whole_file,
    write_whole,
)
from drnet.pipelines.manifest import ACCOUNTING, MANIFEST, Manifest, ShardRow
from drnet.pipelines.progress import Progress, Silent
from drnet.pipelines.shard import (
    FORMAT,
    Fate,
    ShardWriter,
    Sidecar,
    read_sidecar,
    sidecar_path,
    whole_shard,
)
from drnet.pipelines.workers import in_any_order, local_pool

TOOLS = ("numpy", "zstandard", "pybullet", "pillow", "decord")
SHARDS_AIMED_AT = 16
OUTCOMES = {ItemMissing: "missing", ItemFiltered: "filtered", ItemFailed: "failed"}
LARGEST_SHARD = 1000  # clips, unless the user asks for more


@dataclass(frozen=True)
class Job:
    """One shard to write: items [start, stop) of a split."""

    split: Split
    number: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """File name of the shard."""
        return f"{self.split}-{self.number:06d}.tar"


@dataclass(frozen=True)
class BuildPlan:
    """Everything about a build that is known before the first clip: a pure function of its arguments."""

    data: DataSet
    codec: Codec
    clips_per_shard: int
    build: str
    jobs: tuple[Job, ...]

    @property
    def names(self) -> frozenset[str]:
        """Every file the build ends with."""
        tars = [job.name for job in self.jobs]
        return frozenset([*tars, *(sidecar_path(Path(tar)).name for tar in tars), MANIFEST, ACCOUNTING])


@dataclass(frozen=True)
class BuildReport:
    """What a build did."""

    manifest: Manifest
    folder: Path
    written: int  # shards
    kept: int  # shards that were there already
    counts: dict[str, dict[str, int]]


def plan_build(data: DataSet, codec: Codec = "raw", clips_per_shard: int | None = None) -> BuildPlan:
    """Plan the shards of a data set.

    Args:
        data: the data set.
        codec: `raw` or `zstd`.
        clips_per_shard: items in each shard; by default a sixteenth of the train split, at most 1000. It
            influences the bytes.

    Raises:
        DataError: where an argument is not allowed or the source is not as expected.
    """
    if codec not in EXTENSIONS:
        raise DataError(f"codec {codec!r} is not allowed; supported are {', '.join(EXTENSIONS)}")
    if clips_per_shard is not None and clips_per_shard < 1:
        raise DataError(f"clips per shard {clips_per_shard} is not allowed; it must be at least 1")
    per_shard = clips_per_shard or max(1, min(LARGEST_SHARD, -(-data.count("train") // SHARDS_AIMED_AT)))
    identity = {
        "format": FORMAT,
        "data_set": data.about.name,
        "version": data.about.version,
        "parameters": data.parameters(),
        "codec": codec,
        "clips_per_shard": per_shard,
        "sources": sorted(source.sha256 for source in data.sources()),
    }
    jobs = []
    for split in SPLITS:
        starts = range(0, data.count(split), per_shard)
        jobs += [Job(split, n, at, min(at + per_shard, data.count(split))) for n, at in enumerate(starts)]
    return BuildPlan(data, codec, per_shard, sha256_of(canonical_json(identity)), tuple(jobs))


def shard_is_done(tar: Path, build: str) -> bool:
    """Whether a shard is there, belongs to this build, and has the hash its sidecar says."""
    if not tar.exists():
        return False
    try:
        sidecar = read_sidecar(tar)
    except DataError:
        return False
    return sidecar.build == build and tar.stat().st_size == sidecar.size and sha256_file(tar) == sidecar.sha256


def write_shard(plan: BuildPlan, job: Job, folder: Path) -> bool:
    """Write one shard unless it is done; returns whether it was written. Runs in any process."""
    tar = folder / job.name
    if shard_is_done(tar, plan.build):
        return False

    def write(file: BinaryIO) -> Sidecar:
        writer = ShardWriter(file, plan.codec, plan.data.labels)
        fates = [_write_item(plan.data, writer, job.split, index) for index in range(job.start, job.stop)]
        return writer.finish(plan.build, job.name, job.split, fates)

    whole_shard(tar, write)
    return True


def _write_item(data: DataSet, writer: ShardWriter, split: Split, index: int) -> Fate:
    item, before, left_out = data.item(split, index), len(writer.samples), Counter[str]()
    ended, why = "written", ""
    try:
        for clip in data.clips(split, index):
            if isinstance(clip, LeftOut):
                left_out[clip.why] += 1
                continue
            if clip.frames.shape[1:] != data.frame_shape():
                raise ValueError(f"{clip.key}: frames of {clip.frames.shape[1:]}, not {data.frame_shape()}")
            writer.append(clip, item)
    except tuple(OUTCOMES) as reason:
        ended, why = OUTCOMES[type(reason)], str(reason)
    clips = len(writer.samples) - before
    if ended == "written" and not clips:
        ended, why = "filtered", "no clip is left"
    return Fate(split, item, ended, clips, why, dict(sorted(left_out.items())))


def build(
    plan: BuildPlan,
    folder: Path,
    workers: int = 1,
    progress: Progress | None = None,
    executor: Executor | None = None,
) -> BuildReport:
    """Carry out a plan; continue one that was interrupted.

    Args:
        plan: from `plan_build`.
        folder: the data set's folder; made where it is missing.
        workers: processes; 1 builds in this one. The bytes do not depend on it.
        progress: told of each shard.
        executor: runs the jobs instead of local processes.

    Raises:
        DataError: where the folder holds another build, other files, or another process builds into it.
        OSError: where a file cannot be written; nothing half-written is left under a final name.
    """
    progress = progress or Silent()
    if workers < 1:
        raise DataError(f"workers {workers} is not allowed; it must be at least 1")
    fresh = not folder.exists()
    refuse_file(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder):
            refuse_other_build(folder, plan)
            remove_temporaries(folder, plan.names)
            try:
                written = _run_jobs(plan, folder, workers, progress, executor)
                manifest = _finish(plan, folder)
            finally:
                remove_temporaries(folder, plan.names)  # of workers that were ended
    except BaseException:
        if fresh and not any(folder.iterdir()):
            folder.rmdir()
        raise
    counts = {split: dict(c) for split, c in manifest.accounting.items()}
    return BuildReport(manifest, folder, written, len(plan.jobs) - written, counts)


def _run_jobs(plan: BuildPlan, folder: Path, workers: int, progress: Progress, executor: Executor | None) -> int:
    progress.start(f"building {plan.data.about.name}", sum(job.stop - job.start for job in plan.jobs), "clips")
    written = 0
    try:
        with closing(_results(plan, folder, workers, executor)) as results:
            for job, fresh in results:
                written += fresh
                progress.advance(job.stop - job.start)
    finally:
        progress.stop()
    return written


def _results(
    plan: BuildPlan, folder: Path, workers: int, executor: Executor | None
) -> Generator[tuple[Job, bool], None, None]:
    write = partial(write_shard, plan, folder=folder)
    if executor is not None:
        yield from in_any_order(write, plan.jobs, executor)
    elif workers == 1:
        yield from ((job, write(job)) for job in plan.jobs)
    else:
        with local_pool(workers) as pool:
            yield from in_any_order(write, plan.jobs, pool)


def refuse_other_build(folder: Path, plan: BuildPlan) -> None:
    """Raise DataError where a folder holds anything but this build, or the beginning of it."""
    settings = {"data set": plan.data.about.name, **plan.data.parameters(), "codec": plan.codec}
    refuse_others(folder, plan.build, plan.names, settings)


def _finish(plan: BuildPlan, folder: Path) -> Manifest:
    """Write the accounting and, last of all, the manifest. Existing ones with the right content stay untouched."""
    rows: dict[str, list[ShardRow]] = {split: [] for split in SPLITS}
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    last: dict[str, str] = {}
    with whole_file(folder / ACCOUNTING, keep_same=True) as file:
        for job in plan.jobs:
            sidecar = read_sidecar(folder / job.name)
            last[job.split] = _check_order(sidecar, last.get(job.split, ""))
            count = len(sidecar.samples)
            rows[job.split].append(ShardRow(job.name, sidecar.sha256, sidecar.size, count, sidecar.frames))
            for fate in item_fates(plan.data, job, sidecar):
                counts[job.split][fate.fate] += 1
                file.write(json.dumps(fate.to_json()).encode() + b"\n")
    about = asdict(plan.data.about)
    manifest = Manifest(
        build=plan.build,
        about={"data_set": about.pop("name"), **about, "notes": list(about["notes"])},
        parameters=plan.data.parameters(),
        codec=plan.codec,
        frame_shape=plan.data.frame_shape(),
        labels=plan.data.labels,
        splits={split: tuple(rows[split]) for split in SPLITS},
        sources=tuple({"name": s.name, "bytes": s.size, "sha256": s.sha256} for s in plan.data.sources()),
        accounting={split: dict(sorted(counts[split].items())) for split in SPLITS},
        accounting_sha256=sha256_file(folder / ACCOUNTING),
        tools=tool_versions(),
    )
    write_whole(folder / MANIFEST, manifest.to_bytes(), keep_same=True)
    sync_folder(folder)
    return manifest


def _check_order(sidecar: Sidecar, last: str) -> str:
    """Return a shard's last key; raises ValueError where its first one does not come after the shard before."""
    if not sidecar.samples:
        return last
    first = sidecar.samples[0].key
    if first <= last:
        raise ValueError(f"{sidecar.name}: key {first!r} is not allowed after {last!r}; keys sort in build order")
    return sidecar.samples[-1].key


def item_fates(data: DataSet, job: Job, sidecar: Sidecar) -> Iterator[Fate]:
    """Yield the end of each source item of a shard, in order."""
    clips = Counter(sample.item for sample in sidecar.samples)
    left_out = {fate.item: fate for fate in sidecar.fates}
    for index in range(job.start, job.stop):
        item = data.item(job.split, index)
        yield left_out.get(item) or Fate(job.split, item, "written", clips[item])


def tool_versions() -> dict[str, str]:
    """Versions of the packages that influence the bytes of a build."""
    found = {"drnet": __version__}
    for name in TOOLS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
