"""DrNet: two encoders, a decoder, a scene discriminator, and the four losses that train them (Sec. 3, Eq. 1-5).

Axes: B batch, C channels, H height, W width. Frames are float32 in [0, 1].
"""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drnet.networks import DcganDecoder, DcganEncoder, SceneDiscriminator, initialise_dcgan

Metrics = dict[str, Tensor]


@dataclass(frozen=True)
class DrNetConfig:
    """The model's settings. Defaults are the paper's for MNIST (Sec. 4.1).

    Losses over pixels and vectors are means, as in the authors' code, not sums as Eq. 1 and 2 are written: the paper's
    alpha and beta only make sense so (at 3x64x64 a sum is 12,288 times larger).

    Attributes:
        size, channels: of the frames.
        content_dim, pose_dim: lengths of the two vectors.
        width: channels after an encoder's first convolution.
        alpha: weight of the similarity loss in Eq. 5.
        beta: weight of the adversarial losses in Eq. 5.
        alpha_start: alpha at step 0; it grows to `alpha` geometrically over `alpha_warmup` steps (0: at once).
        beta_warmup: steps over which beta grows from 0 (0: at once).
        similarity: `mean` over the content vector's entries, as the authors' code; `sum`, as Eq. 2 is written; or
            `whitened`, in the metric of the batch's own covariance, so that no direction can satisfy it by shrinking (not
            in the paper).
        detach_target: whether the second content vector of Eq. 2 receives no gradient (the authors' code).
        detach_first_pose: whether the adversarial loss trains only the pose of the frame that is reconstructed (the
            authors' code).
        unit_norm: vectors of norm 1 (the paper) or BatchNorm and tanh (the authors' code).
        centred: which encoders have BatchNorm before the unit norm: `none` (the paper), `content` or `both`.
        content_pooled: a content encoder that hardly sees where things are: wrapped borders, averaged map (not in the
            paper).
        initialisation: `dcgan`, N(0, 0.02) as the authors' code, or `torch`, PyTorch's own.
    """

    size: int = 64
    channels: int = 3
    content_dim: int = 128
    pose_dim: int = 5
    width: int = 64
    alpha: float = 1.0
    beta: float = 0.1
    alpha_start: float = 0.0
    alpha_warmup: int = 0
    beta_warmup: int = 0
    similarity: Literal["mean", "sum", "whitened"] = "mean"
    detach_target: bool = False
    detach_first_pose: bool = False
    unit_norm: bool = True
    centred: Literal["none", "content", "both"] = "none"
    content_pooled: bool = False
    initialisation: Literal["dcgan", "torch"] = "dcgan"

    def __post_init__(self) -> None:
        for name in ("content_dim", "pose_dim", "width", "channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is not allowed; it must be at least 1")
        for name in ("alpha", "beta", "alpha_start", "alpha_warmup", "beta_warmup"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} {getattr(self, name)} is not allowed; it must be 0 or more")
        choices = {
            "similarity": ("mean", "sum", "whitened"),
            "initialisation": ("dcgan", "torch"),
            "centred": ("none", "content", "both"),
        }
        for name, allowed in choices.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"{name} {value!r} is not allowed; supported are {', '.join(allowed)}")
        if self.alpha_warmup and self.alpha > 0 and not self.alpha_start > 0:
            raise ValueError(f"alpha_start {self.alpha_start} is not allowed with alpha_warmup; it must be above 0")

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


class DrNet(nn.Module):
    """The whole model (Fig. 1). `losses` trains it; `encode` and `decode` use it."""

    def __init__(self, config: DrNetConfig) -> None:
        super().__init__()
        self.config = config
        encoder = (config.channels, config.size, config.width)
        self.content_encoder = DcganEncoder(
            *encoder,
            config.content_dim,
            unit_norm=config.unit_norm,
            centred=config.centred != "none",
            pooled=config.content_pooled,
        )
        self.pose_encoder = DcganEncoder(
            *encoder, config.pose_dim, unit_norm=config.unit_norm, centred=config.centred == "both"
        )
        self.decoder = DcganDecoder(*encoder, config.content_dim + config.pose_dim)
        self.discriminator = SceneDiscriminator(config.pose_dim)
        if config.initialisation == "dcgan":
            initialise_dcgan(self)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by the loss that updates them: `losses` yields the same names."""
        discriminator = list(self.discriminator.parameters())
        held = {id(p) for p in discriminator}
        return {"discriminator": discriminator, "main": [p for p in self.parameters() if id(p) not in held]}

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> content (B, content_dim) and pose (B, pose_dim)."""
        return self.content_encoder(frames), self.pose_encoder(frames)

    def decode(self, content: Tensor, pose: Tensor) -> Tensor:
        """Content (B, content_dim) and pose (B, pose_dim) -> frames (B, C, H, W) in [0, 1]."""
        return self.decoder(content, pose)

    def losses(self, frames: Tensor, step: int) -> Iterator[tuple[str, Tensor, Metrics]]:
        """Yield each loss of a training step with the name of the parameter group that it updates, and its metrics.

        The discriminator comes first: the caller updates it before asking for the main loss, which then sees the new
        one, held constant (Sec. 3, "the discriminator C is updated while the other parts of the model are held constant").
        The pose vectors are computed once for both.

        Args:
            frames: (B, 2, C, H, W), x_t and x_t+k of each clip.
            step: absolute step, for the warm-ups.
        """
        config = self.config
        beta = config.beta_at(step)
        first, second = frames[:, 0].contiguous(memory_format=torch.channels_last), frames[:, 1]
        second = second.contiguous(memory_format=torch.channels_last)
        pose_second = self.pose_encoder(second)
        with torch.set_grad_enabled(not config.detach_first_pose):
            pose_first = self.pose_encoder(first)

        # Eq. 3. The other clip j is the next one of the batch: never the clip itself.
        fixed_first, fixed_second = pose_first.detach(), pose_second.detach()
        same = self.discriminator(fixed_first, fixed_second)
        other = self.discriminator(fixed_first, fixed_second.roll(1, 0))
        bce = 0.5 * (F.softplus(-same).mean() + F.softplus(other).mean())
        accuracy = 0.5 * ((same > 0).float().mean() + (other <= 0).float().mean())
        # Adam is blind to the scale of a loss, so the beta that Eq. 5 has here would change nothing.
        yield "discriminator", bce, {"discriminator/bce": bce.detach(), "discriminator/accuracy": accuracy}

        content = self.content_encoder(first)
        reconstruction = F.mse_loss(self.decoder(content, pose_second), second)  # Eq. 1
        metrics = {"loss/reconstruction": reconstruction.detach()}
        similarity = self._similarity(content, second)  # Eq. 2
        metrics["loss/similarity"] = similarity.detach()
        loss = reconstruction + config.alpha_at(step) * similarity
        if beta > 0:
            adversarial = self._confusion(pose_first, pose_second)  # Eq. 4
            metrics["loss/adversarial"] = adversarial.detach()
            loss = loss + beta * adversarial
        metrics["variance/pose"] = fixed_second.var(0).sum()
        metrics["variance/content"] = content.detach().float().var(0).sum()
        metrics["baseline/mean_frame"] = (second - second.mean(0, keepdim=True)).square().mean()
        yield "main", loss, metrics

    def _similarity(self, content: Tensor, second: Tensor) -> Tensor:
        """Eq. 2: squared distance of the content of two frames of a clip."""
        with torch.set_grad_enabled(not self.config.detach_target):
            target = self.content_encoder(second)
        if self.config.similarity == "whitened":
            return whitened_distance(content, target)
        squared = (content - target).square()
        return squared.mean() if self.config.similarity == "mean" else squared.sum(1).mean()

    def _confusion(self, pose_first: Tensor, pose_second: Tensor) -> Tensor:
        """Eq. 4: cross-entropy of C's answer on pairs of one clip with one half; both poses get gradients."""
        held = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        logit = torch.func.functional_call(self.discriminator, held, (pose_first, pose_second))
        return 0.5 * (F.softplus(-logit) + F.softplus(logit)).mean()


def whitened_distance(first: Tensor, second: Tensor, ridge: float = 1e-3) -> Tensor:
    """Mean squared Mahalanobis distance of pairs, over twice their length: 1 for unrelated ones, 0 for equal ones.

    The metric is the inverse covariance of all 2B vectors, with gradient: scaling a direction down does not bring a
    pair nearer, only making it agree does.

    Args:
        first, second: (B, D).
        ridge: added to the covariance's diagonal, relative to its mean.
    """
    with torch.autocast(first.device.type, enabled=False):
        both = torch.cat([first, second]).float()
        centred = both - both.mean(0)
        covariance = centred.T @ centred / len(both)  # (D, D)
        diagonal = (ridge * covariance.diagonal().mean().detach() + 1e-8) * torch.eye(both.shape[1], device=both.device)
        factor, _ = torch.linalg.cholesky_ex(covariance + diagonal)  # lets NaN through, to be told as a loss is
        white = torch.linalg.solve_triangular(factor, (first - second).float().T, upper=False)  # (D, B)
    return white.square().sum(0).mean() / (2 * both.shape[1])
