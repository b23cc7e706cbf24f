"""Data sets behind a real web server: the same training as from a folder, whatever goes wrong on the way."""

import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from faulty_server import HTML, Fault, Server, cut, reset, says, serving

from drnet.datasets.cache import cache_folder
from drnet.datasets.contract import DataError
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.files import sha256_of
from drnet.pipelines.loader import PlannedFrames
from drnet.pipelines.plan import Plan
from drnet.pipelines.remote.cache import Entry
from drnet.pipelines.source import Collection, open_shards

FORK = multiprocessing.get_context("fork")
SHARDS = "train-{000000..000003}.tar"


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    running.files, running.ranges, running.etags = {}, True, True
    running.faults.clear()
    running.asked.clear()
    return running


@pytest.fixture(autouse=True)
def own_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache of its own for each test, and no waiting."""
    monkeypatch.setenv("DRNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("drnet.pipelines.remote.download.time", SimpleNamespace(sleep=lambda _: None))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 4 shards with 3 clips each."""
    folder = tmp_path_factory.mktemp("data")
    build(plan_build(BouncingDigits("optdigits", clips=12, test_clips=2, frames=4, size=16), "raw", 3), folder)
    return folder


def reads(collection: Collection, steps: int = 5) -> tuple[str, list[bytes]]:
    """The order key, and the bytes of the first batches of training."""
    plan = Plan(collection.order_key, 1, [place.clips for place in collection.places], 5)
    stream = PlannedFrames(collection, plan, 3)
    batches = [stream.read(step) for step in range(steps)]
    return collection.order_key, [batch.frames.tobytes() + batch.times.tobytes() for batch in batches]


def keys(folder: Path) -> list[str]:
    return list(open_shards(folder).keys())


@pytest.mark.parametrize("kind", ["whole", "no manifest", "foreign"])
@pytest.mark.parametrize("query", ["", "?sig=secret/x.tar"])
def test_training_is_the_same_whether_shards_are_here_or_there(
    server: Server, folder: Path, tmp_path: Path, kind: str, query: str
) -> None:
    here = Path(shutil.copytree(folder, tmp_path / "here"))
    for path in here.glob("*.json"):
        if kind == "foreign" or (kind == "no manifest" and path.name == "manifest.json"):
            path.unlink()
    server.put(here, "/d")
    there = open_shards(f"{server.url}/d/{SHARDS}{query}")
    assert reads(there) == reads(open_shards(f"{here}/{SHARDS}"))
    if kind == "whole":
        assert reads(open_shards(f"{server.url}/d{query}")) == reads(open_shards(here)) == reads(there)
    assert list(there.keys()) == keys(folder)
    assert {asked.partition("?")[2] for asked, _ in server.asked} == {query[1:]}
    assert "secret" not in " ".join(str(path) for path in cache_folder().rglob("*"))
    assert server.asked_for("/d/train-000002.tar") == 1


def test_a_signed_shard_whose_neighbours_are_refused_is_indexed(server: Server, folder: Path) -> None:
    server.files["/train-000000.tar"] = (folder / "train-000000.tar").read_bytes()
    server.faults |= {"/train-000000.json": [says(403)], "/manifest.json": [says(403)]}
    collection = open_shards(f"{server.url}/train-000000.tar?sig=secret")
    assert collection.manifest is None
    assert np.array_equal(collection.frames(1), open_shards(folder).frames(1))


def test_a_file_url_is_a_local_folder(folder: Path) -> None:
    assert reads(open_shards(f"file://{folder}")) == reads(open_shards(folder))
    assert reads(open_shards(f"file://{folder}/{SHARDS}")) == reads(open_shards(folder))


@pytest.mark.parametrize("spec", ["zip://x.tar::https://h/x.zip", "simplecache::s3://b/{0..9}.tar", "ssh://h/data"])
def test_a_url_that_is_not_allowed_is_refused_before_anything_is_asked(spec: str) -> None:
    with pytest.raises(DataError, match=r"is not allowed; allowed are http://"):
        open_shards(spec)


@pytest.mark.parametrize("name", ["train-000001.tar", "train-000001.json", "manifest.json"])
@pytest.mark.parametrize("faults", [[says(500)], [cut(100), cut(1)], [says(200, HTML)], [reset]], ids=range(4))
def test_faults_of_any_file_change_nothing(server: Server, folder: Path, name: str, faults: list[Fault]) -> None:
    server.put(folder)
    server.faults[f"/{name}"] = list(faults)
    assert reads(open_shards(server.url)) == reads(open_shards(folder))
    assert not server.faults[f"/{name}"]


@pytest.mark.parametrize("name", ["train-000000.tar", "train-000000.json", "manifest.json"])
@pytest.mark.parametrize(
    "broken", [HTML, b"", b"{}", b"[1]", b"\0" * 10240, b'{"format": 1}'], ids=["html", "empty", "{}", "[]", "0", "1"]
)
def test_a_file_that_is_another_is_one_line_with_its_url(
    server: Server, folder: Path, name: str, broken: bytes
) -> None:
    server.put(folder)
    server.files[f"/{name}"] = broken
    with pytest.raises(DataError) as error:
        reads(open_shards(server.url))
    assert f"{server.url}/{name}" in str(error.value)
    assert str(cache_folder()) not in str(error.value)
    assert "\n" not in str(error.value)
    assert server.asked_for(f"/{name}") <= 2


@pytest.mark.parametrize("broken", [HTML, b"", b"\0" * 100, b"x" * 2048, "cut"], ids=["html", "empty", "0", "x", "cut"])
def test_a_foreign_shard_that_is_none_is_one_line_with_its_url(
    server: Server, folder: Path, broken: bytes | str
) -> None:
    data = (folder / "train-000000.tar").read_bytes()
    server.files = {"/x.tar": data[: len(data) // 2] if isinstance(broken, str) else broken}
    with pytest.raises(DataError, match=rf"^{server.url}/x.tar\?\.\.\.: ") as error:
        open_shards(f"{server.url}/x.tar?secret")
    assert "secret" not in str(error.value)
    assert str(cache_folder()) not in str(error.value)


def test_a_foreign_shard_is_downloaded_once_where_the_server_tells_versions(server: Server, folder: Path) -> None:
    server.files = {"/x.tar": (folder / "train-000000.tar").read_bytes()}
    for _ in range(3):
        assert len(open_shards(f"{server.url}/x.tar")) == 3
    assert [status for path, status in server.asked if path == "/x.tar"] == [""] * 3, "asked, and answered by 304"
    before = (cache_folder() / "shards").stat()
    newer = (folder / "train-000001.tar").read_bytes()
    collection = open_shards(f"{server.url}/x.tar")
    server.files["/x.tar"] = newer
    assert np.array_equal(open_shards(f"{server.url}/x.tar").frames(0), open_shards(folder).frames(3))
    with pytest.raises(DataError, match=r"/x.tar: its content is not the one that is listed"):
        collection.frames(0)
    assert before.st_ino == (cache_folder() / "shards").stat().st_ino


def test_two_versions_of_a_data_set_at_one_url_are_kept_apart(server: Server, folder: Path, tmp_path: Path) -> None:
    other = BouncingDigits("optdigits", clips=12, test_clips=2, frames=4, size=16, seed=5)
    build(plan_build(other, "raw", 3), tmp_path / "other")
    server.put(folder)
    old = open_shards(server.url)
    before = reads(old)
    server.put(tmp_path / "other")
    new = open_shards(server.url)
    assert reads(new) == reads(open_shards(tmp_path / "other"))
    assert reads(open_shards(server.url)) == reads(new) != before
    assert reads(Collection(old.places, old.manifest)) == before, "from the cache, though the server has it no more"


def test_a_sidecar_of_another_shard_in_the_cache_is_noticed(server: Server, folder: Path, tmp_path: Path) -> None:
    other = BouncingDigits("optdigits", clips=12, test_clips=2, frames=4, size=16, seed=5)
    build(plan_build(other, "raw", 3), tmp_path / "other")
    server.put(folder)
    assert reads(open_shards(server.url)) == reads(open_shards(folder))
    for path in cache_folder().rglob("train-*.json"):
        shutil.copyfile(tmp_path / "other" / path.name, path)
    assert reads(open_shards(server.url)) == reads(open_shards(folder))


def test_several_processes_share_one_download(server: Server, folder: Path) -> None:
    server.put(folder)
    expected = reads(open_shards(folder))
    reads(open_shards(server.url), 1)  # a connection of the parent's that no child may use
    for path in server.files:
        server.faults[path] = [lambda handler: handler.answer(pause=0.02)]

    def work() -> None:
        assert reads(open_shards(server.url)) == expected

    processes = [FORK.Process(target=work) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0] * 4
    assert [server.asked_for(f"/train-00000{n}.tar") for n in range(4)] == [1] * 4


def test_a_killed_download_harms_nobody_and_leaves_nothing(server: Server, folder: Path) -> None:
    server.put(folder)
    server.faults["/train-000000.tar"] = [lambda handler: handler.answer(1000) or time.sleep(30)]

    def work() -> None:
        open_shards(server.url).frames(0)

    process = FORK.Process(target=work)
    process.start()
    deadline = time.monotonic() + 20
    while server.faults["/train-000000.tar"] and time.monotonic() < deadline:
        time.sleep(0.01)
    found = list(cache_folder().rglob(".train-000000.tar.*.tmp"))
    assert found
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert found[0].exists()
    assert reads(open_shards(server.url)) == reads(open_shards(folder))
    assert not list(cache_folder().rglob("*.tmp"))


def test_a_data_set_larger_than_the_cache_is_read_all_the_same(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put(folder)
    here, most = open_shards(folder), int(2.9 * (folder / "train-000000.tar").stat().st_size)
    monkeypatch.setenv("DRNET_CACHE_LIMIT", str(most))
    there = open_shards(server.url)
    for clip in (*range(12), *range(12)):
        assert np.array_equal(there.frames(clip), here.frames(clip))
        assert sum(path.stat().st_size for path in cache_folder().rglob("*") if path.is_file()) <= most
    assert server.asked_for("/train-000000.tar") == 2
    assert reads(there) == reads(here), "though one batch needs more shards than there is room for"


def test_a_damaged_entry_is_fetched_again_once_each(server: Server, folder: Path) -> None:
    server.put(folder)
    assert reads(open_shards(server.url)) == reads(open_shards(folder))
    server.asked.clear()
    for path in cache_folder().rglob("train-00000[01].*"):
        path.write_bytes(path.read_bytes()[:-600])
    assert reads(open_shards(server.url)) == reads(open_shards(folder))
    fetched = [path for path, _ in server.asked if path != "/manifest.json"]
    assert sorted(fetched) == sorted(f"/train-00000{n}.{kind}" for n in (0, 1) for kind in ("tar", "json"))


def test_an_entry_is_held_by_one_thread_at_a_time(server: Server) -> None:
    data = bytes(200_000)
    server.files["/x"], server.faults["/x"] = data, [lambda handler: handler.answer(pause=0.02)]

    def work() -> None:
        with Entry(f"{server.url}/x", sha256_of(data)) as entry:
            assert entry.content().read_bytes() == data

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.asked) == 1
