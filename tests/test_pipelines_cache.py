"""The cache of remote files: keyed by the whole URL and hash, checked on every use, one download for all."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from drnet.datasets.cache import cache_folder
from drnet.datasets.contract import DataError
from drnet.pipelines.files import sha256_of
from drnet.pipelines.remote.cache import Entry
from drnet.pipelines.remote.download import NotThere
from drnet.pipelines.remote.room import LOCK

DATA = bytes(range(256)) * 9
HASH = sha256_of(DATA)
URL = "memory://a/x.tar"


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("DRNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("drnet.pipelines.remote.download.PROGRESS", 1 << 60)
    monkeypatch.setattr("time.sleep", lambda _: None)
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pipe("/a/x.tar", DATA)
    yield system
    system.store.clear()


def fetch(url: str, sha256: str = "") -> Path:
    with Entry(url, sha256) as entry:
        return entry.content()


def files() -> list[str]:
    return [path.name for path in cache_folder().rglob("*") if path.is_file() and path.name != LOCK]


def test_what_was_fetched_once_needs_no_server_where_its_hash_is_known(memory: Any) -> None:
    path = fetch(URL, HASH)
    memory.store.clear()
    assert fetch(URL, HASH) == path
    assert path.read_bytes() == DATA
    assert path.name == "x.tar"
    assert path.is_relative_to(cache_folder())


def test_what_is_as_it_was_noted_is_not_hashed_again(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fetch(URL, HASH)
    with monkeypatch.context() as patch:
        patch.setattr("drnet.pipelines.remote.cache.sha256_file", lambda _: pytest.fail("read as a whole"))
        assert fetch(URL, HASH) == path
    os.utime(path)  # touched: hashed once, and noted anew
    memory.store.clear()
    assert fetch(URL, HASH) == path
    with monkeypatch.context() as patch:
        patch.setattr("drnet.pipelines.remote.cache.sha256_file", lambda _: pytest.fail("read as a whole"))
        assert fetch(URL, HASH) == path


def test_what_has_no_known_hash_is_fetched_again_when_it_changed(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fetch(URL).read_bytes() == DATA
    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "cat_file", lambda *_, **__: pytest.fail("read again"))
        assert fetch(URL).read_bytes() == DATA
    memory.pipe("/a/x.tar", b"newer")
    assert fetch(URL).read_bytes() == b"newer"


def test_a_changed_entry_without_known_hash_is_fetched_again_though_the_server_has_the_same(memory: Any) -> None:
    path = fetch(URL)
    path.write_bytes(DATA[:-1])
    assert fetch(URL).read_bytes() == DATA


def test_urls_that_differ_anywhere_have_entries_of_their_own() -> None:
    urls = [URL, "memory://b/x.tar", "http://a/x.tar", "http://a:81/x.tar", "http://a/x.tar?1", "http://a/x.tar?2"]
    paths = {Entry(url, sha256).path for url in urls for sha256 in ("", "0" * 64, "1" * 64)}
    assert len(paths) == 18
    assert {path.name for path in paths} == {"x.tar"}
    assert len({path.parent for path in paths}) == 18


@pytest.mark.parametrize("name", ["..", ".", "", ".lock", "a\\b", "a" * 300, "%2e%2e%2fx", "a\0b"])
def test_no_name_leaves_its_entry(name: str) -> None:
    path = Entry(f"http://h/{name}?secret").path
    assert path.parent.parent == cache_folder() / "shards"
    assert path.name not in ("", ".", "..", LOCK)
    assert "\0" not in path.name
    assert len(path.name) <= 100
    assert "secret" not in str(path)


@pytest.mark.parametrize("damaged", [b"", DATA[:-1], DATA + b"1", b"1" + DATA[1:]], ids=["empty", "cut", "more", "bit"])
def test_a_damaged_entry_is_fetched_again_once(memory: Any, damaged: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fetch(URL, HASH)
    path.write_bytes(damaged)
    assert fetch(URL, HASH).read_bytes() == DATA
    monkeypatch.setattr(type(memory), "cat_file", lambda *_, **__: pytest.fail("fetched again"))
    assert fetch(URL, HASH).read_bytes() == DATA


@pytest.mark.parametrize("note", [b"", b"x\n", b"9\n", b"\xff\n\xff\n\n\n", b"2304\n1\n" + b"0" * 64 + b"\n\n"])
def test_a_damaged_note_costs_a_look_and_no_download(memory: Any, note: bytes) -> None:
    path = fetch(URL, HASH)
    (path.parent / LOCK).write_bytes(note)
    memory.store.clear()
    assert fetch(URL, HASH).read_bytes() == DATA


def test_an_entry_swapped_for_anothers_is_noticed(memory: Any) -> None:
    memory.pipe("/b/x.tar", DATA[::-1])
    path, other = fetch(URL, HASH), fetch("memory://b/x.tar", sha256_of(DATA[::-1]))
    held = other.read_bytes()
    path.write_bytes(held)
    (path.parent / LOCK).write_bytes((other.parent / LOCK).read_bytes())
    os.utime(path, ns=(other.stat().st_mtime_ns,) * 2)  # even with its times and its note
    assert fetch(URL, HASH).read_bytes() == DATA


def test_other_content_than_expected_is_refused_and_not_kept(memory: Any) -> None:
    with pytest.raises(DataError, match=r"memory://a/x.tar: its content is not the one that is listed"):
        fetch(URL, "0" * 64)
    assert not files()
    assert not [path for path in (cache_folder() / "shards").iterdir() if path.is_dir()]


def test_what_is_not_there_is_told(memory: Any) -> None:
    with pytest.raises(NotThere, match=r"memory://a/y.tar: not found"):
        fetch("memory://a/y.tar")
    assert not files()


def test_a_folder_is_no_file(memory: Any) -> None:
    with pytest.raises(NotThere, match=r"memory://a: not found"):
        fetch("memory://a")


def test_what_cannot_be_read_is_told_in_one_line_and_is_not_taken_for_missing(memory: Any) -> None:
    with pytest.raises(DataError) as error:
        fetch("http://127.0.0.1:9/x.tar")
    assert not isinstance(error.value, NotThere)
    assert str(error.value).startswith("http://127.0.0.1:9/x.tar: cannot be read (")
    assert "\n" not in str(error.value)


def test_a_protocol_whose_package_is_missing_says_how_to_get_it(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(DataError, match=r"^gs://b/x.tar: gs:// needs a package more; pip install gcsfs$"):
        fetch("gs://b/x.tar")


def test_a_file_that_changes_between_two_blocks_is_read_anew(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drnet.pipelines.remote.answers.BLOCK", 1000)
    cat, later = memory.cat_file, iter([DATA[::-1]])

    def changing(path: str, start: int, end: int) -> bytes:
        block: bytes = cat(path, start=start, end=end)
        if start == 1000 and (newer := next(later, b"")):
            memory.pipe("/a/x.tar", newer)
        return block

    monkeypatch.setattr(memory, "cat_file", changing)
    assert fetch(URL).read_bytes() == DATA[::-1]


def test_a_full_disk_is_not_blamed_on_the_url(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left") as error:
            fetch(URL)
    assert error.value.filename == str(Entry(URL).path)
    assert not files()
