"""Clips that a user asks for: so many, or by name."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from drnet.datasets.contract import DataError
from drnet.guess import nearest
from drnet.pipelines.source import Collection

KEYS_COMPARED = 4000  # around a key that is not known, to name similar ones
NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")  # 00000012 is a key
CLIP = re.compile(r"(?P<key>[^:]+)(:(?P<first>[0-9]{1,9})(-(?P<last>[0-9]{1,9}))?)?")


@dataclass(frozen=True)
class Shot:
    """A chosen clip, and the frames of it that were named.

    Attributes:
        clip: its number in the collection.
        first, last: indices of named frames, from 0, or None where none are. What people read and write is from 1.
    """

    clip: int
    first: int | None = None
    last: int | None = None


def asked_clips(text: str) -> int | list[str]:
    """Return what `N` or `KEY,KEY:FRAME,...` asks for: so many clips, or names; `12,` names the clip 12.

    Raises:
        DataError: where it asks for no clip.
    """
    if NUMBER.fullmatch(text.strip()):
        if not int(text):
            raise DataError("clips 0 is not allowed; it must be at least 1")
        return int(text)
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise DataError(f"clips {text!r} is not understood; write a number, or keys: KEY,KEY:FRAME")
    return names


def named_clips(clips: Collection, names: Sequence[str], split: str = "test", spans: bool = True) -> list[Shot]:
    """Return the clips that were named, `KEY`, `KEY:FRAME` or `KEY:FIRST-LAST`, frames counted from 1.

    Args:
        clips: of the split.
        names: of some of them.
        split: what to call it in a message.
        spans: whether a last frame means something; where it does not, it is refused.

    Raises:
        DataError: for a key that is not there, with the nearest ones, and for a frame that its clip has not.
    """
    matches = []
    for name in names:
        found = CLIP.fullmatch(name.strip())
        if found is None:
            raise DataError(f"clip {name!r} is not understood; write KEY, KEY:FRAME or KEY:FIRST-LAST, frames from 1")
        if found["last"] and not spans:
            raise DataError(f"clip {name!r} is not allowed here, where only a first frame counts; write KEY:FRAME")
        matches.append(found)
    wanted = {found["key"] for found in matches}
    at: dict[str, int] = {}
    for number, key in enumerate(clips.keys()):
        if key in wanted:
            at[key] = number
            if len(at) == len(wanted):
                break
    for key in sorted(wanted - at.keys()):
        near = ", ".join(nearest_keys(clips, key))
        raise DataError(f"clip {key!r} is not in the {split} split; the nearest are {near}")
    return [_shot(clips, at[found["key"]], found) for found in matches]


def _shot(clips: Collection, clip: int, found: re.Match[str]) -> Shot:
    length = clips.sample(clip).length
    times = [None if found[name] is None else int(found[name]) - 1 for name in ("first", "last")]
    for time in times:
        if time is not None and not 0 <= time < length:
            raise DataError(f"clip {found['key']} has no frame {time + 1}; it has {length}, counted from 1")
    return Shot(clip, *times)


def nearest_keys(clips: Collection, key: str, count: int = 3) -> list[str]:
    """Return the keys that are most like one; of very many, only those about its place in their order."""
    keys = list(clips.keys())
    if len(keys) > KEYS_COMPARED:
        middle = sum(one < key for one in keys)
        first = max(0, min(middle - KEYS_COMPARED // 2, len(keys) - KEYS_COMPARED))
        keys = keys[first : first + KEYS_COMPARED]
    return nearest(key, keys, count, least=0)
