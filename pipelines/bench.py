"""Benchmarks: each runs the product beside its alternative in one interleaved run, and reports the ratio of medians."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from drnet.datasets import digits
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.build import plan_build, write_shard
from drnet.pipelines.progress import Progress, Silent

MEMORY = Path("/dev/shm")  # where there is a memory-backed folder, disks do not disturb the measurement


def plain_clip(images: NDArray[np.uint8], draw: np.random.Generator, frames: int, size: int) -> NDArray[np.float32]:
    """Draw the clip that the builder draws, two coloured digits of which one hides the other, in plain style.

    This does what the authors' Python generator does for a clip, step for step: each digit is resized and made a float
    tensor when it is drawn, copied into every frame of a new float array, its position advanced and reflected one step at
    a time; a mask over the whole clip hides what is behind.

    Returns:
        (frames, size, size, 3) float32 in [0, 1].
    """
    side = size // 2
    clip = np.zeros((frames, size, size, 3), np.float32)
    for colour in range(2):
        image = Image.fromarray(images[draw.integers(len(images))]).resize((side, side), Image.Resampling.BILINEAR)
        digit = torch.from_numpy(np.array(image)[None]).contiguous().to(torch.float32).div(255)
        x, y = draw.integers(size - side, size=2)
        dx, dy = draw.integers(-4, 5, size=2)
        for time_step in range(frames):
            if y < 0 or y > size - side:
                y, dy = (0, draw.integers(1, 5)) if y < 0 else (size - side, draw.integers(-4, 0))
            if x < 0 or x > size - side:
                x, dx = (0, draw.integers(1, 5)) if x < 0 else (size - side, draw.integers(-4, 0))
            clip[time_step, y : y + side, x : x + side, colour] = np.copy(digit.numpy())
            y += dy
            x += dx
    front = draw.integers(2)
    clip[..., 1 - front][clip[..., front] > 0] = 0
    return clip


def rate(work: Callable[[], int]) -> float:
    """Return units of work per second of processor time of this process."""
    began = time.process_time()
    return work() / (time.process_time() - began)


def bench_digits(
    source: str | None, clips: int = 2000, rounds: int = 7, codec: str = "zstd", progress: Progress | None = None
) -> dict[str, Any]:
    """Measure a build of bouncing digits, encoding and writing included, against drawing them in the plain style.

    Both run on one core in this process, round by round in turn, after a warm-up; rates are per second of processor time.

    Args:
        source: as of `BouncingDigits`.
        clips: in each round of each.
        rounds: how many.
        codec: of the build.
        progress: told of each round.

    Returns:
        `build` and `plain`: median clips/s; `ratio`: of the medians; `ratios`: of each round.
    """
    progress = progress or Silent()
    data = BouncingDigits(source, clips=clips * (rounds + 1), test_clips=1)
    plan = plan_build(data, codec, clips)  # type: ignore[arg-type]
    images, draw = digits.load(data.source, "train")[0], np.random.default_rng(0)
    jobs = [job for job in plan.jobs if job.split == "train"]
    ours, plain = [], []
    progress.start("bench digits", rounds, "rounds")
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
        folder = Path(name)

        def build_one(number: int) -> int:
            write_shard(plan, jobs[number], folder)
            return clips

        def draw_plain() -> int:
            for _ in range(clips):
                plain_clip(images, draw, data.frames, data.size)
            return clips

        build_one(0)
        for number in range(1, rounds + 1):
            ours.append(rate(lambda n=number: build_one(n)))  # type: ignore[misc]
            plain.append(rate(draw_plain))
            progress.advance(1)
    progress.stop()
    return {
        "what": f"bouncing digits, 20x64x64x3, {codec}, one core",
        "build": statistics.median(ours),
        "plain": statistics.median(plain),
        "ratio": statistics.median(ours) / statistics.median(plain),
        "ratios": [a / b for a, b in zip(ours, plain, strict=True)],
        "cores": os.cpu_count(),
    }
