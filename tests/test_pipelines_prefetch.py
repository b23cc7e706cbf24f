"""Shards that the plan comes to next are fetched while the current ones are read."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from faulty_server import Server, says

from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.loader import PlannedFrames
from drnet.pipelines.plan import Plan
from drnet.pipelines.remote import prefetch
from drnet.pipelines.remote.prefetch import fetched_ahead
from drnet.pipelines.source import Collection, open_shards

SHARDS, CLIPS, WINDOW = 12, 4, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 12 shards with 4 clips each."""
    folder = tmp_path_factory.mktemp("data")
    data = BouncingDigits("optdigits", clips=SHARDS * CLIPS, test_clips=2, frames=4, size=16)
    build(plan_build(data, "raw", CLIPS), folder)
    return folder


@pytest.fixture
def server(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("DRNET_CACHE", str(tmp_path / "cache"))
    for module in ("plan", "remote.prefetch"):
        monkeypatch.setattr(f"drnet.pipelines.{module}.WINDOW", WINDOW)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        server.put(folder)
        yield server
        server.shutdown()
        thread.join()


def planned(collection: Collection) -> tuple[Plan, PlannedFrames]:
    plan = Plan(collection.order_key, 1, [place.clips for place in collection.places], 4)
    return plan, PlannedFrames(collection, plan, 3)


def fetched(server: Server) -> list[str]:
    return [path[1:] for path, _ in server.asked if path.endswith(".tar")]


def in_time(true: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while not true() and time.monotonic() < end:
        time.sleep(0.005)
    return true()


def test_the_next_window_is_fetched_before_its_first_batch_is_read(server: Server) -> None:
    collection = open_shards(server.url)
    plan, _ = planned(collection)
    order = [collection.places[int(clip) // CLIPS].name for clip in plan.order(0, SHARDS * CLIPS)]
    with fetched_ahead(collection, plan, WINDOW) as reach:
        reach(0)
        assert in_time(lambda: set(fetched(server)) == set(order[: 4 + WINDOW * CLIPS])), "the plan's next shards"
        time.sleep(0.05)
        assert len(fetched(server)) < SHARDS, "and no more"
        reach(3)
        assert in_time(lambda: set(fetched(server)) == set(order[: 4 * 4 + WINDOW * CLIPS]))
    assert len(fetched(server)) == len(set(fetched(server)))


def test_reading_does_not_wait_for_downloads_once_training_runs(server: Server) -> None:
    def slow(handler: object) -> None:
        time.sleep(0.1)
        handler.answer()  # type: ignore[attr-defined]

    def waits(url: str, ahead: int) -> float:
        for path in server.files:
            server.faults[path] = [slow] if path.endswith(".tar") else []
        collection = open_shards(url)
        plan, stream = planned(collection)
        waited = 0.0
        with fetched_ahead(collection, plan, ahead) as reach:
            for step in range(9):
                if ahead:
                    reach(step)
                start = time.monotonic()
                stream.read(step)
                waited += (time.monotonic() - start) * (step > 0)
                time.sleep(0.1)  # what a step of training takes
        return waited

    without = waits(server.url, 0)
    assert without > 0.5, "the shards of each window, one after the other"
    assert waits(f"{server.url}/train-{{000000..0000{SHARDS - 1}}}.tar?again", WINDOW) < without / 3


def test_the_batches_are_the_same_with_and_without(server: Server, folder: Path) -> None:
    collection, here = open_shards(server.url), open_shards(folder)
    plan, there = planned(collection)
    _, local = planned(here)
    with fetched_ahead(collection, plan) as reach:
        for step in (*range(14), 3):
            reach(step)
            assert there.read(step).frames.tobytes() == local.read(step).frames.tobytes()


def test_an_error_is_left_to_the_reader(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drnet.pipelines.remote.download.time", SimpleNamespace(sleep=lambda _: None))
    for path in server.files:
        server.faults[path] = [says(404)] if path.endswith(".tar") else []
    collection = open_shards(server.url)
    plan, stream = planned(collection)
    with fetched_ahead(collection, plan, SHARDS) as reach:
        reach(0)
        assert in_time(lambda: len(fetched(server)) == SHARDS)
        assert len(stream.read(0).frames) == 4, "the server has found them again"


def test_less_is_fetched_ahead_where_the_cache_is_small(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = open_shards(server.url)
    size = len(server.files["/train-000000.tar"])
    ahead = prefetch._Ahead(collection, planned(collection)[0], SHARDS)
    rooms = {}
    for shards in (1, WINDOW, WINDOW + 2, 100):
        monkeypatch.setenv("DRNET_CACHE_LIMIT", str(shards * size))
        ahead._size = size
        rooms[shards] = ahead._room()
    ahead.stop()
    assert rooms == {1: 0, WINDOW: 0, WINDOW + 2: 2, 100: SHARDS}


def test_no_shard_is_sent_for_twice_in_a_window(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch._Ahead, "_work", lambda _: None)
    collection = open_shards(server.url)
    ahead = prefetch._Ahead(collection, planned(collection)[0], WINDOW)
    sizes = []
    for step in (0, 0, 1, 1):
        ahead.reach(step)
        sizes.append(ahead._todo.qsize())
    assert sizes[0] == sizes[1] < sizes[2] == sizes[3]


def test_local_shards_start_no_thread(folder: Path) -> None:
    collection = open_shards(folder)
    before = threading.active_count()
    with fetched_ahead(collection, planned(collection)[0]) as reach:
        reach(0)
        assert threading.active_count() == before


def test_the_threads_end_with_the_reader(server: Server) -> None:
    collection = open_shards(server.url)
    with fetched_ahead(collection, planned(collection)[0]) as reach:
        reach(0)
        assert [thread for thread in threading.enumerate() if thread.name.startswith("fetch-")]
    assert in_time(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("fetch-")])
