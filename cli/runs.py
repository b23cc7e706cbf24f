"""`drnet runs`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from drnet.cli import console

if TYPE_CHECKING:
    from drnet.pipelines.training.runs import LeftOut, Row, Run

# The table's columns, and which of them go first where a terminal is too narrow: those with the largest number.
COLUMNS = {"run": 0, "preset": 7, "data": 8, "steps": 2, "finished": 6, "last": 1, "lowest": 9, "of mean frame": 3}
COLUMNS |= {"pose var.": 4, "content var.": 5, "steps/s": 10, "written, UTC": 11}


def runs(
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="DIR", help="Runs, or folders of runs.  [default: runs]")
    ] = None,
    sort: Annotated[
        Literal["run", "date", "loss", "lowest", "share", "steps", "speed"],
        typer.Option(help="Column to sort by; share is that of the mean frame's error."),
    ] = "run",
    compare: Annotated[
        str | None,
        typer.Option(metavar="METRIC", help="Compare the runs by this metric.  [default: the reconstruction loss]"),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="F.png|F.svg", help="Plot the metric's curves.")] = None,
    smooth: Annotated[
        float | None, typer.Option(metavar="STEPS", help="Smooth the plot.  [default: a fiftieth of its width; 0: not]")
    ] = None,
    scale: Annotated[Literal["auto", "log", "linear"], typer.Option(help="Axis of the plotted values.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of the tables.")] = False,
) -> None:
    """List runs; with --compare or --out, also the settings in which they differ, and one plot.

    A run that drew the mean frame everywhere would reach 1.00 of its error. A variance near 0 says that pose or content
    has collapsed. Folders that are no runs are named below the table.

    Example: drnet runs --sort loss

    Example: drnet runs runs/a runs/b --compare loss/reconstruction --out compare.png
    """
    if out is not None:
        console.check_ending(out, ".png", ".svg")
    from drnet.pipelines.training import runs as stage

    found = stage.find_runs(folders or [Path("runs")])
    metric = compare or stage.default_metric(found.runs)
    listed = stage.sort_runs(found.runs, metric, sort)
    comparing = compare is not None or out is not None
    drawn = stage.with_metric(listed, metric) if comparing else []
    if out is not None:
        stage.save_comparison(out, drawn, metric, smooth, scale)
    rows = [stage.sum_up(run, metric) for run in listed]
    without = [str(run.folder) for run in listed if run not in drawn] if comparing else []
    if as_json:
        report: dict[str, Any] = {"metric": metric, "runs": [dataclasses.asdict(row) for row in rows]}
        if comparing:
            report |= {"differences": stage.differences(listed), "without_metric": without}
            report["plot"] = None if out is None else str(out)
        return console.say_json(report | {"left_out": [_plain(one) for one in found.left_out]})
    say_runs(rows, metric)
    if comparing:
        say_differences(listed)
    say_left_out(found.left_out)
    for name in without:
        console.say(_shown(f"{name}: has no {metric}"))
    if out is not None:
        console.say(f"wrote {out}")


def say_runs(rows: "list[Row]", metric: str) -> None:
    """Print one line for each run; a terminal that is too narrow gets the columns that matter most."""
    table = [_cells(row) for row in rows]
    columns = [name for name, _ in sorted(COLUMNS.items(), key=lambda column: column[1])]
    widths = {
        name: 3 + max(len(cells[name]) for cells in [dict(zip(COLUMNS, COLUMNS, strict=True)), *table])
        for name in columns
    }
    hidden = []
    while (
        console.out.is_terminal and len(columns) > 1 and 1 + sum(widths[name] for name in columns) > console.out.width
    ):
        hidden.append(columns.pop())
    columns = [name for name in COLUMNS if name in columns]
    title = f"{len(rows)} run{'s' if len(rows) > 1 else ''}, by {metric}"
    console.say_table(title, columns, [[escape(cells[name]) for name in columns] for cells in table])
    if hidden:
        console.say(f"too narrow for {', '.join(reversed(hidden))}: widen the terminal, or use --json")


def _cells(row: "Row") -> dict[str, str]:
    return {
        "run": _shown(row.run),
        "preset": row.preset,
        "data": row.data,
        "steps": f"{row.steps}/{row.asked}",
        "finished": "yes" if row.finished else "no",
        "last": _number(row.loss, ".4g"),
        "lowest": _number(row.lowest, ".4g"),
        "of mean frame": _number(row.share, ".2f"),
        "pose var.": _number(row.pose, ".2g"),
        "content var.": _number(row.content, ".2g"),
        "steps/s": _number(row.speed, ".3g"),
        "written, UTC": row.date[:16].replace("T", " "),
    }


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def say_differences(listed: "list[Run]") -> None:
    """Print the settings in which runs differ, with the longer side of the table downwards."""
    from drnet.pipelines.training.runs import differences, short_names, show

    found = differences(listed)
    if not found:
        return console.say("settings: the same in all runs")
    table = [["setting", *map(_shown, short_names(listed))]]
    table += [[name, *map(show, values)] for name, values in found.items()]
    if len(listed) > len(found):
        table = [list(column) for column in zip(*table, strict=True)]
        table[0][0] = "run"
    cells = [[escape(cell) for cell in line] for line in table]
    console.say_table("settings that differ", cells[0], cells[1:])


def say_left_out(left_out: "list[LeftOut]") -> None:
    """Name every folder that is no run, or a damaged one."""
    if left_out:
        console.say(f"{len(left_out)} folder{'s' if len(left_out) > 1 else ''} left out:")
    for one in left_out:
        console.say(_shown(f"  {one.folder}: {one.reason.removeprefix(f'{one.folder}: ')}"))


def _plain(one: "LeftOut") -> dict[str, str]:
    return {"folder": str(one.folder), "reason": one.reason}


def _shown(text: str) -> str:
    """Return a text with the name of somebody's folder in it without what would steer the terminal."""
    return text if text.isprintable() else ascii(text)
