"""Index WebDataset shards that have no sidecar: anybody's tars with `.npy` or `.npy.zst` frames and `.json` labels.

Python's own `tarfile` ends silently at a damaged header and at a cut between members. Here an archive counts as whole
only where nothing but zeros, and at least one block of them, follows its last member.
"""

import hashlib
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from drnet.datasets.contract import DataError
from drnet.pipelines.codec import EXTENSIONS, HEAD, stated_shape
from drnet.pipelines.shard import BLOCK, KEY, Sample, Sidecar

Members = Mapping[str, Mapping[str, tuple[int, int]]]  # key -> extension -> offset and size


def index_foreign(path: Path) -> Sidecar:
    """Return what a sidecar would say, without checks of the frames: there is nothing to compare them with.

    Raises:
        DataError: where the archive is damaged, holds what is not allowed, or a sample has no frames.
    """
    try:
        with path.open("rb") as file:
            members = _members(path, file)
            samples = tuple(_samples(path, file, members))
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return Sidecar("", path.name, "train", _codec(path, members), digest, file.tell(), "", samples, ())
    except FileNotFoundError:
        raise DataError(f"{path}: the shard is missing") from None
    except tarfile.TarError as error:
        raise DataError(f"{path}: not a readable tar ({error})") from None


def _members(path: Path, file: BinaryIO) -> Members:
    members: dict[str, dict[str, tuple[int, int]]] = {}
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            name = Path(member.name)
            if member.isdir():
                continue
            if not member.isreg() or member.issparse() or name.is_absolute() or ".." in name.parts:
                raise DataError(f"{path}: member {member.name!r} is not allowed; only plain files are")
            key, _, extension = name.name.partition(".")
            if not KEY.fullmatch(key):
                raise DataError(f"{path}: key {key!r} is not allowed; keys match {KEY.pattern}")
            if extension in members.setdefault(key, {}):
                raise DataError(f"{path}: member {member.name!r} is there twice; keys must be unique")
            members[key][extension] = (member.offset_data, member.size)
        _check_end(path, file, archive.offset)
    return members


def _check_end(path: Path, file: BinaryIO, end: int) -> None:
    file.seek(end)
    zeros = 0
    while block := file.read(1 << 20):
        if block.strip(b"\0"):
            raise DataError(
                f"{path}: damaged at byte {end}: what follows is not a tar member, and not the end of a tar"
            )
        zeros += len(block)
    if zeros < BLOCK:
        raise DataError(f"{path}: cut short at byte {end}: the end of the archive is missing")


def _codec(path: Path, members: Members) -> str:
    codecs = [name for name, extension in EXTENSIONS.items() if all(extension in parts for parts in members.values())]
    if not members or not codecs:
        raise DataError(f"{path}: each sample needs frames as .npy or .npy.zst (uint8 T, H, W, C); not all have them")
    return codecs[0]


def _samples(path: Path, file: BinaryIO, members: Members) -> Iterator[Sample]:
    codec = _codec(path, members)
    first: tuple[int, ...] = ()
    for key, parts in members.items():
        where = f"{path}: clip {key}"
        offset, size = parts[EXTENSIONS[codec]]
        file.seek(offset)
        length, *frame = stated_shape(file.read(min(size, HEAD)), size, codec, where)
        first = first or tuple(frame)
        if tuple(frame) != first:
            raise DataError(f"{where}: frames of {tuple(frame)}, not {first} as in the shard's first clip")
        yield Sample(key, key, length, (offset, size), parts.get("json", (0, 0)), "")
