"""Data sets behind an S3 server, through s3fs, with nothing but the environment's credentials."""

import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from drnet.datasets.cache import cache_folder
from drnet.datasets.contract import DataError
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.loader import PlannedFrames
from drnet.pipelines.plan import Plan
from drnet.pipelines.remote.download import NotThere
from drnet.pipelines.source import Collection, open_shards

s3fs = pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")

SHARDS = "train-{000000..000003}.tar"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 4 shards with 3 clips each."""
    folder = tmp_path_factory.mktemp("data")
    build(plan_build(BouncingDigits("optdigits", clips=12, test_clips=2, frames=4, size=16), "zstd", 3), folder)
    return folder


@pytest.fixture(scope="module")
def store(folder: Path) -> Iterator[Any]:
    """A bucket with the data set, known to s3fs by environment variables."""
    server = moto_server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "someone")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", str(folder / "none"))
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "none"))
        s3fs.S3FileSystem.clear_instance_cache()
        system = fsspec.filesystem("s3")
        system.mkdir("bucket")
        for path in folder.iterdir():
            system.pipe(f"bucket/data/{path.name}", path.read_bytes())
        yield system
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture(autouse=True)
def own_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache of its own for each test."""
    monkeypatch.setenv("DRNET_CACHE", str(tmp_path / "cache"))


def files_of(folder: Path) -> list[Path]:
    return [folder / name for name in ("manifest.json", "train-000000.tar", "train-000000.json")]


def reads(collection: Collection, steps: int = 5) -> tuple[str, list[bytes]]:
    """The order key, and the bytes of the first batches of training."""
    plan = Plan(collection.order_key, 1, [place.clips for place in collection.places], 5)
    stream = PlannedFrames(collection, plan, 3)
    return collection.order_key, [stream.read(step).frames.tobytes() for step in range(steps)]


@pytest.mark.parametrize("spec", ["", "/", f"/{SHARDS}"])
def test_training_is_the_same_whether_shards_are_here_or_in_a_bucket(store: Any, folder: Path, spec: str) -> None:
    assert reads(open_shards(f"s3://bucket/data{spec}")) == reads(open_shards(folder))


def test_shards_without_manifest_and_sidecars_are_read(store: Any, folder: Path) -> None:
    for path in folder.glob("train-*.tar"):
        store.pipe(f"bucket/foreign/{path.name}", path.read_bytes())
    there = open_shards(f"s3://bucket/foreign/{SHARDS}")
    assert there.manifest is None
    assert reads(there) == reads(open_shards(folder))
    fetched = {path: path.stat().st_ino for path in cache_folder().rglob("*.tar")}
    assert reads(open_shards(f"s3://bucket/foreign/{SHARDS}")) == reads(there)
    assert {path: path.stat().st_ino for path in cache_folder().rglob("*.tar")} == fetched, "known by their version"
    store.pipe("bucket/foreign/train-000000.tar", (folder / "train-000001.tar").read_bytes())
    newer = open_shards("s3://bucket/foreign/train-000000.tar")
    assert np.array_equal(newer.frames(0), open_shards(folder).frames(3))


def test_a_shard_is_fetched_in_blocks(store: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drnet.pipelines.remote.answers.BLOCK", 1000)
    assert reads(open_shards("s3://bucket/data")) == reads(open_shards(folder))


def test_a_connection_that_fails_between_blocks_is_taken_up_again(
    store: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drnet.pipelines.remote.answers.BLOCK", 1000)
    monkeypatch.setattr("time.sleep", lambda _: None)
    cat, starts = store.cat_file, []

    def failing(path: str, start: int, end: int) -> bytes:
        starts.append(start)
        if len(starts) % 3 == 0:
            raise ConnectionResetError(104, "Connection reset by peer")
        data: bytes = cat(path, start=start, end=end)
        return data

    monkeypatch.setattr(store, "cat_file", failing)
    assert np.array_equal(open_shards("s3://bucket/data").frames(0), open_shards(folder).frames(0))
    assert len(starts) > 10, "and yet no block was read twice:"
    assert len(starts) - len(starts) // 3 == sum(-(-path.stat().st_size // 1000) for path in files_of(folder))


def test_what_is_not_in_the_bucket_is_told(store: Any) -> None:
    for url in ("s3://bucket/nothing", "s3://no-such-bucket/data"):
        with pytest.raises(NotThere, match=rf"^{url}/manifest.json: not found$"):
            open_shards(url)
    with pytest.raises(NotThere, match=r"^s3://bucket/data/train-000009.tar: not found$"):
        open_shards("s3://bucket/data/train-000009.tar")


def test_a_shard_that_changed_in_the_bucket_is_refused(store: Any, folder: Path) -> None:
    for path in folder.iterdir():
        store.pipe(f"bucket/changed/{path.name}", path.read_bytes())
    collection = open_shards("s3://bucket/changed")
    store.pipe("bucket/changed/train-000001.tar", b"something else")
    assert np.array_equal(collection.frames(0), open_shards(folder).frames(0))
    with pytest.raises(DataError, match=r"^s3://bucket/changed/train-000001.tar: its content is not the one"):
        collection.frames(4)


def test_forked_processes_read_from_the_bucket_too(store: Any, folder: Path) -> None:
    expected = reads(open_shards(folder))
    collection = open_shards("s3://bucket/data")
    collection.frames(0)

    def work() -> None:
        assert reads(collection) == expected

    processes = [multiprocessing.get_context("fork").Process(target=work) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]


def test_without_credentials_one_line_says_so(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(DataError, match=r"^s3://bucket/data/manifest.json: cannot be read \(.*[Cc]redentials.*\)$"):
        open_shards("s3://bucket/data")
    s3fs.S3FileSystem.clear_instance_cache()
