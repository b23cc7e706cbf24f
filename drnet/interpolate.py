"""Linear interpolation between two poses with the content fixed (Fig. 5, left).

Axes: B clips, S steps, P pose_dim, C channels, H height, W width; frames are float32 in [0, 1].
"""

import torch
from torch import Tensor

from drnet.model import DrNet

NOWHERE = 1e-6  # a mean of opposite poses that is shorter has no direction


def between(first: Tensor, second: Tensor, steps: int, unit_norm: bool) -> Tensor:
    """Return poses evenly spaced on the straight line from the first to the second, both ends included.

    Args:
        first, second: (B, P).
        steps: S, at least 2.
        unit_norm: whether poses have norm 1: then each is scaled to it, as the decoder knows no others. The middle of
            opposite poses has no direction and stays as it is.

    Returns:
        (B, S, P).
    """
    if steps < 2:
        raise ValueError(f"{steps} steps are not allowed; the two ends are 2")
    share = torch.linspace(0, 1, steps, device=first.device, dtype=first.dtype)[:, None]  # (S, 1)
    poses = first[:, None] * (1 - share) + second[:, None] * share
    if not unit_norm:
        return poses
    length = poses.norm(dim=2, keepdim=True)
    return torch.where(length > NOWHERE, poses / length.clamp(min=NOWHERE), poses)


@torch.no_grad()
def interpolate(model: DrNet, content: Tensor, first: Tensor, second: Tensor, steps: int) -> Tensor:
    """Decode the content of each frame in the poses between those of two others.

    Args:
        model: in evaluation mode.
        content, first, second: frames (B, C, H, W) that give the content, and the poses at the ends.
        steps: S, at least 2.

    Returns:
        (B, S, C, H, W) float32.
    """
    poses = between(model.pose_encoder(first), model.pose_encoder(second), steps, model.config.unit_norm)
    known = model.content_encoder(content).repeat_interleave(steps, 0)
    frames = model.decode(known, poses.flatten(0, 1))
    return frames.unflatten(0, (len(content), steps)).float()
