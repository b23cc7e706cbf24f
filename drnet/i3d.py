"""The Inflated 3D ConvNet (I3D) of Carreira and Zisserman (2017) on colour frames: the network behind FVD.

Only the network is here. Its weights, trained on Kinetics-400, are the user's: a state dict with the names of the
network's parts (`Conv3d_1a_7x7.conv3d.weight` ... `logits.conv3d.bias`), as PyTorch ports of the authors' weights have.

Axes: B videos, C channels, T frames, H height, W width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 400  # of Kinetics
SIDE, SHORTEST = 224, 9  # pixels; and frames, fewer of which leave nothing to average

Size = tuple[int, int, int]

# channels of a block's four branches: 1x1x1; 1x1x1 then 3x3x3; 1x1x1 then 3x3x3; pooling then 1x1x1
MIXED: dict[str, Size | tuple[int, int, int, int, int, int]] = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "MaxPool3d_4a_3x3": (3, 3, 3),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "MaxPool3d_5a_2x2": (2, 2, 2),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}


def padded(maps: Tensor, kernel: Size, stride: Size) -> Tensor:
    """Pad (B, C, T, H, W) with zeros so that a window of `kernel` fits ceil(n / stride) times, the odd one at the end."""
    amounts = list[int]()
    for n, k, s in reversed(list(zip(maps.shape[2:], kernel, stride, strict=True))):
        missing = max((-(-n // s) - 1) * s + k - n, 0)
        amounts += [missing // 2, missing - missing // 2]
    return F.pad(maps, amounts)


class Unit(nn.Module):
    """Convolution, BatchNorm and ReLU; the last layer has a bias instead of both."""

    def __init__(
        self, inputs: int, outputs: int, kernel: Size = (1, 1, 1), stride: Size = (1, 1, 1), last: bool = False
    ):
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv3d = nn.Conv3d(inputs, outputs, kernel, stride, bias=last)
        if not last:
            self.bn = nn.BatchNorm3d(outputs, eps=1e-3)
        self.last = last

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, outputs, ...), each axis divided by the stride, rounded up."""
        found: Tensor = self.conv3d(padded(maps, self.kernel, self.stride))
        return found if self.last else F.relu(self.bn(found))


class Pool(nn.Module):
    """The largest value of each window; maps are at least 0, so zeros at the border change nothing."""

    def __init__(self, kernel: Size, stride: Size) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, C, ...), each axis divided by the stride, rounded up."""
        return F.max_pool3d(padded(maps, self.kernel, self.stride), self.kernel, self.stride)


class Mixed(nn.Module):
    """Four branches side by side (Szegedy et al. 2015, inflated in time)."""

    def __init__(self, inputs: int, b0: int, b1a: int, b1b: int, b2a: int, b2b: int, b3b: int) -> None:
        super().__init__()
        self.b0 = Unit(inputs, b0)
        self.b1a, self.b1b = Unit(inputs, b1a), Unit(b1a, b1b, (3, 3, 3))
        self.b2a, self.b2b = Unit(inputs, b2a), Unit(b2a, b2b, (3, 3, 3))
        self.b3a, self.b3b = Pool((3, 3, 3), (1, 1, 1)), Unit(inputs, b3b)
        self.outputs = b0 + b1b + b2b + b3b

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, outputs, T, H, W)."""
        branches = self.b0(maps), self.b1b(self.b1a(maps)), self.b2b(self.b2a(maps)), self.b3b(self.b3a(maps))
        return torch.cat(branches, 1)


class I3D(nn.Module):
    """Videos in, the logits of the 400 classes of Kinetics out, averaged over time."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = [
            ("Conv3d_1a_7x7", Unit(3, 64, (7, 7, 7), (2, 2, 2))),
            ("MaxPool3d_2a_3x3", Pool((1, 3, 3), (1, 2, 2))),
            ("Conv3d_2b_1x1", Unit(64, 64)),
            ("Conv3d_2c_3x3", Unit(64, 192, (3, 3, 3))),
            ("MaxPool3d_3a_3x3", Pool((1, 3, 3), (1, 2, 2))),
        ]
        inputs = 192
        for name, sizes in MIXED.items():
            if len(sizes) == 3:
                self.trunk.append((name, Pool(sizes, (2, 2, 2))))
                continue
            block = Mixed(inputs, *sizes)
            inputs = block.outputs
            self.trunk.append((name, block))
        for name, part in self.trunk:
            self.add_module(name, part)
        self.logits = Unit(inputs, CLASSES, last=True)

    def forward(self, videos: Tensor) -> Tensor:
        """(B, 3, T, 224, 224) float in [-1, 1], T >= 9 -> (B, 400)."""
        maps = videos
        for _, part in self.trunk:
            maps = part(maps)
        maps = self.logits(F.avg_pool3d(maps, (2, 7, 7), stride=1))
        return maps.mean((2, 3, 4))
