"""Change the size of frames: one linear filter for every data set, whose bytes are the same on any machine."""

import functools

import numpy as np
from numpy.typing import NDArray


def scale(frames: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize frames by a linear (triangle) filter, widened for shrinking so that no line is lost.

    The weights are whole 256ths, which keeps every sum exact in float32: the same bytes on any machine.

    Args:
        frames: (T, H, W) or (T, H, W, C) uint8.
        height: new height in pixels.
        width: new width in pixels.

    Returns:
        (T, height, width) or (T, height, width, C) uint8; `frames` itself where nothing changes.
    """
    if frames.shape[1:3] == (height, width):
        return frames
    if frames.ndim == 4:
        planes = [scale(frames[..., c], height, width) for c in range(frames.shape[3])]
        return np.stack(planes, axis=-1)
    rows, columns = filter_weights(frames.shape[1], height), filter_weights(frames.shape[2], width)
    scaled = np.empty((len(frames), height, width), np.uint8)
    for first in range(0, len(frames), 16):  # few at a time: larger sums would leave the cache
        piece = rows @ frames[first : first + 16].astype(np.float32) @ columns.T
        scaled[first : first + 16] = piece + np.float32(0.5)
    return scaled


@functools.cache
def filter_weights(old: int, new: int) -> NDArray[np.float32]:
    """Return the (new, old) weights of a triangle filter in whole 256ths; each row sums to 1."""
    ratio = old / new
    centres = (np.arange(new)[:, None] + 0.5) * ratio - 0.5
    weights = np.maximum(0.0, 1.0 - np.abs(np.arange(old) - centres) / max(ratio, 1.0))
    whole: NDArray[np.float32] = np.round(256 * weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    whole[np.arange(new), whole.argmax(axis=1)] += 256 - whole.sum(axis=1)  # what rounding lost
    return whole / np.float32(256)
