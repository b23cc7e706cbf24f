"""Health of a model while it trains: measurements on held-out clips that are chosen once, and lines for a person.

Axes: N clips, F frames of each, H height, W width, C channels.
"""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from drnet.datasets.contract import DataError
from drnet.health import PROBED_CLIPS, measure
from drnet.parallel import processes
from drnet.pipelines.loader import to_device
from drnet.pipelines.looking.swaps import held_out_clips
from drnet.pipelines.source import Collection
from drnet.pipelines.training.alarms import Alarms, patience_of
from drnet.trainer import TrainConfig

CLIPS, FRAMES = 64, 4  # held out; measuring them costs about two steps of training
SHARDS = 8  # that they are taken from: behind a URL each has to be fetched whole


@dataclass(frozen=True)
class Chosen:
    """Frames to measure on.

    Attributes:
        frames: (N, F, H, W, C) uint8, of each clip in the order of time.
        notes: what a person should know of the choice.
    """

    frames: NDArray[np.uint8]
    notes: tuple[str, ...]


class Health:
    """Measures a model on held-out clips, and says how it does.

    Args:
        shards: what training was given.
        training: its clips.
        train: how it trains.
        model: the model's settings, whose `alpha` and `beta` say which leaks are wanted; None where it has none.
    """

    def __init__(self, shards: str | Path, training: Collection, train: TrainConfig, model: Any = None) -> None:
        self._shards, self._training, self._train = shards, training, train
        self._alarms = Alarms(patience_of(train, model))
        summed = getattr(model, "reconstruction", "mean") == "sum"
        self._numbers = math.prod(training.frame_shape) if summed else 1  # that a training error is the sum of
        self._noted = False

    @cached_property
    def chosen(self) -> Chosen:
        """The frames that all measurements are made on; read when they are first asked for."""
        return choose(self._shards, self._training, self._train)

    def measure(
        self,
        model: nn.Module,
        device: torch.device,
        autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> dict[str, float]:
        """Return measurements on held-out clips: `held_out/NAME` for the names of `drnet.health.measure`.

        Args:
            model: with content and pose, on the device; it is left as it was.
            device: where the frames go.
            autocast: makes the context that the model runs in.
        """
        if len(self.chosen.frames) < 2:
            return {}
        together = self._train.batch_size // self._train.accumulate // processes()
        found = measure(model, to_device(self.chosen.frames, device), together, autocast())
        return {f"held_out/{name}": value for name, value in found.items()}

    def lines(self, step: int, metrics: Mapping[str, float], report: bool = False) -> list[str]:
        """Return what a person should read.

        Args:
            step: absolute step.
            metrics: of training, or measured, or both; an alarm whose metrics are not there stays as it is.
            report: whether a line on how training goes is asked for.

        Returns:
            That line; once, what is to be known of the held-out clips; the alarms that have appeared.
        """
        metrics = dict(metrics)
        if "loss/reconstruction" in metrics:
            metrics["loss/reconstruction"] /= self._numbers
        notes = [] if self._noted or "chosen" not in self.__dict__ else list(self.chosen.notes)
        self._noted = self._noted or "chosen" in self.__dict__
        appeared = self._alarms.check(step, metrics)
        told = [health_line(step, metrics, self._alarms.standing)] if report else []
        return [*told, *notes, *appeared]


CHANCE = math.log(2)
REPORTED = {
    "held_out/reconstruction": "of held-out frames {:.4f}",
    "loss/similarity": "similarity {:.2g}",
    "discriminator/accuracy": "discriminator accuracy {:.2f}",
    "discriminator/bce": f"BCE {{:.3f}} (chance {CHANCE:.3f})",
    "variance/pose": "variance of pose {:.2g}",
    "variance/content": "of content {:.2g}",
    "participation/content": "in {:.1f} directions",
}


def health_line(step: int, metrics: Mapping[str, float], standing: Sequence[str] = ()) -> str:
    """Say in one line how training goes, of the metrics that are there.

    Args:
        step: absolute step.
        metrics: by name.
        standing: names of alarms that stand.
    """
    parts = []
    if "loss/reconstruction" in metrics:
        error = metrics["loss/reconstruction"]
        share = error / max(metrics.get("baseline/mean_frame", math.inf), 1e-12)
        parts.append(f"reconstruction {error:.4f}" + (f" ({share:.2f} of the mean frame's)" if share else ""))
    parts += [text.format(metrics[name]) for name, text in REPORTED.items() if name in metrics]
    if standing:
        parts.append(f"alarms that stand: {', '.join(standing)}")
    return f"step {step}: {', '.join(parts)}" if parts else f"step {step}"


def choose(shards: str | Path, training: Collection, train: TrainConfig) -> Chosen:
    """Choose frames of held-out clips, the same at every call: as far apart in a clip as training draws them.

    Args:
        shards: what training was given.
        training: its clips, which serve where no others are at hand.
        train: how frames are drawn from a clip.
    """
    notes = []
    try:
        collection = held_out_clips(shards, training)
    except DataError:
        collection = training
    if collection is training:
        notes.append("no held-out clips are at hand: health is measured on training clips")
    frames, unreadable = [], 0
    draw = np.random.default_rng(0)
    for clip in spread_clips(collection):
        start = draw.random()
        try:
            if collection.sample(clip).length > 1:
                frames.append(frames_of(collection, clip, start, train))
        except DataError:
            unreadable += 1
    if unreadable:
        notes.append(f"{unreadable} held-out clips cannot be read: health is measured without them")
    if len(frames) < PROBED_CLIPS:
        left_out = "what their vectors tell of each other, and how good BatchNorm's statistics are, is"
        left_out = left_out if len(frames) > 1 else "held-out frames are"
        notes.append(
            f"{left_out} not measured: that takes {PROBED_CLIPS} held-out clips, and there are {len(frames)}; "
            "build the data set with more test clips"
        )
    return Chosen(
        np.stack(frames) if frames else np.empty((0, FRAMES, *collection.frame_shape), np.uint8), tuple(notes)
    )


def spread_clips(collection: Collection) -> list[int]:
    """Return up to `CLIPS` clips, spread over all; of a large collection, over some shards that are spread over all."""
    count = len(collection.places)
    shards = range(count) if len(collection) <= CLIPS else spread(count, SHARDS)
    clips = [clip for shard in shards for clip in range(*collection.starts[shard : shard + 2].tolist())]
    return [clips[place] for place in spread(len(clips), CLIPS)]


def spread(count: int, most: int) -> list[int]:
    """Return up to `most` numbers below `count`, the first and the last among them, at even distances."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()


def frames_of(collection: Collection, clip: int, start: float, train: TrainConfig) -> NDArray[np.uint8]:
    """Read `FRAMES` frames of a clip at even distances.

    Args:
        collection, clip: where.
        start: in [0, 1), of the frames that can be first.
        train: how far apart the first and the last of them may be.
    """
    length = collection.sample(clip).length
    reach = length - 1 if train.frames == "clip" else min(train.max_offset, length - 1)
    first = int(start * (length if train.cyclic else length - reach))
    times = [(first + offset) % length for offset in np.linspace(0, reach, FRAMES).round().astype(int).tolist()]
    frames = np.empty((FRAMES, *collection.frame_shape), np.uint8)
    shard, index = collection.locate(clip)
    shard.read_frames(index, times, frames)
    return frames
