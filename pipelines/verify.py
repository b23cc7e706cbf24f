"""Check every file of a data set against its manifest and sidecars, and find all that is wrong, not only the first.

Memory does not grow with the clips but for eight bytes a clip (its group): keys are compared with the one before, since
they sort, and items are accounted for shard by shard.
"""

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from drnet.datasets.contract import Clip, DataError
from drnet.datasets.reading.source_files import sha256_file
from drnet.pipelines.files import regular_size
from drnet.pipelines.progress import Progress, Silent
from drnet.pipelines.remote.copies import Copy, NoAccess, There, copies_of
from drnet.pipelines.remote.urls import is_url
from drnet.pipelines.shards.accounting import Accounts
from drnet.pipelines.shards.codec import EXTENSIONS, REBUILD
from drnet.pipelines.shards.manifest import (
    ACCOUNTING,
    AGAIN,
    CARD,
    MANIFEST,
    PICTURE,
    ShardRow,
)
from drnet.pipelines.shards.reading import Shard
from drnet.pipelines.shards.shard import Sidecar, check_labels, pixel_hash, read_sidecar, sidecar_path, tar_header
from drnet.pipelines.shards.tar import BLOCK
from drnet.pipelines.source import Found, find_data

COPY_AGAIN = "copy the file there again"
ELSEWHERE = "; verify the data set where it is stored"  # what a reader of a URL is told, and is done here


class Groups:
    """Which groups of clips the splits before hold: eight bytes of hash for each clip, for names of any length.

    Two different groups meet in one hash once in 10^7 data sets of a million groups in each split.
    """

    def __init__(self) -> None:
        self._split, self._now, self._before = "", array("Q"), array("Q")

    def is_elsewhere(self, group: object, split: str) -> bool:
        """Note a clip's group; splits come one after the other. Returns whether a split before has the group too."""
        if split != self._split:
            known = np.union1d(np.array(self._before, np.uint64), np.array(self._now, np.uint64))
            self._split, self._now, self._before = split, array("Q"), array("Q", known.tobytes())
        number = int.from_bytes(blake2b(str(group).encode(errors="surrogatepass"), digest_size=8).digest(), "little")
        self._now.append(number)
        place = bisect_left(self._before, number)
        return place < len(self._before) and self._before[place] == number


class KeyRange(NamedTuple):
    """The first and the last key of a shard."""

    first: str
    last: str
    split: str
    name: str


class Verifier:
    """Collects the problems of a data set."""

    def __init__(self, found: Found, full: bool) -> None:
        self.manifest, self.full, self.remote = found.manifest, full, is_url(found.base)
        self.copies = copies_of(found.base)
        self.problems: list[str] = []
        self.last: dict[str, str] = {}  # split -> key of its last clip so far
        self.ranges: list[KeyRange] = []
        self.groups, self.accounts = Groups(), Accounts()
        self.clips = 0

    def shard(self, split: str, row: ShardRow) -> None:
        """Check one shard; any trouble with it becomes a line of `problems`."""
        try:
            with self.copies.shard(row) as copy:
                try:
                    self._copy(split, row, copy)
                except (ValueError, OSError) as error:
                    self._tell(row.name, str(error), copy)
        except NoAccess:
            raise
        except (ValueError, OSError) as error:
            self._tell(row.name, str(error))
        self.accounts.expect(row.name, None)  # where it is not noted yet

    def _copy(self, split: str, row: ShardRow, copy: Copy) -> None:
        if not copy.tar.exists():
            return self._tell(row.name, "the shard is missing; run the build command again")
        sidecar = read_sidecar(copy.beside)
        self.accounts.expect(row.name, sidecar)
        for problem in self._shard_problems(split, row, copy, sidecar):
            self._tell(row.name, problem, copy)

    def _tell(self, name: str, problem: str, copy: Copy | None = None) -> None:
        """Note a problem with the shard it is in and the remedy, each once; a copy's path is that of the shard."""
        tar, sidecar = self.copies.shown(name), self.copies.shown(sidecar_path(Path(name)).name)
        if copy is not None:
            problem = problem.replace(str(copy.tar), tar).replace(str(sidecar_path(copy.beside)), sidecar)
        problem = problem.removesuffix(f"; {REBUILD}").removesuffix(ELSEWHERE)
        place = "" if problem.startswith((tar, sidecar)) else f"{tar}: "
        remedy = "" if problem.endswith("again") else f"; {COPY_AGAIN if self.remote else REBUILD}"
        self.problems.append(f"{place}{problem}{remedy}")

    def _shard_problems(self, split: str, row: ShardRow, copy: Copy, sidecar: Sidecar) -> Iterator[str]:
        tar = copy.tar
        if sidecar_path(copy.beside).read_bytes() != sidecar.to_bytes():
            yield "its sidecar was changed after the build"
        if (sidecar.build, sidecar.codec) != (self.manifest.build, self.manifest.codec):
            yield "it belongs to another build"
        if (sidecar.sha256, sidecar.size, sidecar.split) != (row.sha256, row.size, split):
            yield "sidecar and manifest differ (a stale or swapped sidecar)"
        if (len(sidecar.samples), sidecar.frames) != (row.clips, row.frames):
            yield "sidecar and manifest count other clips or frames"
        if pixel_hash(sample.checks for sample in sidecar.samples) != sidecar.pixels:
            yield "the sidecar's pixel hash does not match its frames' checks"
        self.clips += len(sidecar.samples)
        yield from self._keys(split, row.name, sidecar)
        size = regular_size(tar)
        if size != row.size:
            lost = next((s.key for s in sidecar.samples if sum(s.labels) > size), "")
            what = f"cut short: clip {lost} and all after it are lost" if lost else "cut short, or another file"
            yield f"{size} bytes, where the manifest says {row.size} ({what})"
            return
        if sha256_file(tar) != row.sha256:
            yield "its SHA-256 differs from the manifest's"
        if self.full:
            yield from members_differ(tar, sidecar)
            yield from self._contents(split, tar, sidecar)

    def _keys(self, split: str, name: str, sidecar: Sidecar) -> Iterator[str]:
        """Keys rise through all shards of a split, so that none is there twice."""
        last = self.last.get(split, "")
        for sample in sidecar.samples:
            if sample.key <= last:
                again = "is there twice" if sample.key == last else f"comes after {last}, and may be there twice"
                yield f"clip {sample.key}: the key {again}; keys are unique and sort in build order"
            last = sample.key
        self.last[split] = last
        if sidecar.samples:
            keys = [sample.key for sample in sidecar.samples]
            self.ranges.append(KeyRange(min(keys), max(keys), split, name))

    def _contents(self, split: str, tar: Path, sidecar: Sidecar) -> Iterator[str]:
        shard = Shard(tar, sidecar)
        for index, sample in enumerate(sidecar.samples):
            try:
                frames, labels = shard.clip(index), shard.labels(index)
                check_labels(Clip(sample.key, frames, labels), self.manifest.labels)
            except ValueError as error:
                reason = str(error).removeprefix(f"{tar}: ").removeprefix("clip ").removeprefix(f"{sample.key}: ")
                yield f"clip {sample.key}: {reason}"
                continue
            if frames.shape[1:] != tuple(self.manifest.frame_shape):
                yield f"clip {sample.key}: frames of {frames.shape[1:]}, not {self.manifest.frame_shape}"
            yield from self._group(split, sample.key, labels)

    def _group(self, split: str, key: str, labels: Mapping[str, Any]) -> Iterator[str]:
        name = self.manifest.about["split_key"]
        if name not in labels:
            yield f"clip {key}: label {name!r}, by which the data set is split, is missing"
        elif self.groups.is_elsewhere(labels[name], split):
            yield f"clip {key}: {name} {str(labels[name])[:80]!r} lies in two splits"

    def between_splits(self) -> None:
        """Look for keys that are in two splits: only where ranges of keys overlap are sidecars read again."""
        last: dict[str, KeyRange] = {}
        for shard in sorted(self.ranges):
            for other in last.values():
                if other.split != shard.split and shard.first <= other.last:
                    for key in sorted(self._keys_of(other.name) & self._keys_of(shard.name)):
                        self._tell(shard.name, f"clip {key}: the key is in {other.name} too")
            last[shard.split] = shard

    def _keys_of(self, name: str) -> set[str]:
        with self.copies.beside(name) as beside:
            return {sample.key for sample in read_sidecar(beside).samples}

    def manifests(self) -> None:
        """Look for what is wrong with the manifest and, where all shards were read, with the accounting."""
        rows = [row for part in self.manifest.splits.values() for row in part]
        manifest = self.copies.shown(MANIFEST)
        for name, times in Counter(row.name for row in rows).items():
            if times > 1:
                self.problems.append(f"{manifest}: shard {name} is listed twice; {AGAIN}")
        with self.copies.file(MANIFEST) as path:
            if not path.exists() or path.read_bytes() != self.manifest.to_bytes():
                self.problems.append(f"{manifest}: it was changed after the build; {AGAIN}")
        if self.manifest.expected_build() != self.manifest.build:
            self.problems.append(f"{manifest}: its build id is not the one of its settings and sources; {AGAIN}")

    def accounting(self) -> None:
        """Hold the accounting against all shards."""
        with self.copies.file(ACCOUNTING) as path:
            found = list(self.accounts.problems(path, self.manifest))
        self.problems += [f"{self.copies.shown(ACCOUNTING)}: {problem}; {AGAIN}" for problem in found]

    def extra_files(self, folder: Path) -> None:
        """Look for files that do not belong."""
        tars = {row.name for part in self.manifest.splits.values() for row in part}
        names = tars | {sidecar_path(Path(tar)).name for tar in tars} | {MANIFEST, ACCOUNTING, CARD, PICTURE}
        for path in sorted(folder.iterdir()):
            if path.name not in names:
                self.problems.append(f"{path}: an extra file that the manifest does not list; delete it")


def members_differ(tar: Path, sidecar: Sidecar) -> Iterator[str]:
    """Compare every byte of a shard that is no clip's with what the builder writes there: headers, padding, the end."""
    at = 0
    with tar.open("rb") as file:
        for sample in sidecar.samples:
            frames = f"{sample.key}.{EXTENSIONS[sidecar.codec]}"
            for name, (offset, size) in ((frames, sample.frames), (f"{sample.key}.json", sample.labels)):
                file.seek(offset - BLOCK if offset > BLOCK else 0)
                if offset != at + BLOCK:
                    yield f"clip {sample.key}: its sidecar places {name} at byte {offset}, where {at + BLOCK} comes next"
                elif file.read(BLOCK) != tar_header(name, size):
                    yield f"clip {sample.key}: the header before {name} is damaged, or is of no such plain file"
                file.seek(offset + size)
                if file.read(-size % BLOCK).strip(b"\0"):
                    yield f"clip {sample.key}: what follows {name} is damaged"
                at = offset + size + -size % BLOCK
        file.seek(at)
        if file.read(3 * BLOCK) != bytes(2 * BLOCK):
            yield "the end of the archive is damaged, or has more members than the sidecar"


def verify_data(
    spec: str | Path, full: bool = True, progress: Progress | None = None
) -> tuple[list[str], dict[str, int]]:
    """Find everything that is wrong with a data set.

    Args:
        spec: folder or URL of the data set; a pattern of some of its tars: then only these, and not the accounting. A URL's
            shards are fetched into the cache, or asked for there whether they still are what the cache has.
        full: decode every clip too; otherwise only hashes, sizes and listings are compared.
        progress: told of each shard.

    Returns:
        One line for each problem, with the file, the clip and the remedy; and how many shards and clips were checked.

    Raises:
        DataError: where there is no manifest that can be read, or shards cannot be fetched for lack of network or room.
    """
    progress = progress or Silent()
    found = find_data(spec)
    verifier = Verifier(found, full)
    rows = [(split, row) for split, part in found.rows.items() for row in part]
    if isinstance(verifier.copies, There):
        progress.note(verifier.copies.announce([row for _, row in rows]))
    progress.start("verifying", len(rows), "shards")
    try:
        for split, row in rows:
            verifier.shard(split, row)
            progress.advance(1)
    finally:
        progress.stop()
    checks = [verifier.between_splits, verifier.manifests]
    if found.whole:
        checks.append(verifier.accounting)
        if not verifier.remote:
            verifier.extra_files(Path(found.base))
    for check in checks:
        try:
            check()
        except DataError as error:  # the problems that were found must not be lost for a file that cannot be fetched
            verifier.problems.append(str(error))
    return verifier.problems, {"shards": len(rows), "clips": verifier.clips}
