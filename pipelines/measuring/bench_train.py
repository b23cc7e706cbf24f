"""How fast a model trains: beside the plain style of research code, a batch in memory, and the device's own products.

All are measured in turn in one run. Axes: B batch, H height, W width, C channels.
"""

import contextlib
import math
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from drnet import __version__
from drnet.datasets.contract import Clip, DataError, Split
from drnet.model import DrNet
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.feeding.device_frames import Cache
from drnet.pipelines.looking.dots import Dots
from drnet.pipelines.measuring.bench import Work, interleaved, scratch
from drnet.pipelines.measuring.bench_device import Runner
from drnet.pipelines.measuring.bench_plain import PlainTrainer
from drnet.pipelines.progress import Progress, Silent
from drnet.pipelines.source import Collection, open_shards
from drnet.pipelines.train import FrameFeed, choose_device, make_trainer, resolve
from drnet.pipelines.training.loop import Clock, Logging
from drnet.pipelines.training.processes import ALONE
from drnet.presets import preset
from drnet.trainer import Compiling, Precision, computing

OURS, CACHED, PLAIN, PRODUCTS = "drnet", "drnet, batch in memory", "plain style, fp32", "matrix products"
ROUNDED = "plain style, tf32"  # what PyTorch makes of plain code on a GPU, where it rounds convolutions by default
STEPS = {"cpu": 2, "cuda": 50}  # of each in a round
WARM = 3  # steps before anything counts: the first ones allocate, choose algorithms, compile
MATRICES = {"cpu": (2048, 4), "cuda": (8192, 20)}  # their width, and how many products in a round


class Noise(Dots):
    """Clips with a model's frames that cost little to draw.

    Args:
        clips: of the train split; there is no other.
        frames: of each clip.
        shape: (H, W, C) of the frames.
    """

    def __init__(self, clips: int, frames: int, shape: tuple[int, int, int]) -> None:
        super().__init__(clips, frames)
        self.shape = shape

    def parameters(self) -> dict[str, Any]:
        """Return the numbers of clips and of their frames, and the frames' shape."""
        return {**super().parameters(), "shape": list(self.shape)}

    def frame_shape(self) -> tuple[int, int, int]:
        """Return (H, W, C)."""
        return self.shape

    def clips(self, split: Split, index: int) -> Iterator[Clip]:
        """Yield the clip."""
        shown = np.random.default_rng(index).integers(0, 256, (self.frames, *self.shape), np.uint8)
        yield Clip(self.item(split, index), shown, {"number": index})


def bench_train(
    preset_name: str = "mnist",
    device: str = "auto",
    overrides: Mapping[str, Any] | None = None,
    *,
    data: str | None = None,
    size: int | None = None,
    steps: int | None = None,
    rounds: int = 5,
    compiling: Compiling = "off",
    cache: Cache = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure training steps of a preset, fed by the product's own loader.

    Args:
        preset_name: a row of `drnet.presets.PRESETS`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        overrides: settings that differ from the preset's, by field name.
        data: shards to train on; None for generated noise of the preset's shape.
        size: height and width of generated frames; None for the preset's.
        steps: of each in a round; None for 2 on a CPU and 50 on a GPU.
        rounds: of each, in turn; one that does not count comes before them.
        compiling: of the product's trainer, see `drnet.trainer.Trainer`.
        cache: whether the product keeps all frames on the device.
        progress: told of each round.

    Returns:
        `what` was measured, `device`, `settings`; `steps` and `pairs` (of frames) per second by the wall clock; `ratios`
        as `interleaved`, by the wall clock on a GPU and by processor time on a CPU; `flop` of a step; `products`, FLOP per
        second of large products of matrices; `share` of that rate in a step; `stall`, the share of the time that the
        product waited for its loader; `peak`, MB that each needs (on a CPU, the product alone); `horizon` and
        `horizon_seconds`, of the whole training at this rate, without its pictures and checkpoints.

    Raises:
        ValueError: for values that are not allowed, or data that cannot be read.
    """
    if data is not None and size is not None:
        raise DataError(f"size {size} is not allowed with --data, whose frames have their own; leave one of them out")
    runner = Runner(choose_device(device))
    with contextlib.ExitStack() as ends:
        shards = _generated(ends, preset_name, size, overrides or {}) if data is None else open_shards(data)
        settings = resolve(preset_name, overrides or {}, shards.frame_shape)
        if settings["kind"] != "drnet":
            raise DataError(f"preset {preset_name!r} is not allowed here: there is no plain style of its model")
        bench = TrainBench(runner, shards, settings, compiling, cache, progress or Silent())
        ends.callback(bench.close)
        return bench.run(steps or STEPS[runner.device.type], rounds)


def _generated(ends: contextlib.ExitStack, name: str, size: int | None, overrides: Mapping[str, Any]) -> Collection:
    """Build clips for a preset, in memory where that can be; they go when `ends` does."""
    row = preset(name)
    side = size or row.model.size
    settings = resolve(name, overrides, (side, side, row.model.channels))["train"]
    clips = Noise(4 * settings["batch_size"], settings["max_offset"] + 1, (side, side, row.model.channels))
    needed, memory = clips.number * clips.frames * math.prod(clips.shape), scratch()
    if memory is not None and shutil.disk_usage(memory).free < 2 * needed:
        memory = None  # containers have little of it
    folder = ends.enter_context(tempfile.TemporaryDirectory(dir=memory, prefix="drnet-bench-"))
    build(plan_build(clips, "raw"), Path(folder) / "data")
    return open_shards(Path(folder) / "data")


class TrainBench:
    """The product, and what it is compared with, on one device."""

    def __init__(
        self,
        runner: Runner,
        shards: Collection,
        settings: Mapping[str, Any],
        compiling: Compiling,
        cache: Cache,
        progress: Progress,
    ) -> None:
        self.runner, self.settings, self.progress = runner, settings, progress
        self.compiling, self.cache, self.peaks = compiling, cache, dict[str, float]()
        self.clock = Clock()
        self.waits: list[float] = []
        with runner.peak(self.peaks, OURS):
            self.trainer = make_trainer(settings, runner.device, compiling)
            self.feed = FrameFeed(shards, self.trainer, Logging(), progress, ALONE, cache, threading.Event())
            self.batches = self.feed.batches(0)
            self.inputs = self.feed.inputs(next(self.batches))
            self._fed(WARM)
        self.frames = self.inputs[0].contiguous()
        self.plain = self._plain(PLAIN, "fp32")
        self.rounded = self._plain(ROUNDED, "tf32") if runner.is_gpu else None

    def close(self) -> None:
        """End the loader."""
        self.batches.close()

    def _plain(self, name: str, precision: Precision) -> PlainTrainer:
        with self.runner.peak(self.peaks, name):
            model = make_trainer(self.settings, torch.device("cpu")).model
            assert isinstance(model, DrNet)
            trainer = PlainTrainer(model, self.trainer.config, self.runner.device, precision)
            for _ in range(WARM):
                trainer.train_step(self.frames)
        return trainer

    def _fed(self, steps: int) -> None:
        """Train as the product's loop does."""
        for _ in range(steps):
            self.trainer.train_step(*self.feed.inputs(self.clock.next_of(self.batches)))

    def _timed(self, steps: int) -> None:
        self.clock.take()
        self._fed(steps)
        self.runner.wait()
        self.waits.append(self.clock.take()["time/waiting_for_data"])

    def _repeated(self, steps: int, step: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(steps):
                step()

        return run

    def run(self, steps: int, rounds: int) -> dict[str, Any]:
        """Measure everything in turn."""
        flop, work = self._flop(), self.runner.work
        works = {
            OURS: work(OURS, steps, lambda: self._timed(steps)),
            CACHED: work(CACHED, steps, self._repeated(steps, lambda: self.trainer.train_step(*self.inputs))),
            PLAIN: work(PLAIN, steps, self._repeated(steps, lambda: self.plain.train_step(self.frames))),
        }
        if self.rounded is not None:
            rounded = self.rounded
            works[ROUNDED] = work(ROUNDED, steps, self._repeated(steps, lambda: rounded.train_step(self.frames)))
        works[PRODUCTS] = self._products()
        title = f"bench train {self.settings['preset']}"
        found = interleaved(title, works, rounds, self.progress, time.perf_counter)
        return self._told(found, flop)

    def _flop(self) -> dict[str, float]:
        """Count the FLOP of convolutions and products in a step, of what is run as it is written."""
        eager = make_trainer(self.settings, self.runner.device)
        found = {}
        for name, step in (
            (OURS, lambda: eager.train_step(*self.inputs)),
            (PLAIN, lambda: self.plain.train_step(self.frames)),
        ):
            with FlopCounterMode(display=False) as counter:
                step()
            found[name] = float(counter.get_total_flops())
        found[CACHED] = found[OURS]
        return found | ({ROUNDED: found[PLAIN]} if self.rounded is not None else {})

    def _products(self) -> Work:
        """Return large products of matrices in the precision of the product's step."""
        precision: Precision = self.trainer.config.precision
        width, times = MATRICES[self.runner.device.type]
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        left, right = (torch.randn(width, width, device=self.runner.device, dtype=kind) for _ in range(2))
        out = torch.empty_like(left)

        def run() -> None:
            with computing(precision), torch.no_grad():
                for _ in range(times):
                    torch.mm(left, right, out=out)

        return self.runner.work(PRODUCTS, 2.0 * width**3 * times, run)

    def _told(self, found: Mapping[str, Any], flop: Mapping[str, float]) -> dict[str, Any]:
        """Put the results together."""
        train, model = self.settings["train"], self.settings["model"]
        walls = {name: statistics.median(rates) for name, rates in self.runner.walls.items()}
        products = walls.pop(PRODUCTS)
        ratios = dict(found["ratios"])
        of_products = ratios.pop(PRODUCTS)["ratio"]  # steps for each FLOP of products, by the same clock
        about, horizon = self.runner.about(), train["horizon"]
        shape = f"{model['size']}x{model['size']}x{model['channels']}"
        what = f"{self.settings['preset']}, batches of {train['batch_size']} of {shape}, {train['precision']}"
        return {
            "what": f"{what}, compiling {self.compiling}, on {about['name']}",
            "device": about,
            "settings": {**self.settings, "compiling": self.compiling, "cache": self.cache, "version": __version__},
            "steps": walls,
            "pairs": {name: rate * train["batch_size"] for name, rate in walls.items()},
            "ratios": ratios,
            "flop": dict(flop),
            "products": products,
            "share": {
                name: of_products * flop[name] / (1.0 if name == OURS else ratios[name]["ratio"]) for name in walls
            },
            "stall": statistics.median(self.waits[1:]),
            "peak": self.peaks,
            "horizon": horizon,
            "horizon_seconds": horizon / walls[OURS],
        }
