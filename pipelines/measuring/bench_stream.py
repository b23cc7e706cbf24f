"""How fast shards are read: whole clips and frames asked for, beside webdataset and the bare files, and what a step pays.

Peers read the same shards in one interleaved run. Axes: B batch, T time, H height, W width, C channels.
"""

import bisect
import contextlib
import io
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset
import zstandard
from numpy.typing import NDArray

from drnet.datasets.contract import DataError
from drnet.guess import guess
from drnet.model import DrNet, DrNetConfig
from drnet.pipelines.loader import Frames, FrameStream, PlannedFrames, to_device
from drnet.pipelines.measuring.bench import Work, interleaved
from drnet.pipelines.measuring.mosaicml_reader import Mosaicml
from drnet.pipelines.plan import Plan
from drnet.pipelines.progress import Progress, Silent
from drnet.pipelines.run import train_config
from drnet.pipelines.source import Collection, open_shards
from drnet.pipelines.train import resolve
from drnet.trainer import Trainer

PEERS = ("webdataset", "mosaicml-streaming")
OURS = "drnet"
ENOUGH = 4000  # clips at least that a round reads: the first shards that hold them, or all


def bench_stream(
    folder: str | Path,
    against: tuple[str, ...] = ("webdataset",),
    batch_size: int = 100,
    rounds: int = 5,
    progress: Progress | None = None,
    python: str | None = None,
) -> dict[str, Any]:
    """Measure reading a data set's train split, by this process's processor time.

    Args:
        folder: of a data set on this machine.
        against: peers, of `PEERS`; `cat`, the bare reading of the files, is always measured.
        batch_size: clips of a batch.
        rounds: of each, in turn.
        progress: told of each round.
        python: of the environment that mosaicml-streaming is in.

    Returns:
        `whole` and `asked` (whole clips; frames asked for, two of each clip, in the plan's order): as `interleaved`, in
        clips/s; `megabytes`: MB of frames per second of whole clips; `stages`: microseconds a clip of each stage of a
        training read; `clips` in a round; `what` was read.

    Raises:
        DataError: where the data set cannot be read, or a peer is not known or not installed.
    """
    if unknown := [name for name in against if name not in PEERS]:
        raise DataError(f"peer '{unknown[0]}' is not known{guess(unknown[0], PEERS)}; there are {', '.join(PEERS)}")
    shards = open_shards(folder)
    number = bisect.bisect_left(shards.starts, min(ENOUGH, len(shards)))
    paths, clips = [Path(place.location) for place in shards.places[:number]], int(shards.starts[number])
    lengths = [shards.sample(clip).length for clip in range(clips)]
    clip_bytes = statistics.mean(lengths) * math.prod(shards.frame_shape)
    whole: dict[str, Work] = {OURS: lambda _: read_whole(shards, clips, batch_size, max(lengths))}
    asked: dict[str, Work] = {OURS: lambda number: read_asked(shards, clips, batch_size, number)}
    with contextlib.ExitStack() as ends:
        for name in against:
            if name == "webdataset":
                whole[name] = lambda _: sum(1 for _ in _webdataset(paths))
                asked[name] = lambda _: _pairs(_webdataset(paths), shards.frame_shape)
            else:
                peer = ends.enter_context(contextlib.closing(_mosaicml(shards, paths, python)))
                whole[name] = lambda _, peer=peer: (peer.clips, peer.read("whole"))  # type: ignore[misc]
                asked[name] = lambda _, peer=peer: (peer.clips, peer.read("asked"))  # type: ignore[misc]
        whole["cat"] = lambda _: _cat(paths, clips)
        found: dict[str, Any] = {
            "whole": interleaved("whole clips", whole, rounds, progress),
            "asked": interleaved("frames asked for", asked, rounds, progress),
        }
    found |= {
        "stages": stages(shards, batch_size),
        "clips": clips,
        "unit": "clips",
        "what": f"{shards.places[0].name} and {len(shards.places) - 1} more, {_codec(shards)}, {_size(clip_bytes)} a clip",
    }
    found["megabytes"] = found["whole"]["rates"][OURS] * clip_bytes / 1e6
    return found


def read_whole(shards: Collection, clips: int, batch_size: int, longest: int) -> int:
    """Read whole clips of at most `longest` frames in shard order into one reused batch; returns how many."""
    batch = np.empty((batch_size, longest, *shards.frame_shape), np.uint8)
    for clip in range(clips):
        shard, index = shards.locate(clip)
        shard.read_clip(index, batch[clip % batch_size, : shard.sidecar.samples[index].length])
    return clips


def read_asked(shards: Collection, clips: int, batch_size: int, number: int = 0) -> int:
    """Read frame pairs in the plan's order into reused batches, as training does; returns how many clips."""
    frames = planned(shards, batch_size)
    steps = max(1, clips // batch_size)
    out = np.empty((batch_size, 2, *shards.frame_shape), np.uint8)
    for step in range(number * steps, (number + 1) * steps):
        frames.read(step, out)
    return steps * batch_size


def planned(shards: Collection, batch_size: int) -> PlannedFrames:
    """Return the training reads of a collection."""
    plan = Plan(shards.order_key, 0, [place.clips for place in shards.places], batch_size)
    return PlannedFrames(shards, plan, max_offset=11)


def _mosaicml(shards: Collection, paths: list[Path], python: str | None) -> Mosaicml:
    """Start mosaicml-streaming in its own environment, on a copy of the clips in its own format."""
    if python is None:
        raise DataError(
            "mosaicml-streaming needs other versions of numpy and torchvision than drnet: install it into an environment of "
            "its own, and name that environment's Python by --mosaicml-python"
        )
    if _codec(shards) != "raw":
        raise DataError("mosaicml-streaming is compared on raw shards only; build with --codec raw")
    return Mosaicml(python, paths)


def _webdataset(paths: list[Path]) -> Iterator[NDArray[np.uint8]]:
    """Read with webdataset's own stages; the frames are decoded as its `.decode()` does, but never unpickled."""
    stages = (webdataset.SimpleShardList([str(path) for path in paths]), webdataset.tarfile_to_samples())
    decompress = zstandard.ZstdDecompressor().decompress
    for sample in webdataset.DataPipeline(*stages):
        data = sample["npy"] if "npy" in sample else decompress(sample["npy.zst"])
        json.loads(sample["json"])
        yield np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)


def _pairs(clips: Iterator[NDArray[np.uint8]], shape: tuple[int, int, int]) -> int:
    """Take two random frames of each clip, as training on plain shards does; return how many clips."""
    draw, done = np.random.default_rng(0), 0
    place = np.empty((2, *shape), np.uint8)
    for clip in clips:
        place[:] = clip[np.sort(draw.integers(len(clip), size=2))]
        done += 1
    return done


def _cat(paths: list[Path], clips: int) -> int:
    """Read files through one buffer, as `cat` does; returns the clips in them."""
    buffer = bytearray(1 << 20)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return clips


def stages(shards: Collection, batch_size: int, steps: int = 40) -> dict[str, float]:
    """Return microseconds of processor time a clip for each stage of a training read (medians over steps)."""
    frames, device = planned(shards, batch_size), torch.device("cpu")
    out = np.empty((batch_size, 2, *shards.frame_shape), np.uint8)
    taken: dict[str, list[float]] = {"plan": [], "plan, read and check": [], "to float on the CPU": []}
    for step in range(steps):
        began = time.process_time()
        frames.plan.batch(step)
        planned_at = time.process_time()
        frames.read(step, out)
        read_at = time.process_time()
        to_device(out, device)
        ended = time.process_time()
        for name, seconds in zip(taken, (planned_at - began, read_at - planned_at, ended - read_at), strict=True):
            taken[name].append(1e6 * seconds / batch_size)
    return {name: statistics.median(values[steps // 4 :]) for name, values in taken.items()}


def bench_step(
    folder: str | Path, preset: str | None, batch_size: int, rounds: int, progress: Progress | None = None
) -> dict[str, Any]:
    """Measure a training step fed by the loader against one fed from a batch in memory, by the wall clock.

    Returns:
        As `interleaved`, in steps per second: the first is the loader's.
    """
    shards = open_shards(folder)
    settings = resolve(preset, {"batch_size": batch_size}, shards.frame_shape)
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = Trainer(DrNet(DrNetConfig(**settings["model"])), train_config(settings), device)
    stream = FrameStream(planned(shards, batch_size)).batches()
    cached = np.array(next(stream).frames)
    steps = 4

    def train(frames: Callable[[], Frames]) -> int:
        for _ in range(steps):
            trainer.train_step(to_device(frames(), device))
        if device.type == "cuda":
            torch.cuda.synchronize()
        return steps

    works: dict[str, Work] = {
        "loader": lambda _: train(lambda: next(stream).frames),
        "cached batch": lambda _: train(lambda: cached),
    }
    try:
        found = interleaved("training steps", works, rounds, progress, time.perf_counter)
    finally:
        stream.close()
    return {"what": f"{settings['preset']}, batches of {batch_size}, {device.type}", "unit": "steps", **found}


def bench_memory(
    folder: str | Path, samples: int, batch_size: int = 100, progress: Progress | None = None
) -> dict[str, Any]:
    """Read samples in the plan's order and watch this process's memory.

    Returns:
        `resident`: MB after each tenth; `grown`: MB from the second tenth to the last; `samples` read.
    """
    progress = progress or Silent()
    shards = open_shards(folder)
    frames = planned(shards, batch_size)
    out = np.empty((batch_size, 2, *shards.frame_shape), np.uint8)
    tenth, resident = max(1, samples // batch_size // 10), []
    progress.start("memory", 10 * tenth, "batches")
    try:
        for part in range(10):
            for step in range(part * tenth, (part + 1) * tenth):
                frames.read(step, out)
                progress.advance(1)
            resident.append(resident_megabytes())
    finally:
        progress.stop()
    return {"samples": 10 * tenth * batch_size, "resident": resident, "grown": resident[-1] - resident[1]}


def resident_megabytes() -> float:
    """Return the memory that this process holds now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _codec(shards: Collection) -> str:
    return shards.manifest.codec if shards.manifest else shards.locate(0)[0].sidecar.codec


def _size(clip: float) -> str:
    return f"{clip / 1e3:,.0f} kB"
