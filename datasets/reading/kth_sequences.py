"""`00sequences.txt` of the KTH actions: which frames of which video show the action.

The file is read as its authors published it: CRLF line ends, tabs and blanks in any number between the columns, one
video marked `*missing*`, three ranges for five videos and four for the others. Frames count from 1, and a range's last
frame belongs to it. In nine videos ranges touch, overlap or stand out of order; they are taken as they stand.
"""

import re
from dataclasses import dataclass

from drnet.datasets.contract import DataError

ACTIONS = ("boxing", "handclapping", "handwaving", "jogging", "running", "walking")
PERSONS = range(1, 26)
SCENARIOS = range(1, 5)

Range = tuple[int, int]

_LISTED = re.compile(r"\s*person\d")  # what stands above the list names persons too, never at the beginning of a line
_NAME = rf"person(?P<person>\d\d)_(?P<action>{'|'.join(ACTIONS)})_d(?P<scenario>[1-4])"
_LINE = re.compile(rf"\s*(?P<name>{_NAME})\s+(?:frames\s+(?P<ranges>\d[\d\s,-]*)|(?P<missing>\*missing\*))\s*")
_RANGE = re.compile(r"\s*(\d{1,6})\s*-\s*(\d{1,6})\s*")


@dataclass(frozen=True)
class Video:
    """A line of the list.

    Attributes:
        name: such as `person01_boxing_d1`; the file is `<name>_uncomp.avi`.
        person: 1 to 25.
        action: index into `ACTIONS`.
        scenario: 1 to 4.
        ranges: first and last frame of each sub-sequence, from 1, both inclusive; none where the video is missing.
    """

    name: str
    person: int
    action: int
    scenario: int
    ranges: tuple[Range, ...]

    @property
    def number(self) -> int:
        """The video's number among the 600 that there could be, in the order of the names."""
        return ((self.person - 1) * len(ACTIONS) + self.action) * len(SCENARIOS) + self.scenario - 1

    @property
    def last(self) -> int:
        """The last frame of all ranges."""
        return max((last for _, last in self.ranges), default=0)

    @property
    def frames(self) -> int:
        """Frames of all ranges together; one that lies in two ranges counts twice."""
        return sum(last - first + 1 for first, last in self.ranges)


def parse_sequences(text: str, where: str = "00sequences.txt") -> tuple[Video, ...]:
    """Return the videos of the list, sorted by name.

    Args:
        text: of the file.
        where: names the file in messages.

    Raises:
        DataError: where a line of the list is not understood or a video stands there twice, with the line's number.
    """
    found: dict[str, Video] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or (not found and not _LISTED.match(line)):
            continue  # the explanation above the list
        try:
            video = _video(line)
            if video.name in found:
                raise ValueError("the video was there before")
        except ValueError as error:
            wanted = "person01_boxing_d1 frames 1-95, 96-185"
            raise DataError(
                f"{where}, line {number}: {line.strip()[:60]!r} is not understood ({error}); lines are like "
                f"{wanted!r}: take the file as it was published"
            ) from None
        found[video.name] = video
    if not found:
        raise DataError(f"{where}: it lists no video; take the file as it was published")
    return tuple(found[name] for name in sorted(found))


def _video(line: str) -> Video:
    """Read a line; raises ValueError with the reason."""
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError("no video with its ranges")
    person = int(match["person"])
    if person not in PERSONS:
        raise ValueError(f"persons are {PERSONS[0]} to {PERSONS[-1]}")
    ranges = () if match["missing"] else tuple(_range(part) for part in match["ranges"].split(","))
    return Video(match["name"], person, ACTIONS.index(match["action"]), int(match["scenario"]), ranges)


def _range(part: str) -> Range:
    match = _RANGE.fullmatch(part)
    if match is None:
        raise ValueError(f"{part.strip()!r} is no range")
    first, last = int(match[1]), int(match[2])
    if not 1 <= first <= last:
        raise ValueError(f"range {first}-{last} has no frames")
    return first, last
