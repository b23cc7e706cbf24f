"""What every encoder shares, the DCGAN networks of DrNet (Sec. 4.1), and its scene discriminator.

Axes: B batch, C channels, H height, W width (H = W = size). Frames are float32 in [0, 1].
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2  # of the leaky ReLUs; the paper gives none, this is the authors' code's
SIZES = range(32, 257, 32)


def check_size(size: int) -> int:
    """Return a frame size that all networks take; raises ValueError with the nearest one for another."""
    if size not in SIZES:
        nearest = min(max(round(size / 32) * 32, SIZES[0]), SIZES[-1])
        allowed = f"multiples of 32 from {SIZES[0]} to {SIZES[-1]}"
        raise ValueError(
            f"frame size {size} is not allowed; the networks take {allowed}: build the data set with --size {nearest}"
        )
    return size


@dataclass(frozen=True)
class Content:
    """What an encoder with skip connections knows of frames (Sec. 4.1, KTH; U-Net).

    Attributes:
        vector: (B, dim), the content vector.
        skips: feature maps (B, channels, h, h), the finest first, that the decoder takes beside the vectors.
    """

    vector: Tensor
    skips: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.vector)

    def __getitem__(self, index: slice | Tensor) -> "Content":
        """Return some of the frames' contents, as indexing a vector does."""
        return Content(self.vector[index], tuple(skip[index] for skip in self.skips))

    def repeat_interleave(self, repeats: int, dim: int = 0) -> "Content":
        """Return each content several times in a row, as for a vector; `dim` can only be 0."""
        if dim != 0:
            raise ValueError(f"dim {dim} is not allowed; contents are repeated along 0")
        return Content(
            self.vector.repeat_interleave(repeats, 0), tuple(s.repeat_interleave(repeats, 0) for s in self.skips)
        )


class Encoder(nn.Module):
    """Frames to a vector: feature maps, a convolution that covers the last of them, and the norm of the vector.

    Subclasses make their layers, call `_head`, and return their maps.

    Shapes: (B, C, H, W) in [0, 1] -> (B, dim); with `skips`, a `Content` of it.
    """

    skips = False
    unit_norm: bool
    last: nn.Conv2d
    norm: nn.BatchNorm1d | None

    def _head(self, before: int, dim: int, kernel: int, unit_norm: bool, centred: bool = False) -> None:
        """Add the last layer, neither BatchNorm nor an activation before the unit norm (Sec. 4.1)."""
        self.last = nn.Conv2d(before, dim, kernel)
        self.unit_norm = unit_norm
        self.norm = nn.BatchNorm1d(dim, affine=not unit_norm) if centred or not unit_norm else None

    def maps(self, frames: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the maps that the decoder may take as skips, the finest first, and the map under the last layer."""
        raise NotImplementedError

    def forward(self, frames: Tensor) -> Tensor | Content:
        skips, top = self.maps(frames)
        vector = self.last(top).flatten(1).float()  # (B, dim)
        if self.norm is not None:
            vector = self.norm(vector)
        vector = F.normalize(vector, dim=1) if self.unit_norm else torch.tanh(vector)
        return Content(vector, tuple(skips)) if self.skips else vector


def joined(content: Tensor | Content, pose: Tensor, skips: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the vectors as a map (B, content_dim + pose_dim, 1, 1), and as many skips as a decoder takes."""
    if isinstance(content, Content):
        vector, found = content.vector, content.skips
    else:
        vector, found = content, ()
    if len(found) != skips:
        raise ValueError(
            f"a content with {len(found)} skips is not allowed; this decoder takes {skips}: "
            "decode what `content_encoder` returned"
        )
    return torch.cat([vector, pose], dim=1)[:, :, None, None], found


def _stages(size: int) -> int:
    """Number of stride-2 convolutions until the map is 4 to 7 wide: 4 for 64 (Sec. 4.1), 5 for 128."""
    return (check_size(size) // 4).bit_length() - 1


def _widths(size: int, width: int) -> list[int]:
    """Channels after each stride-2 convolution: doubling, up to 8 times the first."""
    return [width * min(2**i, 8) for i in range(_stages(size))]


def _last_map(size: int) -> int:
    """Width of the map after all stride-2 convolutions: 4 for powers of two."""
    return size >> _stages(size)


class DcganEncoder(Encoder):
    """Content or pose encoder: stride-2 convolutions with BatchNorm and LeakyReLU, and a last one to a vector [20].

    Five convolutions for 64x64 (Sec. 4.1), four for 32x32, six for 128x128; the last covers its whole map, 4x4 for
    these sizes. With `unit_norm` its vector is scaled to Euclidean norm 1.

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
        skips: whether the map after each stride-2 convolution goes to the decoder (the authors' code on MNIST).

    Shapes: (B, C, H, W) in [0, 1] -> (B, dim); with `skips`, a `Content` of it.
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
        skips: bool = False,
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
        self._head(before, dim, 1 if pooled else _last_map(size), unit_norm, centred)
        self.skips = skips

    def maps(self, frames: Tensor) -> tuple[list[Tensor], Tensor]:
        if not self.skips:
            return [], self.features(frames)
        found, top = [], frames
        for first in range(0, len(self.features), 3):  # convolution, BatchNorm, LeakyReLU
            top = self.features[first : first + 3](top)
            found.append(top)
        return found, top


class DcganDecoder(nn.Module):
    """The encoder mirrored: content and pose vectors to a frame, sigmoid output (Sec. 4.1).

    Args:
        channels, size, width: as for the encoder.
        dim: length of the content and pose vectors together.
        skips: whether each map of a `DcganEncoder` with skips joins the map of its size.
        mixing: units of two layers that the vectors go through before they become a map; 0: none. What is to be drawn
            where is a product of content and pose, and one layer can only add the two. Not in the paper.

    Shapes: (B, content_dim), (B, pose_dim) -> (B, C, H, W) in [0, 1]; with `skips`, a `Content` instead of the first.
    """

    def __init__(self, channels: int, size: int, width: int, dim: int, *, skips: bool = False, mixing: int = 0) -> None:
        super().__init__()
        widths = _widths(size, width)[::-1]
        self.mixing = nn.Sequential()
        for _ in range(2 if mixing else 0):
            # Each vector's own norm: BatchNorm's running one lags behind poses, which vary little.
            layer = nn.Conv2d(dim, mixing, 1, bias=False)
            self.mixing += nn.Sequential(layer, nn.GroupNorm(1, mixing), nn.LeakyReLU(SLOPE))
            dim = mixing
        self.skips = len(widths) if skips else 0
        before = widths[0]
        layers: list[nn.Module] = [nn.ConvTranspose2d(dim, before, _last_map(size), bias=False)]
        layers += [nn.BatchNorm2d(before), nn.LeakyReLU(SLOPE)]
        beside = 2 if skips else 1
        for after in widths[1:]:
            layers += [nn.ConvTranspose2d(beside * before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after)]
            layers += [nn.LeakyReLU(SLOPE)]
            before = after
        layers.append(nn.ConvTranspose2d(beside * before, channels, 4, 2, 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, content: Tensor | Content, pose: Tensor) -> Tensor:
        found, skips = joined(content, pose, self.skips)
        found = self.mixing(found)
        if not skips:
            return torch.sigmoid(self.layers(found).float())
        found = self.layers[:3](found)
        for number, skip in enumerate(reversed(skips), 1):  # the coarsest first
            found = self.layers[3 * number : 3 * number + 3](torch.cat([found, skip], 1))
        return torch.sigmoid(found.float())


class SceneDiscriminator(nn.Module):
    """C of Eq. 3 (Fig. 1, left): are two pose vectors from the same clip? Two hidden layers of 100 units (Sec. 4.1).

    The paper gives no activation; ReLU and no BatchNorm are the authors' code's, in Lua and in Python.

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
    """Draw convolutions and linear layers from N(0, 0.02), BatchNorm scales from N(1, 0.02): [20], the authors' code."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(part.weight, 0.0, 0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) and part.affine:
            nn.init.normal_(part.weight, 1.0, 0.02)
            nn.init.zeros_(part.bias)


def initialise_he(module: nn.Module) -> None:
    """Draw convolutions from N(0, sqrt(2 / fan out)) as ResNet does [8]; BatchNorm starts as the identity."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
