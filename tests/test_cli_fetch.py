"""`drnet data fetch`, from a server on this machine."""

import gzip
import hashlib
import http.server
import random
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from drnet.cli.fetch import fetch
from drnet.datasets.contract import DataError, SourceFile
from drnet.datasets.fetching import originals
from drnet.datasets.fetching.originals import Original, Originals

CONTENT = random.Random(0).randbytes(300_000)
PACKED = gzip.compress(CONTENT, mtime=0)


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a web server that has the files of a data set."""
    folder = tmp_path / "mirror"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}/"
        files = (
            Original("a.txt", (f"{address}none", f"{address}a.txt"), 5, hashlib.sha256(b"hello").hexdigest()),
            Original(
                "b.mat.gz",
                (f"{address}b.mat.gz",),
                len(PACKED),
                hashlib.sha256(PACKED).hexdigest(),
                SourceFile("b.mat", len(CONTENT), hashlib.sha256(CONTENT).hexdigest()),
            ),
        )
        row = Originals("A data set", "https://its.page/", "its licence", "Its authors, 2004", files)
        monkeypatch.setattr(originals, "ORIGINALS", {"kth": row})
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        (folder / "a.txt").write_bytes(b"hello")
        (folder / "b.mat.gz").write_bytes(PACKED)
        yield folder
        server.shutdown()
        thread.join()


def run(*words: object) -> Result:
    app = typer.Typer()
    app.command()(fetch)
    return CliRunner().invoke(app, list(map(str, words)), env={"COLUMNS": "200"})


def test_it_says_the_terms_what_is_new_where_it_lies_and_what_is_next(mirror: Path, tmp_path: Path) -> None:
    ended = run("kth", "--root", tmp_path / "data")
    assert ended.exit_code == 0
    folder = tmp_path / "data" / "kth"
    assert (folder / "b.mat").read_bytes() == CONTENT
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "b.mat"]
    lines = ended.stdout.splitlines()
    assert lines[:3] == ["A data set (https://its.page/)", "licence: its licence", "cite: Its authors, 2004"]
    assert lines[3].startswith("a.txt: 5 bytes, downloaded from http://127.0.0.1:")
    assert lines[4].startswith("b.mat: 0.3 MB, downloaded from http://127.0.0.1:")
    assert lines[5] == f"2 files, 0.3 MB, all checked: {folder}"
    assert lines[6] == f"next: drnet data build kth --source {folder} --out {folder}-clips"
    assert "b.mat.gz: 300/300 kB" in ended.stderr
    again = run("kth", "--root", tmp_path / "data")
    assert "a.txt: 5 bytes, already there" in again.stdout
    assert again.stderr == ""


def test_in_the_cache_the_next_command_needs_no_source(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRNET_CACHE", str(tmp_path / "cache"))
    ended = run("kth")
    assert f"all checked: {tmp_path / 'cache' / 'kth'}" in ended.stdout
    assert ended.stdout.endswith("next: drnet data build kth --out data/kth\n")


def test_a_dry_run_lists_addresses_and_sizes_and_downloads_nothing(mirror: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "kth"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"hello")
    ended = run("kth", "--root", tmp_path / "data", "--dry-run")
    assert ended.exit_code == 0
    assert "a.txt: already there, not checked now" in ended.stdout
    assert "b.mat: 0.3 MB (0.3 MB unpacked), from\n  http://127.0.0.1:" in ended.stdout
    assert f"would download 1 of 2 files, 0.3 MB: {folder}" in ended.stdout
    assert "next:" not in ended.stdout
    assert [path.name for path in folder.iterdir()] == ["a.txt"]


def test_an_error_is_one_line_with_each_mirror_and_the_way_out(mirror: Path, tmp_path: Path) -> None:
    (mirror / "a.txt").write_bytes(b"<html")
    ended = run("kth", "--root", tmp_path / "data")
    assert ended.exit_code == 1
    assert isinstance(ended.exception, DataError)
    text = str(ended.exception)
    assert "/none: 404 File not found; http://127.0.0.1:" in text
    assert "/a.txt: it serves another file, which has the SHA-256" in text
    assert f"by hand into '{tmp_path / 'data' / 'kth'}'" in text
    assert "\n" not in text


def test_another_name_is_wrong_usage(mirror: Path) -> None:
    assert run("coil").exit_code == 2
