"""`drnet data fetch`: download a data set that somebody else has published."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from drnet.cli import console
from drnet.datasets.fetching.originals import Original, Originals, originals_of

Name = Literal["mnist", "norb", "kth"]


def fetch(
    name: Annotated[Name, typer.Argument(help="Data set.")],
    root: Annotated[
        Path | None,
        typer.Option("--root", metavar="DIR", help="Put it into DIR/NAME.  [default: the cache folder]"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be downloaded, and from where.")] = False,
) -> None:
    """Download what is missing of a data set, check it, and say its licence and what to cite.

    An interrupted download goes on where it stopped: run the same command again. Files that are there are checked and
    kept. A file downloaded by hand into the folder is checked and used.

    Example: drnet data fetch kth --root data
    """
    from drnet.datasets.cache import cache_folder

    originals = originals_of(name)
    folder = (cache_folder() if root is None else root.expanduser()) / name
    console.say(f"{originals.title} ({originals.page})")
    console.say(f"licence: {originals.licence}")
    console.say(f"cite: {originals.citation}")
    if dry_run:
        return _say_plan(name, originals, folder)
    _fetch(name, folder)
    source = [] if root is None else ["--source", str(folder)]
    words = ["drnet", "data", "build", name, *source, "--out", f"data/{name}" if root is None else f"{folder}-clips"]
    console.say(f"next: {shlex.join(words)}")


def _fetch(name: str, folder: Path) -> None:
    from drnet.datasets.fetching import fetch as downloads

    with bars() as tell:
        found = downloads.fetch(name, folder, tell)
    for file in found:
        origin = f"downloaded from {file.url}" if file.url else "already there"
        console.say(f"{file.path.name}: {size_of(file.size)}, {'; '.join((origin, *file.notes))}")
    console.say(f"{len(found)} files, {size_of(sum(file.size for file in found))}, all checked: {folder}")


def _say_plan(name: str, originals: Originals, folder: Path) -> None:
    from drnet.datasets.fetching.fetch import missing

    absent = missing(name, folder)
    for file in originals.files:
        if file not in absent:
            console.say(f"{file.name}: already there, not checked now")
            continue
        console.say(f"{file.name}: {_sizes_of(file)}, from")
        for url in file.urls:
            console.say(f"  {url}")
    total = size_of(sum(file.size for file in absent))
    console.say(f"would download {len(absent)} of {len(originals.files)} files, {total}: {folder}")


def _sizes_of(file: Original) -> str:
    about = "" if file.sha256 else "about "
    unpacked = f" ({size_of(file.unpacked.size)} unpacked)" if file.unpacked else ""
    return f"{about}{size_of(file.size)}{unpacked}"


def size_of(count: int) -> str:
    """Say a number of bytes."""
    return f"{count / 1e6:,.1f} MB" if count >= 100_000 else f"{count:,} bytes"


class Bars:
    """One progress bar after the other, in kilobytes, for the files that arrive."""

    def __init__(self) -> None:
        self._bar, self._name, self._done = console.Bar(), "", 0

    def __call__(self, name: str, done: int, total: int | None) -> None:
        """Move the bar of a file; a download that began again moves it back."""
        kilobytes = done // 1000
        if name != self._name:
            self.stop()
            self._name, self._done = name, kilobytes
            self._bar.start(name, (total or 0) // 1000, "kB", kilobytes)
        if kilobytes != self._done:
            self._bar.advance(kilobytes - self._done)
            self._done = kilobytes

    def stop(self) -> None:
        """Take the last bar away."""
        if self._name:
            self._bar.stop()
        self._name = ""


@contextmanager
def bars() -> Iterator[Bars]:
    """Provide what shows downloads, and take its last bar away."""
    shown = Bars()
    try:
        yield shown
    finally:
        shown.stop()
