"""Read all frames of a collection into a device's memory, in the order of the files and checked as always.

Axes: N frames of all clips one after another, H height, W width, C channels.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from threading import Event

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drnet.datasets.contract import DataError
from drnet.pipelines.loader import PlannedFrames, unreadable
from drnet.pipelines.plan import Plan
from drnet.pipelines.progress import Progress
from drnet.pipelines.remote.cache import remote_sidecar
from drnet.pipelines.remote.prefetch import fetched_ahead
from drnet.pipelines.remote.urls import is_url, shown
from drnet.pipelines.shards.codec import REBUILD
from drnet.pipelines.shards.reading import Shard
from drnet.pipelines.shards.shard import read_sidecar
from drnet.pipelines.source import Collection, ShardPlace

STAGED = 1 << 25  # bytes that travel to a GPU at once, from each of two pinned buffers
WHOLE = -1  # stands for all times of a clip


@dataclass(frozen=True)
class Resident:
    """All clips of a collection in memory.

    Attributes:
        frames: (N, H, W, C) uint8 on the device; those that could not be read are undefined.
        firsts: (clips,) int64, the row of each clip's first frame.
        lengths: (clips,) int64, frames of each clip; 0 where its shard could not be opened.
        faults: by clip, and by time (or `WHOLE`), why a frame could not be read.
        doubtful: (clips,) bool, where a frame or the content key could not be read.
    """

    frames: Tensor
    firsts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    faults: dict[int, dict[int, str]]
    doubtful: NDArray[np.bool_]


def frame_counts(collection: Collection) -> list[int]:
    """Return how many frames each shard of a collection holds, without opening it where that is known."""
    if collection.manifest is None:
        return [_frames_in(place) for place in collection.places]
    rows = {row.name: row.frames for part in collection.manifest.splits.values() for row in part}
    return [rows[place.name] for place in collection.places]


def _frames_in(place: ShardPlace) -> int:
    if place.sidecar is not None:
        return place.sidecar.frames
    return (remote_sidecar(place.location) if is_url(place.location) else read_sidecar(Path(place.location))).frames


def load(
    planned: PlannedFrames, frames: Tensor, counts: Sequence[int], progress: Progress, stop: Event | None = None
) -> Resident | None:
    """Read all clips of a collection.

    No part of them stays in this process's memory: it holds the parts that are on their way, of `STAGED` bytes or of one
    clip where that is longer.

    Args:
        planned: whose clips are read; where it is tolerant, what cannot be read is noted, else it ends the loading.
        frames: (N, H, W, C) uint8 on the device, to be filled.
        counts: frames of each shard, see `frame_counts`.
        progress: told of each part that was read.
        stop: ends the loading when set.

    Returns:
        The frames and where they are; None where loading was stopped.

    Raises:
        DataError, OSError: for what cannot be read, where `planned` is not tolerant.
    """
    loading = _Loading(planned, frames)
    progress.start("frames into memory", len(frames), "frames")
    try:
        with fetched_ahead(planned.collection, _InOrder(planned.plan)) as reach:
            for number, first in enumerate(accumulate(counts[:-1], initial=0)):
                reach(int(planned.collection.starts[number]) // _InOrder.BATCH)
                for done in loading.shard(number, first, counts[number]):
                    progress.advance(done)
                    if stop is not None and stop.is_set():
                        return None
    finally:
        progress.stop()
    if frames.is_cuda:
        torch.cuda.synchronize(frames.device)  # before the buffers are gone
    return Resident(frames, loading.firsts, loading.lengths, loading.faults, loading.doubtful)


class _InOrder(Plan):
    """The order of the files, for what fetches remote shards ahead."""

    BATCH = 2

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan.order_key, 0, plan.counts.tolist(), self.BATCH)

    def order(self, first: int, count: int) -> NDArray[np.int64]:
        return np.arange(first, min(first + count, self.clips))


class _Loading:
    """What was read so far; the attributes are those of `Resident`."""

    def __init__(self, planned: PlannedFrames, frames: Tensor) -> None:
        self.planned, self.staging = planned, Staging(frames)
        clips = len(planned.collection)
        self.firsts, self.lengths = np.zeros(clips, np.int64), np.zeros(clips, np.int64)
        self.faults: dict[int, dict[int, str]] = {}
        self.doubtful = np.zeros(clips, np.bool_)

    def shard(self, number: int, first: int, expected: int) -> Iterator[int]:
        """Read a shard to the rows from `first` on; yields how many of its frames are done, part by part."""
        collection = self.planned.collection
        clips = range(int(collection.starts[number]), int(collection.starts[number + 1]))
        if not clips:
            return
        try:
            shard = collection.locate(clips[0])[0]
            if shard.sidecar.frames != expected:  # they would not fit their rows
                where = shown(collection.places[number].location)
                raise DataError(f"{where}: not the {expected} frames that the manifest lists; {REBUILD}")
        except (DataError, OSError) as error:
            why = self._noted(error)
            self.faults |= {clip: {WHOLE: why} for clip in clips}
            self.doubtful[clips.start : clips.stop] = True
            yield expected
            return
        lengths = np.array([sample.length for sample in shard.sidecar.samples], np.int64)
        self.lengths[clips.start : clips.stop] = lengths
        self.firsts[clips.start : clips.stop] = first + np.cumsum(lengths) - lengths
        for part in parts(lengths.tolist(), self.staging.most):
            yield self._part(clips.start, shard, part)

    def _part(self, start: int, shard: Shard, part: range) -> int:
        """Read some clips of a shard whose first clip is `start`; returns how many frames they have."""
        rows = self.firsts[start + part.start : start + part.stop] - self.firsts[start + part.start]
        size = int(self.lengths[start + part.start : start + part.stop].sum())
        with self.staging.rows(int(self.firsts[start + part.start]), size) as places:
            for index, row in zip(part, rows.tolist(), strict=True):
                self._clip(start + index, shard, index, places[row : row + int(self.lengths[start + index])])
        return size

    def _clip(self, clip: int, shard: Shard, index: int, places: NDArray[np.uint8]) -> None:
        """Read a clip and its content key; of one that is damaged, what can be read."""
        try:
            shard.read_frames(index, range(len(places)), places)
        except (DataError, OSError) as error:
            self._noted(error)
            self._single_frames(clip, shard, index, places)
        try:
            self.planned.keys_of(np.array([clip]))  # known from now on
        except (DataError, OSError) as error:
            self._noted(error)  # it comes again where the clip is drawn
            self.doubtful[clip] = True

    def _single_frames(self, clip: int, shard: Shard, index: int, places: NDArray[np.uint8]) -> None:
        for time in range(len(places)):
            try:
                shard.read_frames(index, [time], places[time : time + 1])
            except (DataError, OSError) as error:
                self.faults.setdefault(clip, {})[time] = self._noted(error)
                self.doubtful[clip] = True

    def _noted(self, error: DataError | OSError) -> str:
        """Return why something cannot be read; raises the error where that is not tolerated."""
        if not self.planned.tolerant:
            raise error
        return unreadable(error)


def parts(lengths: Sequence[int], most: int) -> Iterator[range]:
    """Yield the numbers of clips in turn, as many together as have at most so many frames; a longer clip comes alone."""
    start, size = 0, 0
    for index, length in enumerate(lengths):
        if index > start and size + length > most:
            yield range(start, index)
            start, size = index, 0
        size += length
    if start < len(lengths):
        yield range(start, len(lengths))


class Staging:
    """Where frames are read to: on the CPU to their place, for a GPU to one of two pinned buffers.

    While one buffer travels, the other is filled.

    Attributes:
        most: frames at once; a clip of more makes the buffers grow.
    """

    def __init__(self, frames: Tensor) -> None:
        self.frames, self.direct = frames, not frames.is_cuda
        self.most = max(1, STAGED // math.prod(frames.shape[1:]))
        self._buffers: list[Tensor | None] = [None, None]
        self._arrived = [] if self.direct else [torch.cuda.Event(), torch.cuda.Event()]
        self._turn = 0

    @contextlib.contextmanager
    def rows(self, first: int, length: int) -> Iterator[NDArray[np.uint8]]:
        """Give a place for some rows of the frames, and bring what is written there to the device."""
        target = self.frames[first : first + length]
        if self.direct:
            yield target.numpy()
            return
        self._turn = 1 - self._turn
        arrived = self._arrived[self._turn]
        arrived.synchronize()  # until what was in this buffer is on the device
        buffer = self._buffer(length)[:length]
        yield buffer.numpy()
        target.copy_(buffer, non_blocking=True)
        arrived.record(torch.cuda.current_stream(self.frames.device))

    def _buffer(self, length: int) -> Tensor:
        buffer = self._buffers[self._turn]
        if buffer is None or len(buffer) < length:
            size = max(length, min(self.most, len(self.frames)))
            self._buffers[self._turn] = buffer = pinned((size, *self.frames.shape[1:]))
        return buffer


def pinned(shape: tuple[int, ...]) -> Tensor:
    """Return uint8 memory from which a GPU fetches by itself."""
    return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
