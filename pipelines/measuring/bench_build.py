"""How fast data sets are built, beside the bare work that no builder can do without."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from drnet.datasets.chairs import Chairs
from drnet.datasets.contract import DataError, DataSet
from drnet.datasets.kth import Kth, persons_of
from drnet.datasets.mnist import BouncingDigits
from drnet.datasets.reading import digits
from drnet.datasets.rendering.turntable import pybullet
from drnet.pipelines.build import BuildPlan, build, plan_build, write_shard
from drnet.pipelines.measuring.bench import Work, compared, interleaved, scratch
from drnet.pipelines.progress import Progress, Silent
from drnet.pipelines.shards.codec import Codec


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


def bench_mnist(
    source: str | None, clips: int = 2000, rounds: int = 7, codec: Codec = "zstd", progress: Progress | None = None
) -> dict[str, Any]:
    """Measure a build of bouncing digits against drawing them in the plain style; both on one core, start-up excluded.

    Args:
        source: as of `BouncingDigits`.
        clips: in each round of each.
        rounds: how many.
        codec: of the build.
        progress: told of each round.

    Returns:
        As `interleaved`, in clips per second.
    """
    data = BouncingDigits(source, clips=clips * (rounds + 1), test_clips=1)
    images, draw = digits.load(data.source, "train")[0], np.random.default_rng(0)

    def draw_plain(_: int) -> int:
        for _ in range(clips):
            plain_clip(images, draw, data.frames, data.size)
        return clips

    with shards_of(plan_build(data, codec, clips)) as write:
        works = {"drnet data build mnist": write, "plain style, drawing only": draw_plain}
        found = interleaved("bench build mnist", works, rounds, progress)
    return {
        "what": f"bouncing digits, {data.frames}x{data.size}x{data.size}x3, {codec}, one core",
        "unit": "clips",
        **found,
    }


def bench_chairs(
    clips: int = 10, size: int = 64, shadows: bool = False, rounds: int = 5, progress: Progress | None = None
) -> dict[str, Any]:
    """Measure a build of generated chairs against the bare drawing of the same pictures, on one core.

    Bare is the processor time that pybullet's getCameraImage alone takes of it, at the size drawn: twice the frames'.

    Args:
        clips: chairs in each round.
        size: of the frames.
        shadows: whether they are drawn.
        rounds: how many.
        progress: told of each round.

    Returns:
        As `interleaved`, in frames per second.
    """
    data = Chairs(clips=clips * (rounds + 1), test_clips=1, size=size, shadows=shadows)
    frames, build_name, bare_name = clips * data.frames, "drnet data build chairs", "bare getCameraImage"
    rates: dict[str, list[float]] = {build_name: [], bare_name: []}
    progress = progress or Silent()
    progress.start("bench build chairs", rounds, "rounds")
    try:
        with shards_of(plan_build(data, "zstd", clips)) as write, timed_drawing() as spent:
            for number in range(rounds + 1):
                spent[0], began = 0.0, time.process_time()
                write(number)
                if number:  # the first one does not count
                    rates[build_name].append(frames / (time.process_time() - began))
                    rates[bare_name].append(frames / spent[0])
                    progress.advance(1)
    finally:
        progress.stop()
    shown = f"generated chairs, {size}x{size}{', shadows' if shadows else ''}, zstd, one core"
    return {"what": shown, "unit": "frames", **compared(rates)}


@contextmanager
def timed_drawing() -> Iterator[list[float]]:
    """Provide the seconds of processor time that getCameraImage has taken, in a list of one."""
    engine: Any = pybullet()
    spent = [0.0]
    draw = engine.getCameraImage

    def timed(*words: Any, **named: Any) -> Any:
        began = time.process_time()
        try:
            return draw(*words, **named)
        finally:
            spent[0] += time.process_time() - began

    engine.getCameraImage = timed
    try:
        yield spent
    finally:
        engine.getCameraImage = draw


def bench_kth(source: str | None, rounds: int = 5, size: int = 128, progress: Progress | None = None) -> dict[str, Any]:
    """Measure a build of the KTH videos that are there against bare decoding by decord, on one core.

    Bare is decord giving every frame of the same videos in order, at their own size, to nobody.

    Args:
        source: as of `Kth`; a part of the videos is enough.
        rounds: how many; each round builds all train videos that are there.
        size: of the frames.
        progress: told of each round.

    Returns:
        As `interleaved`, in frames decoded per second.
    """
    try:
        import decord  # only here: it has no wheels for some platforms
    except ImportError:
        raise DataError(
            "decord cannot be imported here, and is what KTH is compared with: pip install decord"
        ) from None
    data = Kth(None if source is None else Path(source), size=size, allow_missing=True)
    plan = plan_build(data, "zstd", data.count("train"))
    paths = sorted(path for path in data.folder.rglob("person*_uncomp.avi") if _is_train(data, path))
    if not paths:
        raise DataError(f"'{data.folder}' holds no train videos of KTH as AVI files; unpack some of the archives there")
    total = sum(len(decord.VideoReader(str(path), num_threads=1)) for path in paths)

    def decode(_: int) -> int:
        for path in paths:
            reader = decord.VideoReader(str(path), num_threads=1)
            for _ in range(len(reader)):
                reader.next().asnumpy()
        return total

    with shards_of(plan) as write:
        works: dict[str, Work] = {
            "drnet data build kth": lambda number: (write(number), total)[1],
            "bare decord": decode,
        }
        found = interleaved("bench build kth", works, rounds, progress)
    what = f"{len(paths)} KTH videos, {total:,} frames, {size}x{size} grey, zstd, one core"
    return {"what": what, "unit": "frames", **found}


def _is_train(data: Kth, path: Path) -> bool:
    person = path.name.removeprefix("person")[:2]
    return person.isdigit() and int(person) not in persons_of(data.parameters()["test_persons"])


@contextmanager
def shards_of(plan: BuildPlan) -> Iterator[Work]:
    """Provide the work of writing a plan's train shards, one a round, into a scratch folder; returns items written."""
    jobs = [job for job in plan.jobs if job.split == "train"]
    with tempfile.TemporaryDirectory(dir=scratch()) as name:

        def write(number: int) -> int:
            job = jobs[number % len(jobs)]
            (Path(name) / job.name).unlink(missing_ok=True)
            write_shard(plan, job, Path(name))
            return job.stop - job.start

        yield write


def bench_workers(
    data: DataSet, codec: Codec = "zstd", rounds: int = 3, progress: Progress | None = None
) -> dict[str, Any]:
    """Measure whole builds by two processes against one, by the wall clock, starting the processes included.

    Returns:
        As `interleaved`, in items per second.
    """
    plan = plan_build(data, codec)
    items = sum(job.stop - job.start for job in plan.jobs)

    def whole(workers: int) -> int:
        with tempfile.TemporaryDirectory(dir=scratch()) as name:
            build(plan, Path(name) / "data", workers)
        return items

    works = {"two workers": lambda _: whole(2), "one worker": lambda _: whole(1)}
    found = interleaved(f"bench build {data.about.name}: workers", works, rounds, progress, time.perf_counter)
    return {"what": f"{data.about.name}, {items} items, whole builds", "unit": "items", **found}
