"""How predictions are shown: pages of a movie, and a contact sheet of chosen steps. Frames are uint8 (H, W, C)."""

from collections.abc import Iterable, Sequence

import numpy as np

from drnet.pipelines.looking.pictures import PAPER, Frames, enlarge, tile, to_rgb, with_margins

OBSERVED, PREDICTED = (40, 110, 200), (230, 130, 30)  # borders: blue, orange
BORDER = 3  # pixels
COLUMNS = 12  # steps of a contact sheet

Moment = tuple[int, Sequence[Frames | None], Sequence[Frames]]
"""time from 0, the truth of each clip where it is known, the prediction of each clip"""


def movie_page(
    time: int, true: Sequence[Frames | None], predicted: Sequence[Frames], observe: int, steps: int
) -> Frames:
    """Return a page of a movie: a column for each clip, the truth above and the prediction below.

    All pages of a movie have the same size.

    Args:
        time: of the frames, from 0.
        true: each clip's frame, or None beyond its truth.
        predicted: each clip's frame; while it observes, the same.
        observe: observed frames.
        steps: predicted ones.
    """
    colour = OBSERVED if time < observe else PREDICTED
    sheet = tile([_bordered(true, colour), _bordered(predicted, colour)])
    page = with_margins(sheet, _title(time, observe), ["truth", "prediction"])
    widest = with_margins(sheet, _title(observe + steps, observe), ["truth", "prediction"]).shape[1] + 8
    return np.pad(page, ((0, 0), (0, max(0, widest - page.shape[1])), (0, 0)), constant_values=PAPER)


def _title(time: int, observe: int) -> str:
    if time < observe:
        return f"frame {time + 1}: observed"
    return f"frame {time + 1}: predicted, step {time + 1 - observe}"


def _bordered(frames: Sequence[Frames | None], colour: tuple[int, int, int]) -> list[Frames | None]:
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
    lines: list[list[Frames | None]] = []
    names: list[str] = []
    for row in range(len(held[times[0]][1])):
        true = [(time, held[time][0][row]) for time in times]
        lines.append([None if frame is None else _border(frame, colours[time]) for time, frame in true])
        lines.append([None, *(_border(held[time][1][row], colours[time]) for time in times[1:])])
        names += [f"{keys[row]}\ntruth", "prediction"]
    told = ", ".join(str(time + 1 - observe) for time in times[1:])
    title = f"left, blue: frame {observe}, the last observed one; then predicted, orange: steps {told}"
    return with_margins(tile(lines), title, names)
