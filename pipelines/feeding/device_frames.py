"""Batches from a device's memory: all frames of a split stay there as uint8, and each batch's are gathered there.

Nothing else changes: clips, times, keys, what is left out and every bit of the frames are those of `PlannedFrames`.
Axes: N frames of all clips one after another, B batch, F frames of a clip in a batch, H height, W width, C channels.
"""

import contextlib
import math
import os
from collections.abc import Generator
from functools import partial
from itertools import count
from pathlib import Path
from threading import Event
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drnet.datasets.contract import DataError
from drnet.datasets.draws import Words
from drnet.pipelines.feeding.resident import WHOLE, Resident, frame_counts, load
from drnet.pipelines.loader import Batch, FrameStream, PlannedFrames, read_ahead
from drnet.pipelines.progress import Progress, Silent
from drnet.pipelines.remote.room import size_text

Cache = Literal["auto", "device", "stream"]

# Parts of the free memory that frames may take: unasked, since the model, its optimizer and the activations need the
# rest; and where it was asked for, since with less left nothing can be trained.
AUTO, ASKED = 0.5, 0.9


class DeviceFrames:
    """The batches of `PlannedFrames`, gathered from memory.

    Args:
        planned: which clips and times, for which of several processes.
        resident: their frames.
    """

    def __init__(self, planned: PlannedFrames, resident: Resident) -> None:
        self.planned, self.resident = planned, resident

    def read(self, step: int) -> Batch:
        """Return this process's part of one step's batch; its frames are a tensor on the device."""
        return self._gathered(*self._drawn(step))

    def batches(self) -> Generator[Batch, None, None]:
        """Yield batches from the first step of `planned` on, without end; closing ends it.

        A thread plans ahead. It never talks to the GPU, where its calls could fall into the recording of a CUDA graph.
        """
        with contextlib.closing(read_ahead(map(self._drawn, count(self.planned.start)))) as ahead:
            for rows, batch in ahead:
                yield self._gathered(rows, batch)

    def _drawn(self, step: int) -> tuple[NDArray[np.int64], partial[Batch]]:
        """Return which rows of the frames a batch holds, (B, F), and the batch but for its frames."""
        planned, resident = self.planned, self.resident
        clips, raw = planned.part(step)
        skipped: tuple[tuple[int, str], ...] = ()
        if planned.tolerant and resident.doubtful[clips].any():

            def read(row: int, _: int) -> NDArray[np.int64]:
                return self._times(int(clips[row]), raw[row : row + 1])

            chosen, times, _, skipped = planned.what_can_be(step, clips, read)
        else:
            chosen, times = clips, planned.times_of(raw, resident.lengths[clips])
        rows = resident.firsts[chosen][:, None] + times
        return rows, partial(Batch, step, clips=chosen, times=times, keys=planned.keys_of(chosen), skipped=skipped)

    def _times(self, clip: int, raw: Words) -> NDArray[np.int64]:
        """Draw the times of a clip, (F,); raises DataError where its frame at one of them could not be read."""
        faults = self.resident.faults.get(clip, {})
        if WHOLE in faults:
            raise DataError(faults[WHOLE])
        times = self.planned.times_of(raw, self.resident.lengths[clip : clip + 1])[0]
        for time in times.tolist():
            if time in faults:
                raise DataError(faults[time])
        return times

    def _gathered(self, rows: NDArray[np.int64], batch: partial[Batch]) -> Batch:
        """Take the rows (B, F) of the frames, on the device."""
        frames, places = self.resident.frames, torch.from_numpy(rows.reshape(-1))
        if frames.is_cuda:  # from pinned memory the copy waits for nothing
            places = places.pin_memory().to(frames.device, non_blocking=True)
        return batch(frames=frames.index_select(0, places).view(*rows.shape, *frames.shape[1:]))


def choose_frames(
    planned: PlannedFrames,
    device: torch.device,
    wanted: Cache = "auto",
    progress: Progress | None = None,
    stop: Event | None = None,
) -> FrameStream | DeviceFrames:
    """Take the frames from the device's memory or from the shards; says in one line which, and why.

    The batches are the same, so each of several processes may choose for itself. Each holds the whole split, not its part
    of it: any clip may be in any process's part of a batch. On a machine with several GPUs each of them therefore has all
    frames; on the CPU, where the processes share one memory, there must be room for as many copies.

    Args:
        planned: which frames, in which order.
        device: that trains.
        wanted: `auto`: memory, where that is a GPU's and the frames fit into `AUTO` of what is free; `device`: memory, on
            the CPU too; `stream`: shards.
        progress: told of the choice, and how far the loading is.
        stop: when set while frames are being loaded, loading ends and they are streamed.

    Returns:
        Either way something whose `batches()` yields one `Batch` after another.

    Raises:
        DataError: where `device` is wanted and the frames do not fit; where one cannot be read and `planned` is not
            tolerant of that.
        ValueError: for another `wanted`.
    """
    progress = progress or Silent()
    if wanted not in ("auto", "device", "stream"):
        raise ValueError(f"cache {wanted!r} is not allowed; supported are auto, device and stream")
    if wanted == "stream" or (wanted == "auto" and device.type != "cuda"):
        why = "as asked for" if wanted == "stream" else "on the CPU only `--cache device` keeps them in memory"
        progress.note(f"frames are streamed from the shards: {why}")
        return FrameStream(planned)
    counts = frame_counts(planned.collection)
    shape = (sum(counts), *planned.collection.frame_shape)
    fits, said = room_for(math.prod(shape), device, AUTO if wanted == "auto" else ASKED, planned.world_size)
    frames = allocated(shape, device) if fits else None
    if frames is None:
        said = f"{size_text(math.prod(shape))} of frames found no memory in one piece" if fits else said
        if wanted == "device":
            raise DataError(f"cache 'device' is not possible: {said}; use 'stream', fewer shards or smaller frames")
        progress.note(f"{said}: streamed")
        return FrameStream(planned)
    progress.note(f"{said}: kept there")
    resident = load(planned, frames, counts, progress, stop)
    if resident is None:
        return FrameStream(planned)
    if damaged := int(resident.doubtful.sum()):
        progress.note(f"{damaged} of {len(planned.collection)} clips are damaged, and left out wherever that shows")
    return DeviceFrames(planned, resident)


def room_for(size: int, device: torch.device, share: float, processes: int = 1) -> tuple[bool, str]:
    """Hold the bytes of all frames against the device's memory that is free.

    Args:
        size: of the frames, in bytes.
        device: that they are to be kept on.
        share: of the free memory that they may take.
        processes: that each keep them; on the CPU they share the memory.

    Returns:
        Whether they fit, and that in words.
    """
    cuda = device.type == "cuda"
    free, copies = (torch.cuda.mem_get_info(device)[0], 1) if cuda else (available_memory(), processes)
    fits = copies * size <= share * free
    what = f"{size_text(size)} of frames" if copies == 1 else f"{copies} copies of {size_text(size)} of frames"
    where = f"{size_text(free)} of free {'GPU ' if cuda else ''}memory"
    return fits, f"{what} fit into {where}" if fits else f"{what} do not fit into {share:.0%} of {where}"


def available_memory(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Return the bytes of this machine's memory that programs may still take."""
    with contextlib.suppress(OSError):
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def allocated(shape: tuple[int, ...], device: torch.device) -> Tensor | None:
    """Return memory for all frames; None where after all there is none of that size in one piece."""
    try:
        return torch.empty(shape, dtype=torch.uint8, device=device)
    except torch.OutOfMemoryError:
        return None
    except RuntimeError as error:  # the CPU's allocator has no class of its own
        if "allocate memory" not in str(error):
            raise
        return None
