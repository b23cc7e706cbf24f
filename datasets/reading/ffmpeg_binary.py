"""Where an ffmpeg program is: the system's own, else the one that imageio-ffmpeg ships."""

import shutil

import imageio_ffmpeg

from drnet.datasets.contract import DataError


def ffmpeg_path() -> str:
    """Return the path of an ffmpeg program.

    Raises:
        DataError: where neither PATH nor imageio-ffmpeg has one for this platform.
    """
    on_path = shutil.which("ffmpeg")
    if on_path:
        return on_path
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:
        raise DataError(
            "ffmpeg: none on PATH, and imageio-ffmpeg ships none for this platform; install ffmpeg, "
            "or name one in IMAGEIO_FFMPEG_EXE"
        ) from None
