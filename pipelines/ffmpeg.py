"""Movies by ffmpeg."""

import os
from collections.abc import Sequence
from pathlib import Path

import ffmpeg
import numpy as np
from numpy.typing import NDArray

from drnet.datasets.contract import DataError
from drnet.datasets.reading.ffmpeg_binary import ffmpeg_path


def save_mp4(path: Path, sheets: Sequence[NDArray[np.uint8]], fps: float = 10) -> None:
    """Write a movie (H.264) of pictures (H, W, 3) of one size.

    Raises:
        DataError: where ffmpeg cannot write it.
    """
    even = [np.pad(sheet, ((0, sheet.shape[0] % 2), (0, sheet.shape[1] % 2), (0, 0)), "edge") for sheet in sheets]
    size = f"{even[0].shape[1]}x{even[0].shape[0]}"  # H.264 with halved colour wants even numbers
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    stream = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="rgb24", s=size, r=fps)
    stream = stream.output(str(temporary), format="mp4", vcodec="libx264", pix_fmt="yuv420p", crf=18)
    try:
        pixels = b"".join(sheet.tobytes() for sheet in even)
        stream.run(cmd=ffmpeg_path(), input=pixels, quiet=True, overwrite_output=True)
        temporary.replace(path)
    except ffmpeg.Error as error:
        last = error.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise DataError(f"{path}: ffmpeg cannot write it ({' '.join(last)})") from None
    finally:
        temporary.unlink(missing_ok=True)
