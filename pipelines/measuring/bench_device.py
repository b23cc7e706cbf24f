"""How benchmarks of training run work on a device: with its clocks, its memory, and its name."""

import contextlib
import os
import platform
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from drnet.pipelines.measuring.bench import Work
from drnet.pipelines.measuring.bench_peak import peak_megabytes
from drnet.pipelines.measuring.bench_stream import resident_megabytes

RESET_PEAK = Path("/proc/self/clear_refs")


@dataclass
class Runner:
    """Runs pieces of work on a device, waits for their end, and keeps their rates by the wall clock.

    On a CPU `interleaved` gets processor time, which a neighbour's load disturbs least.
    """

    device: torch.device
    walls: dict[str, list[float]] = field(default_factory=dict)

    @property
    def is_gpu(self) -> bool:
        """Whether work goes on after the call that started it."""
        return self.device.type == "cuda"

    def wait(self) -> None:
        """Wait until the device has done what it was asked for."""
        if self.is_gpu:
            torch.cuda.synchronize(self.device)

    def work(self, name: str, units: float, run: Callable[[], object]) -> Work:
        """Return work for `interleaved`, of so many units in a round."""
        self.walls[name] = []

        def measured(number: int) -> tuple[int, float]:
            self.wait()
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            self.wait()
            seconds, used = time.perf_counter() - wall, time.process_time() - cpu
            if number:
                self.walls[name].append(units / seconds)
            return int(units), seconds if self.is_gpu else used

        return measured

    @contextlib.contextmanager
    def peak(self, found: dict[str, float], name: str) -> Iterator[None]:
        """Note by how many MB the memory in use grew at most in the block: the device's own, or this program's.

        A program keeps memory that it freed, so that on a CPU only the first block's growth is known, and noted.
        """
        if self.is_gpu:
            self.wait()
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
            yield
            self.wait()
            found[name] = (torch.cuda.max_memory_allocated(self.device) - before) / 1e6
        else:
            with contextlib.suppress(OSError):
                RESET_PEAK.write_text("5")  # where Linux does not let it, the peak so far is the least that is told
            resident = resident_megabytes()
            yield
            if not found:
                found[name] = peak_megabytes() - resident

    def about(self) -> dict[str, Any]:
        """Return what the device is."""
        found: dict[str, Any] = {
            "type": self.device.type,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        }
        if self.is_gpu:
            name, versions = (
                torch.cuda.get_device_name(self.device),
                (torch.version.cuda, torch.backends.cudnn.version()),
            )
            return {"name": name, **found, "cuda": versions[0], "cudnn": versions[1]}
        told = Path("/proc/cpuinfo")
        model = re.search(r"model name\s*:\s*(.+)", told.read_text()) if told.exists() else None
        return {"name": model[1] if model else platform.machine(), **found, "cores": os.cpu_count()}
