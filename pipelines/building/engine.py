"""What runs a build's jobs: this process, local processes, any executor, or the workers of a Dask cluster.

A job is a call with a small recipe and the number of a shard. It writes into the folder itself and returns a few
numbers, so nothing that grows with the data set passes through the engine.
"""

import time
from collections.abc import Callable, Collection, Generator, Iterator
from concurrent.futures import CancelledError, Executor, Future
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from drnet.datasets.contract import DataError
from drnet.pipelines.building.workers import IN_FLIGHT, in_any_order, local_pool
from drnet.pipelines.progress import Progress

CONNECT = 20.0  # seconds a scheduler has to answer
CLUSTER_IN_FLIGHT = 1000  # jobs that a scheduler knows at a time: enough for its workers, and memory does not grow
VISIBLE = 90.0  # seconds until a file written on one machine is seen on another; NFS caches folders for up to 60

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Engine:
    """Runs jobs.

    Attributes:
        executor: None runs them in this process.
        in_flight: jobs submitted at a time.
        remote: whether they may run on another machine.
        lost: errors that mean that the executor has lost a job, and no mistake of the job.
    """

    executor: Executor | None = None
    in_flight: int = IN_FLIGHT
    remote: bool = False
    lost: tuple[type[BaseException], ...] = ()

    def results(self, call: Callable[[T], R], jobs: tuple[T, ...]) -> Generator[tuple[T, R], None, None]:
        """Yield each job with its result, as they end; the first error ends it all."""
        if self.executor is None:
            yield from ((job, call(job)) for job in jobs)
            return
        try:
            with closing(in_any_order(call, jobs, self.executor, self.in_flight)) as results:
                yield from results
        except self.lost as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
            raise DataError(f"the cluster has lost a job ({reason}); run the same command again") from None


def check_engine(workers: int, executor: Executor | None, scheduler: str | None) -> None:
    """Raise DataError where no engine can be opened with these, or more than one is asked for; see `open_engine`."""
    if workers < 1:
        raise DataError(f"workers {workers} is not allowed; it must be at least 1")
    if scheduler is not None and (workers > 1 or executor is not None):
        raise DataError(f"--scheduler {scheduler} brings its own workers; leave --workers out")


@contextmanager
def open_engine(
    workers: int,
    progress: Progress,
    executor: Executor | None = None,
    scheduler: str | None = None,
    modules: Collection[str] = (),
) -> Iterator[Engine]:
    """Provide what runs the jobs.

    Args:
        workers: local processes; 1 is this one.
        progress: told where a cluster has no workers yet.
        executor: runs the jobs instead; it is left running.
        scheduler: address of a Dask scheduler, such as `tcp://host:8786`, or its scheduler file (`.json`), whose workers
            run the jobs instead.
        modules: which the workers of a cluster must be able to import.

    Raises:
        DataError: where the scheduler cannot be reached, or its workers lack a module.
    """
    if scheduler is not None:
        with _dask(scheduler, progress, modules) as engine:
            yield engine
    elif executor is not None:
        yield Engine(executor, remote=True)
    elif workers == 1:
        yield Engine()
    else:
        with local_pool(workers) as pool:
            yield Engine(pool)


@contextmanager
def _dask(address: str, progress: Progress, modules: Collection[str]) -> Iterator[Engine]:
    try:
        from distributed import Client, KilledWorker
    except ImportError:
        raise DataError("--scheduler needs Dask, which is not installed; pip install 'drnet[dask]'") from None
    where = {"scheduler_file": address} if address.endswith(".json") else {"address": address}
    try:
        client = Client(**where, timeout=CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{address}: no Dask scheduler answers ({reason}); start one with `dask scheduler`") from None
    with client:
        if not client.nthreads():
            progress.note(f"{address}: no worker has joined yet; waiting for the first")
            client.wait_for_workers(1)
        _check_modules(client, modules)
        yield Engine(ClusterExecutor(client), CLUSTER_IN_FLIGHT, remote=True, lost=(KilledWorker, CancelledError))


class ClusterExecutor(Executor):
    """The workers of a Dask cluster as an executor.

    Dask's own one looks at a result and then at the state of its task, which differ where a worker dies in between: the
    job then ends with a TypeError, though its result came. Here the state is not asked for.

    Args:
        client: of the cluster.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def submit(self, fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> "Future[R]":
        """Send a call to the cluster; a lost one is sent again by Dask. Cancelling the future cancels the task."""
        found: Future[R] = Future()
        task = self._client.submit(fn, *args, pure=False, **kwargs)

        def hand_over(_: Any) -> None:
            if not found.set_running_or_notify_cancel():
                return
            try:
                found.set_result(task.result())
            except BaseException as error:  # whatever the job raised, it is its caller's
                found.set_exception(error)

        found.add_done_callback(lambda ended: task.cancel() if ended.cancelled() else None)
        task.add_done_callback(hand_over)
        return found


def _check_modules(client: Any, modules: Collection[str]) -> None:
    """Raise DataError where a worker cannot import a module: a job would be sent to it again and again."""

    def lacking(names: list[str]) -> list[str]:  # travels as code, since a worker may lack this module too
        import importlib

        errors = []
        for name in names:
            try:
                importlib.import_module(name)
            except ImportError as error:
                errors.append(str(error))
        return errors

    for worker, errors in client.run(lacking, sorted({*modules} - {"__main__"})).items():
        if errors:
            raise DataError(
                f"the worker at {worker} cannot build ({errors[0]}); install the same there, or set PYTHONPATH"
            )


def wait_until_visible(path: Path, seconds: float = VISIBLE) -> None:
    """Wait until a file that a worker has written is seen here.

    Raises:
        DataError: where it is not: the folder is another one on the worker's machine.
    """
    end = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > end:
            raise DataError(f"{path}: written by a worker, but not seen here; --out must be on a disk that all share")
        time.sleep(0.2)
