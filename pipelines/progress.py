"""How a stage tells how far it is, without knowing who listens."""

from typing import Protocol


class Progress(Protocol):
    """Receives a stage's progress; the command line draws it."""

    def start(self, title: str, total: int, unit: str, done: int = 0) -> None:
        """A stage begins: `total` units of work, of which `done` were done before."""

    def advance(self, count: int, **values: float) -> None:
        """`count` more units are done; `values` are shown beside the bar."""

    def note(self, line: str) -> None:
        """Something a person should read."""

    def stop(self) -> None:
        """The stage has ended."""


class Silent:
    """Progress that nobody watches."""

    def start(self, title: str, total: int, unit: str, done: int = 0) -> None:
        """Ignore."""

    def advance(self, count: int, **values: float) -> None:
        """Ignore."""

    def note(self, line: str) -> None:
        """Ignore."""

    def stop(self) -> None:
        """Ignore."""
