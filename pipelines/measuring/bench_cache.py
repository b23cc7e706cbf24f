"""How fast batches come from a device's memory, beside the same batches from the shards."""

import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from drnet.pipelines.feeding.device_frames import Cache, choose_frames
from drnet.pipelines.loader import Batch, to_device
from drnet.pipelines.measuring.bench import Work, interleaved
from drnet.pipelines.measuring.bench_stream import planned
from drnet.pipelines.progress import Progress
from drnet.pipelines.source import open_shards


def bench_cache(
    folder: str | Path,
    device: str = "cpu",
    batch_size: int = 100,
    rounds: int = 5,
    steps: int = 100,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure planning, reading or gathering, and the conversion to float32 on the device.

    Args:
        folder: of a data set, or a pattern of its shards.
        device: that the frames are wanted on; on the CPU this process's processor time counts, on a GPU the wall clock.
        batch_size: clips of a batch, two frames of each.
        rounds: of each, in turn.
        steps: of a round.
        progress: told of the loading and of each round.

    Returns:
        As `interleaved`, in frame pairs per second: `device`, and its ratio to `stream`.
    """
    where = torch.device(device)
    frames = planned(open_shards(folder), batch_size)
    with ExitStack() as ends:
        works: dict[str, Work] = {}
        names: tuple[Cache, ...] = ("device", "stream")
        for name in names:
            batches = ends.enter_context(closing(choose_frames(frames, where, name, progress).batches()))
            works[name] = _reading(batches, where, steps * batch_size)
        clock: Callable[[], float] = time.perf_counter if where.type == "cuda" else time.process_time
        found = interleaved("frame pairs", works, rounds, progress, clock)
    return {"what": f"batches of {batch_size}, {where.type}", "unit": "pairs", **found}


def _reading(batches: Generator[Batch, None, None], device: torch.device, pairs: int) -> Work:
    """Return what reads so many frame pairs and waits for the last one."""

    def work(_: int) -> int:
        done = 0
        while done < pairs:
            for batch in islice(batches, 1):
                to_device(batch.frames, device)
                done += len(batch.clips)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return done

    return work
