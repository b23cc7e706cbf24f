"""Movies by ffmpeg."""

import os
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain
from pathlib import Path

import ffmpeg
import numpy as np
from numpy.typing import NDArray

from drnet.datasets.contract import DataError
from drnet.datasets.reading.ffmpeg_binary import ffmpeg_path


def save_mp4(path: Path, sheets: Iterable[NDArray[np.uint8]], fps: float = 10) -> None:
    """Write a movie (H.264) of pictures (H, W, 3) of one size, each handed to ffmpeg as it comes.

    Raises:
        DataError: where ffmpeg cannot write it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    pictures = map(_even, sheets)
    first = next(pictures)
    stream = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="rgb24", s=f"{first.shape[1]}x{first.shape[0]}", r=fps)
    stream = stream.output(str(temporary), format="mp4", vcodec="libx264", pix_fmt="yuv420p", crf=18)
    stream = stream.global_args("-loglevel", "error", "-nostats")  # its words must fit the pipe that nobody reads
    process = stream.run_async(cmd=ffmpeg_path(), pipe_stdin=True, quiet=True, overwrite_output=True)
    try:
        with suppress(BrokenPipeError):  # it ended early, and says why
            for picture in chain([first], pictures):
                process.stdin.write(picture.tobytes())
        _, told = process.communicate()
        if process.returncode:
            last = told.decode(errors="replace").strip().splitlines()[-1:]
            raise DataError(f"{path}: ffmpeg cannot write it ({' '.join(last)})")
        temporary.replace(path)
    finally:
        if process.poll() is None:  # what made the pictures failed
            process.kill()
            process.communicate()
        temporary.unlink(missing_ok=True)


def _even(sheet: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture with its last row and column repeated to even numbers: H.264 with halved colour wants them."""
    return np.pad(sheet, ((0, sheet.shape[0] % 2), (0, sheet.shape[1] % 2), (0, 0)), "edge")
