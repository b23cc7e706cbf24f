"""Numbered files below a folder: which belong together, and in which order, is told by a pattern of names.

The pattern is literal but for `{clip}`, any text (folders included), and `{frame}`, digits. Names are in natural order:
the numbers in them count as numbers, 9 before 10.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from drnet.datasets.contract import SPLITS, DataError
from drnet.datasets.reading.source_files import printable

EXAMPLES = 3  # names of files that do not match, that are told


@dataclass(frozen=True)
class Listing:
    """The images of a source by clip: of each image only the digits of its number, 5 to 10 bytes.

    Attributes:
        folder: `train` or `test`, where the source has these; else empty.
        names: of the clips, in natural order.
        digits: for each clip, its frames' digits as the names have them, in any order, with a NUL after each.
        strays: files that do not match.
        examples: names of some of them.
    """

    folder: str
    names: tuple[str, ...]
    digits: tuple[bytes, ...]
    strays: int
    examples: tuple[str, ...]

    def frames(self, number: int) -> list[str]:
        """Return the digits of a clip's frames in the order of their numbers."""
        return sorted(self.digits[number].decode().split("\0")[:-1], key=lambda digits: (int(digits), digits))


class Pattern:
    """Where a clip's name and a frame's number stand in a path, such as `obj{clip}__{frame}.png`.

    Raises:
        DataError: the pattern does not have `{clip}` and `{frame}` once each, or is not below the source.
    """

    def __init__(self, text: str) -> None:
        parts = re.split(r"(\{[^{}]*\})", text)
        if sorted(parts[1::2]) != ["{clip}", "{frame}"] or any(set("{}") & set(part) for part in parts[::2]):
            example = "'obj{clip}__{frame}.png'"
            raise DataError(f"pattern '{text}' is not allowed; it has {{clip}} and {{frame}} once each, as {example}")
        if text.startswith("/") or {"..", "."} & set(text.split("/")):
            example = "'{clip}/{frame}.png'"
            raise DataError(f"pattern '{text}' is not allowed; it is a path below the source, as {example}")
        digits = r"(?P<frame>[0-9]++)"  # never gives digits back to the clip
        if "{clip}{frame}" in text:
            digits = r"(?<![0-9])" + digits  # nor takes the clip too many
        named = {"{clip}": r"(?P<clip>.+)", "{frame}": digits}
        self.text = text
        self._expression = re.compile("".join(named.get(part) or re.escape(part) for part in parts), re.DOTALL)

    def match(self, name: str) -> tuple[str, str] | None:
        """Return the clip's name and the frame's digits; None where the name does not match."""
        found = self._expression.fullmatch(name)
        return (found["clip"], found["frame"]) if found else None

    def name(self, clip: str, digits: str) -> str:
        """Return the path of a frame."""
        return re.sub(r"\{(clip|frame)\}", lambda field: clip if field[1] == "clip" else digits, self.text)


def look(source: Path, pattern: Pattern) -> tuple[Listing, ...]:
    """List a source: one listing, or one of train/ and one of test/ where these are its only folders.

    Raises:
        DataError: a folder cannot be read, or nothing in it matches.
    """
    try:
        with os.scandir(source) as entries:
            kinds = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
    except OSError as error:
        raise DataError(f"source '{source}' cannot be read ({error.strerror}); give a folder of images") from None
    if {name for name, is_folder in kinds.items() if is_folder} != set(SPLITS):
        return (_list(source, "", pattern),)
    train, test = (_list(source, split, pattern) for split in SPLITS)
    beside = sorted(name for name, is_folder in kinds.items() if not is_folder)
    examples = (*train.examples, *beside)[:EXAMPLES]
    return replace(train, strays=train.strays + len(beside), examples=examples), test


def image_paths(listings: Sequence[Listing], pattern: Pattern) -> Iterator[str]:
    """Yield the path below the source of each file that matches."""
    for part in listings:
        start = f"{part.folder}/" if part.folder else ""
        for number, name in enumerate(part.names):
            yield from (start + pattern.name(name, digits) for digits in part.frames(number))


def _files(root: Path) -> Iterator[str]:
    """Yield the path below a folder of every file in it; what is neither a file nor a folder ends with a slash."""
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(f"{folder}{entry.name}/")
                    else:  # a link to a folder is not followed: it may lead round in a circle
                        yield f"{folder}{entry.name}" + ("" if entry.is_file() else "/")
        except OSError as error:
            raise DataError(f"'{root / folder}' cannot be read ({error.strerror}); make it readable") from None


def _list(source: Path, folder: str, pattern: Pattern) -> Listing:
    found: dict[str, bytearray] = {}
    strays, examples = 0, list[str]()
    for name in _files(source / folder):
        match = pattern.match(name)
        if match is None:
            strays += 1
            examples = sorted([*examples, name])[:EXAMPLES]
        else:
            found.setdefault(match[0], bytearray()).extend(match[1].encode() + b"\0")
    if not found:
        such = f", such as '{printable(examples[0])}'" if examples else ""
        raise DataError(
            f"pattern '{pattern.text}' matches none of the {strays} files in '{source / folder}'{such}; "
            "write {clip} and {frame} for what changes, the rest as it is"
        )
    clips = sorted(found, key=natural)
    return Listing(folder, tuple(clips), tuple(bytes(found[clip]) for clip in clips), strays, tuple(examples))


def natural(name: str) -> tuple[tuple[tuple[int, str], ...], str]:
    """Return the key that sorts names with the numbers in them as numbers: 9 before 10, then 010 before 10."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((int(part), "") if at % 2 else (-1, part) for at, part in enumerate(parts)), name
