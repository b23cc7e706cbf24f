"""The cache of remote files: keyed by the whole URL, checked on every use, never half-written."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from drnet.datasets.cache import cache_folder
from drnet.datasets.contract import DataError
from drnet.pipelines.cache import NotThere, entry, fetch, is_url
from drnet.pipelines.files import sha256_of

DATA = bytes(range(256)) * 9


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("DRNET_CACHE", str(tmp_path / "cache"))
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pipe("/a/x.tar", DATA)
    yield system
    system.store.clear()


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("text", "url"), [("s3://b/x.tar", True), ("http://h/x.tar", True), ("/a/x.tar", False), ("a:b/x", False)]
)
def test_a_url_is_told_from_a_path(text: str, url: bool) -> None:
    assert is_url(text) is url


def test_what_was_fetched_once_needs_no_server_where_its_hash_is_known(memory: Any) -> None:
    path = fetch("memory://a/x.tar", sha256_of(DATA))
    memory.store.clear()
    assert fetch("memory://a/x.tar", sha256_of(DATA)) == path
    assert path.read_bytes() == DATA
    assert path.name == "x.tar"
    assert path.is_relative_to(cache_folder())


def test_what_has_no_known_hash_is_fetched_again(memory: Any) -> None:
    assert fetch("memory://a/x.tar").read_bytes() == DATA
    memory.pipe("/a/x.tar", b"newer")
    assert fetch("memory://a/x.tar").read_bytes() == b"newer"


def test_urls_that_differ_anywhere_have_entries_of_their_own() -> None:
    urls = ["memory://a/x.tar", "memory://b/x.tar", "http://a/x.tar", "http://a:81/x.tar"]
    entries = {entry(url, sha256) for url in urls for sha256 in ("", "0" * 64, "1" * 64)}
    assert len(entries) == 12
    assert {path.name for path in entries} == {"x.tar"}
    assert len({path.parent for path in entries}) == 12


@pytest.mark.parametrize("damaged", [b"", DATA[:-1], DATA + b"1", b"1" + DATA[1:]], ids=["empty", "cut", "more", "bit"])
def test_a_damaged_entry_is_replaced(memory: Any, damaged: bytes) -> None:
    path = fetch("memory://a/x.tar", sha256_of(DATA))
    path.write_bytes(damaged)
    assert fetch("memory://a/x.tar", sha256_of(DATA)).read_bytes() == DATA


def test_other_content_than_expected_is_refused_and_not_kept(memory: Any) -> None:
    with pytest.raises(DataError, match=r"memory://a/x.tar: its content is not the one the manifest lists"):
        fetch("memory://a/x.tar", "0" * 64)
    assert not files(cache_folder())


def test_what_is_not_there_is_told(memory: Any) -> None:
    with pytest.raises(NotThere, match=r"memory://a/y.tar: not found"):
        fetch("memory://a/y.tar")
    assert not files(cache_folder())


@pytest.mark.parametrize("url", ["nosuchscheme://a/x.tar", "http://127.0.0.1:9/x.tar"])
def test_what_cannot_be_read_is_told_in_one_line_and_is_not_taken_for_missing(memory: Any, url: str) -> None:
    with pytest.raises(DataError) as error:
        fetch(url)
    assert not isinstance(error.value, NotThere)
    assert str(error.value).startswith(url)
    assert "\n" not in str(error.value)


def test_a_connection_that_breaks_leaves_nothing_behind(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(source: Any, target: Any, _: int) -> None:
        target.write(DATA[:100])
        raise ConnectionResetError(104, "Connection reset by peer")

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfileobj", breaks)
        with pytest.raises(DataError, match="Connection reset"):
            fetch("memory://a/x.tar", sha256_of(DATA))
    assert not files(cache_folder())
    assert fetch("memory://a/x.tar", sha256_of(DATA)).read_bytes() == DATA


def test_a_full_disk_is_not_blamed_on_the_url(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left") as error:
            fetch("memory://a/x.tar")
    assert error.value.filename == str(entry("memory://a/x.tar"))
    assert not files(cache_folder())
