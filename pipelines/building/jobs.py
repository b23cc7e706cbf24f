"""What a worker does: write one shard, a pure function of the recipe and the shard's number, unless it is done."""

import errno
import functools
import importlib.metadata
import platform
import re
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from drnet import __version__
from drnet.datasets.contract import (
    Clip,
    DataError,
    DataSet,
    ItemFailed,
    ItemFiltered,
    ItemMissing,
    LeftOut,
    Split,
)
from drnet.datasets.reading.source_files import sha256_file
from drnet.pipelines.files import MACHINE_ERRORS
from drnet.pipelines.shards.codec import Codec
from drnet.pipelines.shards.shard import Fate, ShardWriter, Sidecar, read_sidecar, whole_shard

TOOLS = ("numpy", "zstandard", "pybullet", "pillow", "decord")
OUTCOMES = {ItemMissing: "missing", ItemFiltered: "filtered", ItemFailed: "failed"}
READ_ERRORS = (OSError, EOFError, MemoryError, zlib.error)  # of one item of the source, whatever library reads it
TOLD = 5  # failures that are told one by one
LONGEST_REASON = 500  # characters
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # would steer a terminal
_one_at_a_time = threading.Lock()  # data sets keep what they read in caches that are one process's, not one thread's


class BuilderError(ValueError):
    """A mistake of a data set's class, with the item at which it shows: nothing the user's source can be blamed for."""


@dataclass(frozen=True)
class Job:
    """One shard to write: items [start, stop) of a split."""

    split: Split
    number: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """File name of the shard."""
        return f"{self.split}-{self.number:06d}.tar"


@dataclass(frozen=True)
class Recipe:
    """What every job of a build shares; small, for it travels with each one.

    Attributes:
        data: the data set.
        codec: how frames are stored.
        build: build id.
        tools: versions of the packages that influence the bytes.
    """

    data: DataSet
    codec: Codec
    build: str
    tools: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        written: False where the shard was there already.
        failures: how many of its items failed.
        first: the first few of those.
    """

    written: bool
    failures: int
    first: tuple[Fate, ...]


class _NotNeeded(Exception):  # noqa: N818 - an outcome: somebody else wrote the shard
    pass


def done_shard(tar: Path, build: str) -> Sidecar | None:
    """Return the sidecar of a shard that is there, belongs to this build, and has the hash its sidecar says."""
    if not tar.exists():
        return None
    try:
        sidecar = read_sidecar(tar)
    except DataError:
        return None
    whole = sidecar.build == build and tar.stat().st_size == sidecar.size and sha256_file(tar) == sidecar.sha256
    return sidecar if whole else None


def shard_is_done(tar: Path, build: str) -> bool:
    """Whether a shard is there, belongs to this build, and has the hash its sidecar says."""
    return done_shard(tar, build) is not None


def failures_of(sidecar: Sidecar) -> list[Fate]:
    """Return the items of a shard that failed."""
    return [fate for fate in sidecar.fates if fate.fate == "failed"]


def write_shard(recipe: Recipe, job: Job, folder: Path, again: bool = False) -> Outcome:
    """Write one shard unless it is done. Runs in any process, on any machine that has the folder.

    Just before the shard would get its name, it is looked for once more: a worker thought dead may have written it in
    the meantime. Of two, the one with fewer failed items stays; two of equally many are the same.

    Args:
        recipe: of the build.
        job: which shard.
        folder: of the data set.
        again: write a shard again of which items failed.

    Raises:
        DataError: where this process has other versions of the tools than the build's, or does not see the folder.
        BuilderError: for a mistake of the data set.
        OSError: where the shard cannot be written.
    """
    check_tools(recipe)
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder on {platform.node()}; --out must be on a disk that all workers share"
        )
    tar = folder / job.name
    found = done_shard(tar, recipe.build)
    if found and not (again and failures_of(found)):
        return _outcome(found, False)

    def write(file: BinaryIO) -> Sidecar:
        writer = ShardWriter(file, recipe.codec, recipe.data.labels)
        with _one_at_a_time:
            fates = [_write_item(recipe.data, writer, job.split, index) for index in range(job.start, job.stop)]
        if twice := [item for item, times in Counter(fate.item for fate in fates).items() if times > 1]:
            raise BuilderError(f"{job.split} item {twice[0]!r}: {_whose(recipe.data)}: two items of this name")
        sidecar = writer.finish(recipe.build, job.name, job.split, fates)
        there = done_shard(tar, recipe.build)
        if there and len(failures_of(there)) <= len(failures_of(sidecar)):
            raise _NotNeeded(there)
        return sidecar

    try:
        return _outcome(whole_shard(tar, write), True)
    except _NotNeeded as error:
        return _outcome(error.args[0], False)


def _outcome(sidecar: Sidecar, written: bool) -> Outcome:
    failed = failures_of(sidecar)
    return Outcome(written, len(failed), tuple(failed[:TOLD]))


def _write_item(data: DataSet, writer: ShardWriter, split: Split, index: int) -> Fate:
    item, before, left_out = data.item(split, index), len(writer.samples), Counter[str]()
    if _CONTROL.search(item):
        raise BuilderError(f"{split} item {item!r}: {_whose(data)}: a name with control characters")
    ended, why = "written", ""
    try:
        for clip in _clips(data, split, index, item):
            if isinstance(clip, LeftOut):
                left_out[reason(clip.why)] += 1
            else:
                _append(data, writer, split, clip, item)
    except tuple(OUTCOMES) as error:
        ended, why = OUTCOMES[type(error)], reason(str(error))
    clips = len(writer.samples) - before
    if ended == "written" and not clips:
        ended, why = "filtered", "no clip is left"
    return Fate(split, item, ended, clips, why, dict(sorted(left_out.items())))


def _clips(data: DataSet, split: Split, index: int, item: str) -> Iterator[Clip | LeftOut]:
    """Yield an item's clips. What cannot be read is the item's failure; any other error names the item and ends all."""
    try:
        yield from data.clips(split, index)
    except (*OUTCOMES, DataError):
        raise
    except READ_ERRORS as error:
        if isinstance(error, OSError) and error.errno in MACHINE_ERRORS:
            raise
        raise ItemFailed(f"cannot be read ({_short(error)})") from error
    except Exception as error:
        raise BuilderError(f"{split} item {item!r}: {_whose(data)}: {type(error).__name__}: {error}") from error


def _append(data: DataSet, writer: ShardWriter, split: Split, clip: Clip, item: str) -> None:
    """Write a clip; a clip that breaks the format is the data set's mistake, a disk that is full is not."""
    try:
        if clip.frames.shape[1:] != data.frame_shape():
            raise ValueError(f"{clip.key}: frames of {clip.frames.shape[1:]}, not {data.frame_shape()}")
        writer.append(clip, item)
        for name, key in (("split_key", data.about.split_key), ("content_key", data.about.content_key)):
            if key not in clip.labels:
                raise ValueError(f"{clip.key}: {name} {key!r} is none of its labels ({', '.join(clip.labels)})")
    except (ValueError, TypeError) as error:
        raise BuilderError(f"{split} item {item!r}: {_whose(data)}: {error}") from error
    except MemoryError:
        raise DataError(f"{split} item {item!r}: not enough memory to write a clip; use fewer --workers") from None


def _whose(data: DataSet) -> str:
    return f"a mistake of data set {data.about.name}"


def _short(error: BaseException) -> str:
    """Say what is wrong without a path: the reason becomes part of the data set, which knows no machine."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    if not isinstance(error, OSError) or error.errno is None:
        kind = type(error)
        return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    name = Path(str(error.filename)).name if error.filename else ""
    code = errno.errorcode.get(error.errno, str(error.errno))
    return f"{name}: {error.strerror or code}" if name else error.strerror or code


def reason(text: str) -> str:
    """Return a reason as it is recorded: of bounded length, without characters that would steer a terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)[:LONGEST_REASON]


def modules_of(data: DataSet) -> set[str]:
    """Return the modules that a process needs to carry out a data set's jobs."""
    inner = getattr(data, "data", data)  # of `Limited` and its like
    return {__name__, type(data).__module__, type(inner).__module__}


@functools.cache
def tool_versions() -> tuple[tuple[str, str], ...]:
    """Return the versions of the packages that influence the bytes of a build, as this process has them."""
    found = [("drnet", __version__)]
    for name in TOOLS:
        try:
            found.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            continue
    return tuple(found)


def check_tools(recipe: Recipe) -> None:
    """Raise DataError where this process would write other bytes: it has other versions of the tools than the build."""
    ours = tool_versions()
    if ours != recipe.tools:
        theirs = dict(recipe.tools)
        name = next(n for n in {**theirs, **dict(ours)} if theirs.get(n) != dict(ours).get(n))
        have, want = dict(ours).get(name, "none"), theirs.get(name, "none")
        raise DataError(f"the worker on {platform.node()} has {name} {have}, not {want}; install the same everywhere")
