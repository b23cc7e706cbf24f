"""The DCGAN networks of DrNet (Sec. 4.1) and its scene discriminator.

Axes: B batch, C channels, H height, W width (H = W = size). Frames are float32 in [0, 1].
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2  # of the leaky ReLUs; the paper gives none, this is the authors' code's
SIZES = (32, 64, 128, 256)


def _stages(size: int) -> int:
    """Number of stride-2 convolutions between a frame of `size` and a 4x4 map."""
    if size not in SIZES:
        raise ValueError(f"frame size {size} is not allowed; the DCGAN networks take {', '.join(map(str, SIZES))}")
    return size.bit_length() - 3


def _widths(size: int, width: int) -> list[int]:
    """Channels after each stride-2 convolution: doubling, up to 8 times the first."""
    return [width * min(2**i, 8) for i in range(_stages(size))]


class DcganEncoder(nn.Module):
    """Content or pose encoder: stride-2 convolutions with BatchNorm and LeakyReLU, and a last 4x4 one to a vector.

    Five convolutions for 64x64 (Sec. 4.1), four for 32x32, six for 128x128. The last has neither BatchNorm nor an
    activation; with `unit_norm` its vector is scaled to Euclidean norm 1.

    Args:
        channels: C of the frames.
        size: height and width of the frames.
        width: channels after the first convolution.
        dim: length of the vector.
        unit_norm: whether the vector has norm 1 (the paper); otherwise BatchNorm and tanh (the authors' code).
        centred: whether BatchNorm, without scale or shift, precedes the unit norm: vectors then differ in direction at
            every scale of the losses, where otherwise they may shrink to one direction. Not in the paper.
        pooled: whether the convolutions wrap around the borders and their last map is averaged before the vector: what
            is seen then counts, and where it is hardly does. Not in the paper.

    Shapes: (B, C, H, W) in [0, 1] -> (B, dim).
    """

    def __init__(
        self,
        channels: int,
        size: int,
        width: int,
        dim: int,
        *,
        unit_norm: bool = True,
        centred: bool = False,
        pooled: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        padding: Literal["circular", "zeros"] = "circular" if pooled else "zeros"
        for after in _widths(size, width):
            convolution = nn.Conv2d(before, after, 4, 2, 1, bias=False, padding_mode=padding)
            layers += [convolution, nn.BatchNorm2d(after), nn.LeakyReLU(SLOPE)]
            before = after
        if pooled:
            layers.append(nn.AdaptiveAvgPool2d(1))
        self.features = nn.Sequential(*layers)
        self.last = nn.Conv2d(before, dim, 1 if pooled else 4)
        self.unit_norm = unit_norm
        self.norm = nn.BatchNorm1d(dim, affine=not unit_norm) if centred or not unit_norm else None

    def forward(self, frames: Tensor) -> Tensor:
        vector = self.last(self.features(frames)).flatten(1).float()  # (B, dim)
        if self.norm is not None:
            vector = self.norm(vector)
        return F.normalize(vector, dim=1) if self.unit_norm else torch.tanh(vector)


class DcganDecoder(nn.Module):
    """The encoder mirrored: content and pose vectors to a frame, sigmoid output (Sec. 4.1).

    Args:
        channels, size, width: as for the encoder.
        dim: length of the content and pose vectors together.

    Shapes: (B, content_dim), (B, pose_dim) -> (B, C, H, W) in [0, 1].
    """

    def __init__(self, channels: int, size: int, width: int, dim: int) -> None:
        super().__init__()
        widths = _widths(size, width)[::-1]
        before = widths[0]
        layers: list[nn.Module] = [nn.ConvTranspose2d(dim, before, 4, bias=False)]
        layers += [nn.BatchNorm2d(before), nn.LeakyReLU(SLOPE)]
        for after in widths[1:]:
            layers += [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after)]
            layers += [nn.LeakyReLU(SLOPE)]
            before = after
        layers.append(nn.ConvTranspose2d(before, channels, 4, 2, 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, content: Tensor, pose: Tensor) -> Tensor:
        vector = torch.cat([content, pose], dim=1)[:, :, None, None]  # (B, content_dim + pose_dim, 1, 1)
        return torch.sigmoid(self.layers(vector).float())


class SceneDiscriminator(nn.Module):
    """C of Eq. 3: are two pose vectors from the same clip? Two hidden layers of 100 units (Sec. 4.1).

    Shapes: (B, pose_dim), (B, pose_dim) -> (B,) logits; the sigmoid of a logit is the probability of "same".
    """

    def __init__(self, pose_dim: int, hidden: int = 100) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 * pose_dim, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.layers(torch.cat([first, second], dim=1)).squeeze(1).float()  # a loss in bfloat16 has two digits


def initialise_dcgan(module: nn.Module) -> None:
    """Draw convolutions and linear layers from N(0, 0.02), BatchNorm scales from N(1, 0.02): the authors' code."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(part.weight, 0.0, 0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) and part.affine:
            nn.init.normal_(part.weight, 1.0, 0.02)
            nn.init.zeros_(part.bias)
