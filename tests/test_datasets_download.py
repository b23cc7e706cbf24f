"""Downloads from a server on this machine that cuts, lies, hangs and changes its mind: right, or one clear error."""

import contextlib
import hashlib
import http.server
import random
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drnet.datasets.contract import DataError
from drnet.datasets.fetching import originals
from drnet.datasets.fetching.download import Patience
from drnet.datasets.fetching.fetch import Fetched, fetch, fetch_file
from drnet.datasets.fetching.originals import Original, Originals

QUICK = Patience(connect=2, answer=0.3, tries=4, pause=0, window=0.2, slowest=50_000)
CONTENT = random.Random(0).randbytes(200_000)
OTHER = random.Random(1).randbytes(200_000)
Answer = Callable[["Handler"], None]


@dataclass
class Web:
    """What a server has, and how it answers: with the answers of `script`, one after the other, then rightly."""

    address: str
    content: bytes = CONTENT
    etag: str = '"1"'
    modified: str = ""
    script: list[Answer] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)  # path and Range of each request
    sent: int = 0  # bytes of bodies


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    web: Web

    def do_GET(self) -> None:
        self.close_connection = True
        if self.path == "/good":
            self.head(200, len(CONTENT))
            return self.body(CONTENT)
        self.web.asked.append((self.path, self.headers.get("Range", "")))
        (self.web.script.pop(0) if self.web.script else right)(self)

    def head(self, status: int, length: int | None, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"ETag": self.web.etag, "Last-Modified": self.web.modified, **headers}.items():
            if value:
                self.send_header(name.replace("_", "-"), value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        self.end_headers()

    def body(self, data: bytes) -> None:
        self.wfile.write(data)
        self.web.sent += len(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


def right(handler: Handler, most: int | None = None) -> None:
    web, wanted = handler.web, handler.headers.get("Range", "")
    start = int(wanted[6:-1]) if wanted and handler.headers["If-Range"] in (web.etag, web.modified) else 0
    if start >= len(web.content) > 0 and wanted:
        return handler.head(416, 0)
    rest = web.content[start:]
    span = {"Content_Range": f"bytes {start}-{len(web.content) - 1}/{len(web.content)}"} if start else {}
    handler.head(206 if start else 200, len(rest), **span)
    handler.body(rest[:most])


def cut(after: int) -> Answer:
    return lambda handler: right(handler, after)


def status(code: int, **headers: str) -> Answer:
    return lambda handler: handler.head(code, 0, **headers)


def whole(most: int | None) -> Answer:
    """Ignore Range."""

    def answer(handler: Handler) -> None:
        handler.head(200, len(handler.web.content))
        handler.body(handler.web.content[:most])

    return answer


def glue(handler: Handler) -> None:
    """Send the rest of another file as if it were the rest of this one, without saying which version it is."""
    start = int(handler.headers["Range"][6:-1])
    handler.web.etag = ""
    handler.head(206, len(OTHER) - start, Content_Range=f"bytes {start}-{len(OTHER) - 1}/{len(OTHER)}")
    handler.body(OTHER[start:])


def announce(length: int, kind: str = "") -> Answer:
    def answer(handler: Handler) -> None:
        handler.head(200, length, Content_Type=kind)
        handler.body(handler.web.content[:length])

    return answer


page = announce(len(CONTENT), "text/html; charset=utf-8")


def hang(handler: Handler) -> None:
    time.sleep(0.6)


def drip(handler: Handler) -> None:
    handler.head(200, len(handler.web.content))
    for _ in range(40):
        handler.wfile.write(b".")
        time.sleep(0.02)


def endless(handler: Handler) -> None:
    handler.head(200, None)
    while True:
        handler.wfile.write(bytes(1 << 16))


def change(content: bytes, etag: str, then: Answer) -> Answer:
    def answer(handler: Handler) -> None:
        handler.web.content, handler.web.etag = content, etag
        then(handler)

    return answer


class Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no error here."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with Quiet(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def web(address: str, monkeypatch: pytest.MonkeyPatch) -> Web:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Handler.web = Web(address=address)
    return Handler.web


def pinned(web: Web, *urls: str) -> Original:
    return Original("file.bin", urls or (f"{web.address}a",), len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


def get(file: Original, folder: Path, patience: Patience = QUICK) -> Fetched:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(originals, "ORIGINALS", {"fake": Originals("Fake", "page", "licence", "cite", (file,))})
        (found,) = fetch("fake", folder, patience=patience)
    return found


def error_of(call: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


PASSING: dict[str, list[Answer]] = {
    "right at once": [],
    "cut three times": [cut(1), cut(99_999), cut(50_000)],
    "503 twice": [status(503), status(503)],
    "429 after a cut": [cut(70_000), status(429), status(500)],
    "Range ignored": [cut(70_000), whole(None)],
    "a hanging server": [hang, cut(10), hang],
    "a dripping server": [drip],
    "another version in the beginning": [change(OTHER, '"0"', cut(70_000)), change(CONTENT, '"1"', right)],
    "a version without a name glued to another": [cut(70_000), glue],
    "redirected": [status(302, Location="/b"), status(302, Location="c")],
}


@pytest.mark.parametrize("script", PASSING.values(), ids=PASSING)
def test_what_passes_is_waited_for(tmp_path: Path, web: Web, script: list[Answer]) -> None:
    web.script = list(script)
    found = get(pinned(web), tmp_path)
    assert found.path.read_bytes() == CONTENT
    assert found.url == f"{web.address}a"
    assert names(tmp_path) == ["file.bin"]
    assert web.script == []


REFUSED: dict[str, tuple[list[Answer], str]] = {
    "404": ([status(404)], "a: 404 Not Found"),
    "a web page with 200": ([page], "a web page in place of the file"),
    "hung up before the first byte, and gone": ([cut(0), status(404)], "a: 404 Not Found"),
    "too long": ([announce(200_001)], "it announces 200,001 bytes instead of 200,000"),
    "too short": ([announce(9)], "it announces 9 bytes instead of 200,000"),
    "endless": ([endless], "it sends more than 200,000 bytes"),
    "never there": ([status(503)] * 4, "503 Service Unavailable"),
    "always hanging": ([hang] * 4, "no answer in time"),
    "other bytes": ([change(OTHER, '"1"', right)], "it serves another file, which has the SHA-256"),
    "redirected to a file": ([status(302, Location="file:///etc/passwd")], "to something else than http or https"),
    "redirected for ever": ([status(302, Location="/a")] * 6, "it redirects more than 5 times"),
    "a part that was not asked for": ([status(206)], "206 Partial Content"),
}


@pytest.mark.parametrize(("script", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_file_is_refused_with_the_reason_and_leaves_nothing(
    tmp_path: Path, web: Web, script: list[Answer], expected: str
) -> None:
    web.script = list(script)
    text = error_of(lambda: get(pinned(web), tmp_path))
    assert f"{web.address}a: " in text
    assert expected in text
    assert f"by hand into '{tmp_path}'" in text
    assert names(tmp_path) == []
    assert web.script == []


@pytest.mark.parametrize("script", [*PASSING.values(), *(script for script, _ in REFUSED.values())])
def test_after_any_failure_the_next_mirror_is_asked(tmp_path: Path, web: Web, script: list[Answer]) -> None:
    closed = "http://127.0.0.1:9/"  # the discard port: refused at once
    web.script = list(script)
    file = pinned(web, closed, f"{web.address}a", f"{web.address}good")
    assert get(file, tmp_path).path.read_bytes() == CONTENT
    assert names(tmp_path) == ["file.bin"]


CHAOS = st.one_of(
    st.integers(0, len(CONTENT)).map(cut),
    st.integers(0, len(CONTENT)).map(whole),
    st.sampled_from([status(503), status(404), page, status(416), right]),
    st.integers(0, len(CONTENT)).map(lambda most: change(OTHER, '"2"', cut(most))),
    st.integers(0, len(CONTENT)).map(lambda most: change(CONTENT, '"1"', cut(most))),
    st.integers(0, 2 * len(CONTENT)).map(announce),
)


@settings(max_examples=60, deadline=None)
@given(script=st.lists(CHAOS, max_size=12))
def test_whatever_a_server_does_the_file_is_right_or_not_there(address: str, script: list[Answer]) -> None:
    Handler.web = web = Web(address=address)
    web.script = list(script)
    with tempfile.TemporaryDirectory() as folder:
        final = Path(folder) / "file.bin"
        with contextlib.suppress(DataError):
            get(pinned(web), Path(folder))
        assert not final.exists() or final.read_bytes() == CONTENT
        web.script, web.content, web.etag = [], CONTENT, '"1"'
        get(pinned(web), Path(folder))
        assert final.read_bytes() == CONTENT
        assert names(Path(folder)) == ["file.bin"]


@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(1, 60_000), max_size=12), by_time=st.booleans())
def test_however_often_it_is_cut_no_byte_is_sent_twice(address: str, cuts: list[int], by_time: bool) -> None:
    Handler.web = web = Web(address=address)
    if by_time:
        web.etag, web.modified = "", "Mon, 17 Jan 2005 10:00:00 GMT"
    web.script = [cut(after) for after in cuts]
    with tempfile.TemporaryDirectory() as folder:
        assert get(pinned(web), Path(folder)).path.read_bytes() == CONTENT
    assert web.sent == len(CONTENT)


@pytest.mark.parametrize("etag", ["", 'W/"1"'])
def test_without_a_version_that_can_be_relied_on_every_request_begins_at_zero(
    tmp_path: Path, web: Web, etag: str
) -> None:
    web.etag = etag
    web.script = [cut(1000), cut(2000)]
    get(pinned(web), tmp_path)
    assert web.asked == [("/a", "")] * 3


def test_a_server_that_always_drips_is_given_up_and_the_part_is_kept(tmp_path: Path, web: Web) -> None:
    web.script = [drip] * 9
    assert "it sends less than 50,000 bytes a second" in error_of(lambda: get(pinned(web), tmp_path))
    assert len(web.asked) == QUICK.tries
    assert names(tmp_path) == ["file.bin.part", "file.bin.part.json"]


def test_a_part_that_is_longer_than_the_file_is_given_up(tmp_path: Path, web: Web) -> None:
    web.script = [cut(70_000), status(416)]
    get(pinned(web), tmp_path)
    assert web.asked == [("/a", ""), ("/a", "bytes=70000-"), ("/a", "")]


def test_the_rest_of_another_version_is_not_taken_though_the_server_sends_it(tmp_path: Path, web: Web) -> None:
    def heedless(handler: Handler) -> None:
        handler.headers.replace_header("If-Range", handler.web.etag)
        right(handler)

    told: list[int] = []
    web.script = [cut(70_000), change(OTHER, '"2"', heedless), change(CONTENT, '"1"', right)]
    fetch_file(pinned(web), tmp_path, lambda name, done, total: told.append(done), QUICK)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert told.count(len(CONTENT)) == 1


def test_a_part_is_continued_from_the_mirror_it_came_from_and_from_no_other(tmp_path: Path, web: Web) -> None:
    file = pinned(web, f"{web.address}a", f"{web.address}b")
    web.script = [status(404), cut(1000), status(404)]
    error_of(lambda: get(file, tmp_path))
    web.script = [status(404)]
    get(file, tmp_path)
    assert web.asked[3:] == [("/b", "bytes=1000-"), ("/a", "")]


def test_a_full_disk_is_one_line_and_the_download_goes_on_later(tmp_path: Path, web: Web) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, limits[1]))
    try:
        text = error_of(lambda: get(pinned(web), tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"no room in '{tmp_path}'" in text
    assert not (tmp_path / "file.bin").exists()
    get(pinned(web), tmp_path)
    assert web.asked[-1] == ("/a", "bytes=120000-")
