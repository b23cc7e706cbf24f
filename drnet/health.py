"""How well a model does on frames that it was not trained on: its reconstructions against trivial ones, what its
decoder listens to, what its two vectors tell of each other, and whether its running statistics are worth anything.

Axes: N clips, F frames of each, C channels, H height, W width; D, L numbers in a vector. Frames are float32 in [0, 1].
"""

import contextlib
import math
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from drnet.model import participation, vector_of
from drnet.networks import Content

PROBED_CLIPS = 24  # half of them fit a probe: with fewer, its score says more of the clips drawn than of the model, and
# the statistics of a batch do: on 8 clips of one person they made the error 12 times as large
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)  # of the ridge, for each row; the one that generalises best counts
STILL = 1e-2  # of the mean frame's error: clips in which a copy is nearly right show neither motion nor its lack


class TwoVectors(Protocol):
    """A model with a content and a pose: `DrNet`, or another with its methods; a content may have no numbers."""

    def content_encoder(self, frames: Tensor) -> Tensor | Content:
        """(B, C, H, W) -> (B, content_dim)."""

    def pose_encoder(self, frames: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, pose_dim)."""

    def decode(self, content: Tensor | Content, pose: Tensor) -> Tensor:
        """(B, content_dim), (B, pose_dim) -> (B, C, H, W)."""


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode, uncompiled; afterwards every part of it is as it was.

    A compiled part would be compiled anew for what is done here, and CUDA graphs overwrite what they returned before.
    """
    modes = {part: part.training for part in model.modules()}
    compiled = {part: part._compiled_call_impl for part in model.modules() if part._compiled_call_impl is not None}
    model.eval()
    for part in compiled:
        part._compiled_call_impl = None
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training
        for part, call in compiled.items():
            part._compiled_call_impl = call


@contextlib.contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Let BatchNorm normalise by the batch, as in training, while a model in evaluation mode is used.

    The running statistics are put aside, so that nothing updates them, and many processes that share theirs in training
    do not wait for each other.
    """
    aside: list[tuple[nn.Module, dict[str, Tensor | None]]] = []
    for part in model.modules():
        if isinstance(part, _BatchNorm):
            aside.append((part, {name: part._buffers[name] for name in ("running_mean", "running_var")}))
            part._buffers |= {"running_mean": None, "running_var": None}
    try:
        yield
    finally:
        for part, buffers in aside:
            part._buffers |= buffers


@torch.no_grad()
def measure(
    model: Any, frames: Tensor, at_once: int, autocast: contextlib.AbstractContextManager[Any] | None = None
) -> dict[str, float]:
    """Measure a model on frames of clips: the first frame of each gives the content, the others give poses.

    The model is left as it was: its modes, running statistics and gradients; no random number is drawn.

    Args:
        model: a module that is `TwoVectors`, on the frames' device.
        frames: (N, F, C, H, W), at least two clips and two frames of each.
        at_once: clips of a batch in training: as many, or somewhat more, are put through the networks together.
        autocast: the context that the model runs in.

    Returns:
        What could be measured: values that are not finite, or for which there are too few clips, are left out.
        `reconstruction`: mean squared error of x_t+k from the content of x_t and the pose of x_t+k, in evaluation mode.
        `reconstruction_batch`: the same with BatchNorm's statistics of the batch; `bn_gap`: the former over the latter.
        `copy`, `mean_frame`: errors of x_t and of the mean frame as a guess of x_t+k.
        `variance_pose`, `variance_content`: summed over the numbers of a vector. `participation_pose`,
        `participation_content`: in how many directions the vectors differ (`drnet.model.participation`).
        `pose_used`: how far decoded frames of one content and two poses of its clip are apart, over how far the true
        frames are; left out where clips hardly move. `content_used`: the same for one pose and two clips' contents.
        `content_from_pose`: R2 of a ridge regression that tells a clip's mean content from the pose of a frame, on
        clips it was not fitted on. `pose_from_content`: R2 of telling from a frame's content how its pose differs from
        its clip's mean pose; of a clip's pose itself, with four frames that know nothing of each other, about .75.
    """
    first, later = frames[:, :1], frames[:, 1:]
    found: dict[str, float] = {}
    with evaluating(model), autocast or contextlib.nullcontext():
        content, pose, decoded, other = _by_parts(model, frames, at_once)
        if len(frames) >= PROBED_CLIPS:
            with batch_statistics(model):
                found["reconstruction_batch"] = _distance(_decoded_by_parts(model, frames, at_once), later)
    found |= {
        "reconstruction": _distance(decoded, later),
        "copy": _distance(first, later),
        "mean_frame": _distance(frames.mean((0, 1)), later),
        "variance_pose": float(pose.flatten(0, 1).var(0).sum()),
        "participation_pose": float(participation(pose.flatten(0, 1))),
    }
    if "reconstruction_batch" in found:
        found["bn_gap"] = found["reconstruction"] / max(found["reconstruction_batch"], 1e-12)
    if content.shape[-1]:
        found["variance_content"] = float(content.flatten(0, 1).var(0).sum())
        found["participation_content"] = float(participation(content.flatten(0, 1)))
        apart = _distance(later[:, 0], later[:, 0].roll(1, 0))
        if apart > STILL * found["mean_frame"]:
            found["content_used"] = _distance(decoded[:, 0], other) / apart
    if later.shape[1] > 1 and found["copy"] > STILL * found["mean_frame"]:
        moved = _distance(later[:, 1:], later[:, :-1])
        if moved > STILL * found["mean_frame"]:
            found["pose_used"] = _distance(decoded[:, 1:], decoded[:, :-1]) / moved
    found |= _leaks(content.double().cpu(), pose.double().cpu())
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _by_parts(model: TwoVectors, frames: Tensor, at_once: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return content (N, F, D), pose (N, F, P), decoded frames (N, F - 1, C, H, W), and (N, C, H, W) those of the
    second frame's pose with the content of the clip before.
    """
    kept: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for part in _parts(frames, at_once):
        contents = [model.content_encoder(part[:, time]) for time in range(part.shape[1])]
        pose = torch.stack([model.pose_encoder(part[:, time]).float() for time in range(part.shape[1])], 1)
        decoded = torch.stack([model.decode(contents[0], pose[:, time]) for time in range(1, part.shape[1])], 1)
        before = torch.arange(len(part), device=part.device).roll(1)
        other = model.decode(contents[0][before], pose[:, 1])
        vectors = torch.stack([vector_of(content).float() for content in contents], 1)
        kept.append((vectors, pose, decoded.float(), other.float()))
    content, pose, decoded, other = (torch.cat(values) for values in zip(*kept, strict=True))
    return content, pose, decoded, other


def _decoded_by_parts(model: TwoVectors, frames: Tensor, at_once: int) -> Tensor:
    """Return the decoded frames (N, F - 1, C, H, W): one frame of each clip in a batch, as in training."""
    kept = []
    for part in _parts(frames, at_once):
        content = model.content_encoder(part[:, 0])
        times = range(1, part.shape[1])
        kept.append(torch.stack([model.decode(content, model.pose_encoder(part[:, time])) for time in times], 1))
    return torch.cat(kept).float()


def _parts(frames: Tensor, at_once: int) -> tuple[Tensor, ...]:
    """Split clips into parts of `at_once` or up to nearly twice as many, never of one: a batch of one has no spread."""
    return frames.tensor_split(max(1, len(frames) // max(2, at_once)))


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).square().mean())


def _leaks(content: Tensor, pose: Tensor) -> dict[str, float]:
    """What the vectors tell of each other. content (N, F, D), pose (N, F, P), float64."""
    finite = bool(content.isfinite().all() and pose.isfinite().all())
    if len(content) < PROBED_CLIPS or not content.shape[-1] or not finite:
        return {}
    static = content.mean(1, keepdim=True).expand_as(content)
    varying = pose - pose.mean(1, keepdim=True)
    return {"content_from_pose": explained(pose, static), "pose_from_content": explained(content, varying)}


def explained(inputs: Tensor, targets: Tensor) -> float:
    """R2 of a ridge regression on clips that it was not fitted on, over all numbers of the target together.

    Every second clip is fitted on and the others scored, and the other way round. A constant target gives NaN.

    Args:
        inputs: (N, F, D) float64. targets: (N, F, L) float64.
    """
    residual, total = torch.zeros(len(PENALTIES), dtype=torch.float64), 0.0
    for fit, score in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        x, y, x_new, y_new = (v.flatten(0, 1) for v in (inputs[fit], targets[fit], inputs[score], targets[score]))
        residual += _residuals(x, y, x_new, y_new)
        total += float((y_new - y_new.mean(0)).square().sum())
    return float(1 - residual.min() / total) if total > 1e-12 else math.nan


def _residuals(x: Tensor, y: Tensor, x_new: Tensor, y_new: Tensor) -> Tensor:
    """Squared errors of ridge regressions, one for each penalty. Inputs are standardised by the rows fitted on."""
    mean, spread = x.mean(0), x.std(0)
    spread = torch.where(spread > 1e-12, spread, 1.0)
    x, x_new, level = (x - mean) / spread, (x_new - mean) / spread, y.mean(0)
    left, values, right = torch.linalg.svd(x, full_matrices=False)
    told = left.T @ (y - level)  # (K, L)
    turned = x_new @ right.T  # (R', K)
    errors = []
    for penalty in PENALTIES:
        shrunk = values / (values.square() + penalty * len(x))
        errors.append((y_new - level - turned @ (shrunk[:, None] * told)).square().sum())
    return torch.stack(errors)
