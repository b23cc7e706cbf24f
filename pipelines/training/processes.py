"""Several processes that train one model together, as `torchrun` or Slurm's `srun` start them.

torchrun --nproc-per-node 8 -m drnet train ...        one machine
srun python -m drnet train ...                        a cluster
"""

import atexit
import functools
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from drnet.datasets.contract import DataError

FIRST_PORT, PORTS = 20_000, 20_000  # of which a Slurm job takes one by its number
PATIENCE = timedelta(minutes=30)  # a process may wait for another one that writes a checkpoint or measures


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: its number, from 0.
        count: how many they are.
        local: its number on its machine, which is that of its GPU.
        control: the group in which they agree on the CPU; None for a process that trains alone.
    """

    rank: int = 0
    count: int = 1
    local: int = 0
    control: Any = None

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether a flag is set in any process; all must ask."""
        if self.control is None:
            return flag
        told = torch.tensor(int(flag))
        dist.all_reduce(told, op=dist.ReduceOp.MAX, group=self.control)
        return bool(told)

    def same(self, data: bytes) -> bool:
        """Whether all processes have the same bytes; all must ask."""
        number = int.from_bytes(hashlib.sha256(data).digest()[:7])
        told = torch.tensor([number, -number])
        if self.control is not None:
            dist.all_reduce(told, op=dist.ReduceOp.MAX, group=self.control)
        most, least = told.tolist()
        return bool(most == -least)

    def union(self, numbers: Iterable[int]) -> set[int]:
        """Return the numbers, from 0, of all processes together; all must ask."""
        own = torch.tensor(sorted(set(numbers)), dtype=torch.int64)
        most = torch.tensor(len(own))
        if self.control is None:
            return set(own.tolist())
        dist.all_reduce(most, op=dist.ReduceOp.MAX, group=self.control)
        if not most:
            return set()
        padded = torch.cat([own, own.new_full((int(most) - len(own),), -1)])
        parts = [torch.empty_like(padded) for _ in range(self.count)]
        dist.all_gather(parts, padded, group=self.control)
        return set(torch.cat(parts).tolist()) - {-1}

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.control is not None:
            dist.barrier(group=self.control)

    def device(self, name: str) -> str:
        """Return the name of this process's device where all were given one: `cuda` and `auto` mean its own GPU."""
        if self.count > 1 and name in ("cuda", "auto") and torch.cuda.is_available():
            return f"cuda:{self.local % torch.cuda.device_count()}"
        return name


ALONE = Processes()


def launched(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what `torch.distributed` reads of the environment: torchrun's own variables, or the same from Slurm's.

    Empty where one process was started by itself: a batch script without `srun` is one, whatever Slurm allotted.

    Raises:
        DataError: where some of them are there and others are missing.
    """
    wanted = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    if "RANK" in environment and "WORLD_SIZE" in environment:
        missing = [name for name in wanted if name not in environment]
        if missing:
            raise DataError(f"RANK is set and {missing[0]} is not; start the processes with torchrun, or unset RANK")
        return {name: environment[name] for name in wanted}
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) < 2:
        return {}
    port = FIRST_PORT + int(environment.get("SLURM_JOB_ID", "0")) % PORTS
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": environment["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "MASTER_ADDR": environment.get("MASTER_ADDR") or first_host(environment["SLURM_STEP_NODELIST"]),
        "MASTER_PORT": environment.get("MASTER_PORT") or str(port),
    }


def first_host(hosts: str) -> str:
    """Return the first host of a list as Slurm writes it: `gpu[003-007,012],login1` begins with gpu003."""
    found = re.match(r"([^,\[]+)(?:\[(\d+)[^\]]*\]([^,\[]*))?", hosts)
    if found is None:
        raise DataError(f"SLURM_STEP_NODELIST {hosts!r} is not understood; set MASTER_ADDR to the first machine's name")
    return "".join(part or "" for part in found.groups())


@contextmanager
def together(device: str) -> Iterator[Processes]:
    """Join the other processes that were started with this one, where there are any; they stay joined until they end.

    Args:
        device: as for training; GPUs exchange gradients by NCCL, CPUs by gloo.

    Raises:
        DataError: where they do not find each other; where another one ended while this one waited for it.
    """
    found = launched(os.environ)
    if not found or int(found["WORLD_SIZE"]) == 1:
        yield ALONE
        return
    os.environ.update(found)
    rank, count, local = (int(found[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(local % torch.cuda.device_count())
    try:
        yield Processes(rank, count, local, _joined("nccl" if on_gpu else "gloo"))
    except RuntimeError as error:
        if not _left_alone(error):
            raise
        raise DataError(f"process {rank} ends, since another one did, whose message says why") from error


@functools.cache
def _joined(backend: str) -> Any:
    """Make the process group, once: a second one at the same port may meet what the first left there, and wait for ever.

    Returns:
        The group in which the processes agree on the CPU.
    """
    try:
        dist.init_process_group(backend, timeout=PATIENCE)
    except dist.DistError as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise DataError(f"the processes do not meet at {where}: {str(error).splitlines()[0]}") from None
    atexit.register(dist.destroy_process_group)
    return dist.new_group(backend="gloo", timeout=PATIENCE)


def _left_alone(error: RuntimeError) -> bool:
    """Whether an error says that another process is gone; gloo's have no class of their own."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)
