"""Whose turn it is, and what a killed process leaves: downloads by processes of their own from a slow server."""

import hashlib
import http.server
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from drnet.datasets.fetching.download import Patience
from drnet.datasets.fetching.fetch import fetch_file
from drnet.datasets.fetching.originals import Original
from drnet.datasets.fetching.part import locked_part

CONTENT = random.Random(0).randbytes(200_000)


class Slow(http.server.BaseHTTPRequestHandler):
    """Sends what is asked for in small pieces, all of it in a second."""

    asked: list[int]  # where each request begins
    pause = 0.01  # seconds after each 2,000 bytes

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        start = int(wanted[6:-1]) if wanted and self.headers["If-Range"] == '"1"' else 0
        self.asked.append(start)
        self.send_response(206 if start else 200)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        for at in range(start, len(CONTENT), 2000):
            self.wfile.write(CONTENT[at : at + 2000])
            time.sleep(self.pause)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that is killed is no error here."""


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch) -> Iterator[Original]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Slow.asked, Slow.pause = [], 0.01
    with Quiet(("127.0.0.1", 0), Slow) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/a"
        yield Original("file.bin", (url,), len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
        server.shutdown()
        thread.join()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


FETCHING = """
import json, sys
from pathlib import Path
from drnet.datasets.fetching import originals
from drnet.datasets.fetching.download import Patience
from drnet.datasets.fetching.fetch import fetch_file
from drnet.datasets.fetching.originals import Original
url, size, sha256, folder = json.loads(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
fetch_file(Original("file.bin", (url,), size, sha256), Path(folder), patience=Patience(pause=0))
"""


class Fetching:
    """A process of its own that is ready to download a file."""

    def __init__(self, file: Original, folder: Path) -> None:
        words = json.dumps([file.urls[0], file.size, file.sha256, str(folder)])
        command = [sys.executable, "-c", FETCHING, words]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def start(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def end(self) -> int:
        self.process.communicate(timeout=20)
        return self.process.returncode


def test_a_download_that_is_killed_again_and_again_goes_on_each_time(tmp_path: Path, file: Original) -> None:
    draw = random.Random(3)
    for _ in range(6):
        fetching = Fetching(file, tmp_path)
        fetching.start()
        time.sleep(draw.uniform(0, 0.3))
        fetching.process.kill()
        assert fetching.end() == -signal.SIGKILL
        assert not (tmp_path / "file.bin").exists()
    before = (tmp_path / "file.bin.part").stat().st_size
    assert before > 0
    Slow.pause = 0
    fetch_file(file, tmp_path, patience=Patience(pause=0))
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert names(tmp_path) == ["file.bin"]
    assert Slow.asked[-1] == before
    assert Slow.asked == sorted(Slow.asked)


def test_of_several_processes_at_once_one_downloads_and_all_end_well(tmp_path: Path, file: Original) -> None:
    several = [Fetching(file, tmp_path) for _ in range(3)]
    for fetching in several:
        fetching.start()
    assert [fetching.end() for fetching in several] == [0, 0, 0]
    assert Slow.asked == [0]
    assert names(tmp_path) == ["file.bin"]


@pytest.mark.parametrize(
    "note", ["", "{", "[]", "{}", '{"url": 1, "etag": "", "modified": "", "total": 1}', '{"url": "x"}']
)
def test_a_part_without_a_legible_note_is_begun_again(tmp_path: Path, file: Original, note: str) -> None:
    Slow.pause = 0
    (tmp_path / "file.bin.part").write_bytes(b"whose is this")
    (tmp_path / "file.bin.part.json").write_text(note)
    fetch_file(file, tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert names(tmp_path) == ["file.bin"]
    assert Slow.asked == [0]


def test_a_part_that_is_a_link_is_not_followed(tmp_path: Path, file: Original) -> None:
    (tmp_path / "mine").write_bytes(b"precious")
    (tmp_path / "file.bin.part").symlink_to(tmp_path / "mine")
    with pytest.raises(ValueError, match="cannot be used"):
        fetch_file(file, tmp_path)
    assert (tmp_path / "mine").read_bytes() == b"precious"


def test_who_waits_hears_how_far_the_other_is_and_gets_a_part_that_still_has_its_name(tmp_path: Path) -> None:
    path, heard, waits, got = tmp_path / "a.part", list[int](), threading.Event(), list[bool]()

    def waiting(size: int) -> None:
        heard.append(size)
        waits.set()

    def second() -> None:
        with locked_part(path, tmp_path / "a", waiting) as part:
            got.append(part is not None and part.path.stat().st_ino == path.stat().st_ino)
            assert part is not None
            part.append(b"mine")

    with locked_part(path, tmp_path / "a", heard.append) as part:
        assert part is not None
        part.append(b"12345")
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(5)
        part.forget()  # empty: the file is removed at the end, while the other waits for it
    thread.join()
    assert heard[0] == 5
    assert got == [True]
    assert path.read_bytes() == b"mine"
