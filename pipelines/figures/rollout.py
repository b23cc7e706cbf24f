"""Rollouts (Fig. 3 right, 6, 7, 11): the truth, and what each model predicts after the first frames, over time."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from drnet.datasets.contract import DataError
from drnet.pipelines.figures.beside import NOT_YET, Beside
from drnet.pipelines.figures.figure import Figure
from drnet.pipelines.figures.futures import Futures, chosen_times, futures_of, keep
from drnet.pipelines.figures.scene import Scene
from drnet.pipelines.figures.sheet import Cell, Row, Sheet, Span
from drnet.pipelines.looking.clips import Shot

ENDED = "clip has ended"
BAND_TILE = 64  # pixels of the page: eleven frames and their label are about 840 wide


def rollout_figure(
    scene: Scene,
    clips: Sequence[str] = (),
    rows: int = 4,
    columns: int = 10,
    at: Sequence[int] = (),
    observe: int | None = None,
    steps: int = 20,
    seed: int = 0,
    copy: bool = False,
    beside: Sequence[Beside] = (),
    missing: Sequence[str] = (),
    moving: bool = False,
    across: int = 0,
) -> Figure:
    """Draw rollouts; as a movie, a row for each clip and a column for the truth and for each model.

    Args:
        scene: model and clips.
        clips: by name, `KEY:FRAME` for the first observed frame too; else `rows` drawn ones.
        columns: predicted times that are shown, evenly spaced.
        at: times to show instead, counted from 1, the first observed frame.
        observe: observed frames; None: as many as the predictor was trained to observe.
        steps: predicted frames.
        seed: of what is drawn.
        copy: whether the last observed frame, copied, is a row.
        beside: further runs with a predictor of their own: a row each.
        missing: methods whose row is left empty.
        moving: whether sheets of a movie are asked for.
        across: most frames side by side, small ones; the rows of more times go on below, clip for clip. 0: all.

    Raises:
        ValueError: for names and times that are not there, and runs without a predictor.
    """
    futures = futures_of(scene, clips, rows, observe, steps, seed, beside, copy)
    observed, predicted = chosen_times(futures, at, columns)
    settings = {"seed": seed, "observe": futures.observe, "steps": steps, "copy": copy}
    numbers = scene.origin(**settings) | {
        "figure": "rollout",
        "beside": [one.origin() for one in beside],
        "clips": futures.told(),
        "times": [*observed, *predicted],
    }
    if moving:
        return Figure(_movie(futures, missing), numbers)
    if not predicted:
        raise DataError(f"no predicted time is among {at}; prediction begins at {futures.observe + 1}")
    if 0 < across < len(observed) + len(predicted):
        return Figure([_banded(futures, observed, predicted, missing, across)], numbers)
    return Figure([_sheet(futures, observed, predicted, missing)], numbers)


def _sheet(futures: Futures, observed: list[int], predicted: list[int], missing: Sequence[str]) -> Sheet:
    frames = keep(futures, predicted)
    rows = []
    for number, shot in enumerate(futures.shots):
        head = ", ".join(futures.scene.told(shot.clip, shot.first).split("\n"))
        true = [true_cell(futures, shot, time) for time in (*observed, *predicted)]
        rows.append(Row("truth", true, head))
        for name in futures.names():
            made = [Cell(frames[name, time][number]) for time in predicted]
            rows.append(Row(name, [*[Cell()] * len(observed), *made]))
        rows += [Row(name, words=NOT_YET) for name in missing]
    first = len(observed)
    spans = [Span(0, first - 1, "observed")] if observed else []
    return Sheet(
        _title(futures),
        rows,
        [f"t = {time}" for time in (*observed, *predicted)],
        [*spans, Span(first, first + len(predicted) - 1, "predicted")],
        [first] if first else [],
        first or None,
        [_explained(futures), *futures.scene.notes],
    )


def _banded(futures: Futures, observed: list[int], predicted: list[int], missing: Sequence[str], across: int) -> Sheet:
    """Draw so many columns side by side, and the further ones below them; each frame of the first row bears its time."""
    frames, times = keep(futures, predicted), [*observed, *predicted]
    bands = [times[first : first + across] for first in range(0, len(times), across)]
    rows = []
    for number, shot in enumerate(futures.shots):
        for band in bands:
            head = ", ".join(futures.scene.told(shot.clip, shot.first).split("\n")) if band is bands[0] else ""
            true = [replace(true_cell(futures, shot, time), caption=f"t = {time}") for time in band]
            over = all(cell.frame is None for cell in true)
            said = f"the clip has ended at t = {futures.length(shot)}" if over else ""
            rows.append(Row("truth", () if over else true, head, said, space=not head))
            for name in futures.names() if band[-1] > futures.observe else ():
                made = [Cell(frames[name, time][number]) if time in predicted else Cell() for time in band]
                if over and name == futures.names()[0]:
                    made = [replace(cell, caption=f"t = {time}") for cell, time in zip(made, band, strict=True)]
                rows.append(Row(name, made))
        rows += [Row(name, words=NOT_YET) for name in missing]
    return Sheet(_title(futures), rows, notes=[_explained(futures), *futures.scene.notes], tile=BAND_TILE)


def _title(futures: Futures) -> str:
    steps = f"After {futures.observe} observed frames, {futures.steps} are predicted"
    return f"{steps}; t counts frames from the first observed one."


def true_cell(futures: Futures, shot: Shot, time: int) -> Cell:
    """Return the true frame of a clip at a time; where it is not known, words that say so."""
    frame = futures.true(shot, time)
    return Cell(words=ENDED) if frame is None else Cell(frame, given=time <= futures.observe)


def _explained(futures: Futures) -> str:
    return f"{futures.scene.about()} Blue outlines: frames that the model was given."


def _movie(futures: Futures, missing: Sequence[str]) -> Iterator[Sheet]:
    """Yield a sheet for each time: the truth, and in the columns beside it every model."""
    names = futures.names()
    labels = [futures.scene.told(shot.clip, shot.first) for shot in futures.shots]

    def sheet(time: int, made: list[list[Cell]]) -> Sheet:
        known = time <= futures.observe
        true = [true_cell(futures, shot, time) for shot in futures.shots]
        empty = [Cell(words=NOT_YET)] * len(missing)
        return Sheet(
            f"t = {time} of {futures.end}: {'observed' if known else 'predicted'}",
            [Row(label, [one, *row, *empty]) for label, one, row in zip(labels, true, made, strict=True)],
            ["truth", *names, *missing],
            breaks=[1],
            notes=[_explained(futures), *futures.scene.notes],
        )

    for time in range(1, futures.observe + 1):
        yield sheet(time, [[true_cell(futures, shot, time)] * len(names) for shot in futures.shots])
    for time, found in futures.run():
        yield sheet(time, [[Cell(found[name][number]) for name in names] for number in range(len(futures.shots))])
