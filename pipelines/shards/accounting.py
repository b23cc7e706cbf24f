"""Hold `accounting.jsonl` against the shards: each source item of a shard has its one line, and nothing else has any."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import orjson

from drnet.datasets.reading.source_files import sha256_file
from drnet.pipelines.files import regular_size, sha256_of
from drnet.pipelines.shards.manifest import Manifest
from drnet.pipelines.shards.shard import Fate, Sidecar

LINE_LIMIT = 1 << 20  # bytes of the longest line


@dataclass(frozen=True)
class _Expected:
    """What the sidecar of a shard says of its items: how many lines, and a hash over them, whatever their order."""

    lines: int
    sha256: str


class Accounts:
    """Collects what the shards say of their items, in the manifest's order; a few bytes for each shard."""

    def __init__(self) -> None:
        self._shards: dict[str, _Expected | None] = {}

    def expect(self, name: str, sidecar: Sidecar | None) -> None:
        """Note a shard's sidecar once; None where it cannot be read."""
        fates = list(fates_of(sidecar)) if sidecar else []
        self._shards.setdefault(name, _Expected(len(fates), _hash(fates)) if sidecar else None)

    def problems(self, path: Path, manifest: Manifest) -> Iterator[str]:
        """Yield what is wrong with an accounting file."""
        sums: dict[str, Counter[str]] = {split: Counter() for split in manifest.splits}
        clips = Counter[str]()
        try:
            yield from self._differences(_counted(path, sums, clips))
            digest = sha256_file(path)
        except (OSError, ValueError, KeyError, RecursionError):
            yield "missing or damaged"
            return
        if digest != manifest.accounting_sha256:
            yield "its SHA-256 differs from the manifest's"
        listed = {split: manifest.clips(split) for split in manifest.splits}
        if sums != manifest.accounting or {split: clips[split] for split in listed} != listed:
            yield "its lines do not add up to the manifest's sums"

    def _differences(self, fates: Iterator[Fate]) -> Iterator[str]:
        """Compare the lines with the shards' items; from a shard on that is not known, they are only counted."""
        known = True
        for name, expected in self._shards.items():
            known = known and expected is not None
            if known and expected and _hash(list(islice(fates, expected.lines))) != expected.sha256:
                yield f"its lines are not those of the items of {name}"
        if sum(1 for _ in fates) and known:
            yield "it has lines of items that no shard is of"


def fates_of(sidecar: Sidecar) -> Iterator[Fate]:
    """Yield how each source item of a shard ended, as far as its sidecar knows."""
    clips = Counter(sample.item for sample in sidecar.samples)
    for fate in sidecar.fates:
        yield replace(fate, clips=clips.pop(fate.item, 0))
    for item, number in clips.items():
        yield Fate(sidecar.split, item, "written", number)


def _hash(fates: list[Fate]) -> str:
    return sha256_of(b"\n".join(sorted(orjson.dumps(fate.to_json(), option=orjson.OPT_SORT_KEYS) for fate in fates)))


def _counted(path: Path, sums: dict[str, Counter[str]], clips: Counter[str]) -> Iterator[Fate]:
    """Yield the lines of an accounting file, counting them; raises ValueError or KeyError where one makes no sense."""
    regular_size(path)
    with path.open("rb") as file:
        while line := file.readline(LINE_LIMIT):
            if not line.endswith(b"\n"):
                raise ValueError("a line that is cut short, or has no end")
            fate = Fate.from_json(json.loads(line))
            sums[fate.split][fate.fate] += 1
            clips[fate.split] += fate.clips
            yield fate
