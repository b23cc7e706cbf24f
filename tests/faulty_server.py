"""A web server for tests, with the faults that web servers have."""

import contextlib
import gzip
import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from drnet.pipelines.files import sha256_of

HTML = b"\n<!DOCTYPE html><title>Sign in</title>"


class Server(ThreadingHTTPServer):
    """A web server that knows ranges and ETags, and does wrong what it is told to.

    Attributes:
        files: content of each path.
        faults: for each path what happens to its next answers; called with the request's handler.
        asked: (path with query, Range) of each request.
        ranges, etags: whether it knows them.
        careless: whether it sends a range though the file has changed.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: defaultdict[str, list[Callable[[Handler], None]]] = defaultdict(list)
        self.asked: list[tuple[str, str]] = []
        self.ranges = self.etags = True
        self.careless = False
        self.url = f"http://127.0.0.1:{self.server_port}"

    def put(self, folder: Path, base: str = "") -> None:
        self.files |= {f"{base}/{path.name}": path.read_bytes() for path in folder.iterdir()}

    def asked_for(self, path: str) -> int:
        return sum(asked.partition("?")[0] == path for asked, _ in self.asked)


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        name = self.path.partition("?")[0]
        self.server.asked.append((self.path, self.headers.get("Range", "")))
        with contextlib.suppress(ConnectionError):
            if self.server.faults[name]:
                self.server.faults[name].pop(0)(self)
            else:
                self.answer()

    def content(self) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers of the right answer."""
        data = self.server.files.get(self.path.partition("?")[0])
        if data is None:
            return 404, b"no such file", {}
        etag = f'"{sha256_of(data)[:16]}"'
        headers = {"ETag": etag} if self.server.etags else {}
        if self.headers.get("If-None-Match") == etag and self.server.etags:
            return 304, b"", headers
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        whole = self.headers.get("If-Range", etag) != etag and not self.server.careless
        if whole or not (start and self.server.ranges):
            return 200, data, headers
        if start >= len(data):
            return 416, b"", headers
        return 206, data[start:], headers | {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}

    def answer(self, keep: int | None = None, length: int | None = None, pause: float = 0.0) -> None:
        """Answer: at most `keep` bytes of the body, with another Content-Length, each quarter after a pause."""
        status, body, headers = self.content()
        self.head(status, {"Content-Length": str(len(body) if length is None else length), **headers})
        body = body[:keep]
        for at in range(0, len(body), quarter := len(body) // 4 + 1):
            time.sleep(pause)
            self.wfile.write(body[at : at + quarter])
        self.close_connection = self.close_connection or keep is not None or length is not None

    def head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def say(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.head(status, {"Content-Length": str(len(body)), **headers})
        self.wfile.write(body)


Fault = Callable[[Handler], None]


def cut(keep: int, linger: float = 0.0) -> Fault:
    """Send a part, and close; with time to read it before, for a client forgets what comes together with the end."""

    def fault(handler: Handler) -> None:
        handler.answer(keep)
        handler.wfile.flush()
        time.sleep(linger)

    return fault


def says(status: int, body: bytes = b"", **headers: str) -> Fault:
    return lambda handler: handler.say(status, body, **headers)


def reset(handler: Handler) -> None:
    """Send half a body, then a TCP reset."""
    handler.answer(len(handler.content()[1]) // 2)
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.shutdown(socket.SHUT_RDWR)


def hang(handler: Handler) -> None:
    """Send a part, then nothing."""
    handler.answer(1000, length=len(handler.content()[1]))
    handler.wfile.flush()
    time.sleep(0.8)


def without_length(handler: Handler) -> None:
    _, body, _ = handler.content()
    handler.head(200, {"Connection": "close"})
    handler.wfile.write(body)


def zipped(handler: Handler) -> None:
    """Compress the answer where the client allows it."""
    if "gzip" in handler.headers.get("Accept-Encoding", ""):
        handler.say(200, gzip.compress(handler.content()[1]), **{"Content-Encoding": "gzip"})
    else:
        handler.answer()


def changes(data: bytes, keep: int) -> Fault:
    """Cut the answer, and have other content from then on."""

    def fault(handler: Handler) -> None:
        handler.answer(keep)
        handler.server.files[handler.path] = data
        handler.wfile.flush()
        time.sleep(0.02)

    return fault


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """Run a server in a thread of its own."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
