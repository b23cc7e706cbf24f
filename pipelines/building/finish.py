"""What a build is, and how it ends: the plan, and when every shard is there the accounting and the manifest."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from drnet.datasets.contract import SPLITS, DataError, DataSet, SourceFile
from drnet.datasets.reading.source_files import sha256_file
from drnet.pipelines.building.jobs import TOLD, Job, Recipe
from drnet.pipelines.files import sync_folder, whole_file, write_whole
from drnet.pipelines.shards.manifest import ACCOUNTING, MANIFEST, Manifest, ShardRow
from drnet.pipelines.shards.shard import Fate, Sidecar, read_sidecar, sidecar_path


@dataclass(frozen=True)
class BuildPlan(Recipe):
    """Everything about a build that is known before the first clip: a pure function of its arguments.

    Attributes:
        clips_per_shard: items in each shard.
        jobs: the shards.
        sources: the raw files, as they were when it was planned.
    """

    clips_per_shard: int
    jobs: tuple[Job, ...]
    sources: tuple[SourceFile, ...]

    @property
    def recipe(self) -> Recipe:
        """What the jobs need of it."""
        return Recipe(self.data, self.codec, self.build, self.tools)

    @property
    def items(self) -> int:
        """Source items in all shards."""
        return sum(job.stop - job.start for job in self.jobs)

    @property
    def names(self) -> frozenset[str]:
        """Every file the build ends with."""
        tars = [job.name for job in self.jobs]
        return frozenset([*tars, *(sidecar_path(Path(tar)).name for tar in tars), MANIFEST, ACCOUNTING])


def finish(plan: BuildPlan, folder: Path) -> tuple[Manifest, list[Fate], dict[str, dict[str, int]]]:
    """Write the accounting and, last of all, the manifest. Existing ones with the right content stay untouched.

    Returns:
        The manifest, the first items that failed, and for each split how many clips were left out for which reason.
    """
    rows: dict[str, list[ShardRow]] = {split: [] for split in SPLITS}
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    last: dict[str, str] = {}
    failed: list[Fate] = []
    left_out: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    with whole_file(folder / ACCOUNTING, keep_same=True) as file:
        for job in plan.jobs:
            sidecar = _sidecar_of(plan, job, folder)
            last[job.split] = _check_order(sidecar, last.get(job.split, ""))
            count = len(sidecar.samples)
            rows[job.split].append(ShardRow(job.name, sidecar.sha256, sidecar.size, count, sidecar.frames))
            fates = list(item_fates(plan.data, job, sidecar))
            _check_sums(job, fates, count)
            counts[job.split].update(fate.fate for fate in fates)
            for fate in fates:
                left_out[job.split].update(fate.left_out)
            failed += [fate for fate in fates if fate.fate == "failed"][: TOLD - len(failed)]
            file.write(b"".join(json.dumps(fate.to_json()).encode() + b"\n" for fate in fates))
    about = asdict(plan.data.about)
    manifest = Manifest(
        build=plan.build,
        about={"data_set": about.pop("name"), **about, "notes": list(about["notes"])},
        parameters=plan.data.parameters(),
        codec=plan.codec,
        clips_per_shard=plan.clips_per_shard,
        frame_shape=plan.data.frame_shape(),
        labels=plan.data.labels,
        splits={split: tuple(rows[split]) for split in SPLITS},
        sources=tuple({"name": s.name, "bytes": s.size, "sha256": s.sha256} for s in plan.sources),
        accounting={split: dict(sorted(counts[split].items())) for split in SPLITS},
        accounting_sha256=sha256_file(folder / ACCOUNTING),
        tools=dict(plan.tools),
    )
    write_whole(folder / MANIFEST, manifest.to_bytes(), keep_same=True)
    sync_folder(folder)
    return manifest, failed, {split: dict(sorted(found.items())) for split, found in left_out.items()}


def _sidecar_of(plan: BuildPlan, job: Job, folder: Path) -> Sidecar:
    """Return a finished shard's sidecar; raises DataError where the shard beside it is not the one it describes."""
    tar = folder / job.name
    sidecar = read_sidecar(tar)
    if sidecar.build != plan.build or not tar.exists() or tar.stat().st_size != sidecar.size:
        raise DataError(f"{tar}: changed by somebody else while it was built; run the same command again")
    return sidecar


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


def _check_sums(job: Job, fates: list[Fate], clips: int) -> None:
    """Raise ValueError where the items of a shard do not add up to its clips: its data set names them otherwise now."""
    empty = next((fate for fate in fates if fate.fate == "written" and not fate.clips), None)
    if empty is not None or sum(fate.clips for fate in fates) != clips:
        item = f" ({empty.item!r} has none)" if empty else ""
        raise ValueError(f"{job.name}: its items do not add up to its {clips} clips{item}; item names must not change")
