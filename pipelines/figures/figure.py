"""A finished figure: a sheet, perhaps a movie of sheets, and the numbers it shows; and writing it to a file."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from drnet.datasets.contract import DataError
from drnet.pipelines.figures.page import to_picture, to_svg
from drnet.pipelines.figures.sheet import Sheet, page_of
from drnet.pipelines.files import write_whole
from drnet.pipelines.looking.ffmpeg import save_mp4
from drnet.pipelines.looking.pictures import PAPER, Frames, save_gif, save_png

STILL, MOVING = (".png", ".svg"), (".gif", ".mp4")


@dataclass(frozen=True)
class Figure:
    """What a figure's function returns.

    Attributes:
        sheets: one for a picture; those of a movie in turn, made when they are asked for.
        numbers: JSON values: what is shown where, and everything it was made from; whole when the sheets are written.
    """

    sheets: Iterable[Sheet]
    numbers: dict[str, Any] = field(default_factory=dict)


def is_movie(path: Path, movies: bool = True) -> bool:
    """Return whether a file's ending asks for a movie.

    Args:
        path: to be written.
        movies: whether the figure can move.

    Raises:
        DataError: before any work, where a figure cannot be written so.
    """
    allowed = STILL + MOVING if movies else STILL
    if path.suffix.lower() not in allowed or path.is_dir():
        kind = "a folder" if path.is_dir() else path.suffix or "no ending"
        raise DataError(f"{path}: {kind} is not allowed here; name a file that ends in {', '.join(allowed)}")
    return path.suffix.lower() in MOVING


def write_figure(path: Path, figure: Figure, fps: float = 10) -> None:
    """Write a figure as its file's ending says: .png, .svg, or a movie as .gif or .mp4."""
    kind = path.suffix.lower()
    if is_movie(path):
        (save_gif if kind == ".gif" else save_mp4)(path, of_one_size(_pictures(figure.sheets)), fps)
        return
    page = page_of(next(iter(figure.sheets)))
    if kind == ".png":
        save_png(path, to_picture(page))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, to_svg(page))


def _pictures(sheets: Iterable[Sheet]) -> Iterator[Frames]:
    for sheet in sheets:
        yield to_picture(page_of(sheet))


def of_one_size(pictures: Iterable[Frames]) -> Iterator[Frames]:
    """Yield pictures cut or filled to the size of the first: a movie has one size, and is never held whole."""
    size: tuple[int, int] | None = None
    for picture in pictures:
        size = size or picture.shape[:2]
        height, width = size
        cut = picture[:height, :width]
        missing = ((0, height - cut.shape[0]), (0, width - cut.shape[1]), (0, 0))
        yield np.pad(cut, missing, constant_values=PAPER)
