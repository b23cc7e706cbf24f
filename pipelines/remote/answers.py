"""What a server answers when it is asked for a file, from some byte on: HTTP as a stream, all else block by block.

Everything goes through fsspec, and so do credentials: its configuration and environment variables hold them.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import fsspec
from fsspec.asyn import sync

from drnet.datasets.contract import DataError
from drnet.pipelines.remote.urls import PROTOCOLS, check_url, shown

BLOCK = 1 << 25  # bytes asked for at once where the file system is not HTTP
SILENCE = 60.0  # seconds without a byte after which a connection counts as dead


class Unchanged(Exception):  # noqa: N818 - says what is with the file
    """The file is still the version that is known."""


class Cut(ConnectionError):  # noqa: N818 - says what is with the file
    """A connection ended before the file did, or the file changed while it was read."""


class StatusError(Exception):
    """HTTP's answer is no content."""

    def __init__(self, status: int, reason: str | None) -> None:
        super().__init__(f"{status} {reason or ''}".strip())
        self.status = status


@dataclass(frozen=True)
class Reply:
    """A server's answer: the bytes of a file from `start` on, its whole size and its version where they are known."""

    start: int
    size: int | None
    version: str
    parts: Iterator[bytes]
    close: Callable[[], None] = lambda: None


def ask(url: str, start: int = 0, version: str = "") -> Reply:
    """Ask for a file.

    Args:
        url: of the file.
        start: first byte wanted; the reply may start at 0 all the same.
        version: of an earlier reply. With `start`, a file of another version is sent from 0; without, nothing is sent
            where the file still is of this version.

    Raises:
        Unchanged: where it is of `version`, and `start` is 0.
    """
    protocol = check_url(url)
    try:
        kind = fsspec.get_filesystem_class(protocol)
        # A query is sent as it is written: a signature is made over the bytes. `::` is a file name's, no chain.
        options = {"encoded": True} if protocol.startswith("http") and "?" in url else kind._get_kwargs_from_urls(url)
        system = kind(**options)
    except ImportError:
        package = PROTOCOLS[protocol]
        raise DataError(f"{shown(url)}: {protocol}:// needs a package more; pip install {package}") from None
    if protocol.startswith("http"):
        return _ask_http(system, url, start, version)
    return _ask_blocks(system, kind._strip_protocol(url), start, version)


def _ask_http(system: Any, url: str, start: int, version: str) -> Reply:
    import aiohttp

    options = {**system.kwargs, "timeout": aiohttp.ClientTimeout(None, sock_connect=30, sock_read=SILENCE)}
    headers = {**options.pop("headers", {}), "Accept-Encoding": "identity"}
    strong = not version.startswith("W/")
    if start and strong:
        headers |= {"Range": f"bytes={start}-"} | ({"If-Range": version} if version else {})
    elif version and not start:
        headers |= {"If-None-Match" if '"' in version else "If-Modified-Since": version}

    async def get() -> aiohttp.ClientResponse:
        session = await system.set_session()
        reply: aiohttp.ClientResponse = await session.get(system.encode_url(url), headers=headers, **options)
        return reply

    reply = sync(system.loop, get)
    head = reply.headers
    ranged = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", head.get("Content-Range", ""))

    def close() -> None:
        system.loop.call_soon_threadsafe(reply.close)

    if reply.status not in (200, 206) or (reply.status == 206) != (ranged is not None):
        close()
        raise Unchanged if reply.status == 304 else StatusError(reply.status, reply.reason)
    length = head.get("Content-Length", "")
    size = int(ranged[2]) if ranged else int(length) if length.isdecimal() else None
    parts = iter(lambda: sync(system.loop, reply.content.read, 1 << 20), b"")
    return Reply(int(ranged[1]) if ranged else 0, size, _version(head), parts, close)


def _version(head: Any) -> str:
    """Return the ETag; else the modification time if it is so old that no later change can have the same (RFC 9110)."""
    if etag := head.get("ETag", ""):
        return str(etag)
    try:
        changed, now = (parsedate_to_datetime(head.get(name, "")) for name in ("Last-Modified", "Date"))
        return str(head["Last-Modified"]) if now - changed >= timedelta(minutes=1) else ""
    except (ValueError, TypeError):
        return ""


def _ask_blocks(system: Any, path: str, start: int, version: str) -> Reply:
    """Ask a file system that has no streams that can be taken up again: it is read in blocks."""
    size, found = _look(system, path)
    if version == found and not start:
        raise Unchanged

    def parts() -> Iterator[bytes]:
        at = first
        while at < size:
            data = system.cat_file(path, start=at, end=min(at + BLOCK, size))
            if not data:
                raise Cut(f"ends at byte {at} of {size}")
            yield data
            at += len(data)
        if _look(system, path) != (size, found):
            raise Cut("it changed while it was read")

    first = start if start <= size and found == version else 0
    return Reply(first, size, found, parts())


def _look(system: Any, path: str) -> tuple[int, str]:
    system.invalidate_cache()
    facts = system.info(path)
    if facts["type"] != "file":
        raise FileNotFoundError(path)
    return int(facts["size"]), hashlib.sha256(str(sorted(facts.items())).encode()).hexdigest()
