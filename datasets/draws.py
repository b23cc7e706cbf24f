"""Counter-based random numbers: every draw is a pure function of a key and a counter.

NumPy promises the raw 64-bit words of its Philox generator for ever, but not the methods of ``Generator`` built on them.
So only the raw words are used, and these few lines turn them into integers and permutations; golden values pin them.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]


def key_of(*parts: object) -> int:
    """Return a 128-bit key for a generator: the first 16 bytes of the SHA-256 of the parts, written with their types."""
    text = "\x00".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")


def words(key: int, first: int, count: int, width: int = 4) -> Words:
    """Return the raw words of `count` consecutive draws.

    Args:
        key: 128-bit key, from `key_of`.
        first: number of the first draw; any non-negative integer, reached in constant time.
        count: number of draws.
        width: 64-bit words per draw, a multiple of 4 (a Philox block holds four).

    Returns:
        (count, width) uint64.
    """
    if width % 4:
        raise ValueError(f"width {width} is not allowed; it must be a multiple of 4")
    generator = np.random.Philox(key=key, counter=first * (width // 4))
    return generator.random_raw(count * width).reshape(count, width)


def integers(raw: Words, below: int | NDArray[np.int64]) -> NDArray[np.int64]:
    """Map raw words to integers in [0, below) by multiply and shift of their upper 32 bits.

    The bias is below `below` / 2**32. `below` is a number or an array that broadcasts with `raw`, each in [1, 2**31].
    """
    limit = np.asarray(below, dtype=np.uint64)
    if limit.size and (limit.min() < 1 or limit.max() > 2**31):
        raise ValueError(f"below {below} is not allowed; it must lie in [1, 2**31]")
    return (((raw >> np.uint64(32)) * limit) >> np.uint64(32)).astype(np.int64)


def uniforms(raw: Words) -> NDArray[np.float64]:
    """Map raw words to floats in [0, 1) with 53 random bits."""
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(key: int, size: int) -> NDArray[np.int64]:
    """Return a permutation of range(size): the order of `size` raw words (stable, so that ties have an order)."""
    blocks = -(-size // 4)
    return np.argsort(words(key, 0, blocks).reshape(-1)[:size], kind="stable").astype(np.int64)
