"""A small data set of clips of uneven length, whole and damaged, and what reads it from a device's memory."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from drnet.datasets.contract import About, Clip, DataError, Label, SourceFile, Split
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.feeding.device_frames import DeviceFrames, choose_frames
from drnet.pipelines.loader import Batch, PlannedFrames, to_device
from drnet.pipelines.plan import Plan
from drnet.pipelines.progress import Silent
from drnet.pipelines.source import open_shards

CPU = torch.device("cpu")
CLIPS = 24
GB = 10**9


class Uneven:
    """Clips of 1 to 7 frames of noise, three of each content, with two frames that no other clip has."""

    about = About("uneven", 1, "noise", "MIT", "drnet", "content", "content")
    labels: Mapping[str, Label] = {"content": Label("number", unit="id")}

    def parameters(self) -> dict[str, Any]:
        return {}

    def sources(self) -> list[SourceFile]:
        return []

    def frame_shape(self) -> tuple[int, int, int]:
        return 5, 6, 2

    def count(self, split: Split) -> int:
        return CLIPS if split == "train" else 0

    def item(self, split: Split, index: int) -> str:
        return f"{split}-{index:03d}"

    def clips(self, split: Split, index: int) -> Iterator[Clip]:
        frames = np.random.default_rng(index).integers(0, 256, (1 + index % 7, 5, 6, 2), np.uint8)
        yield Clip(self.item(split, index), frames, {"content": index // 3})


class Notes(Silent):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.done = self.total = self.ended = 0

    def start(self, title: str, total: int, unit: str, done: int = 0) -> None:
        self.total = total

    def advance(self, count: int, **values: float) -> None:
        self.done += count

    def note(self, line: str) -> None:
        self.lines.append(line)

    def stop(self) -> None:
        self.ended += 1


def flip(folder: Path, clip: int, frame: int | None) -> None:
    """Flip bits of a frame of a clip of a raw shard, or of all that is stored of its frames; the labels' where -1."""
    shard, index = open_shards(folder).locate(clip)
    sample = shard.sidecar.samples[index]
    data = bytearray(shard.path.read_bytes())
    start, size = sample.frames
    if frame == -1:
        data[sample.labels[0]] ^= 1
    elif frame is None:
        for place in range(start + 12, start + size, 7):
            data[place] ^= 255
    else:
        data[start + size - 60 * (sample.length - frame)] ^= 1
    shard.path.write_bytes(data)


def uneven_folders(folder: Path) -> dict[str, Path]:
    """Build the same clips in each codec: whole, and damaged in frames, clips, labels and a whole shard."""
    found = {}
    for codec in ("raw", "zstd"):
        found[codec] = folder / codec
        build(plan_build(Uneven(), codec, 5), found[codec])  # type: ignore[arg-type]
        damaged = Path(shutil.copytree(found[codec], found[codec].with_name(f"{codec}-damaged")))
        flip(damaged, 3, None)
        flip(damaged, 18, -1)
        if codec == "raw":
            for clip, frame in ((6, 2), (6, 4), (13, 0)):
                flip(damaged, clip, frame)
        (damaged / "train-000004.tar").write_bytes(b"")  # clips 20 to 23
        found[f"{codec}-damaged"] = damaged
    return found


def planned(folder: Path, batch: int = 8, seed: int = 0, **drawn: Any) -> PlannedFrames:
    shards = open_shards(folder)
    plan = Plan(shards.order_key, seed, [place.clips for place in shards.places], batch)
    return PlannedFrames(shards, plan, **({"max_offset": 3} | drawn))


def kept(frames: PlannedFrames, progress: Notes | None = None) -> DeviceFrames:
    found = choose_frames(frames, CPU, "device", progress)
    assert isinstance(found, DeviceFrames)
    return found


def differences(one: Batch, other: Batch) -> list[str]:
    """Name the attributes in which a batch from a device differs from one from the shards."""
    assert isinstance(one.frames, Tensor)
    assert one.frames.dtype == torch.uint8
    pairs = {
        "frames": (one.frames.numpy(), other.frames),
        "clips": (one.clips, other.clips),
        "times": (one.times, other.times),
        "keys": (one.keys, other.keys),
        "step": (one.step, other.step),
        "skipped": (one.skipped, other.skipped),
        "floats": (to_device(one.frames, CPU).numpy(), to_device(other.frames, CPU).numpy()),
    }
    return [
        name
        for name, (a, b) in pairs.items()
        if not (np.array_equal(a, b) and getattr(a, "shape", 0) == getattr(b, "shape", 0))  # type: ignore[arg-type]
    ]


def read_or_said(frames: PlannedFrames | DeviceFrames, step: int) -> Batch | str:
    try:
        return frames.read(step)
    except DataError as error:
        return str(error)
