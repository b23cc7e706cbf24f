"""DrNet: two encoders, a decoder, a scene discriminator, and the four losses that train them (Sec. 3, Eq. 1-5).

Axes: B batch, C channels, H height, W width. Frames are float32 in [0, 1].
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drnet.config import DrNetConfig, Network
from drnet.networks import (
    Content,
    DcganDecoder,
    DcganEncoder,
    Encoder,
    SceneDiscriminator,
    initialise_dcgan,
    initialise_he,
)
from drnet.pairs import Pairs, other_content, permuted, roles_of, shifted
from drnet.parallel import gathered
from drnet.resnet import ResNet18Encoder
from drnet.vgg import Vgg16Decoder, Vgg16Encoder

Metrics = dict[str, Tensor]
TELLING = 8  # contents of a batch, or of a part of it, from which on their directions are told: N have at most N - 1


def make_encoder(config: DrNetConfig, network: Network, dim: int, centred: bool, content: bool) -> Encoder:
    """Return an untrained encoder of a kind to vectors of a length; `content` is whether it is the content encoder."""
    shape = (config.channels, config.size, config.width, dim)
    skips = config.skips and content
    if network == "resnet18":
        return ResNet18Encoder(*shape, unit_norm=config.unit_norm, centred=centred, fifth_stage=config.fifth_stage)
    if network == "vgg16":
        return Vgg16Encoder(*shape, unit_norm=config.unit_norm, centred=centred, skips=skips)
    pooled = config.content_pooled and content
    return DcganEncoder(*shape, unit_norm=config.unit_norm, centred=centred, pooled=pooled, skips=skips)


def make_decoder(config: DrNetConfig, dim: int) -> DcganDecoder | Vgg16Decoder:
    """Return an untrained decoder of vectors of a length."""
    shape = (config.channels, config.size, config.width, dim)
    if config.decoder_network == "vgg16":
        return Vgg16Decoder(*shape, skips=config.skips)
    return DcganDecoder(*shape, skips=config.skips, mixing=config.decoder_mixing)


class DrNet(nn.Module):
    """The whole model (Fig. 1). `losses` trains it; `encode` and `decode` use it."""

    def __init__(self, config: DrNetConfig) -> None:
        super().__init__()
        self.config = config
        content_dim, pose_dim = config.content_dim, config.pose_dim
        self.content_encoder = make_encoder(
            config, config.content_network, content_dim, config.centred != "none", content=True
        )
        self.pose_encoder = make_encoder(config, config.pose_network, pose_dim, config.centred == "both", content=False)
        self.decoder = make_decoder(config, content_dim + pose_dim)
        self.discriminator = SceneDiscriminator(pose_dim)
        self._initialise()

    def _initialise(self) -> None:
        """Draw the weights; where they are PyTorch's own, that has happened already."""
        if self.config.initialisation == "torch":
            return
        initialise_dcgan(self)
        if self.config.initialisation == "own":
            initialise_stages(self.content_encoder, self.pose_encoder, self.decoder)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by the loss that updates them: `losses` yields the same names."""
        discriminator = list(self.discriminator.parameters())
        held = {id(p) for p in discriminator}
        return {"discriminator": discriminator, "main": [p for p in self.parameters() if id(p) not in held]}

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> content (B, content_dim) and pose (B, pose_dim)."""
        return vector_of(self.content_encoder(frames)), self.pose_encoder(frames)

    def decode(self, content: Tensor | Content, pose: Tensor) -> Tensor:
        """What `content_encoder` returned and pose (B, pose_dim) -> frames (B, C, H, W) in [0, 1]."""
        return self.decoder(content, pose)

    def losses(self, frames: Tensor, step: int, keys: Tensor | None = None) -> Iterator[tuple[str, Tensor, Metrics]]:
        """Yield each loss of a training step with the name of the parameter group that it updates, and its metrics.

        The discriminator comes first: the caller updates it before asking for the main loss, which then sees the new
        one, held constant (Sec. 3, "the discriminator C is updated while the other parts of the model are held constant").
        Of two frames the pose vectors are computed once for both.

        Args:
            frames: (B, 2, C, H, W), x_t and x_t+k of each clip; or (B, 4, C, H, W), the authors' code's four frames.
            step: absolute step, for the warm-ups.
            keys: (B,) int64, equal where two clips show the same content; `negatives` of other content needs them.
        """
        config = self.config
        beta = config.beta_at(step)
        roles = roles_of(frames)
        first, second = (_laid_out(frames[:, role]) for role in (roles.content, roles.pose))
        pose = self.pose_encoder(second)
        partner = first if roles.partner == roles.content else _laid_out(frames[:, roles.partner])
        with torch.set_grad_enabled(not config.detach_first_pose):
            pose_partner = self.pose_encoder(partner)
        judged = (pose_partner, pose)
        if roles.judged != (roles.partner, roles.pose):
            with torch.no_grad():
                judged = tuple(self.pose_encoder(_laid_out(frames[:, role])) for role in roles.judged)
        yield self._discriminator_loss(judged[0].detach(), judged[1].detach(), step, keys)

        content = self.content_encoder(first)
        reconstruction = self._reconstruction(content, pose, second)  # Eq. 1
        metrics = {"loss/reconstruction": reconstruction.detach()}
        target = second if roles.target == roles.pose else _laid_out(frames[:, roles.target])
        vector = vector_of(content)
        similarity = self._similarity(vector, target)  # Eq. 2
        metrics["loss/similarity"] = similarity.detach()
        loss = reconstruction + config.alpha_at(step) * similarity
        if beta > 0:
            adversarial = self._confusion(pose_partner, pose)  # Eq. 4
            metrics["loss/adversarial"] = adversarial.detach()
            loss = loss + beta * adversarial
        metrics["variance/pose"] = pose.detach().var(0).sum()
        metrics["variance/content"] = vector.detach().float().var(0).sum()
        if len(vector) >= TELLING and vector.shape[1] > 1:
            metrics["participation/content"] = participation(vector.detach())
        metrics["baseline/mean_frame"] = (second - second.mean(0, keepdim=True)).square().mean()
        yield "main", loss, metrics

    def _discriminator_loss(
        self, first: Tensor, second: Tensor, step: int, keys: Tensor | None
    ) -> tuple[str, Tensor, Metrics]:
        """Eq. 3 on fixed poses of two frames of each clip, of all processes: the pairs are those of the whole batch."""
        first, second, keys = gathered(first), gathered(second), None if keys is None else gathered(keys)
        pairs = self._pairs(first, step, keys)
        same = self.discriminator(first[pairs.same], second[pairs.same])
        other = self.discriminator(first[pairs.first], second[pairs.second])
        if self.config.inverted_labels:
            same, other = -same, -other
        wrong, right = F.softplus(other), (other <= 0).float()
        if pairs.weights is None:
            of_other, right_other = wrong.mean(), right.mean()
        else:
            found = pairs.weights.sum().clamp(min=1)
            of_other, right_other = (wrong * pairs.weights).sum() / found, (right * pairs.weights).sum() / found
        bce = 0.5 * (F.softplus(-same).mean() + of_other)
        metrics = {
            "discriminator/bce": bce.detach(),
            "discriminator/accuracy": 0.5 * ((same > 0).float().mean() + right_other),
        }
        if keys is not None:
            false = (keys[pairs.first] == keys[pairs.second]).float()
            metrics["discriminator/same_content"] = false.mean()  # share of the negatives, left out ones included
        beta = self.config.beta_at(step) if self.config.discriminator_beta else 0
        return "discriminator", beta * bce if beta > 0 else bce, metrics

    def _pairs(self, poses: Tensor, step: int, keys: Tensor | None) -> Pairs:
        """Choose the pairs of Eq. 3 from a batch."""
        if self.config.negatives == "permuted":
            return permuted(len(poses), step, poses.device)
        if self.config.negatives == "shift":
            return shifted(len(poses), poses.device)
        if keys is None:
            raise ValueError(
                "negatives 'other-content' are not allowed without content keys; "
                "train on shards whose manifest names one, or with --negatives shift"
            )
        return other_content(keys)

    def _reconstruction(self, content: Tensor | Content, pose: Tensor, frames: Tensor) -> Tensor:
        """Eq. 1: squared error of the decoded frame."""
        decoded = self.decoder(content, pose)
        if self.config.reconstruction == "mean":
            return F.mse_loss(decoded, frames)
        return (decoded - frames).square().sum((1, 2, 3)).mean()

    def _similarity(self, content: Tensor, second: Tensor) -> Tensor:
        """Eq. 2: squared distance of the content of two frames of a clip."""
        with torch.set_grad_enabled(not self.config.detach_target):
            target = vector_of(self.content_encoder(second))
        if self.config.similarity == "whitened":
            return whitened_distance(gathered(content), gathered(target))
        squared = (content - target).square()
        return squared.mean() if self.config.similarity == "mean" else squared.sum(1).mean()

    def _confusion(self, pose_first: Tensor, pose_second: Tensor) -> Tensor:
        """Eq. 4: cross-entropy of C's answer on pairs of one clip with one half; both poses get gradients."""
        held = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        logit = torch.func.functional_call(self.discriminator, held, (pose_first, pose_second))
        return 0.5 * (F.softplus(-logit) + F.softplus(logit)).mean()


def initialise_stages(*parts: nn.Module) -> None:
    """Draw the stages of ResNet and VGG as their own sources do; other networks stay as they are."""
    for part in parts:
        if isinstance(part, ResNet18Encoder):
            initialise_he(part.features)
        elif isinstance(part, Vgg16Encoder | Vgg16Decoder):
            initialise_he(part.stages)


def vector_of(content: Tensor | Content) -> Tensor:
    """Return the content vectors (B, content_dim) of what a content encoder returned."""
    return content.vector if isinstance(content, Content) else content


def participation(vectors: Tensor) -> Tensor:
    """Return in how many directions vectors (N, D) differ: (sum l)^2 / sum l^2 of their covariance's eigenvalues l.

    Directions count by their share of the variance: 1 where all vectors lie on one line, D where all count alike, 0 where
    the vectors are equal. At most N - 1.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        centred = vectors.float() - vectors.float().mean(0)
        products = centred.T @ centred  # (D, D)
        return products.trace().square() / products.square().sum().clamp(min=1e-30)


def _laid_out(frames: Tensor) -> Tensor:
    """Return frames (B, C, H, W) in the memory order that convolutions are fast in."""
    return frames.contiguous(memory_format=torch.channels_last)


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
