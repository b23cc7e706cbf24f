"""`drnet data build`: a command for each data set, made from its class, with one option for each of its settings."""

import inspect
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer
from typer.core import TyperGroup

from drnet.cli import console
from drnet.cli.fetch import bars
from drnet.datasets.catalogue import BUILDERS, data_set_class, settings_of
from drnet.datasets.contract import SPLITS, DataError, DataSet, Fetching, Lacking, Limited

if TYPE_CHECKING:
    from drnet.pipelines.build import BuildReport

Codec = Literal["raw", "zstd"]
NAMED = 5  # missing items that a dry run names in each split

Workers = Annotated[
    int, typer.Option("--workers", metavar="N", help="Processes; the result is the same with any number.")
]
Scheduler = Annotated[
    str | None, typer.Option("--scheduler", metavar="tcp://HOST:PORT", help="Build on the workers of a Dask cluster.")
]
MaxFailures = Annotated[
    str, typer.Option("--max-failures", metavar="N|P%", help="Items that may fail; more end with exit code 1.")
]


class Builders(TyperGroup):
    """The commands of `drnet data build`, each made when it is asked for; `module:Class` names one's own data set."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all data sets."""
        return list(BUILDERS)

    def get_command(self, ctx: Any, name: str) -> Any:
        """Return a data set's command."""
        if ":" in name:
            sys.path.insert(0, str(Path.cwd()))  # one's own module lies where one works
        try:
            kind = data_set_class(name)
        except DataError as error:
            ctx.fail(str(error))
        app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        app.command(name)(command_of(kind))
        return typer.main.get_command(app)


def command_of(kind: type[DataSet]) -> Callable[..., None]:
    """Return the build command of a data set: its docstring is the help, each of its settings an option."""
    settings = settings_of(kind)
    out, *common = [part for part in inspect.signature(run_build).parameters.values() if part.name != "data"]

    def command(**given: Any) -> None:
        data = kind(**{name: given.pop(name) for name in settings})
        run_build(data, **given)

    parts = [out, *(option_of(name, *found) for name, found in settings.items()), *common]
    command.__signature__ = inspect.Signature(parts)  # type: ignore[attr-defined]
    command.__annotations__ = {part.name: part.annotation for part in parts}
    command.__doc__ = re.split(r"\n(?:Args|Raises|Attributes):", inspect.getdoc(kind) or "")[0]
    return command


def option_of(name: str, hint: Any, setting: Any, default: Any) -> inspect.Parameter:
    """Return the parameter that becomes a setting's option."""
    if get_origin(hint) is tuple:  # an option that may be given several times
        hint = list[get_args(hint)[0]]  # type: ignore[misc]
        default = list(default)
    words = f"--{name.replace('_', '-')}"
    option = typer.Option(words, metavar=setting.metavar, help=setting.help)
    absent = inspect.Parameter.empty if default is ... else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=absent, annotation=Annotated[hint, option])


app = typer.Typer(
    cls=Builders,
    help="Build a data set; one's own is named module:Class. To resume, run the same command again.",
    no_args_is_help=True,
)


@app.callback()
def build_data() -> None:
    """Build a data set; one's own is named module:Class. To resume, run the same command again."""


def run_build(
    data: DataSet,
    *,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder of the data set; made where it is missing.")
    ],
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", help="Only the first N items of each split, for a first look.")
    ] = None,
    codec: Annotated[Codec, typer.Option("--codec", help="raw: NPY; zstd: compressed NPY.")] = "zstd",
    clips_per_shard: Annotated[
        int | None,
        typer.Option(
            "--clips-per-shard",
            metavar="N",
            help="Items in each shard.  [default: a sixteenth of the train split, at most 1000]",
        ),
    ] = None,
    workers: Workers = 1,
    scheduler: Scheduler = None,
    max_failures: MaxFailures = "0",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be built, and write nothing.")] = False,
) -> None:
    """Build a data set and say how it ended."""
    from drnet.pipelines.build import build, plan_build, refuse_other_build, shard_is_done
    from drnet.pipelines.building.failures import parse_budget

    if isinstance(data, Fetching):
        with bars() as tell:
            data.fetch_missing(tell)
    data = data if limit is None else Limited(data, limit)
    budget = parse_budget(max_failures)
    plan = plan_build(data, codec, clips_per_shard, console.Bar())
    if dry_run:
        refuse_other_build(out, plan)
        counts = ", ".join(f"{data.count(split)} {split}" for split in SPLITS)
        kept = sum(shard_is_done(out / job.name, plan.build) for job in plan.jobs)
        console.say(
            f"would write {len(plan.jobs) - kept} of {len(plan.jobs)} shards and keep {kept}: {counts} items in {out} "
            f"(build {plan.build[:12]})"
        )
        for line in missing_lines(data):
            console.say(line)
        return
    tell_report(build(plan, out, workers, console.Bar(), scheduler=scheduler, budget=budget))
    console.say(f"next: drnet data preview {shlex.quote(str(out))} --out preview.png")


def missing_lines(data: DataSet) -> list[str]:
    """Say what the source of a data set lacks, a line for each split: how many items, and the first of them."""
    if not isinstance(data, Lacking):
        return []
    lines = []
    for split in SPLITS:
        if names := data.missing_items(split):
            few = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
            lines.append(f"{split}: {len(names):,} of {data.count(split):,} items are missing from the source ({few})")
    return lines


def tell_report(report: "BuildReport") -> None:
    """Say how a build ended; exit code 1 where more items failed than may."""
    for split, rows in report.manifest.splits.items():
        clips, frames = sum(row.clips for row in rows), sum(row.frames for row in rows)
        fates = ", ".join(f"{number:,} {fate}" for fate, number in report.counts[split].items()) or "none"
        less = ", ".join(f"{number:,} {why}" for why, number in report.left_out[split].items())
        console.say(
            f"{split}: {clips:,} clips, {frames:,} frames; items: {fates}"
            + (f"; clips left out: {less}" if less else "")
        )
        if not clips:
            console.err.print(f"note: the {split} split is empty", markup=False)
    console.say(f"{report.written} shards written, {report.kept} kept: {report.folder}")
    if report.over_budget:
        raise ValueError(report.line)
