"""LPIPS, the learned distance between pictures (Zhang et al. 2018, version 0.1): the network, without its weights.

Features are those of AlexNet or VGG-16 after each of five stages. The weights of either, trained on ImageNet, are the
user's; the five linear layers on top of them come with torchmetrics.

Axes: B pictures, C channels, H height, W width.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

Backbone = Literal["alex", "vgg"]
SMALLEST = 32  # pixels a side: of fewer, AlexNet has nothing left
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of red, green and blue in [-1, 1]

Convolution = tuple[int, int, int, int]  # outputs, kernel, stride, padding
_VGG = tuple(
    tuple((width, 3, 1, 1) for _ in range(count))
    for width, count in zip((64, 128, 256, 512, 512), (2, 2, 3, 3, 3), strict=True)
)
STAGES: Mapping[Backbone, tuple[tuple[Convolution, ...], ...]] = {
    "alex": (((64, 11, 4, 2),), ((192, 5, 1, 2),), ((384, 3, 1, 1),), ((256, 3, 1, 1),), ((256, 3, 1, 1),)),
    "vgg": _VGG,
}
POOLED: Mapping[Backbone, tuple[int, tuple[int, ...]]] = {
    "alex": (3, (1, 2)),
    "vgg": (2, (1, 2, 3, 4)),
}  # size, before which


class Lpips(nn.Module):
    """Distances between pictures.

    Args:
        backbone: `alex` or `vgg`.

    Attributes:
        features: the layers of the backbone, numbered as torchvision numbers them.
        linear: weights of the channels of each stage.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        layers, widths, self.ends = list[nn.Module](), list[int](), list[int]()
        inputs, (size, pooled) = 3, POOLED[backbone]
        for number, stage in enumerate(STAGES[backbone]):
            if number in pooled:
                layers.append(nn.MaxPool2d(size, 2))
            for outputs, kernel, stride, padding in stage:
                layers += [nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.ReLU()]
                inputs = outputs
            self.ends.append(len(layers) - 1)
            widths.append(inputs)
        self.features = nn.Sequential(*layers)
        self.linear = nn.ParameterList(torch.empty(width) for width in widths)
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None], persistent=False)

    def forward(self, pictures: Tensor, others: Tensor) -> Tensor:
        """Two times (B, C, H, W) float in [0, 1], C = 1 or 3, H and W at least 32 -> (B,), 0 where they are the same."""
        maps = torch.cat([pictures, others]).expand(-1, 3, -1, -1)
        maps = (2 * maps - 1 - self.get_buffer("shift")) / self.get_buffer("scale")
        distance = pictures.new_zeros(len(pictures))
        weights = iter(self.linear)
        for number, layer in enumerate(self.features):
            maps = layer(maps)
            if number in self.ends:
                directions = maps / (1e-8 + maps.square().sum(1, keepdim=True)).sqrt()
                first, second = directions.chunk(2)
                distance += ((first - second).square().mean((2, 3)) * next(weights)).sum(1)
        return distance
