"""What the command line shows while it works: progress bars on a terminal, plain lines elsewhere, one line for an error."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table

PLAIN_EVERY = 10.0  # seconds between two plain lines

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


class Bar:
    """Shows a stage's progress (`drnet.pipelines.progress.Progress`) on standard error."""

    def __init__(self) -> None:
        self._bar: RichProgress | None = None
        self._title, self._unit, self._total, self._done, self._from = "", "", 0, 0, 0
        self._began = self._told = 0.0

    def start(self, title: str, total: int, unit: str, done: int = 0) -> None:
        """Draw a new bar."""
        self._title, self._unit, self._total, self._done, self._from = title, unit, total, done, done
        self._began = self._told = time.monotonic()
        if not err.is_terminal:
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]} {task.fields[values]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._bar = RichProgress(*columns, console=err, transient=True)
        self._task = self._bar.add_task(title, total=total, completed=done, rate="", values="")
        self._bar.start()

    def advance(self, count: int, **values: float) -> None:
        """Move the bar; off a terminal, print a line every few seconds."""
        self._done += count
        now = time.monotonic()
        rate = (self._done - self._from) / max(1e-9, now - self._began)
        shown = " ".join(f"{name} {value:.4g}" for name, value in values.items())
        if self._bar is not None:
            speed = f"{rate:,.1f} {self._unit}/s" if rate else ""
            self._bar.update(self._task, completed=self._done, rate=speed, values=shown)
        elif now - self._told >= PLAIN_EVERY:
            self._told = now
            left = f", {rate:,.1f}/s, {(self._total - self._done) / rate:,.0f} s left" if rate else ""
            line = f"{self._title}: {self._done}/{self._total} {self._unit}{left} {shown}"
            err.print(line.rstrip(), markup=False)

    def note(self, line: str) -> None:
        """Print a line above the bar."""
        (self._bar.console if self._bar is not None else err).print(line, markup=False)

    def stop(self) -> None:
        """Take the bar away and say how long it took."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        seconds = time.monotonic() - self._began
        rate = (self._done - self._from) / max(seconds, 1e-9)
        err.print(
            f"{self._title}: {self._done}/{self._total} {self._unit} in {seconds:,.1f} s ({rate:,.1f}/s)", markup=False
        )


def say(line: str) -> None:
    """Print a line of results."""
    out.print(line, markup=False)


def say_json(value: Any) -> None:
    """Print results for programs."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def say_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the first column is text, the others are aligned right."""
    table = Table(expand=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = out if out.is_terminal else Console(width=10_000, highlight=False)  # nothing is cut off in a file
    if title:  # above the table, which would wrap it to its own width
        console.print(title, markup=False, soft_wrap=True)
    console.print(table)


def check_ending(path: Path, *endings: str) -> None:
    """Raise ValueError where a file to write has another ending: it may be somebody's file of another kind."""
    if path.suffix not in endings or path.is_dir():
        kind = "a folder" if path.is_dir() else path.suffix or "no ending"
        raise ValueError(f"{path}: {kind} is not allowed here; name a file that ends in {' or '.join(endings)}")


class Stopped(BaseException):
    """A signal asked the command to end; `code` is the exit code it ends with."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def end_on_signals() -> None:
    """Make SIGTERM and Ctrl-C unwind the command, so that temporary files go; exit codes 143 and 130."""

    def end(number: int, _: FrameType | None) -> None:
        raise Stopped(128 + number)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)


@contextmanager
def stop_event() -> Iterator[tuple[threading.Event, list[int]]]:
    """Within the block, the first SIGTERM or Ctrl-C sets the event and is listed; a second one ends the process."""
    event, seen = threading.Event(), list[int]()

    def ask(number: int, _: FrameType | None) -> None:
        if seen:
            os._exit(128 + number)
        seen.append(number)
        event.set()
        # Straight to the descriptor: a signal may arrive while the buffered stream is being written to.
        os.write(2, b"stopping after this step, with a checkpoint (again: at once, without one)\n")

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield event, seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
