"""Real build processes: killed, interrupted, out of room, two at once. The folder ends up the same, byte for byte."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from drnet.datasets.contract import DataError
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.building.workers import LocalPool, in_any_order, local_pool
from drnet.pipelines.shards.manifest import MANIFEST

ROOT = Path(__file__).parent.parent
BUILD = ["data", "build", "mnist", "--source", "optdigits", "--clips", "160", "--frames", "6", "--size", "16"]
OPTIONS = ["--codec", "raw", "--clips-per-shard", "2"]


def command(out: Path, workers: int = 1) -> list[str]:
    return [sys.executable, "-m", "drnet", *BUILD, *OPTIONS, "--workers", str(workers), "--out", str(out)]


def run(out: Path, workers: int = 1, before: Callable[[], None] | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(out, workers), cwd=ROOT, capture_output=True, text=True, timeout=120, preexec_fn=before, check=False
    )


@contextmanager
def running(out: Path, workers: int, shards: int) -> Iterator["subprocess.Popen[str]"]:
    """A build in a process group of its own, as soon as it has finished some shards."""
    with subprocess.Popen(
        command(out, workers), cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            end = time.monotonic() + 60
            while len(list(out.glob("*.tar"))) < shards and process.poll() is None and time.monotonic() < end:
                time.sleep(0.002)
            assert process.poll() is None, "the build was over before the test began"
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.glob("*.tar")}


def members(group: int) -> set[int]:
    """Living processes of a process group."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of = stat.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(of) == group and state != "Z":
            found.add(int(stat.parent.name))
    return found


def all_gone(group: int, seconds: float = 5) -> bool:
    end = time.monotonic() + seconds
    while members(group) and time.monotonic() < end:
        time.sleep(0.01)
    return not members(group)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """An uninterrupted build by one process."""
    out = tmp_path_factory.mktemp("whole")
    done = run(out)
    assert done.returncode == 0, done.stderr
    return tree(out)


@pytest.mark.parametrize("workers", [2, 4])
def test_several_workers_write_the_bytes_that_one_writes(tmp_path: Path, whole: dict[str, bytes], workers: int) -> None:
    assert run(tmp_path, workers=workers).returncode == 0
    assert tree(tmp_path) == whole


@pytest.mark.parametrize("workers", [1, 2])
def test_a_build_that_is_killed_again_and_again_ends_up_the_same(
    tmp_path: Path, whole: dict[str, bytes], workers: int
) -> None:
    for shards in (1, 40):
        with running(tmp_path, workers, shards) as process:
            before = stamps(tmp_path)
            process.kill()
            process.wait()
            assert all_gone(process.pid), "workers went on without their parent"
        after = stamps(tmp_path)
        assert before.items() <= after.items()
        assert MANIFEST not in tree(tmp_path)
        assert all(tree(tmp_path)[name] == whole[name] for name in after)
    assert run(tmp_path, workers=3 - workers).returncode == 0
    assert tree(tmp_path) == whole
    assert after.items() <= stamps(tmp_path).items(), "a finished shard was written again"


@pytest.mark.parametrize(
    ("workers", "number", "code"), [(1, signal.SIGINT, 130), (2, signal.SIGINT, 130), (2, signal.SIGTERM, 143)]
)
def test_a_signal_ends_the_build_in_one_line_and_leaves_nothing_half_written(
    tmp_path: Path, whole: dict[str, bytes], workers: int, number: int, code: int
) -> None:
    with running(tmp_path, workers, 3) as process:
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            process.send_signal(number)
        _, stderr = process.communicate(timeout=30)
        assert process.returncode == code, stderr
        assert all_gone(process.pid)
    assert stderr.splitlines()[-1] == "stopped; the same command continues"
    assert len(stderr.splitlines()) <= 2
    left = tree(tmp_path)
    assert MANIFEST not in left
    assert not [name for name in left if name.startswith(".")]
    assert all(data == whole[name] for name, data in left.items())


def test_a_worker_that_dies_is_told_and_leaves_nothing_half_written(tmp_path: Path, whole: dict[str, bytes]) -> None:
    with running(tmp_path, 2, 3) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        workers = [int(pid) for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        _, stderr = process.communicate(timeout=30)
        assert process.returncode == 1
        assert all_gone(process.pid)
    assert "Traceback" not in stderr
    assert "a worker process died (killed, or out of memory); run the same command again" in stderr.splitlines()[-1]
    left = tree(tmp_path)
    assert not [name for name in left if name.startswith(".")]
    assert all(data == whole[name] for name, data in left.items())


def test_a_second_build_into_the_same_folder_is_refused_in_one_line(tmp_path: Path, whole: dict[str, bytes]) -> None:
    with running(tmp_path, 1, 1) as first:
        first.send_signal(signal.SIGSTOP)
        second = run(tmp_path)
        first.send_signal(signal.SIGCONT)
        first.communicate(timeout=60)
    assert (second.returncode, second.stdout) == (1, "")
    (line,) = second.stderr.splitlines()
    assert line.startswith("drnet: error: ")
    assert "another process is building into it; wait for it, or choose another --out" in line
    assert first.returncode == 0
    assert tree(tmp_path) == whole


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_that_may_not_grow_ends_the_build_in_one_line(
    tmp_path: Path, whole: dict[str, bytes], workers: int
) -> None:
    out = tmp_path / "out"
    limit = len(whole["train-000000.tar"]) - 700
    done = run(out, workers, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"drnet: error: {out}/t")
    assert done.stderr.splitlines()[-1].endswith(".tar: File too large")
    assert not out.exists() or not tree(out)


def test_results_come_with_their_jobs() -> None:
    with local_pool(1) as pool:
        assert sorted(in_any_order(abs, iter([-3, 4, -5]), pool)) == [(-5, 5), (-3, 3), (4, 4)]


def test_the_first_error_reaches_the_caller() -> None:
    with local_pool(1) as pool, pytest.raises(ValueError, match="invalid literal"):
        list(in_any_order(int, ["1", "x"], pool))


def test_a_worker_that_ends_itself_is_a_data_error() -> None:
    with pytest.raises(DataError, match="a worker process died"), local_pool(1) as pool:
        list(in_any_order(os._exit, [3], pool))


def test_jobs_of_processes_that_are_ended_are_not_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    submit, futures = LocalPool.submit, list[Future[Any]]()
    monkeypatch.setattr(LocalPool, "submit", lambda *words: futures.append(submit(*words)) or futures[-1])

    def stop_after_the_first() -> None:
        with local_pool(2) as pool, closing(in_any_order(time.sleep, [0.01] * 100, pool)) as results:
            next(results)
            raise KeyError

    with pytest.raises(KeyError):
        stop_after_the_first()
    assert len(futures) > 60
    assert all(future.done() for future in futures)
    assert not any(future.cancelled() for future in futures)


def test_workers_that_are_forked_write_the_bytes_that_others_write(tmp_path: Path, whole: dict[str, bytes]) -> None:
    data = BouncingDigits("optdigits", clips=160, frames=6, size=16)
    for workers in (1, 2, 4):
        out = tmp_path / str(workers)
        with local_pool(workers, start="fork") as pool:
            build(plan_build(data, "raw", 2), out, executor=pool)
        assert tree(out) == whole


@pytest.mark.parametrize("killed", [0, 1])
def test_a_worker_killed_at_the_very_end_is_not_waited_for(killed: int) -> None:
    # The one that waits for a job holds a lock, on which the other waits: asked to end, it would never hear that.
    script = """
import multiprocessing, os, signal, sys, time
from drnet.pipelines.building.workers import LocalPool, in_any_order, local_pool
for _ in range(8):
    with local_pool(2, start="fork") as pool:
        assert len(list(in_any_order(abs, range(4), pool))) == 4
        time.sleep(0.02)
        os.kill(sorted(p.pid for p in multiprocessing.active_children())[int(sys.argv[1])], signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script, str(killed)], cwd=ROOT, check=True, timeout=60)


def test_jobs_are_taken_only_as_they_are_needed() -> None:
    taken = []

    def jobs() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    with ThreadPoolExecutor(1) as threads:
        results = in_any_order(abs, jobs(), threads, in_flight=5)
        for _ in range(10):
            next(results)
        assert len(taken) <= 15
        results.close()
