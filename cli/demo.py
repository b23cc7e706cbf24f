"""`drnet demo`."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from drnet.cli import console


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the demo; made where it is missing.")] = Path(
        "demo"
    ),
    data: Annotated[
        str, typer.Option(metavar="auto|chairs|digits", help="auto: chairs, where pybullet is there.")
    ] = "auto",
    clips: Annotated[
        int | None, typer.Option(metavar="N", help="Clips of the train split.  [default: 800 chairs]")
    ] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", help="Steps of training.  [default: the preset's]")] = None,
    workers: Annotated[int, typer.Option(metavar="N", help="Processes that build.")] = 2,
) -> None:
    """Run the whole job on a CPU in a few minutes: build chairs, train, export, probe, and write a page.

    To resume, run the same command again.

    Example: drnet demo --out demo
    """
    from drnet.pipelines.looking.demo import demo as run_demo

    signals: list[int] = []

    @contextmanager
    def stoppable() -> Iterator[threading.Event]:
        with console.stop_event() as (event, seen):
            yield event
        signals.extend(seen)

    report = run_demo(out, data, clips, steps, workers, console.Bar(), stoppable)
    errors = report.errors
    if errors is None:
        console.err.print("stopped; the same command continues", markup=False)
        raise typer.Exit(128 + signals[0])
    console.say(
        f"squared error on {errors.pairs} held-out swaps: {errors.other_pose:.4f} in another clip's pose, "
        f"{errors.own_pose:.4f} in the own, {errors.mean_frame:.4f} for the mean frame"
    )
    console.say(", ".join(f"{name} {value:.0f} s" for name, value in report.seconds.items()))
    console.say(f"open {report.page}")
