"""Which frames of a clip serve which loss, and which clips stand beside each other as different ones in Eq. 3.

Axes: B batch.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Roles(NamedTuple):
    """Numbers of the frames of a clip in a batch (B, F, C, H, W), by what they are for.

    Attributes:
        content: the frame whose content is decoded.
        target: the frame whose content must be the same (Eq. 2).
        pose: the frame whose pose is decoded, and that is reconstructed (Eq. 1).
        partner: the frame whose pose stands beside that one in Eq. 4.
        judged: the two frames whose poses the discriminator learns from (Eq. 3).
    """

    content: int
    target: int
    pose: int
    partner: int
    judged: tuple[int, int]


# By the number of frames drawn from each clip: x_t and x_t+k serve all losses (Sec. 3); or the authors' code's four.
ROLES = {2: Roles(0, 1, 1, 0, (0, 1)), 4: Roles(0, 1, 2, 3, (0, 1))}


def roles_of(frames: Tensor) -> Roles:
    """Return the roles of the frames (B, F, C, H, W); raises ValueError for another F than 2 or 4."""
    if frames.shape[1] not in ROLES:
        raise ValueError(f"{frames.shape[1]} frames of each clip are not allowed; supported are 2 and 4")
    return ROLES[frames.shape[1]]


@dataclass(frozen=True)
class Pairs:
    """Places in a batch whose poses the discriminator compares.

    Attributes:
        same: (S,) int64: the two poses of each of these places are of one clip.
        first, second: (N,) int64: the first pose of one place and the second pose of another are of different clips.
        weights: (N,) float32, 0 where a place found no other clip; None where all count.
    """

    same: Tensor
    first: Tensor
    second: Tensor
    weights: Tensor | None = None


def shifted(count: int, device: torch.device) -> Pairs:
    """Each place beside the one before it: never itself, so no negative is false where neighbours differ.

    The plan keeps a clip from standing beside itself in a batch.
    """
    places = torch.arange(count, device=device)
    return Pairs(places, places, places.roll(1))


def other_content(keys: Tensor) -> Pairs:
    """Each place beside the nearest one before it whose content key differs; none where all keys are equal.

    Args:
        keys: (B,) int64, equal where two clips show the same content.
    """
    count = len(keys)
    places = torch.arange(count, device=keys.device)
    before = (places[:, None] - torch.arange(1, count, device=keys.device)) % count  # (B, B - 1), the nearest first
    differs = keys[before] != keys[:, None]
    nearest = before.gather(1, differs.int().argmax(1, keepdim=True)).squeeze(1)
    return Pairs(places, places, nearest, differs.any(1).float())


def permuted(count: int, step: int, device: torch.device) -> Pairs:
    """The first half of the batch permuted in itself as different clips, the second half as pairs of one clip.

    The authors' code. A permutation leaves one place of the half where it is, on average: at a batch of 100, 2% of the
    negatives are no negatives. It is a pure function of the step.
    """
    half = count // 2
    order = torch.randperm(half, generator=torch.Generator().manual_seed(step)).to(device)
    places = torch.arange(count, device=device)
    return Pairs(places[half:], places[:half], order)
