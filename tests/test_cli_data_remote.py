"""`drnet data info`, `verify` and `preview` of a data set behind a real web server, and of a part of its shards."""

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faulty_server import HTML, Server, reset, says, serving

import drnet.pipelines.remote.cache
from drnet.datasets.cache import cache_folder
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.files import sha256_of
from drnet.pipelines.remote.cache import Entry
from drnet.pipelines.remote.copies import There
from drnet.pipelines.remote.download import NotThere

PART = "train-{000000..000001}.tar"
Command = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 4 train shards with 3 clips each and a test shard of 2."""
    folder = tmp_path_factory.mktemp("data")
    build(plan_build(BouncingDigits("optdigits", clips=12, test_clips=2, frames=4, size=16), "raw", 3), folder)
    return folder


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def server(running: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    """A server of the data set, a cache of its own, and no waiting."""
    running.files, running.ranges, running.etags = {}, True, True
    running.faults.clear()
    running.asked.clear()
    running.put(folder, "/d")
    monkeypatch.setenv("DRNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("drnet.pipelines.remote.download.time", SimpleNamespace(sleep=lambda _: None))
    return running


def damaged(data: bytes, at: int = 800) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_info_of_a_url_is_that_of_the_folder_and_fetches_the_manifest_alone(
    server: Server, folder: Path, command: Command
) -> None:
    there = command("data", "info", f"{server.url}/d?sig=secret")
    assert (there.code, there.out) == (0, command("data", "info", folder).out)
    assert [path for path, _ in server.asked] == ["/d/manifest.json?sig=secret"]


@pytest.mark.parametrize("remote", [True, False])
def test_info_of_some_shards_counts_these(server: Server, folder: Path, command: Command, remote: bool) -> None:
    told = command("data", "info", f"{server.url}/d/{PART}" if remote else f"{folder}/{PART}")
    assert told.code == 0, told.err
    found = json.loads(command("data", "info", f"{folder}/{PART}", "--json").out)
    assert (found["splits"]["train"]["clips"], found["splits"]["test"]["shards"], found["whole"]) == (6, 0, False)
    assert "train items" not in told.out


def test_verify_of_a_url_tells_what_it_fetches_and_fetches_it_once(
    server: Server, folder: Path, command: Command
) -> None:
    size = sum(path.stat().st_size for path in folder.glob("*.tar"))
    first = command("data", "verify", f"{server.url}/d")
    assert (first.code, first.out) == (0, "5 shards, 14 clips checked: no problems\n")
    assert first.err.splitlines()[0] == f"to fetch: {size / 1000:.3g} kB in 5 of 5 shards, and their sidecars"
    again = command("data", "verify", f"{server.url}/d")
    assert (again.code, again.out) == (0, first.out)
    assert again.err.splitlines()[0] == "to fetch: 0 B in 0 of 5 shards, and their sidecars"
    assert server.asked_for("/d/train-000000.tar") == 2, "asked again, and answered by 304"


def test_verify_finds_what_a_server_has_wrong_also_where_the_cache_has_it_right(
    server: Server, folder: Path, command: Command
) -> None:
    assert command("data", "verify", f"{server.url}/d").code == 0
    server.files["/d/train-000001.tar"] = damaged(server.files["/d/train-000001.tar"])
    server.files["/d/accounting.jsonl"] += b"\n"
    del server.files["/d/train-000002.tar"], server.files["/d/test-000000.json"]
    server.files["/d/train-000003.json"] = HTML
    found = command("data", "verify", f"{server.url}/d?sig=secret", "--json")
    assert found.code == 1
    problems = json.loads(found.out)["problems"]
    starts = {
        "train-000001.tar": "its content is not the one that is listed; copy the file there again",
        "train-000002.tar": "not found; copy the file there again",
        "train-000003.json": "the server sent a web page",
        "test-000000.json": "not found; copy the file there again",
        "accounting.jsonl": "missing or damaged; run the build again",
    }
    for name, said in starts.items():
        assert len([line for line in problems if line.startswith(f"{server.url}/d/{name}?...: {said}")]) == 1, problems
    assert len(problems) == len(starts)
    assert not any("secret" in line or str(cache_folder()) in line for line in problems)


def test_verify_mends_a_cache_that_is_damaged_and_blames_no_server(server: Server, command: Command) -> None:
    assert command("data", "verify", f"{server.url}/d").code == 0
    (path,) = cache_folder().rglob("train-000001.tar")
    before = path.stat()
    path.write_bytes(damaged(path.read_bytes()))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert command("data", "verify", f"{server.url}/d").code == 0
    assert sha256_of(path.read_bytes()) == sha256_of(server.files["/d/train-000001.tar"])


def test_verify_of_some_shards_looks_at_no_other(server: Server, folder: Path, command: Command) -> None:
    server.files["/d/train-000003.tar"] = b""
    found = command("data", "verify", f"{server.url}/d/{PART}")
    assert (found.code, found.out) == (0, "2 shards, 6 clips checked: no problems\n")
    assert not server.asked_for("/d/train-000003.tar")
    assert command("data", "verify", f"{folder}/{PART}").out == found.out


def test_verify_keeps_to_the_caches_limit_and_says_that_it_cannot(
    server: Server, folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = (folder / "train-000000.tar").stat().st_size
    monkeypatch.setenv("DRNET_CACHE_LIMIT", str(2 * shard))
    found = command("data", "verify", f"{server.url}/d")
    assert found.code == 0, found.out
    assert "the cache holds" in found.err.splitlines()[0]
    assert sum(path.stat().st_size for path in cache_folder().rglob("*") if path.is_file()) <= 2 * shard
    monkeypatch.setenv("DRNET_CACHE_LIMIT", str(shard - 1))
    small = command("data", "verify", f"{server.url}/d")
    assert (small.code, small.out) == (1, "")
    assert "do not fit into the cache of" in small.err
    assert small.err.count("\n") == 1


def full_disk(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let the disk be full when a file is downloaded."""

    def download(url: str, *given: Any, **more: Any) -> Any:
        if url.endswith(name):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return cache.download(url, *given, **more)

    cache = SimpleNamespace(download=drnet.pipelines.remote.cache.download)
    monkeypatch.setattr("drnet.pipelines.remote.cache.download", download)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("kind", [".tar", ".json"])
def test_a_server_that_cannot_be_reached_or_a_full_disk_ends_verify_with_one_line(
    server: Server, command: Command, monkeypatch: pytest.MonkeyPatch, kind: str, full: bool
) -> None:
    if full:
        full_disk(monkeypatch, f"/train-000001{kind}")
    else:
        server.faults[f"/d/train-000001{kind}"] = [reset] * 9
    found = command("data", "verify", f"{server.url}/d")
    assert (found.code, found.out) == (1, "")
    errors = [line for line in found.err.splitlines() if "error" in line]
    assert len(errors) == 1
    said = "cannot be kept in the cache (No space left on device)" if full else "cannot be read"
    assert f"{server.url}/d/train-000001{kind}: {said}" in errors[0]
    assert not server.asked_for("/d/train-000002.tar")


def test_a_cache_that_takes_no_more_folders_ends_verify_too(
    server: Server, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter = Entry.__enter__

    def entered(entry: Entry) -> Entry:
        if entry.url.endswith("train-000001.json"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return enter(entry)

    monkeypatch.setattr(Entry, "__enter__", entered)
    found = command("data", "verify", f"{server.url}/d")
    assert (found.code, found.out) == (1, "")
    assert "train-000001.json: cannot be kept in the cache (No space left on device)" in found.err


@pytest.mark.parametrize("fault", ["page", "reset", "full"])
def test_an_accounting_that_cannot_be_fetched_hides_no_problem_found_before(
    server: Server, command: Command, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    del server.files["/d/train-000002.tar"]
    said = "cannot be read"
    if fault == "page":
        server.files["/d/accounting.jsonl"], said = HTML, "missing or damaged; run the build again"
    elif fault == "reset":
        server.faults["/d/accounting.jsonl"] = [reset] * 9
    else:
        full_disk(monkeypatch, "/accounting.jsonl")
        said = "cannot be kept in the cache (No space left on device)"
    found = command("data", "verify", f"{server.url}/d", "--json")
    assert found.code == 1
    problems = json.loads(found.out)["problems"]
    assert len(problems) == 2, problems
    assert problems[0].startswith(f"{server.url}/d/train-000002.tar: not found")
    assert problems[1].startswith(f"{server.url}/d/accounting.jsonl: {said}")


def test_an_error_of_the_reader_of_a_file_is_its_own(server: Server) -> None:
    with pytest.raises(NotThere, match="another"), There(f"{server.url}/d").file("accounting.jsonl"):
        raise NotThere("another file")


@pytest.mark.parametrize("name", ["info", "verify", "preview"])
def test_a_url_without_a_data_set_is_one_line(server: Server, tmp_path: Path, command: Command, name: str) -> None:
    server.faults["/forbidden/manifest.json"] = [says(403)]
    words = ["--out", tmp_path / "x.png"] if name == "preview" else []
    for url, said in (
        (f"{server.url}/other", "/other/manifest.json: not found"),
        (f"{server.url}/forbidden", "/forbidden/manifest.json: cannot be read (403"),
        ("ssh://host/data", "ssh:// is not allowed"),
    ):
        ended = command("data", name, url, *words)
        assert (ended.code, ended.out) == (1, "")
        assert said in ended.err
        assert ended.err.count("\n") == 1


@pytest.mark.parametrize("name", ["info", "verify"])
def test_shards_that_no_manifest_lists_are_told_so(server: Server, command: Command, name: str) -> None:
    server.files = {"/x.tar": server.files["/d/train-000000.tar"]}
    ended = command("data", name, f"{server.url}/x.tar")
    assert ended.code == 1
    assert "x.tar: no manifest.json lists these shards, so nothing says what they hold" in ended.err


def test_a_preview_of_a_url_is_that_of_the_folder(
    server: Server, folder: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("data", "preview", f"{server.url}/d", "--clips", 2, "--out", tmp_path / "there.png").code == 0
    assert (tmp_path / "there.png").stat().st_size > 1000
    assert not server.asked_for("/d/train-000001.tar"), "only what is shown is fetched"


@pytest.mark.parametrize("words", [["card"], ["retry"], ["push"]])
def test_what_needs_a_folder_refuses_a_url(server: Server, command: Command, words: list[str]) -> None:
    ended = command("data", *words, f"{server.url}/d", *(["hf://datasets/a/b"] if words == ["push"] else []))
    assert ended.code == 2
    assert "a URL is not allowed here; name the data set's folder on this machine" in " ".join(ended.err.split())
    assert not server.asked
