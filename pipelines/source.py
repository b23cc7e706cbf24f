"""Open shards for reading: a folder, a brace pattern or a URL becomes a `Collection` of clips with random access.

Only the bytes of the frames asked for are touched (raw codec), and every frame that is read is checked against its CRC-32.
Axes: T time, H height, W width, C channels; frames are uint8 (T, H, W, C).
"""

import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import braceexpand
import numpy as np
from numpy.typing import NDArray

from drnet.datasets.contract import DataError, Label
from drnet.pipelines.cache import fetch, is_url
from drnet.pipelines.codec import EXTENSIONS, REBUILD, check_of, decode, parse_npy_header
from drnet.pipelines.files import sha256_file
from drnet.pipelines.manifest import MANIFEST, Manifest, order_key, read_manifest
from drnet.pipelines.shard import BLOCK, KEY, Sample, Sidecar, read_sidecar, sidecar_path

LABELS_LIMIT = 1 << 24  # bytes of the largest member with labels
OPEN_SHARDS = 256  # kept open at once


class Shard:
    """One local shard, open for positioned reads."""

    def __init__(self, path: Path, sidecar: Sidecar | None = None) -> None:
        self.path = path
        self.sidecar = sidecar or (read_sidecar(path) if sidecar_path(path).exists() else index_foreign(path))
        try:
            self._file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise DataError(f"{path}: the shard is missing; run the build command again") from None
        size = os.fstat(self._file).st_size
        if size != self.sidecar.size:
            os.close(self._file)
            raise DataError(f"{path}: {size} bytes, where its sidecar says {self.sidecar.size}; {REBUILD}")

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def __len__(self) -> int:
        return len(self.sidecar.samples)

    def _where(self, sample: Sample) -> str:
        return f"{self.path}: clip {sample.key}"

    def labels(self, index: int) -> dict[str, Any]:
        """Return a clip's labels."""
        sample = self.sidecar.samples[index]
        offset, size = sample.labels
        if size > LABELS_LIMIT:
            raise DataError(f"{self._where(sample)}: labels of {size} bytes are not allowed; at most {LABELS_LIMIT}")
        if not size:
            return {}
        try:
            labels = json.loads(os.pread(self._file, size, offset))
        except (ValueError, RecursionError):
            raise DataError(f"{self._where(sample)}: damaged labels; {REBUILD}") from None
        if not isinstance(labels, dict):
            raise DataError(f"{self._where(sample)}: labels must be a JSON object; {REBUILD}")
        return labels

    def clip(self, index: int) -> NDArray[np.uint8]:
        """Return all frames of a clip, (T, H, W, C) uint8, checked."""
        sample = self.sidecar.samples[index]
        offset, size = sample.frames
        frames = decode(os.pread(self._file, size, offset), self.sidecar.codec, self._where(sample))
        if len(frames) != sample.length:
            raise DataError(f"{self._where(sample)}: {len(frames)} frames, where {sample.length} are listed; {REBUILD}")
        if self.sidecar.codec == "raw":
            for time in range(len(frames)):
                self._check(sample, time, frames[time])
        return frames

    def read_frames(self, index: int, times: Sequence[int], out: NDArray[np.uint8]) -> None:
        """Read some frames of a clip into `out`, (len(times), H, W, C) uint8 in C order."""
        if self.sidecar.codec != "raw":
            np.take(self.clip(index), times, axis=0, out=out)
            return
        sample = self.sidecar.samples[index]
        offset, size = sample.frames
        frame = out[0].nbytes
        start = offset + size - sample.length * frame  # behind the NPY header
        if not offset < start <= offset + 512:
            raise DataError(f"{self._where(sample)}: its frames are not {out.shape[1:]}; {REBUILD}")
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
        if self.sidecar.codec != "raw":
            return self.clip(index).shape  # type: ignore[return-value]
        return parse_npy_header(os.pread(self._file, 512, sample.frames[0]), self._where(sample))[0]


def index_foreign(path: Path) -> Sidecar:
    """Index a WebDataset shard that has no sidecar: samples with `.npy` or `.npy.zst` frames and, if any, `.json` labels.

    Raises:
        DataError: where the archive is damaged, or a sample has no frames.
    """
    members: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if not member.isfile() or member.name.startswith("/") or ".." in Path(member.name).parts:
                    raise DataError(f"{path}: member {member.name!r} is not allowed; only plain files are")
                key, _, extension = Path(member.name).name.partition(".")
                members.setdefault(key, {})[extension] = (member.offset_data, member.size)
            end = archive.offset
    except FileNotFoundError:
        raise DataError(f"{path}: the shard is missing") from None
    except tarfile.TarError as error:
        raise DataError(f"{path}: not a readable tar ({error})") from None
    with path.open("rb") as file:
        file.seek(max(0, end - BLOCK))
        if file.read(1 << 20).strip(b"\0"):
            raise DataError(f"{path}: damaged behind byte {end - BLOCK}: the rest of the archive cannot be read")
    return _foreign_sidecar(path, members)


def _foreign_sidecar(path: Path, members: Mapping[str, Mapping[str, tuple[int, int]]]) -> Sidecar:
    samples = []
    codecs = [name for name, ext in EXTENSIONS.items() if all(ext in parts for parts in members.values())]
    if not members or not codecs:
        raise DataError(f"{path}: each sample needs frames as .npy or .npy.zst (uint8 T, H, W, C); not all have them")
    with path.open("rb") as file:
        for key, parts in members.items():
            if not KEY.fullmatch(key):
                raise DataError(f"{path}: key {key!r} is not allowed; keys match {KEY.pattern}")
            offset, size = parts[EXTENSIONS[codecs[0]]]
            file.seek(offset)
            if codecs[0] == "raw":
                length = parse_npy_header(file.read(512), f"{path}: clip {key}")[0][0]
            else:
                length = len(decode(file.read(size), codecs[0], f"{path}: clip {key}"))
            samples.append(Sample(key, key, length, (offset, size), parts.get("json", (0, 0)), ""))
    digest, size = sha256_file(path), path.stat().st_size
    return Sidecar("", path.name, "train", codecs[0], digest, size, "", tuple(samples))


@dataclass(frozen=True)
class ShardPlace:
    """Where a shard is, and what is known of it before it is opened."""

    name: str
    location: str  # path or URL
    split: str
    sha256: str
    clips: int


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
        self._open = lru_cache(maxsize=OPEN_SHARDS)(self._open_shard)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def _open_shard(self, number: int) -> Shard:
        place = self.places[number]
        if not is_url(place.location):
            shard = Shard(Path(place.location))
        else:
            shard = open_remote(place.location, place.sha256)
        if shard.sidecar.sha256 != place.sha256 or len(shard) != place.clips:
            raise DataError(f"{place.location}: not the shard that the manifest lists; {REBUILD}")
        return shard

    def locate(self, clip: int) -> tuple[Shard, int]:
        """Return a clip's shard and its number there."""
        shard = int(np.searchsorted(self.starts, clip, side="right")) - 1
        return self._open(shard), int(clip - self.starts[shard])

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
        return self.places[int(np.searchsorted(self.starts, clip, side="right")) - 1].split

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


def open_remote(url: str, sha256: str | None) -> Shard:
    """Open a shard behind a URL: its sidecar, where there is one, and its tar through the cache."""
    path = fetch(url, sha256)
    sidecar = sidecar_path(path)
    if not sidecar.exists():
        try:
            fetched = fetch(url.removesuffix(".tar") + ".json")
            sidecar.write_bytes(fetched.read_bytes())
        except DataError:
            return Shard(path, index_foreign(path))
    return Shard(path)


def open_shards(spec: str | Path, splits: Sequence[str] = ("train",)) -> Collection:
    """Open the shards that `--shards` names.

    Args:
        spec: a data set's folder (or its URL), a brace pattern of tars (`DIR/train-{000000..000009}.tar`), or one tar.
        splits: which splits of a folder; a pattern or a tar is taken as it is named.

    Raises:
        DataError: where shards are missing or not what the manifest lists.
    """
    text = str(spec)
    if text.endswith(".tar"):
        return _open_pattern(text)
    if is_url(text):
        fetch_manifest = fetch(f"{text.rstrip('/')}/{MANIFEST}")
        manifest = read_manifest(fetch_manifest.parent)
        base = text.rstrip("/")
    else:
        folder = Path(text)
        if not folder.is_dir():
            raise DataError(f"{text}: no such folder; give a data set's folder, a pattern of .tar files, or a URL")
        if not (folder / MANIFEST).exists() and any(folder.glob("*.tar")) and not any(folder.glob("*-*.json")):
            return _open_list([str(path) for path in sorted(folder.glob("*.tar"))], None)
        manifest, base = read_manifest(folder), str(folder)
    places = [
        ShardPlace(row.name, f"{base}/{row.name}", split, row.sha256, row.clips)
        for split in splits
        for row in manifest.splits.get(split, ())
    ]
    if not is_url(base):
        _check_present([Path(place.location) for place in places])
    collection = Collection(places, manifest)
    if not len(collection):
        raise DataError(f"{text}: no clips in split {' and '.join(splits)}; build the data set with some")
    return collection


def _check_present(paths: Sequence[Path]) -> None:
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise DataError(f"{paths[0].parent}: missing {', '.join(missing[:3])}{more}; run the build command again")


def _open_pattern(pattern: str) -> Collection:
    try:
        names = list(braceexpand.braceexpand(pattern))
    except braceexpand.UnbalancedBracesError:
        raise DataError(f"{pattern}: unbalanced braces; write for example train-{{000000..000009}}.tar") from None
    manifest = None
    if not is_url(pattern):
        _check_present([Path(name) for name in names])
        folder = Path(names[0]).parent
        manifest = read_manifest(folder) if (folder / MANIFEST).exists() else None
    return _open_list(names, manifest)


def _open_list(names: Sequence[str], manifest: Manifest | None) -> Collection:
    """Open shards named one by one; without a manifest each is read or indexed now."""
    rows = {row.name: (split, row) for split, part in manifest.splits.items() for row in part} if manifest else {}
    places = []
    for name in names:
        base = name.rsplit("/", 1)[-1]
        if base in rows:
            split, row = rows[base]
            places.append(ShardPlace(base, name, split, row.sha256, row.clips))
            continue
        sidecar = (open_remote(name, None) if is_url(name) else Shard(Path(name))).sidecar
        places.append(ShardPlace(base, name, sidecar.split, sidecar.sha256, len(sidecar.samples)))
    return Collection(places, manifest)
