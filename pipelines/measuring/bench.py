"""Benchmarks: each runs the product beside its alternatives in one interleaved run, and reports ratios of medians."""

import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from drnet.pipelines.progress import Progress, Silent

MEMORY = Path("/dev/shm")  # where there is a memory-backed folder, disks do not disturb the measurement

Work = Callable[[int], int | tuple[int, float]]
"""Does the work of a round (numbered from 0, which is the warm-up) and returns how many units that was.

Where another process does it, the work returns its seconds as well.
"""


def scratch() -> Path | None:
    """Return the folder for temporary files: in memory where that exists, else the platform's default (None)."""
    return MEMORY if MEMORY.is_dir() else None


def interleaved(
    title: str,
    works: Mapping[str, Work],
    rounds: int,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, Any]:
    """Measure several pieces of work, round by round in turn, after one round that does not count.

    Args:
        title: of the measurement.
        works: by name; the first one is the product's, the others are its alternatives.
        rounds: how many count.
        progress: told of each round.
        clock: seconds; by default this process's processor time, which a neighbour's load disturbs least.

    Returns:
        As `compared`.
    """
    progress = progress or Silent()
    rates: dict[str, list[float]] = {name: [] for name in works}
    progress.start(title, rounds, "rounds")
    try:
        for number in range(rounds + 1):
            for name, work in works.items():
                began = clock()
                done = work(number)
                units, seconds = done if isinstance(done, tuple) else (done, clock() - began)
                if number:
                    rates[name].append(units / seconds)
            progress.advance(min(number, 1))
    finally:
        progress.stop()
    return compared(rates)


def compared(rates: Mapping[str, list[float]]) -> dict[str, Any]:
    """Compare rates that were measured in turn: of each name one a round, the product's first.

    Returns:
        `rates`: median units per second of each; `ratios`: for each alternative, the ratio of the medians (the first's
        to its) and `rounds`, that of each round; `cores` of the machine.
    """
    medians = {name: statistics.median(found) for name, found in rates.items()}
    ours, *others = rates
    ratios = {
        name: {
            "ratio": medians[ours] / medians[name],
            "rounds": [a / b for a, b in zip(rates[ours], rates[name], strict=True)],
        }
        for name in others
    }
    return {"rates": medians, "ratios": ratios, "cores": os.cpu_count()}
