"""`drnet reproduce`."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from drnet.cli import console


def reproduce(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="ID...|all|report",
            help="fig3, fig4, fig5, table1, fig6 to fig12; all of them; or report: only write the page.",
        ),
    ],
    scale: Annotated[
        str,
        typer.Option(
            metavar="tiny|small|paper",
            help="tiny: all in under 40 minutes of two CPU cores, not judged; small: an hour of one GPU; paper: in full.",
        ),
    ] = "tiny",
    data_root: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder with mnist/, kth/, norb/, coil20/; after it the user's cache is looked at."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the results; it holds one scale.")] = Path(
        "results"
    ),
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")] = "auto",
    workers: Annotated[int, typer.Option(metavar="N", help="Processes that build.")] = 2,
    again: Annotated[
        bool, typer.Option("--again", help="Draw and score anew what is there, from the same data and trained runs.")
    ] = False,
) -> None:
    """Reproduce figures and tables of the paper: build, train, draw, and put numbers beside the paper's.

    Where the paper's data is not at hand something else stands in for it, and the output says so; KTH, which nothing
    stands in for, is left out. To resume, run the same command again. OUT/index.html shows everything, and what
    OUT/ID/remarks.txt says of the pictures.

    Example: drnet reproduce all --scale tiny --out results

    Example: drnet reproduce report --out results
    """
    if "report" in what:
        if len(what) > 1:
            raise ValueError("report is not allowed beside others; every call writes the page at its end")
        from drnet.pipelines.reproduction.reproduce import report

        return console.say(f"open {report(out)}")
    from drnet.pipelines.reproduction.reproduce import reproduce as run_reproduction

    signals: list[int] = []

    @contextmanager
    def stoppable() -> Iterator[threading.Event]:
        with console.stop_event() as (event, seen):
            yield event
        signals.extend(seen)

    found = run_reproduction(what, out, scale, data_root, device, workers, console.Bar(), stoppable, again)
    for one in found.ended:
        console.say(f"{one.id}: {one.state}")
        for line in one.lines:
            console.say(f"  {line}")
    if found.stopped:
        console.err.print("stopped; the same command continues", markup=False)
        raise typer.Exit(128 + signals[0])
    console.say(f"open {found.page}")
    failed, absent = found.of("failed"), found.of("not run")
    if absent:
        console.say(f"{len(absent)} of {len(found.ended)} not run: {', '.join(one.id for one in absent)}")
    if failed:
        names = ", ".join(one.id for one in failed)
        raise ValueError(f"{len(failed)} of {len(found.ended)} failed ({names}); the same command tries them again")
    if absent and len(absent) == len(found.ended):
        raise ValueError(absent[0].lines[0])
