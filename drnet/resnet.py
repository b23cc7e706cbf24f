"""ResNet-18 up to its last pooling [8]: content and pose encoder on NORB and chairs, pose encoder on KTH (Sec. 4.1).

Axes: B batch, C channels, H height, W width (H = W = size). Frames are float32 in [0, 1].
"""

from torch import Tensor, nn

from drnet.networks import Encoder, check_size

STAGES = (1, 2, 4, 8)  # channels of each stage, in widths
FIFTH_FROM = 128  # frame size from which the authors' fifth stage exists


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, the basic block of [8] (their Fig. 2; projection where shapes differ).

    Shapes: (B, before, h, h) -> (B, after, h / stride, h / stride), rounded up.
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.shortcut: nn.Module = nn.Identity()
        if before != after or stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        self.activation = nn.ReLU()

    def forward(self, maps: Tensor) -> Tensor:
        return self.activation(self.residual(maps) + self.shortcut(maps))


class ResNet18Encoder(Encoder):
    """Content or pose encoder: the 17 convolutions of ResNet-18, and one more that covers their map, to a vector.

    The map is size / 32 wide: 2x2 for 64, 3x3 for 96, 4x4 for 128. It is not averaged: poses need to know where things
    are. As in [8] the first convolution is 7x7; the authors' code has 5x5.

    Args:
        channels: C of the frames.
        size: height and width of the frames.
        width: channels after the first convolution; 64 in [8].
        dim: length of the vector.
        unit_norm: whether the vector has norm 1 (the paper); otherwise BatchNorm and tanh (the authors' code).
        centred: whether BatchNorm, without scale or shift, precedes the unit norm. Not in the paper.
        fifth_stage: whether frames of 128 and more pass a fifth stage of 16 widths (the authors' Python code).

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
        fifth_stage: bool = False,
    ) -> None:
        super().__init__()
        last_map = check_size(size) // 32
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        layers.append(nn.MaxPool2d(3, 2, 1))
        before = width
        stages: tuple[int, ...] = STAGES
        if fifth_stage and size >= FIFTH_FROM:
            stages, last_map = (*STAGES, 16), (last_map + 1) // 2
        for factor in stages:
            after = factor * width
            layers += [Block(before, after, 1 if factor == 1 else 2), Block(after, after, 1)]
            before = after
        self.features = nn.Sequential(*layers)
        self._head(before, dim, last_map, unit_norm, centred)

    def maps(self, frames: Tensor) -> tuple[list[Tensor], Tensor]:
        return [], self.features(frames)
