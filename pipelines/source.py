"""Open shards for reading: a folder, a brace pattern or a URL becomes a `Collection` of clips with random access.

Only the bytes of the frames asked for are touched (raw codec), and every frame read is checked against its CRC-32.
Axes: T time, H height, W width, C channels; frames are uint8 (T, H, W, C).
"""

import bisect
import json
import mmap
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import braceexpand
import numpy as np
from numpy.typing import NDArray

from drnet.datasets.contract import DataError, Label
from drnet.pipelines.files import regular_size
from drnet.pipelines.remote import urls
from drnet.pipelines.remote.cache import Entry, named_as, remote_manifest, remote_sidecar
from drnet.pipelines.remote.download import QUICK, NotThere, Refused
from drnet.pipelines.remote.room import share
from drnet.pipelines.shards.codec import HEAD, REBUILD, check_of, decode, frame_checks, stated_shape
from drnet.pipelines.shards.foreign import index_foreign
from drnet.pipelines.shards.manifest import MANIFEST, Manifest, order_key, read_manifest
from drnet.pipelines.shards.shard import LABELS_LIMIT, Sample, Sidecar, read_sidecar, sidecar_path

OPEN_SHARDS = 100  # kept open at once, with up to two descriptors each: some systems give a process 256


class Shard:
    """One local shard, open for positioned reads."""

    def __init__(self, path: Path, sidecar: Sidecar | None = None) -> None:
        self.path = path
        self.sidecar = sidecar or read_or_index(path)
        try:
            size = regular_size(path)
            self._file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise DataError(f"{path}: the shard is missing; run the build command again") from None
        weakref.finalize(self, os.close, self._file)
        if size != self.sidecar.size:
            raise DataError(f"{path}: {size} bytes, where its sidecar says {self.sidecar.size}; {REBUILD}")

    def __len__(self) -> int:
        return len(self.sidecar.samples)

    def _where(self, sample: Sample) -> str:
        return f"{self.path}: clip {sample.key}"

    def labels(self, index: int) -> dict[str, Any]:
        """Return a clip's labels, checked."""
        sample = self.sidecar.samples[index]
        offset, size = sample.labels
        if size > LABELS_LIMIT:
            raise DataError(f"{self._where(sample)}: labels of {size} bytes are not allowed; at most {LABELS_LIMIT}")
        if not size:
            return {}
        data = os.pread(self._file, size, offset)
        if sample.labels_check and check_of(data) != int(sample.labels_check, 16):
            raise DataError(f"{self._where(sample)}: its labels are damaged (CRC-32 differs); {REBUILD}")
        try:
            labels = json.loads(data)
        except (ValueError, RecursionError):
            raise DataError(f"{self._where(sample)}: damaged labels; {REBUILD}") from None
        if not isinstance(labels, dict):
            raise DataError(f"{self._where(sample)}: labels must be a JSON object; {REBUILD}")
        return labels

    def clip(self, index: int) -> NDArray[np.uint8]:
        """Return all frames of a clip, (T, H, W, C) uint8, checked."""
        frames = self._decode(index)
        for time, frame in enumerate(frames):
            self._check(self.sidecar.samples[index], time, frame)
        return frames

    def _decode(self, index: int) -> NDArray[np.uint8]:
        """Return all frames of a clip, unchecked but for their number."""
        sample = self.sidecar.samples[index]
        offset, size = sample.frames
        frames = decode(os.pread(self._file, size, offset), self.sidecar.codec, self._where(sample))
        if len(frames) != sample.length:
            raise DataError(f"{self._where(sample)}: {len(frames)} frames, where {sample.length} are listed; {REBUILD}")
        return frames

    def read_clip(self, index: int, out: NDArray[np.uint8]) -> None:
        """Read all frames of a clip into `out`, (T, H, W, C) uint8 in C order, checked: no memory is touched anew.

        A raw shard is read as mapped memory. As with all such memory, a disk that fails under it ends the process by a
        signal; where that must not be, use `clip`.
        """
        sample = self.sidecar.samples[index]
        if self.sidecar.codec != "raw":
            frames = self._decode(index)
            if frames.shape != out.shape:
                raise ValueError(f"{self._where(sample)}: frames of {frames.shape} do not fit {out.shape}")
            out[...] = frames
        elif len(out) != sample.length:
            raise ValueError(f"{self._where(sample)}: {sample.length} frames do not fit {out.shape}")
        else:
            start = self._pixels(sample, out.nbytes // sample.length, out.shape[1:])
            if os.fstat(self._file).st_size < self.sidecar.size:  # touching mapped memory behind the end would kill
                raise DataError(f"{self._where(sample)}: its frames are cut short; {REBUILD}")
            np.copyto(out.reshape(-1), self._mapped[start : start + out.nbytes])
        if sample.checks and frame_checks(out) != sample.checks:
            for time, frame in enumerate(out):
                self._check(sample, time, frame)

    @cached_property
    def _mapped(self) -> NDArray[np.uint8]:
        """The file as memory: copying from it is a third cheaper than reading."""
        return np.frombuffer(mmap.mmap(self._file, 0, prot=mmap.PROT_READ), np.uint8)

    def _pixels(self, sample: Sample, frame: int, shape: Sequence[int]) -> int:
        """Return where a raw clip's pixels begin, behind the NPY header, if its frames have this size and shape."""
        offset, size = sample.frames
        start = offset + size - sample.length * frame
        if not offset < start <= offset + 512:
            raise DataError(f"{self._where(sample)}: its frames are not {tuple(shape)}; {REBUILD}")
        return start

    def read_frames(self, index: int, times: Sequence[int], out: NDArray[np.uint8]) -> None:
        """Read some frames of a clip into `out`, (len(times), H, W, C) uint8 in C order."""
        sample = self.sidecar.samples[index]
        if wrong := [time for time in times if not 0 <= time < sample.length]:
            raise IndexError(f"{self._where(sample)}: frame {wrong[0]} is not one of its {sample.length}")
        if self.sidecar.codec != "raw":
            frames = self._decode(index)
            if frames.shape[1:] != out.shape[1:]:
                raise DataError(f"{self._where(sample)}: frames of {frames.shape[1:]}, not {out.shape[1:]}; {REBUILD}")
            for place, time in zip(out, times, strict=True):
                place[...] = frames[time]
                self._check(sample, time, place)
            return
        frame = out[0].nbytes
        start = self._pixels(sample, frame, out.shape[1:])
        for place, time in zip(out, times, strict=True):
            if os.preadv(self._file, [place], start + time * frame) != frame:
                raise DataError(f"{self._where(sample)}: frame {time} is cut short; {REBUILD}")
            self._check(sample, time, place)

    def _check(self, sample: Sample, time: int, frame: NDArray[np.uint8]) -> None:
        if sample.checks and check_of(frame) != int(sample.checks[8 * time : 8 * time + 8], 16):
            raise DataError(f"{self._where(sample)}: frame {time} is damaged (CRC-32 differs); {REBUILD}")

    def shape(self, index: int) -> tuple[int, int, int, int]:
        """Return the (T, H, W, C) that a clip's own header states."""
        sample = self.sidecar.samples[index]
        offset, size = sample.frames
        head = os.pread(self._file, min(size, HEAD), offset)
        return stated_shape(head, size, self.sidecar.codec, self._where(sample))


def read_or_index(path: Path) -> Sidecar:
    """Return a shard's sidecar; where it has none, what one would say."""
    return read_sidecar(path) if sidecar_path(path).exists() else index_foreign(path)


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
            raise DataError(f"{text}: no such folder; give a data set's folder, a pattern of .tar files, or a URL")
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
