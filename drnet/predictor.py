"""Predict the next pose vectors of a clip: an LSTM over poses and the content of the last observed frame (Sec. 3.1).

Axes: B batch, T time, P pose_dim, C content_dim. All tensors are float32.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drnet.model import Metrics
from drnet.settings import check_choices, check_least

State = tuple[Tensor, Tensor]  # of the LSTM: hidden and cell, each (layers, B, hidden)


@dataclass(frozen=True)
class PredictorConfig:
    """The predictor's settings. Defaults are the paper's for MNIST (Sec. 4.1), and where it is silent as said here.

    Attributes:
        pose_dim, content_dim: lengths of the two vectors, as in the DrNet they come from.
        hidden, layers: of the LSTM, "two layers with 256 cells".
        observe: frames that are observed before the first predicted one.
        predict: frames that are predicted in training; rollouts may be of any length.
        output: what the last layer ends with: `unit`, poses of norm 1 as the paper's encoders give them; `tanh`, as the
            authors' code, whose encoders end so too; or `linear`.
        residual: whether the last layer gives the change of the pose, not the pose (not in the paper).
        loss_on: `all` steps but the first, as both of the authors' codes; or the `predicted` ones alone.
        sampling: share of the predicted steps that see their own prediction instead of the true pose, in the end
            (scheduled sampling, Bengio et al. 2015). 0: teacher forcing throughout, as the paper.
        sampling_steps: training steps over which that share grows from 0, linearly.
    """

    pose_dim: int = 5
    content_dim: int = 128
    hidden: int = 256
    layers: int = 2
    observe: int = 5
    predict: int = 10
    output: Literal["unit", "tanh", "linear"] = "unit"
    residual: bool = False
    loss_on: Literal["all", "predicted"] = "all"
    sampling: float = 0.0
    sampling_steps: int = 0

    def __post_init__(self) -> None:
        least = {"pose_dim": 1, "content_dim": 0, "hidden": 1, "layers": 1, "observe": 1, "predict": 1}
        check_least(self, least | {"sampling_steps": 0})
        if not 0 <= self.sampling <= 1:
            raise ValueError(f"sampling {self.sampling} is not allowed; it is a share from 0 to 1")
        check_choices(self)

    @property
    def window(self) -> int:
        """Frames of a clip that one training example takes."""
        return self.observe + self.predict

    def to_json(self) -> dict[str, Any]:
        """Return the settings as a plain dictionary."""
        return dataclasses.asdict(self)

    def sampling_at(self, step: int) -> float:
        """Share of the predicted steps that see their own prediction, at an absolute step of training."""
        return self.sampling if step >= self.sampling_steps else self.sampling * step / self.sampling_steps


class PosePredictor(nn.Module):
    """Poses so far and the content of the last observed frame -> the next pose (Eq. 6 and 7, Fig. 2).

    A linear embedding, an LSTM, and a linear layer; the paper names the LSTM alone, the layers around it are the authors'
    code's. Poses come in and go out as the encoder gives them; inside, their common mean is taken away and they are
    divided by one number, `measure`, so that a pose which hardly varies is seen as well as another.

    Shapes: content (B, C), poses (B, T, P) -> (B, T, P), the prediction for the step after each.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, config: PredictorConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Linear(config.pose_dim + config.content_dim, config.hidden)
        self.lstm = nn.LSTM(config.hidden, config.hidden, config.layers, batch_first=True)
        self.last = nn.Linear(config.hidden, config.pose_dim)
        self.register_buffer("centre", torch.zeros(config.pose_dim))
        self.register_buffer("scale", torch.ones(()))

    def measure(self, poses: Tensor) -> None:
        """Set the mean and the spread that poses are seen relative to.

        Args:
            poses: (N, P), of all training frames or many of them.
        """
        self.centre.copy_(poses.mean(0))
        spread = (poses - self.centre).square().mean().sqrt()
        self.scale.copy_(spread if spread > 0 else torch.ones(()))

    def forward(self, content: Tensor, poses: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Return the predictions (B, T, P) for the step after each pose, and the LSTM's state after the last."""
        seen = (poses - self.centre) / self.scale
        held = content[:, None].expand(-1, poses.shape[1], -1)
        found, state = self.lstm(self.embed(torch.cat([seen, held], 2)), state)
        with torch.autocast(found.device.type, enabled=False):  # a pose in bfloat16 has two digits
            moved = self.last(found.float()) + (seen if self.config.residual else 0)
            if self.config.output == "tanh":
                return torch.tanh(moved), state
            there = moved * self.scale + self.centre
            return (F.normalize(there, dim=2) if self.config.output == "unit" else there), state

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by the loss that updates them."""
        return {"predictor": list(self.parameters())}

    def losses(self, poses: Tensor, step: int, content: Tensor, draws: Tensor) -> Iterator[tuple[str, Tensor, Metrics]]:
        """Yield the one loss of a training step: the squared distance of predicted and true next pose (Sec. 3.1).

        Args:
            poses: (B, observe + predict, P), of frames in a row.
            step: absolute step, for scheduled sampling.
            content: (B, C), of the last observed frame.
            draws: (B, observe + predict) in [0, 1), that decide where a prediction is seen instead of the truth.
        """
        share = self.config.sampling_at(step)
        before, after = poses[:, :-1], poses[:, 1:]
        found = self(content, before)[0] if share == 0 else self._sampled(content, before, draws < share)
        first = self.config.observe - 1 if self.config.loss_on == "predicted" else 0
        squared = (found - after).square().sum(2) / self.scale.square()
        predicted = squared.detach()[:, self.config.observe - 1 :].mean()
        copied = (before - after).square().sum(2)[:, self.config.observe - 1 :].mean() / self.scale.square()
        loss = squared[:, first:].mean()
        metrics = {"loss/pose": loss.detach(), "error/predicted": predicted, "baseline/copy": copied}
        yield "predictor", loss, metrics | {"sampling": torch.tensor(share)}

    def _sampled(self, content: Tensor, poses: Tensor, own: Tensor) -> Tensor:
        """Predict step by step; where `own` (B, T) says so, a pose after the observed ones is the prediction itself."""
        observe = self.config.observe
        observed, state = self(content, poses[:, :observe])
        found = [observed]
        for time in range(observe, poses.shape[1]):
            seen = torch.where(own[:, time, None, None], found[-1][:, -1:], poses[:, time : time + 1])
            following, state = self(content, seen, state)
            found.append(following)
        return torch.cat(found, 1)

    @torch.no_grad()
    def rollout(self, content: Tensor, poses: Tensor, steps: int) -> Iterator[Tensor]:
        """Yield the predicted poses (B, P) of the steps after the observed ones, each from the one before it.

        Memory does not grow with the steps.

        Args:
            content: (B, C), of the last observed frame.
            poses: (B, observed frames, P).
            steps: how many to predict.
        """
        found, state = self(content, poses)
        for step in range(steps):
            yield found[:, -1]
            if step + 1 < steps:
                found, state = self(content, found[:, -1:], state)
