"""What `drnet bench train` compares with: the same mathematics in the plain style of research code.

Axes: B batch, F frames of a clip, C channels, H height, W width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drnet.model import DrNet, vector_of, whitened_distance
from drnet.pairs import Pairs, permuted, roles_of, shifted
from drnet.trainer import Precision, TrainConfig, computing


class PlainTrainer:
    """The losses of `DrNet`, written as the authors' Python code is: after one step the weights are the product's.

    What is plain: float32, run as it is written, in PyTorch's own memory order; a pass through the pose encoder for each
    frame of the discriminator's step and again for each of the main one, all with the graph of their gradients, detached
    afterwards; an Adam of PyTorch's defaults for each network; losses read as numbers at every step.

    Args:
        model: its networks are used, its `losses` are not; it must not need content keys.
        config: of the training; of its settings only Adam's and the schedule's count.
        device: where.
        precision: `fp32`, or `tf32` for what PyTorch does by default with convolutions on a GPU.
    """

    def __init__(self, model: DrNet, config: TrainConfig, device: torch.device, precision: Precision = "fp32") -> None:
        self.config, self.precision, self.step = config, precision, 0
        self.model = model.to(device, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        betas = (config.adam_beta1, 0.999)
        networks: list[nn.Module] = [model.content_encoder, model.pose_encoder, model.decoder]
        self.main = [torch.optim.Adam(network.parameters(), lr=config.lr, betas=betas) for network in networks]
        self.judge = torch.optim.Adam(model.discriminator.parameters(), lr=config.lr, betas=betas)

    def train_step(self, frames: Tensor) -> dict[str, float]:
        """Run one step on frames (B, F, C, H, W) in [0, 1], F being 2 or 4; returns the losses as numbers."""
        self.model.train()
        for optimizer in (*self.main, self.judge):
            optimizer.param_groups[0]["lr"] = self.config.lr_at(self.step)
        roles = roles_of(frames)
        shown = [frames[:, number].contiguous() for number in range(frames.shape[1])]
        with computing(self.precision):
            found = self._discriminator_step(shown[roles.judged[0]], shown[roles.judged[1]])
            found |= self._main_step(*(shown[role] for role in roles[:4]))
        self.step += 1
        return found

    def _discriminator_step(self, first: Tensor, second: Tensor) -> dict[str, float]:
        """Eq. 3 on two frames of each clip."""
        model, config = self.model, self.model.config
        self.judge.zero_grad()
        poses = model.pose_encoder(first).detach(), model.pose_encoder(second).detach()
        pairs = self._pairs(len(first), first.device)
        same = model.discriminator(poses[0][pairs.same], poses[1][pairs.same])
        other = model.discriminator(poses[0][pairs.first], poses[1][pairs.second])
        says = (0.0, 1.0) if config.inverted_labels else (1.0, 0.0)
        bce = 0.5 * (
            F.binary_cross_entropy_with_logits(same, torch.full_like(same, says[0]))
            + F.binary_cross_entropy_with_logits(other, torch.full_like(other, says[1]))
        )
        beta = config.beta_at(self.step) if config.discriminator_beta else 0
        (beta * bce if beta > 0 else bce).backward()
        self.judge.step()
        return {"discriminator/bce": bce.item()}

    def _pairs(self, count: int, device: torch.device) -> Pairs:
        if self.model.config.negatives == "permuted":
            return permuted(count, self.step, device)
        return shifted(count, device)

    def _main_step(self, first: Tensor, target: Tensor, second: Tensor, partner: Tensor) -> dict[str, float]:
        """Eq. 1, 2 and 4: content of the first frame, pose of the second one, which is reconstructed."""
        model, config = self.model, self.model.config
        for network in (model.content_encoder, model.pose_encoder, model.decoder):
            network.zero_grad()
        content, other = model.content_encoder(first), vector_of(model.content_encoder(target))
        pose, beside = model.pose_encoder(second), model.pose_encoder(partner)
        if config.detach_target:
            other = other.detach()
        if config.detach_first_pose:
            beside = beside.detach()
        similarity = self._similarity(vector_of(content), other)
        decoded = model.decoder(content, pose)
        if config.reconstruction == "mean":
            reconstruction = F.mse_loss(decoded, second)
        else:
            reconstruction = F.mse_loss(decoded, second, reduction="sum") / len(second)
        loss = reconstruction + config.alpha_at(self.step) * similarity
        beta = config.beta_at(self.step)
        if beta > 0:
            answer = model.discriminator(beside, pose)
            loss = loss + beta * F.binary_cross_entropy_with_logits(answer, torch.full_like(answer, 0.5))
        loss.backward()
        for optimizer in self.main:
            optimizer.step()
        return {"loss/reconstruction": reconstruction.item(), "loss/similarity": similarity.item()}

    def _similarity(self, content: Tensor, other: Tensor) -> Tensor:
        """Eq. 2."""
        kind = self.model.config.similarity
        if kind == "whitened":
            return whitened_distance(content, other)
        return F.mse_loss(content, other) * (content.shape[1] if kind == "sum" else 1)
