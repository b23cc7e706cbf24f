"""A shard: a plain tar of clips, and the sidecar that says where each lies and what its bytes must be.

One sample is `<key>.<npy|npy.zst>` (the frames) and `<key>.json` (labels). The tar is ustar with integer modification
time 0, fixed owner and mode, so a shard's bytes depend on its clips alone.
"""

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from dataclasses import field as default
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from drnet.datasets.contract import Clip, DataError, Label
from drnet.pipelines.fields import HASH, count, field, harmless, items, objects, short, text
from drnet.pipelines.files import canonical_json, read_json, sha256_of, sync, sync_folder, whole_file, write_whole
from drnet.pipelines.shards.codec import CLIP_LIMIT, EXTENSIONS, REBUILD, Codec, check_of, encode, frame_checks
from drnet.pipelines.shards.tar import BLOCK

FORMAT = 1
NUMBERS = frozenset({int, float})  # not bool, which JSON would read back as another type
INTEGERS = 1 << 63  # whole numbers lie below, and at or above its negative: exports hold 64 bits
KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")
NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}\.tar")
LABELS_LIMIT = 1 << 22  # bytes of the largest member with labels
_CHECKS = re.compile(r"[0-9a-f]+")


@lru_cache(maxsize=4)
def _tar_template(mode: int = 0o644) -> tuple[bytes, int]:
    """A ustar header of a regular file with empty name and size, and the sum of its bytes with a blank checksum."""
    header = bytearray(BLOCK)
    header[100:108] = b"%07o\0" % mode
    header[108:116] = header[116:124] = b"0000000\0"
    header[136:148] = b"00000000000\0"  # modification time 0
    header[148:156] = b" " * 8
    header[156:157] = b"0"
    header[257:265] = b"ustar\x0000"
    return bytes(header), sum(header)


def tar_header(name: str, size: int) -> bytes:
    """Return the 512-byte ustar header of a regular member."""
    template, total = _tar_template()
    title, length = name.encode("ascii"), b"%011o\0" % size
    if len(title) > 99 or size >= 8**11:
        raise ValueError(f"member {name!r} of {size} bytes does not fit a ustar header")
    checksum = b"%06o\0 " % (total + sum(title) + sum(length))
    return b"".join((title, template[len(title) : 124], length, template[136:148], checksum, template[156:]))


@dataclass(frozen=True)
class Sample:
    """A clip's place in its shard.

    Attributes:
        key: the sample's key.
        item: the source item it was made from.
        length: frames.
        frames: offset and size in bytes of the member with the frames.
        labels: offset and size of the member with the labels.
        checks: CRC-32 of each frame, eight hexadecimal digits each (empty where unknown).
        labels_check: CRC-32 of the labels' bytes, in the same form (empty where unknown).
    """

    key: str
    item: str
    length: int
    frames: tuple[int, int]
    labels: tuple[int, int]
    checks: str
    labels_check: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the sidecar's row."""
        return {
            "key": self.key,
            "item": self.item,
            "length": self.length,
            "frames": list(self.frames),
            "labels": list(self.labels),
            "crc": self.checks,
            "labels_crc": self.labels_check,
        }


@dataclass(frozen=True)
class Fate:
    """How a source item ended: `written` (clips), or `filtered`, `failed`, `missing` or `duplicate` (why).

    `left_out` counts, for each reason, clips of the item that were left out on purpose while others were written.
    """

    split: str
    item: str
    fate: str
    clips: int = 0
    why: str = ""
    left_out: Mapping[str, int] = default(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the line of `accounting.jsonl`."""
        row: dict[str, Any] = {"split": self.split, "item": self.item, "fate": self.fate, "clips": self.clips}
        return row | ({"why": self.why} if self.why else {}) | ({"left_out": self.left_out} if self.left_out else {})

    @classmethod
    def from_json(cls, row: Any) -> "Fate":
        """Read a line of `accounting.jsonl`. Raises ValueError where it makes no sense."""
        split, item, fate, clips = text(row, "split"), text(row, "item"), text(row, "fate"), count(row, "clips")
        left_out = harmless(objects(row, "left_out"), "left_out") if "left_out" in row else {}
        left_out = {why: count(left_out, why) for why in left_out}
        return cls(split, item, fate, clips, text(row, "why") if "why" in row else "", left_out)


@dataclass(frozen=True)
class Sidecar:
    """What is known of a shard; written with it."""

    build: str
    name: str
    split: str
    codec: str
    sha256: str
    size: int
    pixels: str  # SHA-256 over the frames' checks: equal for equal pixels, whatever the codec
    samples: tuple[Sample, ...]
    fates: tuple[Fate, ...] = ()

    @property
    def frames(self) -> int:
        """Frames in the shard."""
        return sum(sample.length for sample in self.samples)

    def to_json(self) -> dict[str, Any]:
        """Return the sidecar file's content, its own checksum included."""
        body = {
            "format": FORMAT,
            "build": self.build,
            "shard": self.name,
            "split": self.split,
            "codec": self.codec,
            "tar": {"sha256": self.sha256, "bytes": self.size},
            "clips": len(self.samples),
            "frames": self.frames,
            "pixels": self.pixels,
            "samples": [sample.to_json() for sample in self.samples],
            "left_out": [fate.to_json() for fate in self.fates if fate.fate != "written" or fate.left_out],
        }
        return body | {"checksum": sha256_of(canonical_json(body))}

    def to_bytes(self) -> bytes:
        """Return the file as it is written."""
        return canonical_json(self.to_json()) + b"\n"


def check_labels(clip: Clip, labels: Mapping[str, Label]) -> None:
    """Raise ValueError where a clip's labels are not what its data set's `labels` declare: a builder's mistake."""
    for name, label in labels.items():
        if name not in clip.labels:
            raise ValueError(f"{clip.key}: label {name!r} is missing")
        value = clip.labels[name]
        most = INTEGERS if label.kind == "number" else len(label.names)
        if type(value) is int and not label.varying and 0 <= value < most:
            continue  # most labels are such, and this runs for every clip
        if label.varying and (not isinstance(value, list) or len(value) != len(clip.frames)):
            raise ValueError(f"{clip.key}: label {name!r} must be a list of {len(clip.frames)} values")
        values = value if label.varying else (value,)
        types = set(map(type, values))
        if not types <= NUMBERS:
            raise ValueError(f"{clip.key}: label {name!r} must be a number, not {(types - NUMBERS).pop().__name__}")
        if int in types and not -INTEGERS <= min(values) <= max(values) < INTEGERS:
            raise ValueError(f"{clip.key}: label {name!r} must fit 64 bits")
        if float in types and not all(map(math.isfinite, values)):
            raise ValueError(f"{clip.key}: label {name!r} must be finite")
        if label.kind == "category" and not set(values).issubset(range(len(label.names))):
            raise ValueError(
                f"{clip.key}: label {name!r} is {short(value)}; it must index its {len(label.names)} names"
            )


class ShardWriter:
    """Appends clips to an open file in shard format, and knows its sidecar at the end."""

    def __init__(self, file: BinaryIO, codec: Codec, labels: Mapping[str, Label]) -> None:
        self._file, self._codec, self._labels = file, codec, labels
        self._digest, self._offset, self._last = hashlib.sha256(), 0, ""
        self.samples: list[Sample] = []

    def _write(self, *parts: bytes) -> None:
        for data in parts:  # joining them first would copy every clip once more
            self._file.write(data)
            self._digest.update(data)
            self._offset += len(data)

    def _member(self, name: str, data: bytes) -> tuple[int, int]:
        offset = self._offset + BLOCK
        self._write(tar_header(name, len(data)), data, bytes(-len(data) % BLOCK))
        return offset, len(data)

    def append(self, clip: Clip, item: str) -> None:
        """Write one clip. Raises ValueError for a key or labels that break the format: a builder's mistake."""
        if not KEY.fullmatch(clip.key) or clip.key <= self._last:
            raise ValueError(f"key {clip.key!r} is not allowed after {self._last!r}; keys match {KEY.pattern} and sort")
        check_labels(clip, self._labels)
        self._last = clip.key
        frames = self._member(f"{clip.key}.{EXTENSIONS[self._codec]}", encode(clip.frames, self._codec))
        written = orjson.dumps(clip.labels)
        if len(written) > LABELS_LIMIT:
            raise ValueError(f"{clip.key}: labels of {len(written)} bytes are not allowed; at most {LABELS_LIMIT} are")
        labels = self._member(f"{clip.key}.json", written)
        checks, labels_check = frame_checks(clip.frames), f"{check_of(written):08x}"
        self.samples.append(Sample(clip.key, item, len(clip.frames), frames, labels, checks, labels_check))

    def finish(self, build: str, name: str, split: str, fates: Iterable[Fate]) -> Sidecar:
        """End the archive and return its sidecar."""
        self._write(bytes(2 * BLOCK))
        pixels = pixel_hash(sample.checks for sample in self.samples)
        digest = self._digest.hexdigest()
        samples = tuple(self.samples)
        return Sidecar(build, name, split, self._codec, digest, self._offset, pixels, samples, tuple(fates))


def pixel_hash(checks: Iterable[str]) -> str:
    """Return the SHA-256 over the clips' frame checks, one line a clip."""
    return hashlib.sha256("".join(f"{check}\n" for check in checks).encode()).hexdigest()


def sidecar_path(tar: Path) -> Path:
    """Return the path of a shard's sidecar."""
    return tar.with_suffix(".json")


def whole_shard(tar: Path, write: Callable[[BinaryIO], Sidecar]) -> Sidecar:
    """Write a shard so that its final name appears last: temporary tar, fsync, sidecar, rename.

    Args:
        tar: final path.
        write: called with the open temporary file; returns the sidecar.
    """
    with whole_file(tar) as file:
        sidecar = write(file)
        sync(file)  # a full disk shows here at the latest, before the sidecar has its name
        write_whole(sidecar_path(tar), sidecar.to_bytes())
    sync_folder(tar.parent)
    return sidecar


def _sample(row: Any, number: int, limit: int) -> Sample:
    """Read a sidecar's row; raises ValueError, with the clip's key or number, where it makes no sense."""
    key = row.get("key") if isinstance(row, dict) else None
    where = f"clip {key}" if isinstance(key, str) and KEY.fullmatch(key) else f"clip number {number}"
    try:
        length = count(row, "length", 1, CLIP_LIMIT)
        frames, labels = _place(row, "frames", CLIP_LIMIT + BLOCK, limit), _place(row, "labels", LABELS_LIMIT, limit)
        checks, check = text(row, "crc", _CHECKS), text(row, "labels_crc", _CHECKS)
        if len(checks) != 8 * length or len(check) != 8:
            raise ValueError(f"{length} frames and labels with {len(checks)} and {len(check)} digits of checks")
        return Sample(text(row, "key", KEY), text(row, "item"), length, frames, labels, checks, check)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _place(row: Any, name: str, most: int, limit: int) -> tuple[int, int]:
    """Read a member's offset and size, of at most `most` bytes, in a tar of `limit` bytes."""
    match field(row, name):
        case [int(offset), int(size)] if 0 < offset < limit and 0 <= size <= min(most, limit - offset):
            return offset, size
    raise ValueError(f"{name} lie at no place in a tar of {limit} bytes")


def read_sidecar(tar: Path) -> Sidecar:
    """Read and check the sidecar of a shard.

    Raises:
        DataError: where it is missing or damaged.
        OtherFormat: where it is of another format version.
    """
    path = sidecar_path(tar)
    row = read_json(path, "the shard's sidecar", REBUILD)
    try:
        check_format(field(row, "format"), path)
        if row.pop("checksum", "") != sha256_of(canonical_json(row)):
            raise ValueError("its own checksum does not match")
        return _sidecar(tar, row)
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: the sidecar is damaged ({error}); {REBUILD}") from None


def _sidecar(tar: Path, row: Mapping[str, Any]) -> Sidecar:
    if (name := field(row, "shard")) != tar.name:
        raise ValueError(f"it is the sidecar of {short(name)}")
    size, digest = count(field(row, "tar"), "bytes"), text(row["tar"], "sha256", HASH)
    if (codec := text(row, "codec")) not in EXTENSIONS:
        raise ValueError(f"codec {short(codec)} is not known")
    samples = tuple(_sample(sample, number, size) for number, sample in enumerate(items(row, "samples")))
    fates = tuple(Fate.from_json(fate) for fate in items(row, "left_out"))
    build, split, pixels = text(row, "build", HASH), text(row, "split"), text(row, "pixels", HASH)
    return Sidecar(build, tar.name, split, codec, digest, size, pixels, samples, fates)


class OtherFormat(DataError):  # noqa: N818 - says what the file is
    """A file is of a format version that this version does not read."""


def check_format(found: Any, path: Path) -> None:
    """Raise OtherFormat where a file's format version is not one this version reads."""
    if found != FORMAT:
        raise OtherFormat(f"{path}: format {short(found)} is not known; this version of drnet reads format {FORMAT}")
