"""Change the size of frames: one linear filter for every data set, whose bytes are the same on any machine."""

import functools

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

_FRAMES = 8  # at a time: more would leave the processor's cache
_LINES = 16  # of the result, made together from the few old lines that they need
_FEW = 32  # lines of a result that are better made all together


def scale(frames: Bytes, height: int, width: int) -> Bytes:
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
    scaled = np.empty((len(frames), height, width, *frames.shape[3:]), np.uint8)
    if frames.ndim == 3:
        _scale_plane(frames, scaled)
        return scaled
    for channel in range(frames.shape[3]):
        _scale_plane(frames[..., channel], scaled[..., channel])
    return scaled


def _scale_plane(frames: Bytes, scaled: Bytes) -> None:
    """Resize (T, H, W) frames into the array given, first the columns and then the rows."""
    (old_height, old_width), (height, width) = frames.shape[1:], scaled.shape[1:]
    pieces = min(_FRAMES, len(frames))
    source = np.empty((pieces, old_height, old_width), np.float32)
    narrow = np.empty((pieces, old_height, width), np.float32)
    result = np.empty((pieces, height, width), np.float32)
    for first in range(0, len(frames), _FRAMES):
        count = min(_FRAMES, len(frames) - first)
        source[:count] = frames[first : first + count]
        lines, narrowed = source[:count].reshape(-1, old_width), narrow[:count].reshape(-1, width)
        for old, new, weights in _columns(old_width, width):
            np.matmul(lines[:, old], weights, out=narrowed[:, new])
        for old, new, weights in _rows(old_height, height):
            np.matmul(weights, narrow[:count, old], out=result[:count, new])
        result[:count] += np.float32(0.5)
        scaled[first : first + count] = result[:count]


@functools.cache
def _rows(old: int, new: int) -> tuple[tuple[slice, slice, Floats], ...]:
    """Return, for each few lines of the result, the old lines that they are made from, themselves, and the weights."""
    weights, bands = filter_weights(old, new), []
    step = new if new <= _FEW else _LINES
    for first in range(0, new, step):
        band = weights[first : first + step]
        used = np.flatnonzero(band.any(axis=0))
        lines = slice(int(used[0]), int(used[-1]) + 1)
        bands.append((lines, slice(first, first + len(band)), np.ascontiguousarray(band[:, lines])))
    return tuple(bands)


@functools.cache
def _columns(old: int, new: int) -> tuple[tuple[slice, slice, Floats], ...]:
    """Return the same for multiplying from the right."""
    return tuple((lines, made, np.ascontiguousarray(weights.T)) for lines, made, weights in _rows(old, new))


@functools.cache
def filter_weights(old: int, new: int) -> Floats:
    """Return the (new, old) weights of a triangle filter in whole 256ths; each row sums to 1."""
    ratio = old / new
    centres = (np.arange(new)[:, None] + 0.5) * ratio - 0.5
    weights = np.maximum(0.0, 1.0 - np.abs(np.arange(old) - centres) / max(ratio, 1.0))
    whole: Floats = np.round(256 * weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    whole[np.arange(new), whole.argmax(axis=1)] += 256 - whole.sum(axis=1)  # what rounding lost
    return whole / np.float32(256)
