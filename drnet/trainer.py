"""The training step that serves every model: losses in turn, an optimizer for each, schedules over absolute steps.

A model owns its losses. It has `groups()`, its parameters under the names of the losses that update them, and
`losses(frames, step)`, which yields `(name, loss, metrics)`; each loss is back-propagated and its group updated before
the next is asked for.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor, nn

from drnet.model import Metrics

Precision = Literal["fp32", "bf16"]
Update = tuple[str, Tensor, Metrics]  # parameter group, loss, metrics


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained. Defaults are the paper's (Sec. 4.1) and, where it is silent, the authors' code's.

    Attributes:
        batch_size: clips in the global batch.
        lr: Adam's learning rate.
        adam_beta1: Adam's first decay rate; the paper gives none.
        schedule: `constant`, or `cosine`: warm-up, then a cosine down to 0 at the horizon.
        warmup: steps of linear warm-up (cosine only).
        horizon: steps over which the schedule runs; the last value holds beyond it.
        max_offset: K, the largest distance in frames of the two frames of a clip (the paper gives none).
        cyclic: whether clips are whole turns that go on at their first frame, so that t + k may pass their end.
        frames: what is drawn from a clip: `pair`, x_t and x_t+k (the paper); or four frames, as the authors' code: of
            `window`, K + 1 neighbouring ones of which the first gives the content, or of the whole `clip`.
        seed: of the weights and of the batches.
        precision: `fp32`, or `bf16` for autocast to bfloat16.
    """

    batch_size: int = 100
    lr: float = 0.002
    adam_beta1: float = 0.9
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = 0
    horizon: int = 120_000
    max_offset: int = 11
    cyclic: bool = False
    frames: Literal["pair", "window", "clip"] = "pair"
    seed: int = 0
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 2), ("horizon", 1), ("warmup", 0), ("max_offset", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} {getattr(self, name)} is not allowed; it must be at least {least}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr {self.lr} is not allowed; it must be above 0")
        if not 0 <= self.adam_beta1 < 1:
            raise ValueError(f"adam_beta1 {self.adam_beta1} is not allowed; it must lie in [0, 1)")
        choices = {
            "precision": ("fp32", "bf16"),
            "schedule": ("constant", "cosine"),
            "frames": ("pair", "window", "clip"),
        }
        for name, allowed in choices.items():
            value = getattr(self, name)
            if value not in allowed:
                supported = f"{', '.join(allowed[:-1])} and {allowed[-1]}"
                raise ValueError(f"{name} {value!r} is not allowed; supported are {supported}")

    def to_json(self) -> dict[str, Any]:
        """Return the settings as a plain dictionary."""
        return dataclasses.asdict(self)

    def lr_at(self, step: int) -> float:
        """Learning rate at an absolute step."""
        if self.schedule == "constant":
            return self.lr
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = min(1.0, (step - self.warmup) / max(1, self.horizon - self.warmup))
        return self.lr * 0.5 * (1 + math.cos(math.pi * done))


class Trainable(Protocol):
    """What the trainer asks of a model."""

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by the name of the loss that updates them."""

    def losses(self, frames: Tensor, step: int, keys: Tensor | None = None) -> Iterator[Update]:
        """Yield (group, loss, metrics) for each update of a step."""


class NotFinite(ArithmeticError):  # noqa: N818 - says what the loss is
    """A loss became NaN or infinite."""


class Trainer:
    """A model, its optimizers, and the sums of its metrics since they were last read."""

    def __init__(self, model: nn.Module, config: TrainConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.step = 0
        self.optimizers = {
            name: torch.optim.Adam(
                parameters, lr=config.lr, betas=(config.adam_beta1, 0.999), fused=device.type == "cuda"
            )
            for name, parameters in cast(Trainable, model).groups().items()
        }
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def train_step(self, frames: Tensor, keys: Tensor | None = None) -> None:
        """Run one step.

        Args:
            frames: (B, 2, C, H, W) float32 in [0, 1], or (B, 4, C, H, W).
            keys: (B,) int64, equal where two clips show the same content; None where it is not known.
        """
        self.model.train()
        rate = self.config.lr_at(self.step)
        known = () if keys is None else (keys,)
        losses = cast(Trainable, self.model).losses(frames, self.step, *known)
        while (update := self._next(losses)) is not None:
            name, loss, metrics = update
            optimizer = self.optimizers[name]
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            self._add(metrics)
        self.step += 1

    def _next(self, losses: Iterator[Update]) -> Update | None:
        """Compute the next loss of a step; None after the last. Only this part runs in reduced precision."""
        with self.autocast():
            return next(losses, None)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context that models run in at this precision."""
        if self.config.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def _add(self, metrics: Metrics) -> None:
        for name, value in metrics.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def take_metrics(self) -> dict[str, float]:
        """Return the mean of each metric, over the steps that had it since the last call.

        Raises:
            NotFinite: where one is NaN or infinite.
        """
        means = {name: value.item() / self._counts[name] for name, value in self._sums.items()}
        self._refuse([name for name, value in means.items() if not math.isfinite(value)])
        self._sums, self._counts = {}, {}
        return means | {"lr": self.config.lr_at(self.step - 1)}

    def check_finite(self) -> None:
        """Raise NotFinite where a metric since the last `take_metrics`, or a weight, is NaN or infinite."""
        values = self._sums | self.model.state_dict()
        self._refuse([name for name, value in values.items() if not bool(value.isfinite().all())])

    def _refuse(self, wrong: list[str]) -> None:
        if wrong:
            more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            raise NotFinite(
                f"training diverged: {', '.join(wrong[:3])}{more} not finite by step {self.step}; try a lower --lr"
            )

    def state(self) -> dict[str, Tensor]:
        """Return everything besides the weights that the next step depends on, as tensors."""
        flat = {"step": torch.tensor(self.step)}
        for name, value in self._sums.items():
            flat |= {f"sum.{name}": value, f"count.{name}": torch.tensor(self._counts[name])}
        for group, optimizer in self.optimizers.items():
            for number, values in optimizer.state_dict()["state"].items():
                flat |= {f"adam.{group}.{number}.{name}": value for name, value in values.items()}
        return {name: value.detach().cpu().contiguous().clone() for name, value in flat.items()}

    def load_state(self, flat: dict[str, Tensor]) -> None:
        """Take up a state that `state` returned, in the parameters' memory format (fused Adam takes no other).

        Raises:
            KeyError, IndexError, ValueError: where it is not one of this model's.
        """
        self.step = int(flat["step"])
        self._sums = {n.removeprefix("sum."): v.to(self.device) for n, v in flat.items() if n.startswith("sum.")}
        self._counts = {name: int(flat[f"count.{name}"]) for name in self._sums}
        for group, optimizer in self.optimizers.items():
            state: dict[int, dict[str, Tensor]] = {}
            parameters = optimizer.param_groups[0]["params"]
            for name, value in flat.items():
                if name.startswith(f"adam.{group}."):
                    number, entry = name.removeprefix(f"adam.{group}.").split(".")
                    like = parameters[int(number)]
                    laid_out = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
                    state.setdefault(int(number), {})[entry] = laid_out
            for place, entries in state.items():
                if any(entries[name].shape != parameters[place].shape for name in ("exp_avg", "exp_avg_sq")):
                    raise ValueError(f"the optimizer's state of parameter {place} is of another shape")
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
