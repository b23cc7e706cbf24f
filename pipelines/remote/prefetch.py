"""Fetch remote shards before the plan comes to them, so that no step of training waits for a download.

The plan shuffles windows of shards: the first batch of a window needs nearly all of its shards at once. Threads open the
next window's while the current one is being read; what is open stays in the cache.
"""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator

import numpy as np

from drnet.pipelines.plan import WINDOW, Plan
from drnet.pipelines.remote.room import limit
from drnet.pipelines.remote.urls import is_url
from drnet.pipelines.source import Collection

THREADS = 4  # downloads at once


@contextlib.contextmanager
def fetched_ahead(collection: Collection, plan: Plan, shards: int = WINDOW) -> Iterator[Callable[[int], None]]:
    """Yield a function to call before each step is read: it starts what has to be fetched by then, and waits for nothing.

    An error is left to the reader, who meets it when the shard's turn has come.

    Args:
        collection: to read from; where no shard of it is behind a URL, nothing is done.
        plan: the order of its clips.
        shards: how many to be ahead; fewer where the cache has no room for as many and a window.
    """
    if not any(is_url(place.location) for place in collection.places):
        yield lambda step: None
        return
    ahead = _Ahead(collection, plan, shards)
    try:
        yield ahead.reach
    finally:
        ahead.stop()


class _Ahead:
    """The threads, and how far in the stream of samples they have been sent."""

    def __init__(self, collection: Collection, plan: Plan, shards: int) -> None:
        self.collection, self.plan, self.shards = collection, plan, shards
        self._sent = 0
        self._firsts = np.concatenate([[0], np.cumsum(plan.counts)])
        self._todo: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._size = 0  # bytes of a shard
        for number in range(THREADS):
            threading.Thread(target=self._work, daemon=True, name=f"fetch-{number}").start()

    def reach(self, step: int) -> None:
        """Send the threads to the shards of a step and of those after it."""
        first = step * self.plan.batch_size
        self._sent = max(self._sent, first)
        clips = max(1, self.plan.clips // len(self.plan.counts))  # in a shard
        until = first + self.plan.batch_size + self._room() * clips
        if until - self._sent < min(clips, self.plan.batch_size):
            return
        wanted = self.plan.order(self._sent, until - self._sent)
        for shard in dict.fromkeys((np.searchsorted(self._firsts, wanted, side="right") - 1).tolist()):
            self._todo.put(shard)
        self._sent = until

    def _room(self) -> int:
        """Return how many shards to be ahead."""
        if not self._size:
            return self.shards  # none is there yet
        fit = limit() // self._size
        return max(0, min(self.shards, fit - WINDOW))

    def _work(self) -> None:
        while (number := self._todo.get()) is not None:
            with contextlib.suppress(Exception):
                self._size = max(self._size, self.collection.locate(int(self._firsts[number]))[0].sidecar.size)

    def stop(self) -> None:
        """Send the threads home; a download that runs goes on until the process ends or it is whole."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._todo.get_nowait()
        for _ in range(THREADS):
            self._todo.put(None)
