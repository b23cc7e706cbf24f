"""Reading: the frames asked for and no others, from any place; damage is refused where it is read."""

import contextlib
import gc
import http.server
import io
import json
import os
import shutil
import tarfile
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drnet.datasets.contract import DataError
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.shards.codec import decode
from drnet.pipelines.shards.reading import Shard
from drnet.pipelines.source import Collection, open_shards

DATA = BouncingDigits("optdigits", clips=7, test_clips=2, frames=4, size=16)
CLIPS = [clip for index in range(7) for clip in DATA.clips("train", index)]


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("builds")
    for codec in ("raw", "zstd"):
        build(plan_build(DATA, codec, 3), folder / codec)
    return {codec: folder / codec for codec in ("raw", "zstd")}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for each test."""
    monkeypatch.setenv("DRNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(params=["raw", "zstd"])
def folder(request: pytest.FixtureRequest, builds: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(builds[request.param], tmp_path / request.param))


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder over HTTP; yields its URL and the paths asked for."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def shows(collection: Collection, clips: Sequence[Any] = CLIPS) -> bool:
    same = [np.array_equal(collection.frames(n), clip.frames) for n, clip in enumerate(clips)]
    return len(collection) == len(clips) and all(same) and list(collection.keys()) == [clip.key for clip in clips]


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_a_folder_shows_its_clips_in_order(folder: Path) -> None:
    collection = open_shards(folder)
    assert shows(collection)
    assert [collection.labels(n) for n in range(7)] == [clip.labels for clip in CLIPS]
    assert collection.frame_shape == (16, 16, 3)
    assert {collection.split_of(n) for n in range(7)} == {"train"}


def test_splits_can_be_read_alone_and_together(folder: Path) -> None:
    assert [len(open_shards(folder, splits)) for splits in (["train"], ["test"], ["train", "test"])] == [7, 2, 9]
    both = open_shards(folder, ["train", "test"])
    assert [both.split_of(n) for n in (0, 6, 7, 8)] == ["train", "train", "test", "test"]


@given(st.integers(0, 6), st.lists(st.integers(0, 3), min_size=1, max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_any_frames_of_a_clip_can_be_read(builds: dict[str, Path], clip: int, times: list[int]) -> None:
    for folder in builds.values():
        shard, index = open_shards(folder).locate(clip)
        out = np.empty((len(times), 16, 16, 3), np.uint8)
        shard.read_frames(index, times, out)
        assert np.array_equal(out, CLIPS[clip].frames[times])


@pytest.mark.parametrize("time", [-1, 4, 100])
def test_a_frame_that_is_not_there_is_an_error(folder: Path, time: int) -> None:
    shard, index = open_shards(folder).locate(0)
    with pytest.raises(IndexError, match=f"has no frame {time + 1}; it has 4, counted from 1"):
        shard.read_frames(index, [time], np.empty((1, 16, 16, 3), np.uint8))


def test_only_the_bytes_of_the_frames_asked_for_are_read(builds: dict[str, Path], monkeypatch: Any) -> None:
    read: list[int] = []
    real = os.preadv
    shard, index = open_shards(builds["raw"]).locate(1)
    monkeypatch.setattr("os.preadv", lambda *a: read.append(real(*a)) or read[-1])
    monkeypatch.setattr("os.pread", lambda *a: pytest.fail("more was read"))
    shard.read_frames(index, [0, 2], np.empty((2, 16, 16, 3), np.uint8))
    assert read == [16 * 16 * 3] * 2


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_a_flipped_bit_is_found_when_its_frame_is_read(
    builds: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    told: list[str] = []
    for codec, folder in builds.items():
        path = folder / "train-000000.tar"
        sample = Shard(path).sidecar.samples[1]
        whole = path.read_bytes()
        frame = 16 * 16 * 3
        start = sample.frames[0] + (sample.frames[1] - 4 * frame if codec == "raw" else 0)
        time = data.draw(st.integers(0, 3))
        low, size = (start + time * frame, frame) if codec == "raw" else sample.frames
        at = low + data.draw(st.integers(0, size - 1))
        copy = tmp_path_factory.mktemp("flipped") / path.name
        copy.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << data.draw(st.integers(0, 7))]) + whole[at + 1 :])
        shutil.copy(path.with_suffix(".json"), copy.with_suffix(".json"))
        shard, out = Shard(copy), np.zeros((1, 16, 16, 3), np.uint8)
        others = [t for t in range(4) if t != time]
        try:
            if codec == "raw":  # the other frames are still good
                shard.read_frames(1, others, np.empty((3, 16, 16, 3), np.uint8))
            shard.read_frames(1, [time], out)
            assert codec == "zstd"  # a bit of the frame's header that changes nothing
            assert np.array_equal(out[0], CLIPS[1].frames[time])
        except DataError as error:
            told.append(str(error))
    assert all("clip train-00000001" in line and "\n" not in line for line in told)
    assert told


@pytest.mark.parametrize("cut", [0, 100, 600, -1, -1024, -1536])
def test_a_cut_shard_is_refused_when_it_is_opened(folder: Path, cut: int) -> None:
    path = folder / "train-000000.tar"
    path.write_bytes(path.read_bytes()[:cut])
    collection = open_shards(folder)
    with pytest.raises(DataError, match=r"bytes, where its sidecar says .*delete the shard and run the build"):
        collection.frames(0)
    del collection
    gc.collect()  # a file closed twice would show here


def test_a_missing_shard_is_refused_before_anything_is_read(folder: Path) -> None:
    for name in ("train-000000.tar", "train-000001.tar"):
        (folder / name).unlink()
    with pytest.raises(DataError, match=r"missing train-000000.tar, train-000001.tar; run the build command again"):
        open_shards(folder)


def test_a_shard_of_another_build_is_refused(folder: Path, tmp_path: Path) -> None:
    other = BouncingDigits("optdigits", clips=7, test_clips=2, frames=4, size=16, seed=1)
    build(plan_build(other, "raw", 3), tmp_path / "other")
    for end in ("tar", "json"):
        shutil.copy(tmp_path / "other" / f"train-000000.{end}", folder)
    with pytest.raises(DataError, match="not the shard that the manifest lists"):
        open_shards(folder).frames(0)


def test_labels_that_are_damaged_are_refused(builds: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(builds["raw"], tmp_path / "copy"))
    path = folder / "train-000000.tar"
    offset, _ = Shard(path).sidecar.samples[0].labels
    data = bytearray(path.read_bytes())
    data[offset] = ord("[")
    path.write_bytes(data)
    with pytest.raises(DataError, match="its labels are damaged"):
        open_shards(folder).labels(0)


@pytest.mark.parametrize(("spec", "message"), [("nowhere", "no such folder"), ("{a.tar", "missing|unbalanced")])
def test_what_is_not_there_is_told(tmp_path: Path, spec: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_shards(tmp_path / spec)


def test_an_unfinished_build_is_told_from_foreign_shards(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    with pytest.raises(DataError, match="the build is not complete; run the same build command again"):
        open_shards(folder)


def test_a_split_without_clips_is_told(tmp_path: Path) -> None:
    build(plan_build(BouncingDigits("optdigits", clips=2, test_clips=0, frames=2, size=16)), tmp_path)
    with pytest.raises(DataError, match="no clips in split test"):
        open_shards(tmp_path, ["test"])


def test_a_pattern_names_a_part_with_an_order_key_of_its_own(folder: Path) -> None:
    part = open_shards(f"{folder}/train-{{000001..000002}}.tar")
    assert shows(part, CLIPS[3:])
    whole = open_shards(f"{folder}/train-{{000000..000002}}.tar")
    assert whole.order_key == open_shards(folder).order_key != part.order_key
    assert part.manifest is not None


def test_the_order_key_does_not_depend_on_the_place(folder: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(folder, tmp_path / "somewhere" / "else")
    assert open_shards(moved).order_key == open_shards(folder).order_key


def test_many_shards_do_not_keep_many_files_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drnet.pipelines.source.OPEN_SHARDS", 2)
    build(plan_build(BouncingDigits("optdigits", clips=20, frames=2, size=16), "raw", 1), tmp_path)
    collection = open_shards(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(20):
        collection.frames(number)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2
    del collection
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


@pytest.mark.parametrize("spec", ["", "/train-{000000..000002}.tar"])
def test_a_build_behind_a_web_server_is_read(builds: dict[str, Path], spec: str) -> None:
    for folder in builds.values():
        with served(folder) as (url, asked):
            collection = open_shards(url + spec)
            assert not [path for path in asked if path.endswith(".tar")], "shards are fetched when they are read"
            assert shows(collection)
            assert collection.order_key == open_shards(folder).order_key
            first = [path for path in asked if path.endswith(".tar")]
            assert shows(open_shards(url + spec))
            assert sorted(first) == [f"/train-00000{n}.tar" for n in range(3)]
            assert [path for path in asked if path.endswith(".tar")] == first, "the second time they are in the cache"


def test_single_shards_behind_a_web_server_need_no_manifest(builds: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(builds["raw"], tmp_path / "www")
    (tmp_path / "www" / "manifest.json").unlink()
    with served(tmp_path / "www") as (url, asked):
        assert shows(open_shards(f"{url}/train-{{000000..000002}}.tar"))
        assert len([path for path in asked if path.endswith(".tar")]) == 3
        for sidecar in (tmp_path / "www").glob("*.json"):
            sidecar.unlink()
        asked.clear()
        assert shows(open_shards(f"{url}/train-{{000000..000002}}.tar"))
        assert len([path for path in asked if path.endswith(".tar")]) == 3


def test_what_a_web_server_does_not_have_is_told(builds: dict[str, Path]) -> None:
    with served(builds["raw"]) as (url, _):
        with pytest.raises(DataError, match=r"train-000009.tar: not found"):
            open_shards(f"{url}/train-000009.tar")
        with pytest.raises(DataError, match=r"manifest.json: not found"):
            open_shards(f"{url}/nothing")
    with pytest.raises(DataError, match="cannot be read"):
        open_shards(url)  # the server has gone


@pytest.fixture
def memory() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def put(memory: Any, folder: Path, base: str) -> None:
    for path in folder.iterdir():
        memory.pipe(f"{base}/{path.name}", path.read_bytes())


def test_a_build_in_any_file_system_of_fsspec_is_read(memory: Any, folder: Path) -> None:
    put(memory, folder, "/data")
    assert shows(open_shards("memory://data"))
    assert shows(open_shards("memory://data/train-{000000..000002}.tar"))
    assert len(open_shards("memory://data/", ["test"])) == 2


def test_two_urls_with_the_same_file_name_do_not_collide(memory: Any) -> None:
    for name, value in (("a", 1), ("b", 2)):
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w") as archive:
            data = npy(np.full((1, 4, 4, 1), value, np.uint8))
            member = tarfile.TarInfo("s.npy")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        memory.pipe(f"/{name}/000.tar", tar.getvalue())
    assert [int(open_shards(f"memory://{name}/000.tar").frames(0).max()) for name in "ab"] == [1, 2]
    both = open_shards("memory://{a,b}/000.tar")
    assert sorted(int(both.frames(n).max()) for n in range(2)) == [1, 2]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
@pytest.mark.parametrize("name", ["train-000000.tar", "train-000000.json"])
def test_a_damaged_entry_of_the_cache_is_noticed_and_fetched_again(
    memory: Any, folder: Path, cache: Path, damage: str, name: str
) -> None:
    put(memory, folder, "/data")
    assert shows(open_shards("memory://data"))
    (entry,) = cache.rglob(name)
    data = bytearray(entry.read_bytes())
    data[len(data) // 2] ^= 1
    entry.write_bytes({"cut": data[: len(data) // 2], "empty": b""}.get(damage, data))
    assert shows(open_shards("memory://data"))
    assert entry.read_bytes() == (folder / name).read_bytes()


def test_a_shard_that_changed_on_the_server_is_refused(memory: Any, folder: Path) -> None:
    put(memory, folder, "/data")
    memory.pipe("/data/train-000001.tar", b"something else")
    collection = open_shards("memory://data")
    assert np.array_equal(collection.frames(0), CLIPS[0].frames)
    with pytest.raises(DataError, match=r"memory://data/train-000001.tar: its content is not the one"):
        collection.frames(4)


def test_a_remote_shard_without_its_sidecar_is_refused_where_a_manifest_lists_it(memory: Any, folder: Path) -> None:
    put(memory, folder, "/data")
    memory.rm("/data/train-000000.json")
    with pytest.raises(DataError, match=r"train-000000.json: not found"):
        open_shards("memory://data").frames(0)


def test_reading_in_threads_gives_the_same_frames(builds: dict[str, Path]) -> None:
    collection = open_shards(builds["zstd"])
    wrong: list[object] = []

    def work() -> None:
        try:
            assert all(shows(collection) for _ in range(20))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_members_are_what_the_codec_reads(builds: dict[str, Path]) -> None:
    for codec, folder in builds.items():
        sample = Shard(folder / "train-000000.tar").sidecar.samples[2]
        offset, size = sample.frames
        data = (folder / "train-000000.tar").read_bytes()[offset : offset + size]
        assert np.array_equal(decode(data, codec, "here"), CLIPS[2].frames)
        place = slice(sample.labels[0], sum(sample.labels))
        assert json.loads((folder / "train-000000.tar").read_bytes()[place]) == CLIPS[2].labels


def test_a_lost_sidecar_of_a_data_set_is_refused_as_nothing_could_be_checked(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "data")
    (tmp_path / "data" / "train-000000.json").unlink()
    with pytest.raises(DataError, match=r"train-000000\.json: the shard's sidecar is missing"):
        open_shards(tmp_path / "data").frames(0)
