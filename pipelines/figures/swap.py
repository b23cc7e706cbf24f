"""Swap grids (Fig. 3 left, Fig. 4, Fig. 5 right): the content of each row in the pose of each column."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drnet.datasets.contract import DataError
from drnet.model import DrNet
from drnet.pipelines.evaluation.scenes import digit_scenes
from drnet.pipelines.figures.beside import NOT_YET, Beside
from drnet.pipelines.figures.figure import Figure
from drnet.pipelines.figures.scene import Scene, drawn_clips, frame_of
from drnet.pipelines.figures.score import decibels
from drnet.pipelines.figures.sheet import Cell, Row, Sheet, Span
from drnet.pipelines.looking.clips import Shot, named_clips
from drnet.pipelines.looking.pictures import Frames
from drnet.pipelines.looking.swaps import swapped
from drnet.pipelines.looking.truth import Truth, truth_of

LONGEST = 60  # frames of a movie


@dataclass(frozen=True)
class Grid:
    """Which frames a grid takes its contents and its poses from: (clip, frame) pairs."""

    contents: tuple[tuple[int, int], ...]
    poses: tuple[tuple[int, int], ...]

    def at(self, time: int, lengths: Sequence[int]) -> "Grid":
        """Return the grid some frames later; a pose's clip that has ended stays at its last frame."""
        moved = ((clip, min(first + time, n - 1)) for (clip, first), n in zip(self.poses, lengths, strict=True))
        return Grid(self.contents, tuple(moved))


def swap_figure(
    scene: Scene,
    clips: Sequence[str] = (),
    poses: Sequence[str] = (),
    rows: int = 6,
    columns: int = 8,
    seed: int = 0,
    truth: bool = False,
    beside: Sequence[Beside] = (),
    missing: Sequence[str] = (),
    moving: bool = False,
) -> Figure:
    """Draw a swap grid; as a movie, the poses' clips run.

    Args:
        scene: model and clips.
        clips: that give the contents, by name; else `rows` drawn ones.
        poses: that give the poses, by name; else `columns` drawn ones.
        seed: of what is drawn.
        truth: whether the true frame stands below each swapped one.
        beside: further runs, each with a grid of its own below.
        missing: methods whose place is left empty.
        moving: whether sheets of a movie are asked for.

    Raises:
        DataError: for names that are not there, or truth that is not known.
    """
    draw = np.random.default_rng([seed, 1])
    content = named_clips(scene.clips, clips, scene.split, spans=False) or drawn_clips(scene.clips, rows, draw)
    taken = [shot.clip for shot in content]
    pose = named_clips(scene.clips, poses, scene.split, spans=False) or drawn_clips(
        scene.clips, columns, draw, without=taken
    )
    grid = Grid(_pairs(scene, content, draw), _pairs(scene, pose, draw, start=moving))
    drawn = known_truth(scene) if truth else None
    if truth and drawn is None:
        raise DataError("the truth of these swaps is not known: only data sets whose scenes are known can draw it")
    models = [(scene.method, scene.model), *((one.name, one.model) for one in beside)]
    settings = {"seed": seed, "rows": len(content), "columns": len(pose), "truth": truth}
    numbers = scene.origin(**settings) | {
        "figure": "swap",
        "beside": [one.origin() for one in beside],
        "contents": [_told(scene, *pair) for pair in grid.contents],
        "poses": [_told(scene, *pair) for pair in grid.poses],
    }
    if drawn is not None:  # mean over the grid, against the truth, in dB; of each picture of a movie
        numbers["psnr"] = {}

    def sheet(now: Grid, when: str = "") -> Sheet:
        return _sheet(scene, now, models, drawn, missing, numbers, when)

    if not moving:
        return Figure([sheet(grid)], numbers)

    def sheets() -> Iterator[Sheet]:
        lengths = [scene.clips.sample(clip).length for clip, _ in grid.poses]
        steps = max(n - first for n, (_, first) in zip(lengths, grid.poses, strict=True))
        for time in range(min(LONGEST, steps)):
            yield sheet(grid.at(time, lengths), f", picture {time + 1}")

    return Figure(sheets(), numbers)


def known_truth(scene: Scene) -> Truth | None:
    """Return what draws the truth of swaps: the data set, or for digits whose images are elsewhere their own clips."""
    scenes = digit_scenes(scene.clips)
    return truth_of(scene.clips) or (scenes.swapped if scenes else None)


def _pairs(
    scene: Scene, shots: Sequence[Shot], draw: np.random.Generator, start: bool = False
) -> tuple[tuple[int, int], ...]:
    """Return clip and frame of each; `start`: what was not named begins with the clip."""
    times = [frame_of(shot, scene.clips, draw) for shot in shots]
    return tuple((s.clip, 0 if start and s.first is None else time) for s, time in zip(shots, times, strict=True))


def _told(scene: Scene, clip: int, time: int) -> dict[str, Any]:
    return {"clip": scene.key(clip), "frame": time + 1}


def _sheet(
    scene: Scene,
    grid: Grid,
    models: Sequence[tuple[str, DrNet]],
    truth: Truth | None,
    missing: Sequence[str],
    numbers: dict[str, Any],
    when: str,
) -> Sheet:
    content = np.stack([scene.frame(*pair) for pair in grid.contents])
    pose = np.stack([scene.frame(*pair) for pair in grid.poses])
    drawn = None
    if truth is not None:
        drawn = np.stack([[truth(c, p, time) for p, time in grid.poses] for c, _ in grid.contents])
    top = Row("", [Cell(), *(Cell(frame, given=True) for frame in pose)])
    rows: list[Row] = [top]
    for number, (name, model) in enumerate(models):
        found = swapped(model, content, pose, scene.device)
        section = name if len(models) + len(missing) > 1 else ""
        rows += _grid_rows(content, found, drawn if number == 0 else None, section)
        if drawn is not None:
            values = decibels(found.reshape(-1, *found.shape[2:]), drawn.reshape(-1, *drawn.shape[2:]))
            numbers["psnr"].setdefault(name, []).append(float(np.mean(values)))
    rows += [Row("", words=NOT_YET, section=name) for name in missing]
    return Sheet(
        "Each frame has the content of the frame at its left and the pose of the frame at the top" + when + ".",
        rows,
        spans=[Span(0, 0, "content from"), Span(1, len(pose), "pose from")],
        breaks=[1],
        notes=[_explained(scene, truth is not None), *scene.notes],
    )


def _explained(scene: Scene, truth: bool) -> str:
    below = " Below each row: the true frame of that content in that pose." if truth else ""
    return f"{scene.about()} Blue outlines: frames that the model was given.{below}"


def _grid_rows(
    content: NDArray[np.uint8], found: NDArray[np.uint8], truth: NDArray[np.uint8] | None, section: str
) -> list[Row]:
    rows = []
    for number, frame in enumerate(content):
        cells = [Cell(frame, given=True), *map(Cell, _frames(found[number]))]
        head = section if number == 0 else ""
        rows.append(Row("generated" if truth is not None else "", cells, head, space=number == 0 or truth is not None))
        if truth is not None:
            rows.append(Row("truth", [Cell(), *map(Cell, _frames(truth[number]))]))
    return rows


def _frames(stack: NDArray[np.uint8]) -> list[Frames]:
    return list(stack)
