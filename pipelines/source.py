"""Open shards for reading: a folder, a brace pattern or a URL becomes a `Collection` of clips with random access.

Axes: T time, H height, W width, C channels; frames are uint8 (T, H, W, C).
"""

import bisect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import braceexpand
import numpy as np
from numpy.typing import NDArray

from drnet.datasets.contract import DataError, Label
from drnet.pipelines.mistaken import DATA, mistaken
from drnet.pipelines.remote import urls
from drnet.pipelines.remote.cache import Entry, named_as, remote_manifest, remote_sidecar
from drnet.pipelines.remote.download import QUICK, NotThere, Refused
from drnet.pipelines.remote.room import share
from drnet.pipelines.shards.codec import REBUILD
from drnet.pipelines.shards.foreign import index_foreign
from drnet.pipelines.shards.manifest import MANIFEST, Manifest, ShardRow, order_key, read_manifest
from drnet.pipelines.shards.reading import Shard, read_or_index
from drnet.pipelines.shards.shard import Sample, Sidecar, read_sidecar

OPEN_SHARDS = 100  # kept open at once, with up to two descriptors each: some systems give a process 256


@dataclass(frozen=True)
class ShardPlace:
    """Where a shard is, and what is known of it before it is opened."""

    name: str
    location: str  # path or URL
    split: str
    sha256: str
    clips: int
    sidecar: Sidecar | None = None  # of a foreign shard


class Collection:
    """The clips of some shards, numbered from 0 in shard order.

    Attributes:
        places: the shards.
        manifest: of the data set they belong to; None where they have none.
        order_key: what a reading order depends on.
    """

    def __init__(self, places: Sequence[ShardPlace], manifest: Manifest | None) -> None:
        self.places, self.manifest = tuple(places), manifest
        self.order_key = order_key((place.name, place.sha256) for place in places)
        self.starts = np.concatenate([[0], np.cumsum([place.clips for place in places])]).astype(np.int64)
        self._firsts = [int(first) for first in self.starts]  # a list: `bisect` takes a tenth of NumPy's time
        self._open = lru_cache(maxsize=OPEN_SHARDS)(self._open_shard)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to a worker process without the open files."""
        return Collection, (self.places, self.manifest)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def _open_shard(self, number: int) -> Shard:
        place = self.places[number]
        if urls.is_url(place.location):
            shard = open_remote(place, self._open.cache_clear)
        else:  # a sidecar that the manifest promises must be there: without it nothing could be checked
            known = place.sidecar or (read_sidecar(Path(place.location)) if self.manifest else None)
            shard = Shard(Path(place.location), known)
        if shard.sidecar.sha256 != place.sha256 or len(shard) != place.clips:
            raise DataError(f"{urls.shown(place.location)}: not the shard that the manifest lists; {REBUILD}")
        return shard

    def locate(self, clip: int) -> tuple[Shard, int]:
        """Return a clip's shard and its number there."""
        shard = self._number(clip)
        return self._open(shard), clip - self._firsts[shard]

    def _number(self, clip: int) -> int:
        """Return the number of the shard that a clip is in."""
        if not 0 <= clip < self._firsts[-1]:
            raise IndexError(f"clip {clip} is not one of {self._firsts[-1]}")
        return bisect.bisect_right(self._firsts, clip) - 1

    def sample(self, clip: int) -> Sample:
        """Return what the sidecar says of a clip."""
        shard, index = self.locate(clip)
        return shard.sidecar.samples[index]

    def frames(self, clip: int) -> NDArray[np.uint8]:
        """Return all frames of a clip, (T, H, W, C) uint8."""
        shard, index = self.locate(clip)
        return shard.clip(index)

    def labels(self, clip: int) -> dict[str, Any]:
        """Return a clip's labels."""
        shard, index = self.locate(clip)
        return shard.labels(index)

    def split_of(self, clip: int) -> str:
        """Return the split a clip belongs to."""
        return self.places[self._number(clip)].split

    @cached_property
    def frame_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of every frame."""
        if self.manifest is not None:
            return self.manifest.frame_shape
        shard, index = self.locate(0)
        return shard.shape(index)[1:]

    @property
    def label_types(self) -> Mapping[str, Label]:
        """The labels' types; empty without a manifest."""
        return self.manifest.labels if self.manifest else {}

    def keys(self) -> Iterator[str]:
        """Yield every key in order."""
        for number in range(len(self.places)):
            yield from (sample.key for sample in self._open(number).sidecar.samples)


def open_remote(place: ShardPlace, give_up: Callable[[], None] = lambda: None) -> Shard:
    """Open a shard behind a URL, its tar and its sidecar through the cache, where it stays as long as it is open.

    Args:
        place: of the shard.
        give_up: called where the cache has no room but for open shards: closes what is needed no more.
    """
    with Entry(place.location, place.sha256, keyed=place.sidecar is None) as entry:
        path = entry.content(give_up=give_up)
        shard = Shard(path, place.sidecar or entry.sidecar())
        share(shard._file)
        return shard


def _remote_place(url: str) -> ShardPlace:
    """Learn what a remote shard is: from its sidecar where it has one, else by downloading and indexing it now."""
    try:
        return _place(urls.name_of(url), url, remote_sidecar(url))
    except (NotThere, Refused):
        with Entry(url) as entry, named_as(entry.path, url):
            return _place(urls.name_of(url), url, index_foreign(entry.content(QUICK)))


def open_shards(spec: str | Path, splits: Sequence[str] = ("train",)) -> Collection:
    """Open the shards that `--shards` names.

    Args:
        spec: a data set's folder, a brace pattern of tars (`DIR/train-{000000..000009}.tar`), or one tar; or such a
            URL (`urls.PROTOCOLS`), a query included: `https://HOST/train-{000000..000009}.tar?token=...`.
        splits: which splits of a folder; a pattern or a tar is taken as it is named.

    Raises:
        DataError: where shards are missing or not what the manifest lists.
    """
    text = urls.local_path(str(spec))
    remote = urls.is_url(text)
    if remote:
        urls.check_url(text)
    if (urls.without_query(text) if remote else text).endswith(".tar"):
        return _not_empty(_open_pattern(text), f"{urls.shown(text)}: no clips in these shards")
    if remote:
        manifest = remote_manifest(urls.inside(text, MANIFEST))
    else:
        folder = Path(text)
        if not folder.is_dir():
            unknown = f"{text}: no such folder; give a data set's folder, a pattern of .tar files, or a URL"
            raise DataError(mistaken(folder, DATA) or unknown)
        if not (folder / MANIFEST).exists() and any(folder.glob("*.tar")) and not any(folder.glob("*-*.json")):
            return _open_list([str(path) for path in sorted(folder.glob("*.tar"))], None)
        manifest = read_manifest(folder)
    places = [
        ShardPlace(row.name, urls.inside(text, row.name), split, row.sha256, row.clips)
        for split in splits
        for row in manifest.splits.get(split, ())
    ]
    if not remote:
        _check_present([Path(place.location) for place in places])
    return _not_empty(Collection(places, manifest), f"{urls.shown(text)}: no clips in split {' and '.join(splits)}")


@dataclass(frozen=True)
class Found:
    """A data set, or a part of its shards, as its manifest describes it; no shard is opened.

    Attributes:
        manifest: of the data set.
        base: folder or URL that its files lie in.
        rows: of each split, the shards that were named.
        whole: whether these are all.
    """

    manifest: Manifest
    base: str
    rows: Mapping[str, tuple[ShardRow, ...]]
    whole: bool


def find_data(spec: str | Path) -> Found:
    """Find the data set that a folder, a URL, or a pattern of some of its tars names.

    Raises:
        DataError: where it is not there, is no data set of drnet's, or a named shard is none of its own.
    """
    text = urls.local_path(str(spec))
    if not urls.is_url(text):
        if not text.endswith(".tar"):
            manifest = read_manifest(Path(text))
            return Found(manifest, text, manifest.splits, True)
    elif not urls.without_query(text).endswith(".tar"):
        urls.check_url(text)
        manifest = remote_manifest(urls.inside(text, MANIFEST))
        return Found(manifest, text, manifest.splits, True)
    collection = open_shards(text)
    if collection.manifest is None:
        raise DataError(
            f"{urls.shown(text)}: no {MANIFEST} lists these shards, so nothing says what they hold; "
            "`drnet data preview` draws them"
        )
    first, names = collection.places[0].location, {place.name for place in collection.places}
    base = urls.sibling(first, "") if urls.is_url(first) else str(Path(first).parent)
    rows = {
        split: tuple(row for row in part if row.name in names) for split, part in collection.manifest.splits.items()
    }
    return Found(collection.manifest, base, rows, rows == dict(collection.manifest.splits))


def _not_empty(collection: Collection, what: str) -> Collection:
    if not len(collection):
        raise DataError(f"{what}; build the data set with some")
    return collection


def _check_present(paths: Sequence[Path]) -> None:
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise DataError(f"{paths[0].parent}: missing {', '.join(missing[:3])}{more}; run the build command again")


def _open_pattern(pattern: str) -> Collection:
    path, mark, query = pattern.partition("?") if urls.is_url(pattern) else (pattern, "", "")
    try:
        names = [name + mark + query for name in braceexpand.braceexpand(path)]
    except ValueError:  # braceexpand.UnbalancedBracesError
        raise DataError(
            f"{urls.shown(path)}: unbalanced braces; write for example train-{{000000..000009}}.tar"
        ) from None
    if not urls.is_url(pattern):
        _check_present([Path(name) for name in names])
    folders = {urls.without_query(name).rpartition("/")[0] for name in names}
    return _open_list(names, _manifest_beside(names[0]) if len(folders) == 1 else None)


def _manifest_beside(name: str) -> Manifest | None:
    if not urls.is_url(name):
        folder = Path(name).parent
        return read_manifest(folder) if (folder / MANIFEST).exists() else None
    try:
        return remote_manifest(urls.sibling(name, MANIFEST))
    except (NotThere, Refused):
        return None


def _open_list(names: Sequence[str], manifest: Manifest | None) -> Collection:
    """Open shards named one by one; without a manifest each is read or indexed now."""
    rows = {row.name: (split, row) for split, part in manifest.splits.items() for row in part} if manifest else {}
    if any(_base(name) not in rows for name in names):
        return _open_unlisted(names)
    places = []
    for name in names:
        split, row = rows[_base(name)]
        places.append(ShardPlace(row.name, name, split, row.sha256, row.clips))
    return Collection(in_order(places), manifest)


def _base(name: str) -> str:
    return urls.name_of(name) if urls.is_url(name) else Path(name).name


def in_order(places: Iterable[ShardPlace]) -> list[ShardPlace]:
    """Sort shards as the order key does: the order in which they were named changes nothing."""
    return sorted(places, key=lambda place: (place.name, place.sha256))


def _open_unlisted(names: Sequence[str]) -> Collection:
    """Open shards that no manifest describes: read each sidecar, or index the archive; frames must be of one shape."""
    places, first = [], None
    for name in names:
        place = _remote_place(name) if urls.is_url(name) else _place(Path(name).name, name, read_or_index(Path(name)))
        places.append(place)
        remote = urls.is_url(place.location)
        if not place.clips or (remote and not place.sidecar):  # a built shard is fetched when it is read
            continue
        shape = (open_remote(place) if remote else Shard(Path(place.location), place.sidecar)).shape(0)[1:]
        first = first or shape
        if shape != first:
            raise DataError(f"{urls.shown(name)}: frames of {shape}, not {first} as in the first shard")
    return Collection(in_order(places), None)


def _place(name: str, location: str, sidecar: Sidecar) -> ShardPlace:
    known = None if sidecar.build else sidecar  # found by reading the whole archive: not to be done again
    return ShardPlace(name, location, sidecar.split, sidecar.sha256, len(sidecar.samples), known)
