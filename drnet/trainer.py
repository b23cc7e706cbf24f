"""The training step that serves every model: losses in turn, an optimizer for each, schedules over absolute steps.

A model owns its losses. It has `groups()`, its parameters under the names of the losses that update them, and
`losses(inputs, step)`, which yields `(name, loss, metrics)` in the same order; each loss is back-propagated and its group
updated before the next is asked for.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast, get_args, get_type_hints

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from drnet.model import Metrics
from drnet.parallel import averaged, earliest, processes, shared
from drnet.settings import check_least

Precision = Literal["fp32", "tf32", "bf16"]
Compiling = Literal["off", "on", "graphs"]
Update = tuple[str, Tensor, Metrics]  # parameter group, loss, metrics
WEIGHTS = "weights."  # prefix of the weights that are trained, in the state of a trainer that averages them


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained. Defaults are the paper's (Sec. 4.1) and, where it is silent, the authors' code's.

    Attributes:
        batch_size: clips in the global batch, of all processes.
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
        precision: `fp32`; `tf32`, which lets a GPU round the factors of products to 10 bits; or `bf16` for autocast.
        clip_norm: largest Euclidean norm of the gradient of each loss; 0 leaves it as it is.
        ema: decay of the moving average of the weights that evaluation uses; 0 evaluates the weights themselves.
        accumulate: parts that a batch is computed in, one after the other: less memory, and the same data in the same
            order. BatchNorm, and which clips stand beside each other as different ones, then see a part alone; its running
            statistics move once a step all the same, by the mean over the parts.
        sync_batchnorm: whether BatchNorm sees the whole batch of all processes (GPUs only).
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
    clip_norm: float = 0.0
    ema: float = 0.0
    accumulate: int = 1
    sync_batchnorm: bool = False

    def __post_init__(self) -> None:
        least = {"batch_size": 2, "horizon": 1, "warmup": 0, "max_offset": 0, "seed": 0, "accumulate": 1}
        check_least(self, least)
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr {self.lr} is not allowed; it must be above 0")
        if not 0 <= self.clip_norm < math.inf:
            raise ValueError(f"clip_norm {self.clip_norm} is not allowed; it must be 0 (off) or more")
        for name in ("adam_beta1", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is not allowed; it must lie in [0, 1)")
        for name, kind in get_type_hints(TrainConfig).items():
            value, allowed = getattr(self, name), get_args(kind)
            if allowed and value not in allowed:
                supported = f"{', '.join(allowed[:-1])} and {allowed[-1]}"
                raise ValueError(f"{name} {value!r} is not allowed; supported are {supported}")
        if self.batch_size % self.accumulate or self.batch_size < 2 * self.accumulate:
            raise ValueError(
                f"accumulate {self.accumulate} is not allowed with batch_size {self.batch_size}; "
                "it must divide it, into parts of 2 clips or more"
            )

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
        """Parameters by the name of the loss that updates them, in the order of the losses."""

    def losses(self, inputs: Tensor, step: int, *others: Tensor) -> Iterator[Update]:
        """Yield (group, loss, metrics) for each update of a step."""


class NotFinite(ArithmeticError):  # noqa: N818 - says what the loss is
    """A loss or a weight became NaN or infinite.

    Attributes:
        step: number of the first step with such a loss, from 0; None where only the weights tell.
    """

    def __init__(self, message: str, step: int | None) -> None:
        super().__init__(message)
        self.step = step


class Trainer:
    """A model, its optimizers, the average of its weights, and the sums of its metrics since they were last read.

    Args:
        model: see `Trainable`.
        config: how it is trained.
        device: where.
        compiling: `on` compiles the model's parts with `torch.compile`; `graphs` records them as CUDA graphs, too. Its
            rounding differs a little, which is why it is no setting of a run.
    """

    def __init__(
        self, model: nn.Module, config: TrainConfig, device: torch.device, compiling: Compiling = "off"
    ) -> None:
        self.config, self.device, self.compiling = config, device, compiling
        if config.sync_batchnorm and processes() > 1:
            if device.type != "cuda":
                raise ValueError("sync_batchnorm is not allowed on the CPU; it needs GPUs")
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = averaging(self.model, config.ema) if config.ema else None
        self.step = 0
        groups = cast(Trainable, model).groups()
        self.optimizers = {
            name: torch.optim.Adam(
                parameters, lr=config.lr, betas=(config.adam_beta1, 0.999), fused=device.type == "cuda"
            )
            for name, parameters in groups.items()
        }
        self._shared = {name: shared(parameters) for name, parameters in groups.items()}
        if compiling != "off":
            compile_parts(self.model, compiling)
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._wrong = torch.full((), -1, device=device)  # first step with a loss that is not finite

    @property
    def evaluated(self) -> nn.Module:
        """The model to use: of the averaged weights where they are averaged."""
        return self.model if self.average is None else self.average.module

    def train_step(self, *inputs: Tensor) -> None:
        """Run one step.

        Args:
            inputs: what the model's `losses` takes besides the step, each with the clips of this process along its first
                axis. Of DrNet: frames (B, 2, C, H, W) float32 in [0, 1], or (B, 4, C, H, W); and where it needs them
                content keys (B,) int64, equal where two clips show the same content.
        """
        self.model.train()
        if self.compiling == "graphs":
            torch.compiler.cudagraph_mark_step_begin()
        with computing(self.config.precision):
            self.update(inputs, self.config.accumulate)
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.step += 1

    def update(self, inputs: tuple[Tensor, ...], parts: int) -> None:
        """Update every group of parameters on a batch computed in some parts.

        With more than one part a group is updated on all of them before the next group is asked for its loss. The losses
        before it are then computed once more, but nothing of one part has to be kept for the others.
        """
        if parts == 1:
            losses = self._losses(inputs)
            for name in self.optimizers:
                self._update(name, [losses], 1)
            return
        if len(inputs[0]) % parts:
            raise ValueError(
                f"accumulate {parts} is not allowed with {len(inputs[0])} clips in a process; it must divide them"
            )
        size = len(inputs[0]) // parts
        cut = [tuple(value[at : at + size] for value in inputs) for at in range(0, size * parts, size)]
        for number, name in enumerate(self.optimizers):
            self._update(name, self._losses_in_parts(cut, number), parts)

    def _losses(self, inputs: tuple[Tensor, ...], skip: int = 0) -> Iterator[Update]:
        """Return the losses of a step on some inputs, without the first ones."""
        losses = cast(Trainable, self.model).losses(inputs[0], self.step, *inputs[1:])
        for _ in range(skip):
            with self.autocast():
                next(losses)
        return losses

    def _losses_in_parts(self, cut: list[tuple[Tensor, ...]], skip: int) -> Iterator[Iterator[Update]]:
        """Yield the losses of each part, without the first ones; the parts together move running statistics as one batch.

        Each part starts at the same statistics, and the mean of what they come to is kept: BatchNorm's update is linear
        in a batch's statistics. What losses that were computed once more do to them is undone.
        """
        layers = [
            layer for layer in self.model.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats
        ]
        # `data`, since to autograd a buffer that a backward pass has not seen yet must not change; training uses none.
        running = [v.data for layer in layers for v in (layer.running_mean, layer.running_var) if v is not None]
        counts = [layer.num_batches_tracked.data for layer in layers if layer.num_batches_tracked is not None]
        before = [value.clone() for value in running + counts]
        sums = [torch.zeros_like(value) for value in running]
        for part in cut:
            losses = self._losses(part, skip)
            for value, held in zip(running + counts, before, strict=True):
                value.copy_(held)
            yield losses
            for value, total in zip(running, sums, strict=True):
                total += value
        for value, total in zip(running, sums, strict=True):
            value.copy_(total / len(cut))

    def _update(self, name: str, parts: Iterable[Iterator[Update]], count: int) -> None:
        """Back-propagate one group's loss on each of `count` parts of the batch, and update the group."""
        optimizer, wrapped = self.optimizers[name], self._shared[name]
        optimizer.zero_grad(set_to_none=True)
        for number, losses in enumerate(parts, 1):
            together = number == count or not isinstance(wrapped, DistributedDataParallel)
            with contextlib.nullcontext() if together else cast(DistributedDataParallel, wrapped).no_sync():
                with self.autocast():  # only the losses are computed in reduced precision
                    found, loss, metrics = wrapped(losses)
                assert found == name, "a model yields its losses in the order of its groups"
                (loss / count if count > 1 else loss).backward()
            self._add(metrics, loss)
        if self.config.clip_norm:
            norm = nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], self.config.clip_norm)
            self._add({f"gradient/{name}": norm})
        optimizer.param_groups[0]["lr"] = self.config.lr_at(self.step)
        optimizer.step()

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context that models run in at this precision."""
        if self.config.precision != "bf16":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def _add(self, metrics: Metrics, loss: Tensor | None = None) -> None:
        if loss is not None:
            fails = (self._wrong < 0) & ~loss.detach().isfinite()
            self._wrong = torch.where(fails, torch.full_like(self._wrong, self.step), self._wrong)
        for name, value in metrics.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def take_metrics(self, keep: bool = False) -> dict[str, float]:
        """Return the mean of each metric over the processes, and over the steps that had it since the last call.

        Args:
            keep: go on summing as if they had not been read.

        Raises:
            NotFinite: where one is NaN or infinite.
        """
        means = {name: value.item() / self._counts[name] for name, value in self._sums.items()}
        means = averaged(means, self.device)
        wrong = [name for name, value in means.items() if not math.isfinite(value)]
        if wrong:  # in all processes alike
            self._wrong = earliest(self._wrong)
        self._refuse(wrong)
        if not keep:
            self._sums, self._counts = {}, {}
        return means | {"lr": self.config.lr_at(self.step - 1)}

    def check_finite(self) -> None:
        """Raise NotFinite where a metric since the last `take_metrics`, or a weight, is NaN or infinite."""
        values = self._sums | self.model.state_dict()
        self._refuse([name for name, value in values.items() if not bool(value.isfinite().all())])

    def _refuse(self, wrong: list[str]) -> None:
        if not wrong:
            return
        first = int(self._wrong)
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        when = f"in step {first + 1}" if first >= 0 else f"by step {self.step}"
        raise NotFinite(
            f"training diverged: {', '.join(wrong[:3])}{more} not finite {when}; try a lower --lr, or --clip-norm 1",
            first if first >= 0 else None,
        )

    def state(self) -> dict[str, Tensor]:
        """Return everything besides the evaluated weights that the next step depends on, as tensors."""
        flat = {"step": torch.tensor(self.step)}
        if self.average is not None:
            flat |= {WEIGHTS + name: value for name, value in self.model.state_dict().items()}
            flat["averages"] = self.average.n_averaged
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
        if self.average is not None:
            held = {n.removeprefix(WEIGHTS): value for n, value in flat.items() if n.startswith(WEIGHTS)}
            self.model.load_state_dict(held, strict=True)
            self.average.n_averaged.copy_(flat["averages"])
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


def averaging(model: nn.Module, decay: float) -> AveragedModel:
    """Return a copy of a model that follows its weights and BatchNorm statistics as an exponential moving average.

    After n averages the decay is (1 + n) / (10 + n) until it reaches `decay`: a short run would else stay at its beginning.
    """

    def follow(averages: Iterable[Tensor], values: Iterable[Tensor], count: Tensor | int) -> None:
        share = 1 - torch.clamp((1 + torch.as_tensor(count)) / (10 + torch.as_tensor(count)), max=decay)
        for average, value in zip(averages, values, strict=True):
            if average.is_floating_point():
                average.lerp_(value.to(average.dtype), share.to(average))
            else:
                average.copy_(value)

    return AveragedModel(model, multi_avg_fn=torch.no_grad()(follow), use_buffers=True)


def compile_parts(model: nn.Module, compiling: Compiling) -> None:
    """Compile each of a model's own parts in place, with the same names of weights; they run as before until first used."""
    mode = "reduce-overhead" if compiling == "graphs" else None
    for part in model.children():
        part.compile(mode=mode, dynamic=False)


@contextlib.contextmanager
def computing(precision: Precision) -> Iterator[None]:
    """Let a GPU compute float32 products and convolutions exactly, or with factors rounded to TF32 (`tf32`).

    PyTorch's own defaults differ for the two, so that neither is left to them.
    """
    rounded = precision == "tf32"
    matmul, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, convolutions.allow_tf32
    matmul.allow_tf32 = convolutions.allow_tf32 = rounded
    try:
        yield
    finally:
        matmul.allow_tf32, convolutions.allow_tf32 = before
