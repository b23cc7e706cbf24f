"""Processes for a build's jobs: started clean of the parent's signals, and never outliving it."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import TypeVar

from drnet.datasets.contract import DataError

IN_FLIGHT = 64  # jobs submitted at a time, so that memory does not grow with their number

T = TypeVar("T")
R = TypeVar("R")


def in_any_order(call: Callable[[T], R], jobs: Iterable[T], executor: Executor) -> Iterator[tuple[T, R]]:
    """Yield each job with its result, as they end. The first error ends it all; jobs not begun are then cancelled.

    Raises:
        DataError: where a worker process died.
    """
    pending: dict[Future[R], T] = {}
    waiting = iter(jobs)
    try:
        while True:
            while len(pending) < IN_FLIGHT and (job := next(waiting, None)) is not None:
                with _interrupts_held():
                    pending[executor.submit(call, job)] = job
            if not pending:
                return
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                yield pending.pop(future), future.result()
    except BrokenProcessPool:
        raise DataError("a worker process died (killed, or out of memory); run the same command again") from None
    finally:
        for future in pending:
            future.cancel()


@contextmanager
def local_pool(workers: int) -> Iterator[Executor]:
    """Provide local processes; an error in the block, an interrupt included, ends them at once."""
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")  # fork is not safe beside the progress bar's thread
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_the_parent)
    try:
        yield pool
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


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

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
