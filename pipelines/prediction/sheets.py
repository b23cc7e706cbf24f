"""How predictions are shown: pages of a movie, and a contact sheet of chosen steps. Frames are uint8 (H, W, C)."""

from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np
from PIL import Image, ImageDraw

from drnet.pipelines.figures.page import font, wrapped
from drnet.pipelines.looking.pictures import GAP, PAPER, Frames, enlarge, tile, to_rgb, with_margins

OBSERVED, PREDICTED = (40, 110, 200), (230, 130, 30)  # borders: blue, orange
BORDER = 3  # pixels
COLUMNS = 12  # steps of a contact sheet
ENDED = "clip has ended"
SMALL, LEADING = 11, 3  # pixels, of names and what stands in place of a frame
NO_FRAME, GREY = 238, 100  # its ground, and its words

Moment = tuple[int, Sequence[Frames | None], Sequence[Frames]]
"""time from 0, the truth of each clip where it is known, the prediction of each clip"""


def movie_page(
    time: int,
    true: Sequence[Frames | None],
    predicted: Sequence[Frames],
    observe: int,
    steps: int,
    keys: Sequence[str] = (),
) -> Frames:
    """Return a page of a movie: a column for each clip, its name on top, the truth above and the prediction below.

    All pages of a movie have the same size.

    Args:
        time: of the frames, from 0.
        true: each clip's frame, or None beyond its truth, where it says so.
        predicted: each clip's frame; while it observes, the same.
        observe: observed frames.
        steps: predicted ones.
        keys: of the clips.
    """
    colour = OBSERVED if time < observe else PREDICTED
    below = _bordered(predicted, colour)
    sheet = tile([_or_ended(_bordered(true, colour), below[0]), below])
    labelled = with_margins(sheet, left=["truth", "prediction"])
    if keys:
        labelled = np.concatenate([_names(keys, below[0].shape[1], labelled.shape[1]), labelled])
    page = with_margins(labelled, _title(time, observe))
    widest = with_margins(labelled, _title(observe + steps, observe)).shape[1] + 8
    return np.pad(page, ((0, 0), (0, max(0, widest - page.shape[1])), (0, 0)), constant_values=PAPER)


def _names(keys: Sequence[str], width: int, whole: int) -> Frames:
    """Return the names above the columns, which end at the right of a page `whole` pixels wide."""
    lines = [wrapped(key, width, SMALL) for key in keys]
    height = max(map(len, lines)) * (SMALL + LEADING) + LEADING
    strip = Image.new("RGB", (whole, height), (PAPER,) * 3)
    left = whole - len(keys) * (width + GAP)
    for number, key in enumerate(lines):
        _write(strip, key, left + number * (width + GAP) + width / 2, height - len(key) * (SMALL + LEADING), (0, 0, 0))
    return np.asarray(strip)


def _write(page: Image.Image, lines: Sequence[str], middle: float, top: float, colour: tuple[int, int, int]) -> None:
    draw, letters = ImageDraw.Draw(page), font(SMALL)
    for number, line in enumerate(lines):
        draw.text((middle - letters.getlength(line) / 2, top + number * (SMALL + LEADING)), line, colour, letters)


def _or_ended(tiles: Sequence[Frames | None], like: Frames) -> list[Frames]:
    """Return tiles; in place of a missing one, one of the same size that says why."""
    return [_ended(like.shape[0], like.shape[1]) if one is None else one for one in tiles]


def _ended(height: int, width: int) -> Frames:
    page = Image.new("RGB", (width, height), (NO_FRAME,) * 3)
    lines = wrapped(ENDED, width - 2 * BORDER, SMALL)
    _write(page, lines, width / 2, (height - len(lines) * (SMALL + LEADING)) / 2, (GREY,) * 3)
    return np.asarray(page)


def _title(time: int, observe: int) -> str:
    if time < observe:
        return f"t = {time + 1}: observed"
    return f"t = {time + 1}: predicted, step {time + 1 - observe}"


@overload
def _bordered(frames: Sequence[Frames], colour: tuple[int, int, int]) -> list[Frames]: ...
@overload
def _bordered(frames: Sequence[Frames | None], colour: tuple[int, int, int]) -> list[Frames | None]: ...
def _bordered(frames: Sequence[Frames | None], colour: tuple[int, int, int]) -> Sequence[Frames | None]:
    return [None if frame is None else _border(frame, colour) for frame in frames]


def _border(frame: Frames, colour: tuple[int, int, int]) -> Frames:
    """Return a frame, enlarged, in a border that tells what it is."""
    inside = to_rgb(enlarge(frame))
    page = np.full((inside.shape[0] + 2 * BORDER, inside.shape[1] + 2 * BORDER, 3), colour, np.uint8)
    page[BORDER:-BORDER, BORDER:-BORDER] = inside
    return page


def moments(steps: int, columns: int = COLUMNS) -> list[int]:
    """Return steps to show, from 1 to the last: ever farther apart."""
    return sorted({round(step) for step in np.geomspace(1, steps, columns)})


def contact_sheet(stream: Iterable[Moment], keys: Sequence[str], observe: int, steps: Sequence[int]) -> Frames:
    """Return a picture of the last observed frame and of chosen steps: two rows for each clip, truth and prediction.

    Args:
        stream: all moments, of which only those that are shown are held.
        keys: of the clips.
        observe: observed frames.
        steps: the chosen ones, counted from 1.
    """
    times = [observe - 1, *(observe - 1 + step for step in sorted(set(steps)))]
    held = {time: (true, predicted) for time, true, predicted in stream if time in times}
    colours = {time: OBSERVED if time < observe else PREDICTED for time in times}
    lines: list[Sequence[Frames | None]] = []
    names: list[str] = []
    for row in range(len(held[times[0]][1])):
        true = [(time, held[time][0][row]) for time in times]
        made = [_border(held[time][1][row], colours[time]) for time in times[1:]]
        lines.append(_or_ended([frame if frame is None else _border(frame, colours[t]) for t, frame in true], made[0]))
        lines.append([None, *made])
        names += [f"{keys[row]}\ntruth", "prediction"]
    told = ", ".join(str(time + 1 - observe) for time in times[1:])
    title = f"left, blue: t = {observe}, the last observed frame; then predicted, orange: steps {told}"
    return with_margins(tile(lines), title, names)
