"""What ffmpeg tells while it decodes a file: when its pictures are shown, and what is wrong with it.

ffmpeg shortens a damaged file silently and ends with success: what it complains of is the only witness. Complaints come
on its standard error, whole lines with their level (`-loglevel level+warning`; at level `info` its threads would break
into each other's lines). Times come from the filter `metadata` on a pipe of their own, in microseconds.
"""

import re
from array import array

GAP = 60  # seconds without a picture, after which a file is no video
LONGEST = 48 * 3600  # seconds of a file
SECOND = 10**6  # microseconds
LINE = 2**14  # bytes of a line; a longer one is taken as several
TEXT = 160  # characters of a reason

_PICTURE = re.compile(rb"frame:(\d+) +pts:(-?\d+|NOPTS) ")
_COMPLAINT = re.compile(r"((?:\[[^]]* @ [0-9a-fx]+\] )*)\[(warning|error|fatal|panic)\] (.*)")
_ADDRESS = re.compile(r" @ [0-9a-fx]+")
_PLAINER = {  # what ffmpeg says, and what it means
    "matches no streams": "it holds no video",
    "Format not on whitelist": "it is no AVI, Matroska, MP4, MPEG, QuickTime or WebM file",
    "too big or non positive size": "its pictures do not hold the region to crop",
}


class Refused(Exception):  # noqa: N818 - says why
    """The file cannot be a video of use: decoding stops at once."""


class Lines:
    """Cuts what comes from a pipe into lines."""

    def __init__(self) -> None:
        self._rest = b""

    def take(self, data: bytes) -> list[bytes]:
        """Return the lines that are whole by now; b"" at the end gives the last one."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        if self._rest and (len(self._rest) > LINE or not data):
            whole.append(self._rest)
            self._rest = b""
        return whole


class Times:
    """Takes the lines of the pictures.

    Attributes:
        seconds: from the file's first picture, for each picture; only the last one where `keep` is False.
    """

    def __init__(self, keep: bool) -> None:
        self.seconds: array[float] = array("d")
        self._keep, self._lines = keep, Lines()
        self._pictures, self._last = 0, 0  # and the last one's time in microseconds

    def take(self, data: bytes) -> None:
        """Take what came; raises Refused."""
        for line in self._lines.take(data):
            if picture := _PICTURE.match(line):
                self._take_picture(int(picture[1]), picture[2])

    def _take_picture(self, number: int, time: bytes) -> None:
        if number != self._pictures:
            raise Refused("the size or format of its pictures changes midway")  # the filters began again
        if time == b"NOPTS":
            raise Refused("a picture has no time")
        now, before = int(time), self._last
        if now < before:
            raise Refused(f"its pictures' times run backwards after {before / SECOND:.2f} seconds")
        if now - before > GAP * SECOND or now > LONGEST * SECOND:
            limits = f"gaps of {GAP} seconds and files of {LONGEST // 3600} hours are the longest"
            raise Refused(f"its pictures' times jump from {before // SECOND} to {now // SECOND} seconds; {limits}")
        self._pictures += 1
        if not self._keep:
            del self.seconds[:]
        self.seconds.append(now / SECOND)
        self._last = now


class Complaints:
    """Takes the lines of the standard error."""

    def __init__(self) -> None:
        self._lines = Lines()
        self._first: dict[str, str] = {}

    def take(self, data: bytes) -> None:
        """Take what came."""
        for line in self._lines.take(data):
            self._take_line(line.decode(errors="replace").rstrip())

    def _take_line(self, line: str) -> None:
        complaint = _COMPLAINT.match(line)
        if complaint and (complaint[2] != "warning" or "corrupt" in complaint[3].lower()):
            self._first.setdefault(_ADDRESS.sub("", complaint[1]), complaint[3])

    def worst(self) -> str:
        """Return what is wrong with a file that was read to its end, in one line; empty where nothing is.

        Of several complaints always the same one, however ffmpeg's threads took turns: what reads the file speaks
        before what decodes it, and each one's own order is certain.
        """
        if not self._first:
            return ""
        for text, meaning in _PLAINER.items():
            if any(text in found for found in self._first.values()):
                return meaning
        vague = "Error opening input"  # which follows the reason
        order = sorted((text.startswith(vague), not who.startswith("[in#"), who) for who, text in self._first.items())
        said = self._first[order[0][2]]
        said = "ffmpeg: " + "".join(letter if letter.isprintable() else " " for letter in said.strip())
        return said if len(said) <= TEXT else said[: TEXT - 3] + "..."
