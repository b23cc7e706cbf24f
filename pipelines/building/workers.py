"""Processes for a build's jobs: started clean of the parent's signals, and never outliving it."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from queue import SimpleQueue
from typing import Literal, TypeVar

from drnet.datasets.contract import DataError

IN_FLIGHT = 64  # jobs submitted at a time, so that memory does not grow with their number

T = TypeVar("T")
R = TypeVar("R")


def in_any_order(
    call: Callable[[T], R], jobs: Iterable[T], executor: Executor, in_flight: int = IN_FLIGHT
) -> Generator[tuple[T, R], None, None]:
    """Yield each job with its result, as they end. The first error ends it all; jobs not begun are then cancelled.

    Args:
        call: what to do with a job.
        jobs: taken only as they are submitted.
        executor: runs them.
        in_flight: jobs submitted at a time.

    Raises:
        DataError: where a worker process died.
    """
    pending: dict[Future[R], T] = {}
    ended: SimpleQueue[Future[R]] = SimpleQueue()  # the cost of a job does not depend on how many are in flight
    waiting = iter(jobs)
    try:
        while True:
            while len(pending) < in_flight and (job := next(waiting, None)) is not None:
                with _interrupts_held():
                    future = executor.submit(call, job)
                    pending[future] = job
                future.add_done_callback(ended.put)
            if not pending:
                return
            future = ended.get()
            yield pending.pop(future), future.result()
    except BrokenProcessPool:
        pending.clear()  # the pool's own thread is ending these, and stumbles over one that is cancelled meanwhile
        raise DataError("a worker process died (killed, or out of memory); run the same command again") from None
    finally:
        if not isinstance(executor, LocalPool):
            for future in pending:
                future.cancel()


class LocalPool(ProcessPoolExecutor):
    """Local processes whose end ends their jobs.

    None is cancelled: when its processes die, Python 3.11's pool stumbles over cancelled jobs, with a traceback.
    """


@contextmanager
def local_pool(workers: int, start: Literal["spawn", "fork"] = "spawn") -> Iterator[Executor]:
    """Provide local processes; the end of the block, by an error or an interrupt too, ends them at once.

    They are never asked to end: one that was killed while it took a job holds the lock for which the others wait to be
    asked, for ever. Nothing is lost by that, since a job's result comes when its files are whole.

    Args:
        workers: how many.
        start: how they are started; `fork` is not safe beside a thread, such as a progress bar's.
    """
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context(start)
    pool = LocalPool(workers, mp_context=context, initializer=_end_with_the_parent)
    try:
        yield pool
    finally:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        pool.shutdown(wait=True)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back while a worker may be started; it inherits that, so interrupts are the parent's alone."""
    resource_tracker.ensure_running()  # else it is started with the worker, and lets interrupts through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_the_parent() -> None:
    """End this process with its parent, at once: a killed build must not go on writing."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker has a parent"
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)  # a forked worker has the parent's handlers, which end a command

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
