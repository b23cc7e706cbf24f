"""Downloads that survive what servers do.

A download continues where it was cut, unless the file was changed since, waits longer before each new attempt, and is
whole only with the size and, where it is known, the SHA-256 that it must have.
"""

import hashlib
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from drnet.datasets.contract import DataError
from drnet.pipelines.files import MACHINE_ERRORS
from drnet.pipelines.remote.answers import Cut, Reply, StatusError, Unchanged, ask
from drnet.pipelines.remote.urls import shown

QUICK = (0.5, 1.0)  # seconds before each new attempt, while somebody waits for the first answer
PATIENT = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # in the middle of a training run
PROGRESS = 1 << 20  # bytes further than ever before, with which the attempts count from the first again
TRY_AGAIN = (408, 425, 429)  # HTTP's "too slow", "too early", "too many"; with all of 500 and above
# Errors that the next attempt meets again.
_NO_MORE = (ImportError, TypeError, ValueError, KeyError, AttributeError, NotImplementedError)


class NotThere(DataError):  # noqa: N818 - says what is with the URL
    """A URL's server answers that there is no such file."""


class Refused(DataError):  # noqa: N818
    """A URL's server answers that it will not give the file; of one that is not there, some say just this."""


class OtherContent(DataError):  # noqa: N818
    """A URL's content is not the one that is listed, or none that anybody stored: a web page."""


@dataclass(frozen=True)
class Download:
    """What was downloaded. `version` tells it from later content of the same URL; empty where the server says none."""

    size: int
    sha256: str
    version: str


def download(
    url: str,
    file: BinaryIO,
    sha256: str = "",
    version: str = "",
    room: Callable[[int], int] = lambda size: size or sys.maxsize,
    pauses: Sequence[float] = PATIENT,
) -> Download:
    """Write what a URL names into an empty file, with as many attempts as it takes.

    Args:
        url: of the file.
        file: to write to.
        sha256: that the content must have; where another comes, it is asked for once more.
        version: that is known already.
        room: called with the size when it is known, else with 0; returns the most bytes that may come.
        pauses: seconds to wait before each new attempt; with `PROGRESS` they begin anew.

    Raises:
        Unchanged: where the file still is of `version`.
        NotThere: where the URL names no file.
        Refused: where the server does not want to give it.
        OtherContent: where its content is not the one with `sha256`.
        DataError: where it cannot be read.
    """
    writer, failures, second = _Writer(url, file, bool(sha256), room), 0, False
    while True:
        before = writer.furthest
        try:
            writer.receive(version)
        except Exception as error:
            if isinstance(error, (Unchanged, DataError)) or getattr(error, "errno", None) in MACHINE_ERRORS:
                raise
            failures = 1 if writer.furthest - before >= PROGRESS else failures + 1
            if verdict := _verdict(url, error, last=failures > len(pauses)):
                raise verdict from None
            time.sleep(pauses[failures - 1])
            continue
        fault = writer.fault(sha256)
        if not fault:
            return writer.result()
        if second:
            raise OtherContent(f"{shown(url)}: {fault}")
        second = True
        writer.restart()


class _Writer:
    """A file that grows while it is received."""

    def __init__(self, url: str, file: BinaryIO, known: bool, room: Callable[[int], int]) -> None:
        self.url, self.file, self.known, self.room = url, file, known, room
        self.size: int | None = None
        self.furthest = 0
        self.restart()

    def restart(self) -> None:
        """Forget what was received."""
        self.file.seek(0)
        self.at, self.version, self.digest, self.head = 0, "", hashlib.sha256(), b""

    def receive(self, version: str) -> None:
        """Receive what is missing. Raises Cut where it ends too early."""
        if not self.known and not self.version:
            self.restart()  # nothing would tell that the rest is another file's
        try:
            reply = ask(self.url, self.at, self.version if self.at else version)
        except StatusError as error:
            if error.status == 416:  # there is no such range any more
                self.restart()
            raise
        try:
            self._append(reply)
        finally:
            reply.close()

    def _append(self, reply: Reply) -> None:
        other = reply.size != self.size or (reply.version and reply.version != self.version)
        if reply.start != self.at or (self.at and other):
            self.restart()
            if reply.start:
                raise Cut("it changed while it was read")
        self.size, self.version = reply.size, reply.version
        most = self.room(reply.size or 0)
        for part in reply.parts:
            self.file.write(part)
            self.digest.update(part)
            self.head = (self.head + part)[:64] if len(self.head) < 64 else self.head
            self.at += len(part)
            self.furthest = max(self.furthest, self.at)
            if self.at > most:
                raise DataError(f"{shown(self.url)}: more than the {most} bytes that there is room for")
        if reply.size not in (None, self.at):
            raise Cut(f"{self.at} of {reply.size} bytes came")

    def fault(self, sha256: str) -> str:
        """Return what is wrong with the whole content; empty where nothing is."""
        if re.match(rb"\s*<(!doctype\s+html|html)\b", self.head, re.IGNORECASE):
            return "the server sent a web page, not the file; open the URL in a browser to see what it says"
        if sha256 and self.digest.hexdigest() != sha256:
            return "its content is not the one that is listed; verify the data set where it is stored"
        return ""

    def result(self) -> Download:
        """Cut the file to what was received."""
        self.file.truncate(self.at)
        return Download(self.at, self.digest.hexdigest(), self.version)


def _verdict(url: str, error: Exception, last: bool) -> DataError | None:
    """Return what a failed attempt means; None where another may succeed."""
    answer = getattr(getattr(error, "response", None), "status_code", None)
    status = answer or getattr(error, "status", None) or getattr(error, "code", None)  # each library has its own name
    refused = isinstance(status, int) and 400 <= status < 500 and status not in (*TRY_AGAIN, 416)
    if isinstance(error, FileNotFoundError) or (refused and status in (404, 410)):
        return NotThere(f"{shown(url)}: not found")
    why = f"{shown(url)}: cannot be read ({_words(url, error)})"
    if refused or isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
        return Refused(why)
    return DataError(why) if last or isinstance(error, _NO_MORE) else None


def _words(url: str, error: Exception) -> str:
    """Return an error's first line without the URL's secrets."""
    text = f"{type(error).__name__}: {error}" if not isinstance(error, (StatusError, Cut)) else str(error)
    text = text.replace(url, shown(url)).partition("\n")[0]
    return re.sub(r"\?[^\s'\")]*|(?<=//)[^/@\s]*@", "", text)[:300]
