"""PSNR as figures show it: the evaluation's own, so that a figure and a table of metrics agree."""

import numpy as np
from numpy.typing import NDArray

from drnet.pipelines.evaluation.frames import HIGHEST, as_tensor, psnr


def decibels(frames: NDArray[np.uint8], truth: NDArray[np.uint8]) -> list[float]:
    """Return the PSNR in dB of each frame (B, H, W, C) against its truth, at most `HIGHEST`, which equal frames have."""
    return [float(value) for value in psnr(as_tensor(frames), as_tensor(truth))]


def shown(value: float | None) -> str:
    """Return a PSNR as a reader sees it."""
    return "unknown" if value is None else "equal" if value >= HIGHEST - 1e-6 else f"{value:.1f} dB"
