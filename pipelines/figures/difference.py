"""Predictions and their difference from the truth (Fig. 12), with the PSNR of each frame below it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drnet.datasets.contract import DataError
from drnet.pipelines.evaluation.frames import settings
from drnet.pipelines.figures.beside import NOT_YET, Beside
from drnet.pipelines.figures.figure import Figure
from drnet.pipelines.figures.futures import Futures, chosen_times, futures_of
from drnet.pipelines.figures.rollout import ENDED, true_cell
from drnet.pipelines.figures.scene import Scene
from drnet.pipelines.figures.score import decibels, shown
from drnet.pipelines.figures.sheet import Cell, Row, Sheet, Span
from drnet.pipelines.looking.pictures import Frames

MISSING = ("MCNet",)


@dataclass
class Scores:
    """PSNR in dB of each predicted frame of one row that has a truth, by time; and the frames that are shown.

    Attributes:
        values: by time.
        frames: by time.
        told: the same as JSON values, with the mean.
    """

    values: dict[int, float] = field(default_factory=dict)
    frames: dict[int, Frames] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=lambda: {"mean_psnr": None, "psnr": {}})

    def add(self, time: int, value: float) -> None:
        """Add a frame's score."""
        self.values[time] = self.told["psnr"][str(time)] = value
        self.told["mean_psnr"] = float(np.mean(list(self.values.values())))


def difference_figure(
    scene: Scene,
    clips: Sequence[str] = (),
    rows: int = 2,
    columns: int = 7,
    at: Sequence[int] = (),
    observe: int | None = None,
    steps: int = 20,
    seed: int = 0,
    beside: Sequence[Beside] = (),
    missing: Sequence[str] = MISSING,
    moving: bool = False,
) -> Figure:
    """Draw for each clip the truth, each prediction and its difference from the truth; last-frame copy is one of them.

    Args:
        scene: model and clips.
        clips: by name, `KEY:FRAME` for the first observed frame too; else `rows` drawn ones.
        columns: predicted times that are shown, evenly spaced.
        at: times to show instead, counted from 1, the first observed frame.
        observe: observed frames; None: as many as the predictor was trained to observe.
        steps: predicted frames.
        seed: of what is drawn.
        beside: further runs with a predictor of their own.
        missing: methods whose row is left empty.
        moving: whether sheets of a movie are asked for.

    Raises:
        ValueError: for names and times that are not there, runs without a predictor, clips without a frame to compare.
    """
    futures = futures_of(scene, clips, rows, observe, steps, seed, beside, copy=True)
    for shot in futures.shots:
        if futures.length(shot) <= futures.observe:
            raise DataError(f"clip {scene.key(shot.clip)} ends with the observed frames: there is nothing to compare")
    times = chosen_times(futures, at, columns)[1]
    if not times:
        raise DataError(f"no predicted time is among {list(at)}; prediction begins at {futures.observe + 1}")
    numbers = scene.origin(seed=seed, observe=futures.observe, steps=steps) | {
        "figure": "difference",
        "psnr": settings(),
        "beside": [one.origin() for one in beside],
        "clips": futures.told(),
        "times": times,
    }
    scores = [{name: Scores() for name in futures.names()} for _ in futures.shots]
    for told, by_name in zip(numbers["clips"], scores, strict=True):
        told["scores"] = {name: one.told for name, one in by_name.items()}
    if moving:
        return Figure(_movie(futures, scores, missing), numbers)
    for time, found in futures.run():
        _score(futures, scores, time, found)
        if time in times:
            for number, by_name in enumerate(scores):
                for name, one in by_name.items():
                    one.frames[time] = found[name][number]
    return Figure([_sheet(futures, times, scores, missing)], numbers)


def _score(
    futures: Futures,
    scores: Sequence[Mapping[str, Scores]],
    time: int,
    found: Mapping[str, NDArray[np.uint8]],
) -> None:
    """Add the scores of a time's frames, by name for all clips, where a clip has a truth then."""
    true = {number: futures.true(shot, time) for number, shot in enumerate(futures.shots)}
    known = {number: frame for number, frame in true.items() if frame is not None}
    if not known:
        return
    truth = np.stack(list(known.values()))
    for name, frames in found.items():
        for number, value in zip(known, decibels(frames[list(known)], truth), strict=True):
            scores[number][name].add(time, value)


def difference(truth: NDArray[np.uint8], frame: NDArray[np.uint8]) -> Frames:
    """Return truth minus frame as a picture: grey where they are equal, brighter where the truth is brighter."""
    return ((truth.astype(np.int16) - frame + 255) // 2).astype(np.uint8)


def _sheet(futures: Futures, times: list[int], scores: Sequence[Mapping[str, Scores]], missing: Sequence[str]) -> Sheet:
    rows: list[Row] = []
    for shot, by_name in zip(futures.shots, scores, strict=True):
        head = ", ".join(futures.scene.told(shot.clip, shot.first).split("\n"))
        truth = [futures.true(shot, time) for time in times]
        true = [true_cell(futures, shot, time) for time in (futures.observe, *times)]
        rows.append(Row("truth", true, head))
        for name, one in by_name.items():
            rows += _compared(name, one, dict(zip(times, truth, strict=True)))
        rows += [Row(name, words=NOT_YET, space=True) for name in missing]
    begin = futures.observe + 1
    return Sheet(
        "Predicted frames, and the truth minus each of them; below each, its PSNR against the truth.",
        rows,
        [f"t = {futures.observe}", *(f"t = {time}" for time in times)],
        [Span(0, 0, "last observed"), Span(1, len(times), f"predicted from t = {begin} on")],
        [1],
        1,
        [_explained(futures), *futures.scene.notes],
    )


def _explained(futures: Futures) -> str:
    return (
        f"{futures.scene.about()} Differences: grey where both are equal, brighter where the truth is brighter. "
        "PSNR: of each frame; its mean is over all predicted frames that have a truth, shown here or not."
    )


def _compared(name: str, one: Scores, truth: Mapping[int, Frames | None]) -> list[Row]:
    """Return a row of predictions and a row of their differences from the truth at some times."""
    made, minus = [Cell()], [Cell()]
    for time, true in truth.items():
        made.append(Cell(one.frames[time], "" if true is None else shown(one.values[time])))
        minus.append(minus_cell(true, one.frames[time]))
    mean = f"{name}\nmean PSNR {shown(one.told['mean_psnr'])}"
    return [Row(mean, made, space=True), Row(f"truth - {name}", minus)]


def minus_cell(true: Frames | None, frame: Frames) -> Cell:
    """Return truth minus a frame; where the truth is not known, words that say so."""
    return Cell(words=ENDED) if true is None else Cell(difference(true, frame))


def _movie(futures: Futures, scores: Sequence[Mapping[str, Scores]], missing: Sequence[str]) -> Iterator[Sheet]:
    """Yield a sheet for each predicted time: for each clip the truth, every prediction, and below it the difference."""
    longest = max(map(futures.length, futures.shots))
    for time, found in futures.run():
        if time > longest:
            return
        _score(futures, scores, time, found)
        yield _moment(futures, scores, time, found, missing)


def _moment(
    futures: Futures,
    scores: Sequence[Mapping[str, Scores]],
    time: int,
    found: Mapping[str, NDArray[np.uint8]],
    missing: Sequence[str],
) -> Sheet:
    empty: list[Any] = [Cell(words=NOT_YET)] * len(missing)
    rows: list[Row] = []
    for number, shot in enumerate(futures.shots):
        true, truth = futures.true(shot, time), true_cell(futures, shot, time)
        made = [
            Cell(f[number], " " if true is None else shown(scores[number][name].values[time]))
            for name, f in found.items()
        ]
        minus = [minus_cell(true, f[number]) for f in found.values()]
        rows.append(Row(futures.scene.told(shot.clip, shot.first), [truth, *made, *empty], space=True))
        rows.append(Row("truth - prediction", [Cell(), *minus, *[Cell()] * len(missing)]))
    return Sheet(
        f"t = {time} of {futures.end}: predicted, and the truth minus the prediction",
        rows,
        ["truth", *found, *missing],
        breaks=[1],
        notes=[_explained(futures), *futures.scene.notes],
    )
