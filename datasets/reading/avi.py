"""How many frames an AVI file says it has, and how many are there: decoders shorten a damaged file silently.

An AVI file is a tree of chunks: four letters, a size, and so many bytes, padded to an even number. `hdrl` holds the
header, `movi` a chunk for each frame (`00db` or `00dc`). A frame of MPEG-4 part 2 begins with a start code and has few
zero bytes in a row (three, in fact), so that parts of a file that a disk or a download left blank are seen.
"""

import re
import struct
from bisect import bisect_left
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

_MPEG4 = frozenset({b"DX50", b"DIVX", b"XVID", b"FMP4", b"MP4V"})
_FRAMES = (b"db", b"dc")
_OTHER = re.compile(rb"\d\d(?:wb|tx|pc)|JUNK|ix\d\d|idx1")  # sound, text, palettes, padding, indices
_CHUNK = struct.Struct("<4sI")
_FRAME = struct.Struct("<4sI4sB")  # a chunk, and the beginning of a frame in it
_PICTURE = b"\0\0\1\xb6"  # begins a picture; the next two bits say of which kind
_BIDIRECTIONAL = 2  # the kind of picture that is stored behind one that is shown after it
_LEAST = 8  # bytes of a frame; a shorter one says that nothing has changed, and decoders give no picture for it


class NoAviError(ValueError):
    """The bytes are no AVI file, or its header is damaged; the message says which."""


@dataclass(frozen=True)
class AviFrames:
    """What is known of the frames of an AVI file before any is decoded.

    Attributes:
        stated: frames that the header says there are.
        whole: frames before the first sign of damage.
        damage: that sign, empty where there is none.
        in_order: whether the whole ones are known to lie in the order in which they are shown.
    """

    stated: int
    whole: int
    damage: str
    in_order: bool

    @property
    def sound(self) -> int:
        """Frames that can be relied on."""
        return min(self.stated, self.whole)

    @property
    def is_whole(self) -> bool:
        """Whether there is no damage, and there are as many frames as stated."""
        return self.stated == self.whole and not self.damage


class MainHeader(NamedTuple):
    """What an AVI file says of its pictures: the microseconds that one is shown, and how many there are."""

    microseconds: int
    frames: int


def main_header(header: bytes) -> MainHeader:
    """Read the main header from what follows the letters `hdrl`; (0, -1) where it is not there."""
    if header[:4] != b"avih" or len(header) < 28:
        return MainHeader(0, -1)
    return MainHeader(struct.unpack_from("<I", header, 8)[0], struct.unpack_from("<I", header, 24)[0])


def avi_frames(data: bytes) -> AviFrames:
    """Count the frames of an AVI file.

    Args:
        data: all bytes of the file.

    Raises:
        NoAviError: where it has no header or no frames.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"AVI ":
        raise NoAviError("it is no AVI file")
    header, stated, at = b"", -1, 12
    while at + 12 <= len(data):
        name, size = _CHUNK.unpack_from(data, at)
        if name == b"LIST" and data[at + 8 : at + 12] == b"movi":
            if stated < 0:
                break
            end = at + 8 + size if size else len(data)  # a writer that was stopped has left 0
            whole, damage, in_order = _walk(data, at + 12, end, _is_mpeg4(header))
            return AviFrames(stated, whole, damage or _contradiction(header, stated), in_order)
        if name == b"LIST" and data[at + 8 : at + 12] == b"hdrl":
            header = bytes(data[at + 12 : at + 8 + size])
            stated = main_header(header).frames
        at += 8 + size + size % 2
    raise NoAviError("its AVI header is damaged" if stated < 0 else "it has no frames")


def _is_mpeg4(header: bytes) -> bool:
    """Whether the header's first stream format names MPEG-4 part 2."""
    at = header.find(b"strf")
    return header[at + 24 : at + 28].upper() in _MPEG4


def _contradiction(header: bytes, stated: int) -> str:
    """Return what is wrong with the number of frames in the header of the video's stream; empty where nothing is."""
    at = header.find(b"strh")
    while at >= 0 and header[at + 8 : at + 12] != b"vids":
        at = header.find(b"strh", at + 4)
    if at < 0 or len(header) < at + 44:
        return "its stream has no header"
    number = int.from_bytes(header[at + 40 : at + 44], "little")
    return "" if number == stated else f"its stream's header states {number} frames"


def _walk(data: bytes, at: int, end: int, mpeg4: bool) -> tuple[int, str, bool]:
    """Go through the chunks of frames from a place on; return their number, why it ended early, and `in_order`.

    Where a chunk is not what it should be, the frame before it is not counted either: its end may be damaged too.
    """
    whole, there, in_order = 0, len(data), mpeg4
    blanks = _blanks(data) if mpeg4 else []
    while at + 8 <= min(end, there):
        name, size, code, kind = _FRAME.unpack_from(data, at) if at + 13 <= there else _short(data, at)
        if name == b"LIST":  # a group of chunks
            at += 12
            continue
        start, at = at + 8, at + 8 + size + (size & 1)
        is_frame = name[2:] in _FRAMES
        if start + size > there < end:
            break
        if start + size > end or (not is_frame and not _OTHER.fullmatch(name)):
            return max(0, whole - 1), f"byte {start - 8} begins no frame", in_order
        if is_frame and mpeg4:
            if size < _LEAST or code[:3] != _PICTURE[:3] or (blanks and _holds(blanks, start, start + size)):
                return max(0, whole - 1), f"the frame at byte {start} is damaged or empty", in_order
            if code != _PICTURE:
                kind = _kind(data[start : start + size])
            in_order = in_order and kind >> 6 != _BIDIRECTIONAL
        whole += is_frame
    return whole, f"the file ends after {there} of {end} bytes" if there < end else "", in_order


def _short(data: bytes, at: int) -> tuple[bytes, int, bytes, int]:
    """Read a chunk at the very end of a file."""
    return *_CHUNK.unpack_from(data, at), b"", 0


def _kind(frame: bytes) -> int:
    """Return the byte that says of which kind the picture of a frame is that begins with headers."""
    at = frame.find(_PICTURE, 0, -1)
    return frame[at + 4] if at >= 0 else _BIDIRECTIONAL << 6


def _blanks(data: bytes) -> list[int]:
    """Return the places where eight bytes are zero, looking at every eighth."""
    words = np.frombuffer(data, np.uint64, len(data) // 8)
    places: list[int] = (8 * np.flatnonzero(words == 0)).tolist()
    return places


def _holds(places: list[int], start: int, end: int) -> bool:
    """Whether one of the sorted places, with its eight bytes, lies in a range."""
    at = bisect_left(places, start)
    return at < len(places) and places[at] + 8 <= end
