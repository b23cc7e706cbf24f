"""Stream planned batches from shards: a `webdataset.DataPipeline` whose first stage follows the plan.

Axes: B batch, T time, H height, W width, C channels. Frames stay uint8 (..., H, W, C) until they are on the device.
"""

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
import webdataset
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from drnet.datasets.contract import DataError
from drnet.datasets.draws import Words
from drnet.pipelines.feeding.content import ContentKeys
from drnet.pipelines.files import MACHINE_ERRORS
from drnet.pipelines.plan import Plan, apart, filled, frame_fours, frame_pairs, in_parts, meets_itself, share_of
from drnet.pipelines.remote.prefetch import fetched_ahead
from drnet.pipelines.source import Collection

READ_AHEAD = 3  # batches read by the thread in advance
ENDS = 5.0  # seconds for the thread to end; one that waits for a server that is silent ends with the process

Frames = NDArray[np.uint8] | Tensor
"""Frames (..., H, W, C) uint8 in this process's memory, or as a tensor where they are kept."""

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Batch:
    """One step's input.

    Attributes:
        step: the step it belongs to.
        frames: (B, F, H, W, C) uint8, x_t and x_t+k of each clip, or the authors' code's four frames; an array where they
            were read from shards, a tensor on the device where the whole split is kept there.
        clips: (B,) int64, numbers in the collection.
        times: (B, F) int64, t and t + k, or the four times.
        keys: (B,) int64, equal where two clips show the same content; None where not asked for.
        skipped: number and reason of each clip that could not be read; the batch is smaller by them, or filled up again:
            see `PlannedFrames`.
    """

    step: int
    frames: Frames
    clips: NDArray[np.int64]
    times: NDArray[np.int64]
    keys: NDArray[np.int64] | None = None
    skipped: tuple[tuple[int, str], ...] = ()


class Kept(NamedTuple):
    """What is left of a batch of which some clips cannot be read.

    Attributes:
        clips: (B,) int64.
        times: (B, F) int64.
        places: (B,) int64, for each clip its number among those that could be read; twice where it fills a place.
        skipped: number and reason of each clip that could not.
    """

    clips: NDArray[np.int64]
    times: NDArray[np.int64]
    places: NDArray[np.int64]
    skipped: tuple[tuple[int, str], ...]


class PlannedFrames(IterableDataset[dict[str, Any]]):
    """The first stage: the frame pairs of a collection in the plan's order, as samples or as whole batches.

    Several processes that train together each read their share of every global batch, and all together the batch of one
    process in its order: the plan knows nothing of them, so their number may change at any step. In a worker of a
    DataLoader (or `webdataset.WebLoader`) it reads every n-th batch, so that a loader that collects batches of this size
    returns them in the plan's order with any number of workers.

    Args:
        collection: where frames come from.
        plan: the order.
        max_offset: K of Sec. 3, in frames.
        start: first step.
        cyclic: clips are whole turns.
        rank: number of this process among those that train together.
        world_size: how many they are; it divides the plan's batch size.
        tolerant: leave clips that cannot be read out of their batches, and name them there, instead of raising. With one
            process and one part a batch is then smaller; else others of the same share are taken twice, since all shares
            and parts must be of one size.
        drawn: what is drawn from a clip: a `pair`, or four frames of a `window` or of the whole `clip`.
        keyed: whether batches carry content keys.
        parts: that a batch is computed in, one after the other; each process has a share of each.

    Raises:
        ValueError: for a value that is not allowed.
    """

    def __init__(
        self,
        collection: Collection,
        plan: Plan,
        max_offset: int,
        start: int = 0,
        cyclic: bool = False,
        rank: int = 0,
        world_size: int = 1,
        tolerant: bool = False,
        drawn: Literal["pair", "window", "clip"] = "pair",
        keyed: bool = False,
        parts: int = 1,
    ) -> None:
        super().__init__()
        if max_offset < 0:
            raise ValueError(f"max offset {max_offset} is not allowed; it must be 0 or more")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not allowed; it must be from 0 to {world_size - 1}")
        if plan.batch_size % world_size:
            size = plan.batch_size
            raise ValueError(
                f"batch size {size} is not allowed with {world_size} processes; it must be a multiple of {world_size}"
            )
        if plan.batch_size == world_size:
            raise ValueError(
                f"batch size {world_size} is not allowed with as many processes; each needs 2 clips or more"
            )
        if plan.batch_size % (world_size * parts) or plan.batch_size < 2 * world_size * parts:
            raise ValueError(
                f"batch size {plan.batch_size} is not allowed with {world_size} processes and accumulate {parts}; "
                "it must give each process 2 clips or more of each part, and as many as the others"
            )
        self.collection, self.plan, self.start = collection, plan, start
        self.max_offset, self.cyclic, self.tolerant = max_offset, cyclic, tolerant
        self.drawn, self.keys = drawn, ContentKeys(collection) if keyed else None
        self.batch_size = plan.batch_size // world_size  # of this process
        self._rank, self.world_size, self.parts = rank, world_size, parts

    def read(self, step: int, out: NDArray[np.uint8] | None = None) -> Batch:
        """Read this process's share of one step's batch, into `out` where it is given."""
        chosen, raw = self.part(step)
        if out is None:
            out = np.empty((len(chosen), 2 if self.drawn == "pair" else 4, *self.collection.frame_shape), np.uint8)
        if self.tolerant:
            return self._read_what_can_be(step, chosen, raw, out)
        located = [self.collection.locate(clip) for clip in chosen.tolist()]
        lengths = [shard.sidecar.samples[index].length for shard, index in located]
        times = self.times_of(raw, lengths)
        for (shard, index), pair, place in zip(located, times.tolist(), out, strict=True):
            shard.read_frames(index, pair, place)
        return Batch(step, out, chosen, times, self.keys_of(chosen))

    def part(self, step: int) -> tuple[NDArray[np.int64], Words]:
        """Return the clips of this process's share of a step's batch, and the random words of each."""
        planned = self.plan.batch(step)
        places = in_parts(planned.clips, self.parts)[self._share()]
        return planned.clips[places], planned.raw[places]

    def _share(self) -> NDArray[np.int64]:
        return share_of(self.plan.batch_size, self._rank, self.world_size, self.parts)

    def times_of(self, raw: Words, lengths: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Draw the frames of each position of a batch, (B, F) int64, in clips of these lengths."""
        if self.drawn == "pair":
            return frame_pairs(raw, lengths, self.max_offset, self.cyclic)
        return frame_fours(raw, lengths, self.max_offset + 1 if self.drawn == "window" else None, self.cyclic)

    def keys_of(self, clips: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Return the content keys of some clips; None where none were asked for."""
        return self.keys.of(clips) if self.keys else None

    def _read_what_can_be(self, step: int, chosen: NDArray[np.int64], raw: Words, out: NDArray[np.uint8]) -> Batch:
        """Read a batch without the clips that cannot be read; the others are what they would have been."""

        def read(row: int, place: int) -> NDArray[np.int64]:
            shard, index = self.collection.locate(int(chosen[row]))
            times = self.times_of(raw[row : row + 1], [shard.sidecar.samples[index].length])[0]
            shard.read_frames(index, times.tolist(), out[place])
            return times

        clips, times, places, skipped = self.what_can_be(step, chosen, read)
        in_order = np.array_equal(places, np.arange(len(places)))
        frames = out[: len(places)] if in_order else out[places]
        return Batch(step, frames, clips, times, self.keys_of(clips), skipped)

    def what_can_be(self, step: int, chosen: NDArray[np.int64], read: Callable[[int, int], NDArray[np.int64]]) -> Kept:
        """Leave those clips out of a batch that cannot be read, and where it must keep its size fill it up with others.

        Args:
            step: of the batch.
            chosen: (B,) clips of the batch.
            read: called for each row of the batch, with the number of rows that could be read before it; reads the row's
                clip and returns its (F,) times.

        Raises:
            DataError: where too few clips are left.
        """
        rows, times, skipped = list[int](), list[NDArray[np.int64]](), list[tuple[int, str]]()
        for row, clip in enumerate(chosen.tolist()):
            try:
                drawn = read(row, len(rows))
                self.keys_of(chosen[row : row + 1])
            except (DataError, OSError) as error:
                skipped.append((clip, unreadable(error)))
                continue
            rows.append(row)
            times.append(drawn)
        if len(rows) < 2:
            raise DataError(f"step {step}: fewer than two clips of its batch can be read; {skipped[0][1]}")
        places = self._places_left(step, chosen, rows)
        if places is None:
            raise DataError(f"step {step}: too few clips are left to pair each with another; {skipped[0][1]}")
        return Kept(chosen[rows][places], np.stack(times)[places], places, tuple(skipped))

    def _places_left(self, step: int, chosen: NDArray[np.int64], rows: list[int]) -> NDArray[np.int64] | None:
        """Return the order of the readable rows of a batch, by number among them; None where they cannot be kept apart."""
        places, clips = np.arange(len(rows)), chosen[rows]
        if len(rows) == len(chosen):
            return places
        if self.world_size * self.parts > 1:
            readable = np.zeros(len(chosen), np.bool_)
            readable[rows] = True
            planned = self.plan.batch(step).clips
            order = filled(planned[in_parts(planned, self.parts)], self._share(), readable, self.parts)
            return None if order is None else np.cumsum(readable)[order] - 1
        if meets_itself(clips):  # those between two equal ones are gone
            places = apart(clips)
        return None if meets_itself(clips[places]) else places

    def batches(self) -> Iterator[Batch]:
        """Yield batches from the first step on, without end."""
        worker = get_worker_info()
        first, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        with fetched_ahead(self.collection, self.plan) as reach:
            for step in count(self.start + first, stride):
                reach(step)
                yield self.read(step)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield WebDataset samples: `__key__`, `__url__`, `npy` (F, H, W, C) uint8, `times` (F,), `clip`, `step`.

        A clip that cannot be read ends it, `tolerant` or not: nothing in a sample would tell of one that was left out.
        """
        for batch in self.batches():
            if batch.skipped:
                raise DataError(batch.skipped[0][1])
            for frames, clip, times in zip(batch.frames, batch.clips, batch.times, strict=True):
                shard, index = self.collection.locate(int(clip))
                key = shard.sidecar.samples[index].key
                head = {"__key__": key, "__url__": str(shard.path)}
                yield head | {"npy": frames, "times": times, "clip": int(clip), "step": batch.step}


def unreadable(error: DataError | OSError) -> str:
    """Return on one line why a clip cannot be read; raises the error where the machine is to blame and no clip is."""
    if isinstance(error, OSError) and error.errno in MACHINE_ERRORS:
        raise error
    return " ".join(str(error).split())


class FrameStream(webdataset.DataPipeline):
    """Training input as a `webdataset.DataPipeline`.

    Iterating yields samples; any WebDataset stages may be appended: they see and return samples with an `npy` field.
    `batches` yields whole batches: straight from the shards where no stage was added, else collected from the samples.
    """

    def __init__(self, source: PlannedFrames, *stages: Any) -> None:
        super().__init__(source, *stages)
        self.source = source

    def batches(self) -> Generator[Batch, None, None]:
        """Yield batches without end, read ahead by one thread; closing ends it."""
        plain = len(self.pipeline) == 1
        return read_ahead(self.source.batches() if plain else self._collect())

    def _collect(self) -> Iterator[Batch]:
        samples = iter(self)
        while chosen := list(islice(samples, self.source.batch_size)):
            frames = np.stack([sample["npy"] for sample in chosen])
            clips = np.array([sample["clip"] for sample in chosen], np.int64)
            times = np.stack([sample["times"] for sample in chosen])
            yield Batch(chosen[0]["step"], frames, clips, times, self.source.keys_of(clips))


def read_ahead(batches: Iterator[_Item], depth: int = READ_AHEAD) -> Generator[_Item, None, None]:
    """Yield from an iterator that runs in a thread, at most `depth` batches ahead; its errors are raised here."""
    ready: queue.Queue[_Item | BaseException | None] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: _Item | BaseException | None) -> None:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for batch in batches:
                put(batch)
                if stop.is_set():
                    return
            put(None)
        except BaseException as error:  # handed to the consumer, who raises it
            put(error)

    thread = threading.Thread(target=work, daemon=True, name="read-ahead")
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join(ENDS)


def to_device(frames: Frames, device: torch.device) -> Tensor:
    """Move uint8 frames (..., H, W, C) to the device and return float32 (..., C, H, W) in [0, 1]."""
    tensor = frames if isinstance(frames, Tensor) else torch.from_numpy(frames)
    if device.type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory().to(device, non_blocking=True)
    return tensor.movedim(-1, -3).float().div_(255)
