"""The settings of a DrNet model: its networks, its losses, their weights."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from drnet.networks import check_size
from drnet.settings import check_choices, check_least

Network = Literal["dcgan", "resnet18", "vgg16"]
FEWEST_UNITS = 8  # that mix content and pose: the norm over one of them leaves nothing, over two their order


@dataclass(frozen=True)
class DrNetConfig:
    """The model's settings. Defaults are the paper's for MNIST (Sec. 4.1); where it and the authors' code differ, the
    choice and its reason stand in `drnet.variants`.

    Attributes:
        size, channels: of the frames.
        content_dim, pose_dim: lengths of the two vectors.
        width: channels after the first convolution of each network.
        content_network, pose_network: `dcgan`, `resnet18` or, for content, `vgg16`.
        decoder_network: `dcgan` or `vgg16`.
        decoder_mixing: units of two layers that content and pose go through together before the decoder's first map; 0:
            none (`dcgan` only, not in the paper).
        skips: U-Net skips from the content encoder to the decoder, which must then be of the same kind.
        fifth_stage: a fifth stage in ResNet-18 for frames of 128 and more (the authors' Python code).
        alpha: weight of the similarity loss in Eq. 5.
        beta: weight of the adversarial losses in Eq. 5.
        alpha_start: alpha at step 0; it grows to `alpha` geometrically over `alpha_warmup` steps (0: at once).
        beta_warmup: steps over which beta grows from 0 (0: at once).
        reconstruction: Eq. 1 as `mean` over the pixels, as the authors' code, or as `sum`, as it is written.
        similarity: `mean` over the content vector's entries, as the authors' code; `sum`, as Eq. 2 is written; or
            `whitened`, in the metric of the batch's own covariance, so that no direction can satisfy it by shrinking (not
            in the paper).
        detach_target: whether the second content vector of Eq. 2 receives no gradient (the authors' code).
        detach_first_pose: whether the adversarial loss trains only the pose of the frame that is reconstructed (the
            authors' code).
        discriminator_beta: whether beta weighs the discriminator's own loss too, as Eq. 5 is written. With beta 0 it is
            trained all the same: it then only measures.
        negatives: what stands beside a clip as another one in Eq. 3: `shift`, the clip before it in the batch;
            `other-content`, the nearest clip before it with another content key; `permuted`, half of the batch permuted
            in itself, the other half being the pairs of one clip (the authors' code).
        inverted_labels: whether the discriminator learns to say 1 for different clips (the authors' Python code).
        unit_norm: vectors of norm 1 (the paper) or BatchNorm and tanh (the authors' code).
        centred: which encoders have BatchNorm before the unit norm: `none` (the paper), `content` or `both`.
        content_pooled: a content encoder that hardly sees where things are: wrapped borders, averaged map (`dcgan` only,
            not in the paper).
        initialisation: `own`, DCGAN's weights from N(0, 0.02) and the stages of ResNet and VGG by their fan-out, as each
            network's own source; `dcgan`, all from N(0, 0.02), as the authors' code; or `torch`, PyTorch's own.
    """

    size: int = 64
    channels: int = 3
    content_dim: int = 128
    pose_dim: int = 5
    width: int = 64
    content_network: Network = "dcgan"
    pose_network: Literal["dcgan", "resnet18"] = "dcgan"
    decoder_network: Literal["dcgan", "vgg16"] = "dcgan"
    decoder_mixing: int = 0
    skips: bool = False
    fifth_stage: bool = False
    alpha: float = 1.0
    beta: float = 0.1
    alpha_start: float = 0.0
    alpha_warmup: int = 0
    beta_warmup: int = 0
    reconstruction: Literal["mean", "sum"] = "mean"
    similarity: Literal["mean", "sum", "whitened"] = "mean"
    detach_target: bool = False
    detach_first_pose: bool = False
    discriminator_beta: bool = False
    negatives: Literal["shift", "other-content", "permuted"] = "shift"
    inverted_labels: bool = False
    unit_norm: bool = True
    centred: Literal["none", "content", "both"] = "none"
    content_pooled: bool = False
    initialisation: Literal["dcgan", "own", "torch"] = "dcgan"

    def __post_init__(self) -> None:
        check_size(self.size)
        check_least(self, dict.fromkeys(("content_dim", "pose_dim", "width", "channels"), 1))
        for name in ("alpha", "beta", "alpha_start", "alpha_warmup", "beta_warmup"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} {getattr(self, name)} is not allowed; it must be 0 or more")
        check_choices(self)
        if self.alpha_warmup and self.alpha > 0 and not self.alpha_start > 0:
            raise ValueError(f"alpha_start {self.alpha_start} is not allowed with alpha_warmup; it must be above 0")
        self._check_networks()

    def _check_networks(self) -> None:
        """Raise ValueError for networks that do not fit each other."""
        content = self.content_network
        if self.skips and content != self.decoder_network:
            raise ValueError(
                f"skips are not allowed from a content_network {content!r} to a decoder_network "
                f"{self.decoder_network!r}; both must be dcgan or both vgg16"
            )
        if self.decoder_mixing and (self.decoder_mixing < FEWEST_UNITS or self.decoder_network != "dcgan"):
            raise ValueError(
                f"decoder_mixing {self.decoder_mixing} is not allowed with decoder_network {self.decoder_network!r}; it is "
                f"0, or with dcgan {FEWEST_UNITS} units or more"
            )
        if self.content_pooled and (content != "dcgan" or self.skips):
            why = "with skips, which show where things are" if self.skips else f"with content_network {content!r}"
            raise ValueError(f"content_pooled is not allowed {why}; it is of dcgan without skips")

    def to_json(self) -> dict[str, Any]:
        """Return the settings as a plain dictionary."""
        return dataclasses.asdict(self)

    def alpha_at(self, step: int) -> float:
        """Alpha at an absolute step."""
        if step >= self.alpha_warmup or not self.alpha:
            return self.alpha
        return self.alpha_start * (self.alpha / self.alpha_start) ** (step / self.alpha_warmup)

    def beta_at(self, step: int) -> float:
        """Beta at an absolute step."""
        return self.beta if step >= self.beta_warmup else self.beta * step / self.beta_warmup
