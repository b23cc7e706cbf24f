"""PSNR and SSIM of predicted frames, step by step, next to frames that need no predictor.

Axes: B windows, S steps, H height, W width, C channels.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torchmetrics
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from drnet.pipelines.evaluation.intervals import FEW, Bootstrap, Interval, as_list
from drnet.pipelines.looking.pictures import Frames

ROWS = {
    "predicted": "predicted by model and predictor",
    "true_pose": "decoded from the content of the last observed frame and the pose of the true frame",
    "copy_last": "the last observed frame, again and again",
}
DATA_RANGE, WINDOW, SIGMA, K1, K2 = 1.0, 11, 1.5, 0.01, 0.03
SHOWN = (1, 5, 10, 20, 50, 100, 500)  # steps that a table has a column for, besides the last one
HIGHEST = 10 * np.log10(12 * 255**2)  # dB: two frames that differ by rounding to 8 bits are not told apart


def settings() -> dict[str, Any]:
    """Return how the numbers are made: values of other implementations differ, SSIM above all."""
    return {
        "implementation": f"torchmetrics {torchmetrics.__version__}",
        "frames": "rounded to 8 bits, then scaled to [0, 1]; all channels; each frame scored by itself, then averaged",
        "psnr": {"data_range": DATA_RANGE, "highest": round(float(HIGHEST), 3)},
        "ssim": {
            "data_range": DATA_RANGE,
            "window": WINDOW,
            "gaussian_sigma": SIGMA,
            "k1": K1,
            "k2": K2,
            "borders": "reflected, and averaged like the rest (scikit-image leaves 5 pixels out)",
        },
    }


def shown_steps(steps: Sequence[int]) -> list[int]:
    """Return the steps that a table shows of those that were scored, the last one among them."""
    return sorted({step for step in SHOWN if step <= steps[-1]} | {steps[-1]})


def as_tensor(frames: Frames) -> Tensor:
    """(B, H, W, C) uint8 -> (B, C, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.array(frames)).movedim(-1, 1).float() / 255


def psnr(frames: Tensor, truth: Tensor) -> NDArray[np.float64]:
    """Return the peak signal-to-noise ratio of each frame (B, C, H, W) in dB, at most `HIGHEST`: (B,)."""
    found = peak_signal_noise_ratio(frames, truth, data_range=DATA_RANGE, reduction="none", dim=(1, 2, 3))
    return np.minimum(found.reshape(-1).numpy().astype(np.float64), HIGHEST)


def ssim(frames: Tensor, truth: Tensor) -> NDArray[np.float64]:
    """Return the structural similarity of each frame (B, C, H, W): (B,)."""
    found = structural_similarity_index_measure(
        frames,
        truth,
        gaussian_kernel=True,
        sigma=SIGMA,
        kernel_size=WINDOW,
        reduction="none",
        data_range=DATA_RANGE,
        k1=K1,
        k2=K2,
    )
    assert isinstance(found, Tensor), "no full image was asked for"
    return found.reshape(-1).numpy().astype(np.float64)


Metric = Callable[[Tensor, Tensor], NDArray[np.float64]]  # frames and truth, both (B, C, H, W) -> (B,)
METRICS: Mapping[str, Metric] = {"psnr": psnr, "ssim": ssim}


class FrameMeter:
    """Collects the scores of frames as they come; frames themselves are not kept.

    Args:
        clips: the clip of each window.
        steps: the longest horizon.
        rows: which of `ROWS` there will be.
        more: metrics besides `METRICS`, by name.
    """

    def __init__(
        self, clips: Sequence[int], steps: int, rows: Sequence[str], more: Mapping[str, Metric] | None = None
    ) -> None:
        self.clips, self.steps, self.metrics = tuple(clips), steps, {**METRICS, **(more or {})}
        self.values = {row: {name: np.full((len(clips), steps), np.nan) for name in self.metrics} for row in rows}

    def add(self, which: NDArray[np.int64], step: int, truth: Frames, shown: Mapping[str, Frames]) -> None:
        """Score the frames of one step.

        Args:
            which: (B,) numbers of the windows.
            step: from 1.
            truth: (B, H, W, C) uint8.
            shown: of each row, the same.
        """
        target = as_tensor(truth)
        for row, frames in shown.items():
            found = as_tensor(frames)
            for name, metric in self.metrics.items():
                self.values[row][name][which, step - 1] = metric(found, target)

    def report(self, means: Sequence[int], seed: int) -> dict[str, Any]:
        """Return the means of each step, and over the steps up to each of `means`, with 95% intervals over clips."""
        bootstrap = Bootstrap(self.clips, seed)
        any_row = next(iter(self.values.values()))["psnr"]
        there = ~np.isnan(any_row)
        reached = int(there.any(0).sum())
        steps = {row: {m: bootstrap.interval(v) for m, v in found.items()} for row, found in self.values.items()}
        clips = next(iter(steps.values()))["psnr"].clips
        body: dict[str, Any] = {
            "rows": {row: ROWS[row] for row in self.values},
            "windows": len(self.clips),
            "clips": len(set(self.clips)),
            "identical_frames": {row: int((v["psnr"] >= HIGHEST).sum()) for row, v in self.values.items()},
            "steps": list(range(1, reached + 1)),
            "windows_at_step": there.sum(0)[:reached].tolist(),
            "clips_at_step": clips[:reached].tolist(),
            **{name: {row: _cut(found[name], reached) for row, found in steps.items()} for name in self.metrics},
            "means": [self._mean(bootstrap, last) for last in means if last <= reached],
        }
        notes = []
        if short := [last for last in means if last > reached]:
            notes.append(f"no mean up to step {', '.join(map(str, short))}: the longest clip ends after step {reached}")
        if len(set(self.clips)) < FEW:
            notes.append(f"{len(set(self.clips))} clips only: the intervals say little")
        if min(body["clips_at_step"]) < max(body["clips_at_step"]):
            fewest = body["clips_at_step"][-1]
            notes.append(
                f"clips are scored as far as they go: {max(body['clips_at_step'])} at step 1, {fewest} at the last"
            )
        return body | {"notes": notes}

    def _mean(self, bootstrap: Bootstrap, last: int) -> dict[str, Any]:
        """Return the means over the steps 1 to `last`, and the differences to copying, of the same drawn clips."""
        body: dict[str, Any] = {"steps": [1, last]}
        for name in self.metrics:
            parts = {row: found[name][:, :last] for row, found in self.values.items()}
            body[name] = {row: bootstrap.mean_interval(part).single() for row, part in parts.items()}
            body[f"{name}_above_copy_last"] = {
                row: bootstrap.mean_interval(part - parts["copy_last"]).single()
                for row, part in parts.items()
                if row != "copy_last"
            }
        return body


def _cut(interval: Interval, count: int) -> dict[str, list[float | None]]:
    return {name: as_list(getattr(interval, name)[:count]) for name in ("mean", "low", "high")}
