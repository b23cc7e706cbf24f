"""Check every file of a data set against its manifest and sidecars, and find all that is wrong, not only the first."""

import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from drnet.datasets.contract import Clip
from drnet.pipelines.codec import EXTENSIONS, REBUILD, frame_checks
from drnet.pipelines.files import sha256_file
from drnet.pipelines.manifest import ACCOUNTING, MANIFEST, Manifest, ShardRow, read_manifest
from drnet.pipelines.progress import Progress, Silent
from drnet.pipelines.shard import Sidecar, check_labels, pixel_hash, read_sidecar, sidecar_path
from drnet.pipelines.source import Shard


class Verifier:
    """Collects the problems of a data set."""

    def __init__(self, folder: Path, manifest: Manifest, full: bool) -> None:
        self.folder, self.manifest, self.full = folder, manifest, full
        self.problems: list[str] = []
        self.keys: dict[str, str] = {}  # key -> shard
        self.groups: dict[str, str] = {}  # value of the split key -> split
        self.clips = 0

    def shard(self, split: str, row: ShardRow) -> None:
        """Check one shard; any trouble with it becomes a line of `problems`."""
        tar = self.folder / row.name
        try:
            for problem in self._shard_problems(split, row, tar):
                self._tell(tar, problem)
        except (ValueError, tarfile.TarError, OSError) as error:
            self._tell(tar, str(error))

    def _tell(self, path: Path, problem: str) -> None:
        """Note a problem with the file it is in and the remedy, each once."""
        place = "" if problem.startswith(f"{path.with_suffix('')}.") else f"{path}: "
        remedy = "" if problem.endswith("again") else f"; {REBUILD}"
        self.problems.append(f"{place}{problem}{remedy}")

    def _shard_problems(self, split: str, row: ShardRow, tar: Path) -> Iterator[str]:
        if not tar.exists():
            yield "the shard is missing; run the build command again"
            return
        sidecar = read_sidecar(tar)
        if sidecar_path(tar).read_bytes() != sidecar.to_bytes():
            yield "its sidecar was changed after the build"
        if sidecar.build != self.manifest.build:
            yield "it belongs to another build"
        if (sidecar.sha256, sidecar.size, sidecar.split) != (row.sha256, row.size, split):
            yield "sidecar and manifest differ (a stale or swapped sidecar)"
        if (len(sidecar.samples), sidecar.frames) != (row.clips, row.frames):
            yield "sidecar and manifest count other clips or frames"
        size = tar.stat().st_size
        if size != row.size:
            yield f"{size} bytes, where the manifest says {row.size} (cut short, or another file)"
        elif sha256_file(tar) != row.sha256:
            yield "its SHA-256 differs from the manifest's"
        self.clips += len(sidecar.samples)
        for sample in sidecar.samples:
            if sample.key in self.keys:
                yield f"clip {sample.key}: the key is in {self.keys[sample.key]} too"
            self.keys[sample.key] = row.name
        if self.full and size == row.size:
            yield from self._contents(split, tar, sidecar)

    def _contents(self, split: str, tar: Path, sidecar: Sidecar) -> Iterator[str]:
        yield from members_differ(tar, sidecar)
        shard = Shard(tar, sidecar)
        for index, sample in enumerate(sidecar.samples):
            try:
                frames, labels = shard.clip(index), shard.labels(index)
                check_labels(Clip(sample.key, frames, labels), self.manifest.labels)
            except ValueError as error:
                yield f"clip {sample.key}: {str(error).removeprefix(f'{tar}: ').removeprefix(f'clip {sample.key}: ')}"
                continue
            if frames.shape[1:] != tuple(self.manifest.frame_shape):
                yield f"clip {sample.key}: frames of {frames.shape[1:]}, not {self.manifest.frame_shape}"
            if frame_checks(frames) != sample.checks:
                yield f"clip {sample.key}: its frames are not the ones that were written (CRC-32 differs)"
            yield from self._group(split, sample.key, labels)
        if pixel_hash(sample.checks for sample in sidecar.samples) != sidecar.pixels:
            yield "the sidecar's pixel hash does not match its frames' checks"

    def _group(self, split: str, key: str, labels: Mapping[str, Any]) -> Iterator[str]:
        group = labels.get(self.manifest.about["split_key"])
        if group is None:
            yield f"clip {key}: label {self.manifest.about['split_key']!r}, by which the data set is split, is missing"
        elif self.groups.setdefault(str(group), split) != split:
            yield f"clip {key}: {self.manifest.about['split_key']} {group} lies in two splits"

    def files(self) -> None:
        """Look for files that are missing beside the shards, or that do not belong."""
        rows = [row for part in self.manifest.splits.values() for row in part]
        names = (
            {row.name for row in rows} | {sidecar_path(Path(row.name)).name for row in rows} | {MANIFEST, ACCOUNTING}
        )
        for path in sorted(self.folder.iterdir()):
            if path.name not in names:
                self.problems.append(f"{path}: an extra file that the manifest does not list; delete it")
        if len(names) != 2 * len(rows) + 2:
            self.problems.append(f"{self.folder / MANIFEST}: a shard is listed twice; run the build again")
        if (self.folder / MANIFEST).read_bytes() != self.manifest.to_bytes():
            self.problems.append(f"{self.folder / MANIFEST}: it was changed after the build; run the build again")
        self._accounting()

    def _accounting(self) -> None:
        """The fates in `accounting.jsonl` must add up to the manifest's sums."""
        path = self.folder / ACCOUNTING
        sums: dict[str, dict[str, int]] = {split: {} for split in self.manifest.splits}
        clips = 0
        try:
            with path.open() as file:
                for line in file:
                    row = json.loads(line)
                    sums[row["split"]][row["fate"]] = sums[row["split"]].get(row["fate"], 0) + 1
                    clips += row["clips"]
        except (OSError, ValueError, KeyError, TypeError):
            self.problems.append(f"{path}: missing or damaged; run the build again")
            return
        if sha256_file(path) != self.manifest.accounting_sha256:
            self.problems.append(f"{path}: its SHA-256 differs from the manifest's; run the build again")
        listed = sum(self.manifest.clips(split) for split in self.manifest.splits)
        if sums != {split: dict(counts) for split, counts in self.manifest.accounting.items()} or clips != listed:
            self.problems.append(f"{path}: its lines do not add up to the manifest's sums; run the build again")


def members_differ(tar: Path, sidecar: Sidecar) -> Iterator[str]:
    """Compare what Python's own `tarfile` finds in a shard with what its sidecar says."""
    wanted = []
    for sample in sidecar.samples:
        wanted.append((f"{sample.key}.{EXTENSIONS[sidecar.codec]}", *sample.frames))
        wanted.append((f"{sample.key}.json", *sample.labels))
    with tarfile.open(tar, "r:") as archive:
        members = archive.getmembers()
    found = [(member.name, member.offset_data, member.size) for member in members]
    if not all(member.isfile() for member in members):
        yield "it has members that are not plain files"
    if found != wanted:
        wrong = next((w[0] for f, w in zip(found, wanted, strict=False) if f != w), None)
        place = f"from {wrong} on" if wrong else f"{len(found)} members, not {len(wanted)}"
        yield f"its members are not the sidecar's ({place})"


def verify_data(folder: Path, full: bool = True, progress: Progress | None = None) -> tuple[list[str], dict[str, int]]:
    """Find everything that is wrong with a data set.

    Args:
        folder: of the data set.
        full: decode every clip too; otherwise only hashes, sizes and listings are compared.
        progress: told of each shard.

    Returns:
        One line for each problem, with the file, the clip and the remedy; and how many shards and clips were checked.

    Raises:
        DataError: where there is no manifest that can be read.
    """
    progress = progress or Silent()
    verifier = Verifier(folder, read_manifest(folder), full)
    rows = [(split, row) for split, part in verifier.manifest.splits.items() for row in part]
    progress.start("verifying", len(rows), "shards")
    try:
        for split, row in rows:
            verifier.shard(split, row)
            progress.advance(1)
    finally:
        progress.stop()
    verifier.files()
    return verifier.problems, {"shards": len(rows), "clips": verifier.clips}
