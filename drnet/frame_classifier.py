"""A small convolutional network that tells a class from frames: the judges that evaluation trains on true frames.

Axes: B batch, C channels (of one frame, or of several that are concatenated), H height, W width, Y classes.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drnet.model import Metrics

SMALLEST = 4  # side of the last map
WIDEST = 4  # times the channels of the first map


class FrameClassifier(nn.Module):
    """Blocks of convolution, BatchNorm, ReLU and pooling down to 4x4 maps, then dropout and one linear layer.

    Args:
        channels: C.
        side: H and W, at least 4.
        classes: Y.
        width: channels of the first map; they double in each block up to four times as many.
    """

    def __init__(self, channels: int, side: int, classes: int, width: int = 32) -> None:
        super().__init__()
        if side < SMALLEST:
            raise ValueError(f"frames of {side}x{side} are not allowed; they must be at least {SMALLEST}x{SMALLEST}")
        blocks: list[nn.Module] = []
        inputs, outputs = channels, width
        while side > SMALLEST or not blocks:
            pooling = [nn.MaxPool2d(2)] if side >= 2 * SMALLEST else []
            convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
            blocks += [convolution, nn.BatchNorm2d(outputs), nn.ReLU(), *pooling]
            side = side // 2 if pooling else SMALLEST
            inputs, outputs = outputs, min(2 * outputs, WIDEST * width)
        self.features = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(SMALLEST), nn.Flatten())
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(inputs * SMALLEST**2, classes))

    def forward(self, frames: Tensor) -> Tensor:
        """(B, C, H, W) float32 in [0, 1] -> (B, Y) logits."""
        logits: Tensor = self.head(self.features(frames - 0.5))
        return logits

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """All parameters, as one group."""
        return {"classifier": list(self.parameters())}

    def losses(self, inputs: Tensor, step: int, *others: Tensor) -> Iterator[tuple[str, Tensor, Metrics]]:
        """Yield the cross-entropy of (B, C, H, W) frames and their (B,) classes."""
        logits = self(inputs)
        loss = F.cross_entropy(logits, others[0])
        right = (logits.detach().argmax(1) == others[0]).float().mean()
        yield "classifier", loss, {"loss": loss.detach(), "accuracy": right}

    @torch.no_grad()
    def probabilities(self, frames: Tensor) -> Tensor:
        """Return (B, Y) probabilities of (B, C, H, W) frames; the module is to be in evaluation mode."""
        return self(frames).float().softmax(1)
