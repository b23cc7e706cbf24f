"""Interpolation between two poses of a clip (Fig. 5 left): the content stays, the pose goes from one frame's to another's."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drnet.datasets.contract import DataError, Label
from drnet.interpolate import interpolate
from drnet.pipelines.figures.beside import Beside
from drnet.pipelines.figures.figure import Figure
from drnet.pipelines.figures.scene import Scene, drawn_clips
from drnet.pipelines.figures.sheet import Cell, Row, Sheet, Span
from drnet.pipelines.loader import to_device
from drnet.pipelines.looking.clips import Shot, named_clips
from drnet.pipelines.looking.pictures import unit_to_uint8

MOVIE_STEPS = 24  # pictures from the first pose to the second; the movie goes back as well


@dataclass(frozen=True)
class Turn:
    """True frames between two frames of a clip that shows a turn.

    Attributes:
        name: of the label that turns.
        times: index of the clip's frame that is nearest to each step's angle.
        angles: of the steps.
        shown: of the frames.
    """

    name: str
    times: list[int]
    angles: list[float]
    shown: list[float]

    def told(self) -> dict[str, Any]:
        """Return it as JSON values; frames count from 1."""
        return {**vars(self), "times": [time + 1 for time in self.times]}


def interpolate_figure(
    scene: Scene,
    clips: Sequence[str] = (),
    rows: int = 5,
    columns: int = 7,
    seed: int = 0,
    beside: Sequence[Beside] = (),
    moving: bool = False,
) -> Figure:
    """Draw interpolations, a row for each clip; where a clip shows a turn, the truth below.

    Args:
        scene: model and clips.
        clips: by name, `KEY:FIRST-LAST` for the two frames too; else `rows` drawn ones. Where no frames are named they
            are a quarter of the clip apart: of a whole turn, 90 degrees.
        columns: generated frames, both ends included.
        seed: of what is drawn.
        beside: further runs, each with a row of its own.
        moving: whether sheets of a movie are asked for, in which the pose goes from one frame's to the other's and back.

    Raises:
        DataError: for names that are not there, and clips of one frame.
    """
    if columns < 2:
        raise DataError(f"columns {columns} is not allowed; the two ends are 2")
    draw = np.random.default_rng([seed, 2])
    shots = named_clips(scene.clips, clips, scene.split) or drawn_clips(scene.clips, rows, draw, least=2)
    ends = [_ends(scene, shot, draw) for shot in shots]
    steps = MOVIE_STEPS if moving else columns
    first, last = (
        np.stack([scene.frame(shot.clip, pair[end]) for shot, pair in zip(shots, ends, strict=True)]) for end in (0, 1)
    )
    made = {scene.method if beside else "generated": _made(scene, scene.model, first, last, steps)}
    made |= {one.name: _made(scene, one.model, first, last, steps) for one in beside}
    turns = [turn_of(scene, shot.clip, *pair, steps) for shot, pair in zip(shots, ends, strict=True)]
    numbers = scene.origin(seed=seed, rows=len(shots), columns=steps) | {
        "figure": "interpolate",
        "beside": [one.origin() for one in beside],
        "clips": [
            {"clip": scene.key(shot.clip), "first": pair[0] + 1, "last": pair[1] + 1, "truth": turn and turn.told()}
            for shot, pair, turn in zip(shots, ends, turns, strict=True)
        ],
    }
    shown = _Shown(scene, shots, ends, first, last, made, turns)
    if not moving:
        return Figure([shown.sheet(range(steps))], numbers)

    def sheets() -> Iterator[Sheet]:
        for step in [*range(steps), *range(steps - 2, 0, -1)]:
            yield shown.sheet([step])

    return Figure(sheets(), numbers)


def _ends(scene: Scene, shot: Shot, draw: np.random.Generator) -> tuple[int, int]:
    """Return the two frames of a clip between which it goes."""
    length = scene.clips.sample(shot.clip).length
    if length < 2:
        raise DataError(f"clip {scene.key(shot.clip)} has one frame; an interpolation goes between two")
    apart = max(1, length // 4)
    first = int(draw.integers(length - apart)) if shot.first is None else shot.first
    last = min(first + apart, length - 1) if shot.last is None else shot.last
    if first == last:
        raise DataError(f"clip {scene.key(shot.clip)}: both frames are {first + 1}; name two, KEY:FIRST-LAST")
    return first, last


def _made(scene: Scene, model: Any, first: NDArray[np.uint8], last: NDArray[np.uint8], steps: int) -> NDArray[np.uint8]:
    """Return (B, S, H, W, C): the content of the first frames in the poses between both."""
    one, other = to_device(first, scene.device), to_device(last, scene.device)
    return unit_to_uint8(interpolate(model, one, one, other, steps).movedim(-3, -1).cpu().numpy())


def turning(types: Mapping[str, Label]) -> str | None:
    """Return the label that alone varies within clips and wraps, as an azimuth does; None where there is no such."""
    varying = [name for name, label in types.items() if label.varying]
    return varying[0] if len(varying) == 1 and types[varying[0]].period else None


def turn_of(scene: Scene, clip: int, first: int, last: int, steps: int) -> Turn | None:
    """Return the true frames at evenly spaced angles between two frames of a clip, the shorter way round."""
    name = turning(scene.clips.label_types)
    if name is None:
        return None
    period = scene.clips.label_types[name].period
    assert period is not None, "a label that turns has a period"
    angles = np.array(scene.clips.labels(clip)[name], float)
    way = (angles[last] - angles[first] + period / 2) % period - period / 2
    wanted = (angles[first] + way * np.linspace(0, 1, steps)) % period
    distance = np.abs((angles[None] - wanted[:, None] + period / 2) % period - period / 2)
    times = distance.argmin(1)
    return Turn(name, times.tolist(), wanted.tolist(), angles[times].tolist())


@dataclass(frozen=True)
class _Shown:
    """Everything that the sheets show."""

    scene: Scene
    shots: Sequence[Shot]
    ends: Sequence[tuple[int, int]]
    first: NDArray[np.uint8]  # (B, H, W, C)
    last: NDArray[np.uint8]
    made: Mapping[str, NDArray[np.uint8]]  # (B, S, H, W, C)
    turns: Sequence[Turn | None]

    def sheet(self, steps: Sequence[int]) -> Sheet:
        """Return a sheet of some of the steps."""
        rows = [row for number in range(len(self.shots)) for row in self._rows(number, steps)]
        total = next(iter(self.made.values())).shape[1] - 1
        shares = [f"{100 * step / total:.0f}%" for step in steps]
        below = " Below: the clip's own frame at the angle nearest to it." if any(self.turns) else ""
        return Sheet(
            "The pose goes in a straight line from that of frame x1 to that of frame x2; the content is that of x1.",
            rows,
            headings=["x1", *shares, "x2"],
            spans=[Span(1, len(steps), "generated")],
            breaks=[1, len(steps) + 1],
            notes=[f"{self.scene.about()} Blue outlines: frames that the model was given.{below}", *self.scene.notes],
        )

    def _rows(self, number: int, steps: Sequence[int]) -> Iterator[Row]:
        shot, (first, last), turn = self.shots[number], self.ends[number], self.turns[number]
        told = self.scene.told(shot.clip)
        for name, frames in self.made.items():
            given = [
                Cell(self.first[number], f"frame {first + 1}", True),
                Cell(self.last[number], f"frame {last + 1}", True),
            ]
            cells = [given[0], *(Cell(frames[number, step]) for step in steps), given[1]]
            yield Row(told if len(self.made) == 1 else f"{name}\n{told}", cells, space=number > 0)
        if turn is not None:
            clip = self.scene.clips.frames(shot.clip)
            true = [Cell(clip[turn.times[step]], f"{turn.shown[step]:.0f}°") for step in steps]
            yield Row("truth", [Cell(), *true, Cell()])
