"""The order of training: a pure function of (order key, seed, step).

Neither workers, ranks nor anything read before influences it, so a run resumes in constant time at any step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drnet.datasets.draws import Words, integers, key_of, permutation, words

FEWEST = 4  # clips, in the collection and in a batch, with which no shuffling can force a clip beside itself
WINDOW = 32  # shards whose clips are shuffled together, so that far away shards are still read in long runs


@dataclass(frozen=True)
class BatchPlan:
    """What one batch reads.

    Attributes:
        clips: (B,) int64, number of each position's clip in the collection; never that of the position before it (for
            the first: the last), so that a cyclic shift by one pairs no clip with itself.
        raw: (B, 4) uint64, random words of each position.
    """

    clips: NDArray[np.int64]
    raw: Words


class Plan:
    """An endless stream of epochs over a collection, cut into batches; a batch may span two epochs."""

    def __init__(self, order_key: str, seed: int, counts: Sequence[int], batch_size: int) -> None:
        """Make a plan.

        Args:
            order_key: of the shards in use.
            seed: the user's.
            counts: clips in each shard.
            batch_size: of the global batch.

        Raises:
            ValueError: for a batch or a collection of fewer than two clips, or an odd batch of two clips.
        """
        if batch_size < 2:
            raise ValueError(f"batch size {batch_size} is not allowed; the discriminator needs at least 2 clips")
        if sum(counts) < 2:
            raise ValueError(f"{sum(counts)} clip is not enough to train on; at least 2 are needed")
        self.order_key, self.seed, self.batch_size = order_key, seed, batch_size
        self.counts = np.asarray(counts, np.int64)
        self.clips = int(self.counts.sum())
        if self.clips == 2 and batch_size % 2:
            raise ValueError(f"batch size {batch_size} is not allowed with 2 clips; it must be even")
        # In a tiny batch or collection, epochs of different order may put one clip at most of the places.
        self._reshuffled = min(self.clips, batch_size) >= FEWEST
        self._firsts = np.concatenate([[0], np.cumsum(self.counts)])
        self._epoch = lru_cache(maxsize=2)(self._shard_order)
        self._window = lru_cache(maxsize=4)(self._clip_order)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to a worker process without the caches."""
        return Plan, (self.order_key, self.seed, self.counts.tolist(), self.batch_size)

    def _shard_order(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Shards in the epoch's order, and where each window's clips start in it."""
        epoch = epoch if self._reshuffled else 0
        shards = permutation(key_of(self.order_key, self.seed, "shards", epoch), len(self.counts))
        windows = np.add.reduceat(self.counts[shards], np.arange(0, len(shards), WINDOW))
        return shards, np.concatenate([[0], np.cumsum(windows)])

    def _clip_order(self, epoch: int, window: int) -> NDArray[np.int64]:
        """Clips of one window in the epoch's order."""
        epoch = epoch if self._reshuffled else 0
        chosen = self._epoch(epoch)[0][window * WINDOW : (window + 1) * WINDOW]
        clips = np.concatenate([np.arange(self._firsts[s], self._firsts[s + 1]) for s in chosen])
        return clips[permutation(key_of(self.order_key, self.seed, "clips", epoch, window), len(clips))]

    def order(self, first: int, count: int) -> NDArray[np.int64]:
        """Return the clips of samples [first, first + count) of the endless stream."""
        parts: list[NDArray[np.int64]] = []
        at, end = first, first + count
        while at < end:
            epoch, place = divmod(at, self.clips)
            _, starts = self._epoch(epoch)
            window = int(np.searchsorted(starts, place, side="right")) - 1
            clips = self._window(epoch, window)[place - starts[window] :][: end - at]
            parts.append(clips)
            at += len(clips)
        return np.concatenate(parts)

    def batch(self, step: int) -> BatchPlan:
        """Return the plan of one step's batch."""
        first = step * self.batch_size
        raw = words(key_of(self.order_key, self.seed, "choices"), first, self.batch_size)
        return BatchPlan(keep_apart(self.order(first, self.batch_size)), raw)


def keep_apart(clips: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a batch's clips so that none stands beside itself, the last and the first being neighbours.

    A batch that spans two epochs may hold a clip twice. Only where two of them meet is the batch put in a new order:
    equal clips together, the most frequent first, dealt to the even places and then to the odd ones. That keeps all apart
    as long as no clip fills more than half of the places.
    """
    return clips[apart(clips)] if meets_itself(clips) else clips


def meets_itself(clips: NDArray[np.int64]) -> bool:
    """Whether any of some clips (B,) stands beside itself, the last and the first being neighbours."""
    return bool((clips == np.roll(clips, 1)).any())


def apart(clips: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the order (B,) of places in which equal clips (B,) are dealt apart; see `keep_apart`."""
    order = np.empty(len(clips), np.int64)
    order[np.r_[0 : len(clips) : 2, 1 : len(clips) : 2]] = _most_frequent_first(clips)
    return order


def _most_frequent_first(clips: NDArray[np.int64]) -> NDArray[np.int64]:
    _, numbers, counts = np.unique(clips, return_inverse=True, return_counts=True)
    return np.lexsort((clips, -counts[numbers]))


def part_of(clips: NDArray[np.int64], number: int, parts: int) -> NDArray[np.int64]:
    """Return which places of a batch one of its parts holds, so that no clip stands beside itself there either.

    The parts follow one another in the batch. Only where a clip would meet itself inside a part is the batch dealt anew,
    equal clips to different parts: each clip keeps its random words, so all parts together stay the same. Two equal clips
    of a part still meet where a clip fills more than half of it, as in a collection of few clips.

    Args:
        clips: (B,) of the whole batch; `parts` divides B.
        number: of the part.
        parts: that the batch is computed in, one after the other.

    Returns:
        (B / parts,) int64.
    """
    cut = np.arange(len(clips)).reshape(parts, -1)
    if parts > 1 and any(meets_itself(clips[places]) for places in cut):
        cut = _most_frequent_first(clips).reshape(-1, parts).T
    mine = cut[number]
    return mine[apart(clips[mine])] if meets_itself(clips[mine]) else mine


def in_parts(clips: NDArray[np.int64], parts: int) -> NDArray[np.int64]:
    """Return the places (B,) of a batch's clips (B,) in the order in which they are computed: part after part."""
    return np.concatenate([part_of(clips, number, parts) for number in range(parts)])


def share_of(size: int, rank: int, world_size: int, parts: int) -> NDArray[np.int64]:
    """Return which of the ordered places of a batch one of several processes reads: its share of each part, in turn.

    The shares of a part follow one another in it. What the processes gather of a part is then in the order in which one
    process has it, and no clip beside itself.

    Args:
        size: B, of the whole batch.
        rank: number of the process.
        world_size: how many they are.
        parts: of the batch.

    Returns:
        (B / world_size,) int64.
    """
    return np.arange(size).reshape(parts, world_size, -1)[:, rank].reshape(-1)


def filled(
    clips: NDArray[np.int64], share: NDArray[np.int64], readable: NDArray[np.bool_], parts: int
) -> NDArray[np.int64] | None:
    """Return which clips a process takes for its share of a batch where some cannot be read: others of the same share.

    The readable ones stay where they are. In the place of another comes the next readable one after it that would not
    stand beside itself; what other processes put in the places of theirs is not known here.

    Args:
        clips: (B,) of the whole batch, in the order in which they are computed.
        share: (S,) of these, the process's.
        readable: (S,) whether each can be read.
        parts: of the batch.

    Returns:
        (S,) int64, for each place of the share the place in it whose clip is taken; None where none can be.
    """
    order, held, own = np.arange(len(share)), clips.reshape(parts, -1).copy(), clips[share]
    for place in np.flatnonzero(~readable).tolist():
        part, at = divmod(int(share[place]), held.shape[1])
        beside = held[part, at - 1], held[part, (at + 1) % held.shape[1]]
        after = np.roll(np.arange(len(share)), -place)
        allowed = [other for other in after.tolist() if readable[other] and own[other] not in beside]
        if not allowed:
            return None
        order[place] = allowed[0]
        held[part, at] = own[allowed[0]]
    return order


def frame_pairs(
    raw: Words, lengths: Sequence[int] | NDArray[np.int64], max_offset: int, cyclic: bool = False
) -> NDArray[np.int64]:
    """Draw the frames (t, t + k) of each position: t uniform over the clip, k uniform in [0, min(K, T - 1 - t)].

    Args:
        raw: (B, 4) random words.
        lengths: (B,) frames of each clip.
        max_offset: K of Sec. 3.
        cyclic: clips are whole turns: k is uniform in [0, min(K, T - 1)], and t + k passes the end into the beginning.

    Returns:
        (B, 2) int64.
    """
    length = np.asarray(lengths, np.int64)
    first = integers(raw[:, 0], length)
    furthest = length - 1 if cyclic else length - 1 - first
    offset = integers(raw[:, 1], np.minimum(max_offset, furthest) + 1)
    return np.stack([first, (first + offset) % length], axis=1)


def frame_fours(
    raw: Words, lengths: Sequence[int] | NDArray[np.int64], window: int | None, cyclic: bool = False
) -> NDArray[np.int64]:
    """Draw the four frames of each position that the authors' code takes: content, its target, two for the pose.

    Args:
        raw: (B, 4) random words.
        lengths: (B,) frames of each clip.
        window: frames in a row, anywhere in the clip, of which the first gives the content and each of the others is one
            of those after it (of a single frame: itself); None: four of the whole clip, each drawn alone.
        cyclic: clips are whole turns: a window passes the end into the beginning.

    Returns:
        (B, 4) int64.
    """
    length = np.asarray(lengths, np.int64)
    if window is None:
        return np.stack([integers(raw[:, column], length) for column in range(4)], axis=1)
    held = np.minimum(window, length)
    first = integers(raw[:, 0], length if cyclic else length - held + 1)
    after = np.maximum(held - 1, 1)
    offsets = [np.minimum(1 + integers(raw[:, column], after), held - 1) for column in (1, 2, 3)]
    return np.stack([first, *((first + offset) % length for offset in offsets)], axis=1)
