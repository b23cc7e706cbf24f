"""Index WebDataset shards that have no sidecar: anybody's tars with `.npy` or `.npy.zst` frames and `.json` labels."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from drnet.datasets.contract import DataError
from drnet.pipelines.files import regular_size
from drnet.pipelines.shards.codec import EXTENSIONS, HEAD, stated_shape
from drnet.pipelines.shards.shard import KEY, LABELS_LIMIT, Sample, Sidecar
from drnet.pipelines.shards.tar import plain_members

Members = Mapping[str, Mapping[str, tuple[int, int]]]  # key -> extension -> offset and size
PICKLES = frozenset({"pickle", "pkl", "pyd", "pth", "pt", "joblib", "dill"})  # opening one can run any code
EXTENSION_LIMIT = 64  # letters


def index_foreign(path: Path) -> Sidecar:
    """Return what a sidecar would say, without checks of the frames: there is nothing to compare them with.

    Raises:
        DataError: where the archive is damaged, holds what is not allowed, or a sample has no frames.
    """
    try:
        regular_size(path)
        with path.open("rb") as file:
            members = _members(path, file)
            samples = tuple(_samples(path, file, members))
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return Sidecar("", path.name, "train", _codec(path, members), digest, file.tell(), "", samples, ())
    except FileNotFoundError:
        raise DataError(f"{path}: the shard is missing") from None


def _members(path: Path, file: BinaryIO) -> Members:
    members: dict[str, dict[str, tuple[int, int]]] = {}
    for member in plain_members(path, file):
        key, _, extension = member.name.rpartition("/")[2].partition(".")
        if not KEY.fullmatch(key):
            raise DataError(f"{path}: key {key!r} is not allowed; keys match {KEY.pattern}")
        if extension.lower().rpartition(".")[2] in PICKLES:
            raise DataError(f"{path}: member {member.name!r} is a pickle, which is not allowed; leave it out")
        if len(extension) > EXTENSION_LIMIT:
            raise DataError(f"{path}: member {member.name!r} is not allowed: its extension is too long")
        if extension == "json" and member.size > LABELS_LIMIT:
            raise DataError(f"{path}: clip {key}: labels of {member.size} bytes; at most {LABELS_LIMIT} are allowed")
        if extension in members.setdefault(key, {}):
            raise DataError(f"{path}: member {member.name!r} is there twice; keys must be unique")
        members[key][extension] = (member.offset, member.size)
    return members


def _codec(path: Path, members: Members) -> str:
    codecs = [name for name, extension in EXTENSIONS.items() if all(extension in parts for parts in members.values())]
    if members and codecs:
        return codecs[0]
    lacking = next((key for key, parts in members.items() if not parts.keys() & set(EXTENSIONS.values())), "")
    place = f"; clip {lacking} has none" if lacking else "" if members else "; the archive is empty"
    raise DataError(f"{path}: each sample needs frames, all as .npy or all as .npy.zst (uint8 T, H, W, C){place}")


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
