"""The paper's own baseline: an autoencoder of the same networks with one encoder (Sec. 4.3, Fig. 6 and 8).

It describes a frame by a single vector, its code. Everywhere else the code is the pose and the content has no numbers: so
features are exported, poses predicted (AE-LSTM), and classifiers trained, as for DrNet.
Axes: B batch, F frames of a clip, C channels, H height, W width. Frames are float32 in [0, 1].
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drnet.config import DrNetConfig, Network
from drnet.model import Metrics, initialise_stages, make_decoder, make_encoder
from drnet.networks import check_size, initialise_dcgan
from drnet.settings import check_choices, check_least


@dataclass(frozen=True)
class AutoencoderConfig:
    """What an autoencoder is made of.

    Attributes:
        size: height and width of the frames in pixels.
        channels: of the frames.
        pose_dim: numbers in the code; the paper's has 24, and one of 128 was worse (Sec. 4.3).
        width: channels after the first convolution.
        network: of the encoder.
        decoder_network: of the decoder. There are no skips: past the code nothing reaches the decoder.
        unit_norm: codes of norm 1, as DrNet's vectors, or BatchNorm and tanh.
        initialisation: as for DrNet.
    """

    size: int = 64
    channels: int = 3
    pose_dim: int = 24
    width: int = 64
    network: Network = "dcgan"
    decoder_network: Literal["dcgan", "vgg16"] = "dcgan"
    unit_norm: bool = True
    initialisation: Literal["dcgan", "own", "torch"] = "own"

    def __post_init__(self) -> None:
        check_size(self.size)
        check_least(self, dict.fromkeys(("pose_dim", "width", "channels"), 1))
        check_choices(self)

    @property
    def content_dim(self) -> int:
        """Numbers in the content: none."""
        return 0

    @property
    def parts(self) -> DrNetConfig:
        """Settings of a DrNet whose pose encoder and decoder are these networks."""
        return DrNetConfig(
            size=self.size,
            channels=self.channels,
            width=self.width,
            decoder_network=self.decoder_network,
            unit_norm=self.unit_norm,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the settings as a plain dictionary."""
        return dataclasses.asdict(self)


class NoContent(nn.Module):
    """Stands where a content encoder is: (B, C, H, W) -> (B, 0)."""

    def forward(self, frames: Tensor) -> Tensor:
        return frames.new_zeros(len(frames), 0)


class Autoencoder(nn.Module):
    """One encoder, one decoder. It is used as a `DrNet` is, with an empty content."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.content_encoder = NoContent()
        self.pose_encoder = make_encoder(config.parts, config.network, config.pose_dim, centred=False, content=False)
        self.decoder = make_decoder(config.parts, config.pose_dim)
        if config.initialisation != "torch":
            initialise_dcgan(self)
        if config.initialisation == "own":
            initialise_stages(self.pose_encoder, self.decoder)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """All parameters, for one loss."""
        return {"main": list(self.parameters())}

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> content (B, 0) and code (B, pose_dim)."""
        return self.content_encoder(frames), self.pose_encoder(frames)

    def decode(self, content: Tensor, pose: Tensor) -> Tensor:
        """Content (B, 0) and code (B, pose_dim) -> frames (B, C, H, W) in [0, 1]."""
        return self.decoder(content, pose)

    def losses(self, frames: Tensor, step: int, keys: Tensor | None = None) -> Iterator[tuple[str, Tensor, Metrics]]:
        """Yield the squared error of the frames of a batch (B, F, C, H, W), each decoded from its own code."""
        flat = frames.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        code = self.pose_encoder(flat)
        reconstruction = F.mse_loss(self.decoder(self.content_encoder(flat), code), flat)
        metrics = {
            "loss/reconstruction": reconstruction.detach(),
            "variance/pose": code.detach().var(0).sum(),
            "baseline/mean_frame": (flat - flat.mean(0, keepdim=True)).square().mean(),
        }
        yield "main", reconstruction, metrics
