"""What the rollout and difference figures share: observed clips, the true frames that follow, and the predicted ones.

Axes: B clips, H height, W width, C channels. Times count from 1, the first observed frame, as in the paper's figures.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drnet.datasets.contract import DataError
from drnet.model import DrNet
from drnet.pipelines.figures.beside import Beside
from drnet.pipelines.figures.scene import Scene, drawn_clips
from drnet.pipelines.looking.clips import Shot, named_clips
from drnet.pipelines.looking.pictures import Frames
from drnet.pipelines.prediction.predict import Truth
from drnet.pipelines.prediction.rollout import load_predictor, predicted_frames
from drnet.predictor import PosePredictor

COPY = "last frame copied"


@dataclass(frozen=True)
class Futures:
    """Clips whose first frames a model observes, and who predicts what follows.

    Attributes:
        scene: model and clips.
        shots: the clips, and the frame that each begins at.
        observe: observed frames.
        steps: predicted ones.
        models: name, model and predictor of each row.
        copy: whether a row of copied last frames is among them.
    """

    scene: Scene
    shots: Sequence[Shot]
    observe: int
    steps: int
    models: Sequence[tuple[str, DrNet, PosePredictor]]
    copy: bool

    @property
    def end(self) -> int:
        """The last time, counted from 1."""
        return self.observe + self.steps

    def names(self) -> list[str]:
        """Return the rows below the truth."""
        return [*(name for name, *_ in self.models), *([COPY] if self.copy else [])]

    @cached_property
    def _known(self) -> Truth:
        cyclic = bool(self.scene.config["train"].get("cyclic"))
        return Truth(self.scene.clips, [shot.clip for shot in self.shots], cyclic)

    def true(self, shot: Shot, time: int) -> Frames | None:
        """Return the true frame at a time, also beyond the clip's end where it is known; else None."""
        return self._known.at(shot.clip, (shot.first or 0) + time - 1)

    def observed(self) -> NDArray[np.uint8]:
        """Return the observed frames of all clips, (B, observe, H, W, C)."""
        firsts = [shot.first or 0 for shot in self.shots]
        clips = [self._known.frames[shot.clip] for shot in self.shots]
        return np.stack([clip[first : first + self.observe] for clip, first in zip(clips, firsts, strict=True)])

    def run(self) -> Iterator[tuple[int, Mapping[str, NDArray[np.uint8]]]]:
        """Yield each predicted time, and by name the frames (B, H, W, C) of all clips; memory does not grow with time."""
        observed = self.observed()
        streams = [predicted_frames(model, predictor, observed, self.steps) for _, model, predictor in self.models]
        names = [name for name, *_ in self.models]
        for step in range(self.steps):
            found = {name: next(stream) for name, stream in zip(names, streams, strict=True)}
            yield self.observe + step + 1, found | ({COPY: observed[:, -1]} if self.copy else {})

    def length(self, shot: Shot) -> int:
        """Return how many true frames are known from a clip's first observed one on, at most up to the last time."""
        length = len(self._known.frames[shot.clip])
        left = length - (shot.first or 0)
        return self.end if left >= self.end or self._known.at(shot.clip, length) is not None else left

    def told(self) -> list[dict[str, Any]]:
        """Return the clips as JSON values."""
        return [
            {"clip": self.scene.key(shot.clip), "first": (shot.first or 0) + 1, "true_frames": self.length(shot)}
            for shot in self.shots
        ]


def futures_of(
    scene: Scene,
    clips: Sequence[str],
    rows: int,
    observe: int | None,
    steps: int,
    seed: int,
    beside: Sequence[Beside],
    copy: bool,
) -> Futures:
    """Choose clips and load the predictors.

    Args:
        scene: model and clips.
        clips: by name, `KEY:FRAME` for the first observed frame too, else it is the clip's first; or, without names,
            `rows` drawn ones, long enough where there are such, with a drawn first frame.
        observe: observed frames; None: as many as the predictor was trained to observe.
        steps: predicted ones.
        seed: of what is drawn.
        beside: further runs with a predictor of their own.
        copy: whether the last observed frame, copied, is a row.

    Raises:
        ValueError: for clips too short to observe, and runs without a predictor.
    """
    if steps < 1:
        raise DataError(f"steps {steps} is not allowed; it must be at least 1")
    device = str(scene.device)
    models = [(scene.method, scene.model, load_predictor(scene.run, device, scene.checkpoint))]
    models += [(one.name, one.model, load_predictor(one.run, device)) for one in beside]
    if len({name for name, *_ in models}) < len(models):
        raise DataError(
            f"two rows of one name are not allowed; give each --beside a name of its own, and not {scene.method}"
        )
    observed = models[0][2].config.observe if observe is None else observe
    if observed < 1:
        raise DataError(f"observe {observed} is not allowed; it must be at least 1")
    draw = np.random.default_rng([seed, 4])
    shots = named_clips(scene.clips, clips, scene.split, spans=False) or [
        Shot(shot.clip, int(draw.integers(max(1, scene.clips.sample(shot.clip).length - observed - steps + 1))))
        for shot in drawn_clips(scene.clips, rows, draw, observed + steps)
    ]
    for shot in shots:
        left = scene.clips.sample(shot.clip).length - (shot.first or 0)
        if left < observed:
            raise DataError(f"clip {scene.key(shot.clip)} has {left} frames there; {observed} must be observed")
    return Futures(scene, shots, observed, steps, models, copy)


def spaced(first: int, last: int, count: int) -> list[int]:
    """Return at most `count` evenly spaced times from the first to the last, both included."""
    return sorted({round(time) for time in np.linspace(first, last, min(count, last - first + 1)).tolist()})


def chosen_times(futures: Futures, at: Sequence[int], columns: int) -> tuple[list[int], list[int]]:
    """Return the observed and the predicted times to show.

    Args:
        futures: whose times.
        at: named times; empty: some observed ones, and `columns` predicted ones evenly spaced, the last included.
        columns: how many predicted ones.

    Raises:
        DataError: for a time that is not there.
    """
    if wrong := [time for time in at if not 1 <= time <= futures.end]:
        raise DataError(f"time {wrong[0]} is not there; frames are counted from 1 to {futures.end}")
    if at:
        times = sorted(set(at))
        return [t for t in times if t <= futures.observe], [t for t in times if t > futures.observe]
    if columns < 1:
        raise DataError(f"columns {columns} is not allowed; it must be at least 1")
    every = -(-futures.steps // columns)
    predicted = sorted(range(futures.end, futures.observe, -every))
    return spaced(1, futures.observe, 3 if futures.observe > 2 else 2), predicted


def keep(futures: Futures, times: Sequence[int]) -> dict[tuple[str, int], list[Frames]]:
    """Run all predictions and return the frames of some times, by name and time, one for each clip."""
    wanted = set(times)
    return {(name, t): list(f) for t, found in futures.run() if t in wanted for name, f in found.items()}
