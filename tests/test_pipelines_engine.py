"""Whatever runs the jobs, the bytes are the same: Dask's workers too, and when one of them is killed."""

import importlib
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from drnet.datasets.contract import DataError, Limited
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.building import engine
from drnet.pipelines.building.engine import Engine, open_engine, wait_until_visible
from drnet.pipelines.building.finish import BuildPlan
from drnet.pipelines.building.jobs import write_shard
from drnet.pipelines.measuring.faults import Unreadable, contents, stamps
from drnet.pipelines.progress import Silent
from drnet.pipelines.shards.manifest import read_manifest

distributed = pytest.importorskip("distributed", reason="pip install 'drnet[dask]'")


def digits(clips: int = 200) -> BouncingDigits:
    return BouncingDigits("optdigits", clips=clips, test_clips=20, frames=6, size=16)


@pytest.fixture(scope="module")
def plan() -> BuildPlan:
    return plan_build(digits(), "raw", 2)


@pytest.fixture(scope="module")
def whole(plan: BuildPlan, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The build of one process."""
    folder = tmp_path_factory.mktemp("whole")
    build(plan, folder)
    return contents(folder)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two workers, processes of one thread each, as `dask worker --nworkers 2 --nthreads 1` starts them."""
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as found:
        yield found


def members(cluster: Any) -> list[int]:
    return [nanny.pid for nanny in cluster.workers.values()]


def test_dasks_workers_write_the_bytes_that_one_process_writes(
    cluster: Any, plan: BuildPlan, whole: dict[str, bytes], tmp_path: Path
) -> None:
    report = build(plan, tmp_path / "out", scheduler=cluster.scheduler_address)
    assert report.written == len(plan.jobs)
    assert contents(tmp_path / "out") == whole
    before = stamps(tmp_path / "out")
    assert build(plan, tmp_path / "out", scheduler=cluster.scheduler_address).kept == len(plan.jobs)
    assert stamps(tmp_path / "out") == before


def test_a_dask_worker_that_is_killed_in_the_middle_changes_nothing(
    cluster: Any, plan: BuildPlan, whole: dict[str, bytes], tmp_path: Path
) -> None:
    out, killed, left = tmp_path / "out", list[int](), list[int]()

    def kill() -> None:
        end = time.monotonic() + 30
        while not out.is_dir() or len(list(out.glob("*.tar"))) < 10:
            assert time.monotonic() < end
            time.sleep(0.001)
        killed.append(members(cluster)[0])
        os.kill(killed[0], signal.SIGKILL)
        left.append(len(plan.jobs) - len(list(out.glob("*.tar"))))

    killer = threading.Thread(target=kill)
    killer.start()
    report = build(plan, out, scheduler=cluster.scheduler_address)
    killer.join()
    assert contents(out) == whole
    assert report.written + report.kept == len(plan.jobs)
    assert left[0] > 0, "the build was over before the worker was killed"


def test_items_that_fail_on_a_cluster_are_counted_and_tried_again_there(
    cluster: Any, whole: dict[str, bytes], tmp_path: Path
) -> None:
    hurt = plan_build(Unreadable(digits(), {("train", 4): 5, ("train", 77): 13}), "raw", 2)
    report = build(hurt, tmp_path, scheduler=cluster.scheduler_address)
    assert (report.failed, report.over_budget) == (2, True)
    again = build(plan_build(digits(), "raw", 2), tmp_path, scheduler=cluster.scheduler_address, again=True)
    assert (again.failed, again.written) == (0, 2)
    assert contents(tmp_path) == whole


def test_an_error_of_a_job_on_a_cluster_is_the_builds(cluster: Any, plan: BuildPlan, tmp_path: Path) -> None:
    wrong = BuildPlan(**{**vars(plan), "tools": (("numpy", "0.1"),)})
    with pytest.raises(DataError, match=r"the worker on \S+ has .* install the same everywhere"):
        build(wrong, tmp_path / "out", scheduler=cluster.scheduler_address)
    assert not (tmp_path / "out").exists()


def test_a_worker_that_lacks_a_module_is_told_before_the_first_job(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_own_films.py").write_text(
        "from drnet.datasets.mnist import BouncingDigits\nclass Films(BouncingDigits): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    films = importlib.import_module("my_own_films").Films("optdigits", clips=10, frames=2, size=16)
    with pytest.raises(
        DataError, match=r"worker at \S+ cannot build \(No module named 'my_own_films'\); .* PYTHONPATH"
    ):
        build(plan_build(films), tmp_path / "out", scheduler=cluster.scheduler_address)
    with pytest.raises(DataError, match=r"No module named 'my_own_films'"):
        build(plan_build(Limited(films, 3)), tmp_path / "out", scheduler=cluster.scheduler_address)


def test_a_scheduler_file_names_a_scheduler_too(cluster: Any, plan: BuildPlan, tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    file.write_text(f'{{"address": "{cluster.scheduler_address}"}}')
    with open_engine(1, Silent(), scheduler=str(file)) as found:
        assert list(found.results(abs, (-3, 4))) in ([(-3, 3), (4, 4)], [(4, 4), (-3, 3)])


def test_a_scheduler_that_does_not_answer_is_one_line(
    plan: BuildPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "CONNECT", 0.3)
    for address in ("tcp://127.0.0.1:1", "nonsense", "spam://x:1"):
        with pytest.raises(DataError, match=r"no Dask scheduler answers .*start one with `dask scheduler`") as error:
            build(plan, tmp_path / "out", scheduler=address)
        assert str(error.value).startswith(address)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_without_dask_the_way_to_get_it_is_told(
    plan: BuildPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(DataError, match=r"pip install 'drnet\[dask\]'"):
        build(plan, tmp_path / "out", scheduler="tcp://127.0.0.1:1")


def test_more_than_one_engine_is_refused(plan: BuildPlan, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="brings its own workers; leave --workers out"):
        build(plan, tmp_path / "out", workers=2, scheduler="tcp://127.0.0.1:1")


def test_a_cluster_without_workers_is_told_and_waited_for(
    tmp_path: Path, whole: dict[str, bytes], plan: BuildPlan
) -> None:
    class Heard(Silent):
        def note(self, line: str) -> None:
            notes.append(line)
            cluster.scale(1)

    notes: list[str] = []
    with distributed.LocalCluster(
        n_workers=0, threads_per_worker=1, processes=False, dashboard_address=":0"
    ) as cluster:
        build(plan, tmp_path, scheduler=cluster.scheduler_address, progress=Heard())
    assert contents(tmp_path) == whole
    assert notes == [f"{cluster.scheduler_address}: no worker has joined yet; waiting for the first"]


def test_a_job_is_a_small_message_whatever_the_number_of_jobs(plan: BuildPlan) -> None:
    large = plan_build(digits(200_000), "raw", 2)
    assert len(large.jobs) > 100_000
    for found in (plan, large):
        call = partial(write_shard, found.recipe, folder=Path("/shared/data"), again=False)
        assert len(pickle.dumps((call, found.jobs[-1]))) < 3000


def test_a_file_that_is_not_seen_here_is_told_at_once(
    plan: BuildPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Elsewhere(Executor):
        """Runs jobs on a machine whose folder of that name is another one."""

        def submit(self, call: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = Future()
            other = tmp_path / "elsewhere"
            other.mkdir(exist_ok=True)
            future.set_result(write_shard(*call.args, *args, other))
            return future

    monkeypatch.setattr(engine.wait_until_visible, "__defaults__", (0.3,))
    with pytest.raises(
        DataError, match=r"written by a worker, but not seen here; --out must be on a disk that all share"
    ):
        build(plan, tmp_path / "out", executor=Elsewhere())


def test_a_file_that_is_seen_late_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "late"
    timer = threading.Timer(0.3, path.touch)
    timer.start()
    wait_until_visible(path)
    timer.join()
    assert path.exists()


def test_a_job_the_engine_loses_is_one_line() -> None:
    class Loses(Executor):
        def submit(self, call: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.cancel()
            return future

    with pytest.raises(DataError, match=r"the cluster has lost a job \(CancelledError: \); run the same command again"):
        list(Engine(Loses(), lost=(CancelledError,)).results(abs, (1,)))


def test_an_executor_of_the_users_is_left_running(plan: BuildPlan, tmp_path: Path, whole: dict[str, bytes]) -> None:
    with ThreadPoolExecutor(3) as threads:
        build(plan, tmp_path, executor=threads)
        assert threads.submit(int, "7").result() == 7
    assert contents(tmp_path) == whole
    assert read_manifest(tmp_path).build == plan.build
