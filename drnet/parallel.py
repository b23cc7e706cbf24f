"""Several processes that train one model: what a loss may need of the others. With one process nothing happens here.

Each process holds a share of the global batch (`drnet.pipelines.plan.share_of`), all shares of one size.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def processes() -> int:
    """Return how many processes train together: 1 outside a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class Gathered(torch.autograd.Function):
    """The rows of all processes; backwards, each row's gradients from all of them, summed, go to where it comes from."""

    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(processes())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        summed = gradient.contiguous().clone()
        dist.all_reduce(summed)
        return summed.chunk(processes())[dist.get_rank()]


def gathered(rows: Tensor) -> Tensor:
    """Return the rows (B, ...) of all processes in the order of their ranks: (processes * B, ...).

    Gradients flow back to the process that a row comes from. Each process then sees the loss of the global batch, and the
    mean of the processes' gradients is its gradient, as with one process.
    """
    if processes() == 1:
        return rows
    return Gathered.apply(rows)


def averaged(values: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Return the means of numbers over the processes, which must have the same names."""
    if processes() == 1 or not values:
        return dict(values)
    names = sorted(values)
    numbers = torch.tensor([values[name] for name in names], dtype=torch.float32, device=device)
    dist.all_reduce(numbers)
    return dict(zip(names, (numbers / processes()).tolist(), strict=True))


def earliest(step: Tensor) -> Tensor:
    """Return the least of the steps (0-dim, int64) of all processes; those below 0 are none, -1 where all are."""
    if processes() == 1:
        return step
    never = torch.iinfo(step.dtype).max
    found = torch.where(step < 0, never, step)
    dist.all_reduce(found, op=dist.ReduceOp.MIN)
    return torch.where(found == never, -1, found)


class Shared(nn.Module):
    """Parameters of one loss, for `DistributedDataParallel`: a forward pass asks for the next loss of a step.

    What that computes is not this module's own: the wrapper needs a forward pass only to know that a backward pass
    follows in which each of these parameters gets a gradient, which it then averages over the processes.
    """

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__()
        self.held = nn.ParameterList(parameters)

    def forward(self, losses: Iterator[Any]) -> Any:
        return next(losses, None)


def shared(parameters: list[nn.Parameter]) -> nn.Module:
    """Return a module that asks for a loss, and averages these parameters' gradients where there are several processes.

    BatchNorm keeps each process's own running statistics, of which those of the first are saved; `SyncBatchNorm` makes
    them equal.
    """
    held = Shared(parameters)
    return DistributedDataParallel(held) if processes() > 1 else held
