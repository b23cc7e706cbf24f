"""Build a data set: plan the shards, write them in any order on any number of workers, then the manifest.

A shard is a pure function of (data set, parameters, seed, shard number). Running a build again keeps the shards whose hash is
right and writes the others, so any interruption is continued and the folder ends up the same.
"""

import fcntl
import importlib.metadata
import json
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from drnet import __version__
from drnet.datasets.contract import SPLITS, DataError, DataSet, ItemFailed, ItemFiltered, Split
from drnet.pipelines.codec import EXTENSIONS, Codec
from drnet.pipelines.files import canonical_json, remove_temporaries, sha256_file, sha256_of, whole_file, write_whole
from drnet.pipelines.manifest import ACCOUNTING, MANIFEST, Manifest, ShardRow, read_manifest
from drnet.pipelines.progress import Progress, Silent
from drnet.pipelines.shard import FORMAT, Fate, ShardWriter, Sidecar, read_sidecar, sidecar_path, whole_shard

TOOLS = ("numpy", "zstandard", "pybullet", "pillow", "decord")
SHARDS_AIMED_AT = 16
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
        clips_per_shard: items in each shard; by default a sixteenth of the train split, at most 1000. It influences the bytes.

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
    item, before = data.item(split, index), len(writer.samples)
    try:
        for clip in data.clips(split, index):
            if clip.frames.shape[1:] != data.frame_shape():
                raise ValueError(f"{clip.key}: frames of {clip.frames.shape[1:]}, not {data.frame_shape()}")
            writer.append(clip, item)
    except ItemFiltered as reason:
        return Fate(split, item, "filtered", len(writer.samples) - before, str(reason))
    except ItemFailed as reason:
        return Fate(split, item, "failed", len(writer.samples) - before, str(reason))
    return Fate(split, item, "written", len(writer.samples) - before)


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
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(folder):
            refuse_other_build(folder, plan)
            remove_temporaries(folder)
            written = _run_jobs(plan, folder, workers, progress, executor)
            manifest = _finish(plan, folder)
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
        if executor is None and workers == 1:
            results: Iterator[tuple[Job, bool]] = ((job, write_shard(plan, job, folder)) for job in plan.jobs)
        else:
            results = _on_executor(plan, folder, executor or _local_pool(workers), owned=executor is None)
        for job, fresh in results:
            written += fresh
            progress.advance(job.stop - job.start)
    finally:
        progress.stop()
    return written


def _on_executor(plan: BuildPlan, folder: Path, executor: Executor, owned: bool) -> Iterator[tuple[Job, bool]]:
    """Submit jobs with a bounded number in flight, so that memory does not grow with the plan."""
    pending: dict[Future[bool], Job] = {}
    jobs = iter(plan.jobs)
    try:
        while True:
            while len(pending) < 64 and (job := next(jobs, None)) is not None:
                pending[executor.submit(write_shard, plan, job, folder)] = job
            if not pending:
                return
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                yield pending.pop(future), future.result()
    except BrokenProcessPool:
        raise DataError("a worker process died (killed, or out of memory); run the same command again") from None
    except BaseException:
        for process in multiprocessing.active_children() if owned else ():
            process.terminate()
        raise
    finally:
        if owned:
            executor.shutdown(wait=True, cancel_futures=True)
            remove_temporaries(folder)


def _local_pool(workers: int) -> Executor:
    context = multiprocessing.get_context("spawn")  # fork is not safe beside the progress bar's thread
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(os.getpid(),))


def _start_worker(parent: int) -> None:
    """Leave interrupts to the parent, and end with it: a killed build must not go on writing."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            pause.wait(0.5)
        os._exit(1)

    pause = threading.Event()
    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process. The lock is on the folder itself: it leaves no file and ends with the process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise DataError(
            f"{folder}: another process is building into it; wait for it, or choose another --out"
        ) from None
    finally:
        os.close(descriptor)


def refuse_other_build(folder: Path, plan: BuildPlan) -> None:
    """Raise DataError where a folder holds another build (a half-built one included) or files that are not a build's."""
    if not folder.exists():
        return
    names = {job.name for job in plan.jobs}
    known = names | {sidecar_path(Path(name)).name for name in names} | {MANIFEST, ACCOUNTING}
    if (folder / MANIFEST).exists():
        found = read_manifest(folder)
        if found.build != plan.build:
            raise DataError(
                f"{folder} holds another build ({_difference(found, plan)}); choose another --out, or delete it"
            )
    for tar in sorted(folder.glob("*.tar")):
        if sidecar_path(tar).exists() and _build_of(tar) not in (plan.build, ""):
            raise DataError(f"{folder} holds part of another build ({tar.name}); choose another --out, or delete it")
    others = sorted(p.name for p in folder.iterdir() if p.name not in known and not p.name.endswith(".tmp"))
    if others:
        raise DataError(f"{folder} holds other files ({', '.join(others[:3])}); choose an empty or new folder as --out")


def _build_of(tar: Path) -> str:
    try:
        return read_sidecar(tar).build
    except DataError:
        return ""  # damaged: this build writes it again


def _difference(found: Manifest, plan: BuildPlan) -> str:
    """Say in a few words how the builds differ."""
    mine = {"data set": plan.data.about.name, **plan.data.parameters(), "codec": plan.codec}
    theirs = {"data set": found.about["data_set"], **found.parameters, "codec": found.codec}
    other = [f"{k} {theirs.get(k)!r}, not {v!r}" for k, v in mine.items() if theirs.get(k) != v]
    return "; ".join(other[:3]) or "other sources, version or shard size"


def _finish(plan: BuildPlan, folder: Path) -> Manifest:
    """Write the accounting and, last of all, the manifest. Existing ones with the right content stay untouched."""
    rows: dict[str, list[ShardRow]] = {split: [] for split in SPLITS}
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    path = folder / ACCOUNTING
    with whole_file(path.with_name(f".{ACCOUNTING}.new.tmp")) as file:
        for job in plan.jobs:
            sidecar = read_sidecar(folder / job.name)
            rows[job.split].append(
                ShardRow(job.name, sidecar.sha256, sidecar.size, len(sidecar.samples), sidecar.frames)
            )
            for fate in item_fates(plan.data, job, sidecar):
                counts[job.split][fate.fate] += 1
                file.write(json.dumps(fate.to_json()).encode() + b"\n")
    _settle(path.with_name(f".{ACCOUNTING}.new.tmp"), path)
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
        tools=tool_versions(),
    )
    target = folder / MANIFEST
    if not target.exists() or target.read_bytes() != manifest.to_bytes():
        write_whole(target, manifest.to_bytes())
    return manifest


def _settle(new: Path, path: Path) -> None:
    """Move a new file into place unless the old one has the same bytes."""
    if path.exists() and sha256_file(path) == sha256_file(new):
        new.unlink()
    else:
        new.replace(path)


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
