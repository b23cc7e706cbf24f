"""VGG16 up to its last pooling [27] as content encoder, and its mirror image as decoder: the KTH model (Sec. 4.1).

Axes: B batch, C channels, H height, W width (H = W = size). Frames are float32 in [0, 1].
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drnet.networks import SLOPE, Content, Encoder, check_size, joined

# Channels of the 3x3 convolutions of each stage, in widths: configuration D of [27], their Table 1.
STAGES = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))


def _stage(before: int, *after: int) -> nn.Sequential:
    """3x3 convolutions, each with BatchNorm and LeakyReLU."""
    layers: list[nn.Module] = []
    for channels in after:
        layers += [nn.Conv2d(before, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels), nn.LeakyReLU(SLOPE)]
        before = channels
    return nn.Sequential(*layers)


class Vgg16Encoder(Encoder):
    """Content encoder: 13 convolutions in five stages, each with 2x2 max pooling, and one more to a vector.

    The last map is size / 32 wide: 4x4 for 128. [27] has neither BatchNorm nor leaky ReLUs; they are here as in the
    paper's other networks and in the authors' code, since at a learning rate of 0.002 this depth needs them.

    Args:
        channels: C of the frames.
        size: height and width of the frames.
        width: channels after the first convolution; 64 in [27].
        dim: length of the vector.
        unit_norm: whether the vector has norm 1 (the paper); otherwise BatchNorm and tanh (the authors' code).
        centred: whether BatchNorm, without scale or shift, precedes the unit norm. Not in the paper.
        skips: whether each stage's map, before pooling, goes to the decoder (Sec. 4.1, KTH).

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
        skips: bool = False,
    ) -> None:
        super().__init__()
        last_map = check_size(size) // 32
        before = channels
        self.stages = nn.ModuleList()
        for factors in STAGES:
            self.stages.append(_stage(before, *(factor * width for factor in factors)))
            before = factors[-1] * width
        self._head(before, dim, last_map, unit_norm, centred)
        self.skips = skips

    def maps(self, frames: Tensor) -> tuple[list[Tensor], Tensor]:
        found, top = [], frames
        for stage in self.stages:
            found.append(stage(top))
            top = F.max_pool2d(found[-1], 2)
        return found, top


class Vgg16Decoder(nn.Module):
    """`Vgg16Encoder` mirrored, with nearest-neighbour upsampling for pooling, and sigmoid output (Sec. 4.1, KTH).

    With skips, in the style of U-Net [23], each stage sees the encoder's map of its size beside the upsampled one.

    Args:
        channels, size, width: as for the encoder.
        dim: length of the content and pose vectors together.
        skips: whether the encoder's maps come with the content.

    Shapes: (B, content_dim), (B, pose_dim) -> (B, C, H, W) in [0, 1]; with `skips`, a `Content` instead of the first.
    """

    def __init__(self, channels: int, size: int, width: int, dim: int, *, skips: bool = False) -> None:
        super().__init__()
        top = STAGES[-1][-1] * width
        self.skips = len(STAGES) if skips else 0
        self.first = nn.Sequential(
            nn.ConvTranspose2d(dim, top, check_size(size) // 32, bias=False), nn.BatchNorm2d(top), nn.LeakyReLU(SLOPE)
        )
        self.stages = nn.ModuleList()
        befores = [factors[-1] for factors in STAGES[:-1]]  # what enters each stage of the encoder but the first
        for factors, after in zip(STAGES[:0:-1], befores[::-1], strict=True):
            before = factors[-1] * width * (2 if skips else 1)
            self.stages.append(_stage(before, *(factor * width for factor in (*factors[1:], after))))
        self.stages.append(_stage(width * (2 if skips else 1), width))
        self.last = nn.Conv2d(width, channels, 3, 1, 1)

    def forward(self, content: Tensor | Content, pose: Tensor) -> Tensor:
        found, skips = joined(content, pose, self.skips)
        found = self.first(found)
        for number, stage in enumerate(self.stages, 1):
            found = F.interpolate(found, scale_factor=2.0, mode="nearest")
            if skips:
                found = torch.cat([found, skips[-number]], 1)
            found = stage(found)
        return torch.sigmoid(self.last(found).float())
