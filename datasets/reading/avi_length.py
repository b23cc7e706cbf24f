"""What an AVI file says of its own length: ffmpeg reads one that has lost a part as a shorter one, without a word."""

from pathlib import Path
from typing import NamedTuple

from drnet.datasets.reading.avi import main_header


class AviLength(NamedTuple):
    """The length of a file as it is stated in it.

    Attributes:
        size: bytes.
        seconds: of its pictures.
    """

    size: int
    seconds: float


def avi_length(path: Path) -> AviLength:
    """Return what a file states; zeros where it does not, or is no AVI.

    An AVI file is a chain of RIFF chunks, each with its size in bytes 4 to 8. The first holds the main header, with
    the microseconds of a picture and the number of pictures (in a chain of several, those of the first chunk).
    """
    with path.open("rb") as file:
        start, end = file.read(56), 0
        head = start[:12]
        while head[:4] == b"RIFF" and head[8:] in (b"AVI ", b"AVIX"):
            size = int.from_bytes(head[4:8], "little")
            if not 0 < size < 2**32 - 2**16:  # written by a program that could not go back
                break
            end += 8 + size + size % 2
            file.seek(end)
            head = file.read(12)
    has_header = start[:4] == b"RIFF" and start[8:16] == b"AVI LIST" and start[20:24] == b"hdrl"
    stated = main_header(start[24:] if has_header else b"")
    return AviLength(end, stated.microseconds * max(0, stated.frames) / 1e6)
