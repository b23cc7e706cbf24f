"""The `drnet` command. Each command parses words, calls one function of a stage, and prints what it did."""

import os
import sys
import traceback
from typing import Annotated

import typer

import drnet
from drnet.cli import console
from drnet.cli.bench import app as bench_app
from drnet.cli.classify import classify
from drnet.cli.data import app as data_app
from drnet.cli.demo import demo
from drnet.cli.evaluate import evaluate
from drnet.cli.export_model import export_model
from drnet.cli.features import export_features, probe
from drnet.cli.figure import app as figure_app
from drnet.cli.predict import predict, train_predictor
from drnet.cli.reproduce import reproduce
from drnet.cli.runs import runs
from drnet.cli.train import train

app = typer.Typer(
    name="drnet",
    help="Turn video into disentangled representations: build data sets, train DrNet, export features.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
app.add_typer(data_app, name="data", short_help="Build data sets, and look at them.")
app.command(short_help="Train DrNet on shards.")(train)
app.command("train-predictor", short_help="Train the predictor of a run's poses.")(train_predictor)
app.command(short_help="Predict held-out clips, beside the truth.")(predict)
app.command(short_help="List and compare runs.")(runs)
app.command("export-features", short_help="Write content and pose of every frame.")(export_features)
app.command("export-model", short_help="Write a model and its card, to share.")(export_model)
app.command(short_help="Measure what content and pose tell.")(probe)
app.command(short_help="Tell a category from features, as the paper does.")(classify)
app.command(short_help="Score predictions, swaps and features.")(evaluate)
app.command(short_help="The whole job in a few minutes.")(demo)
app.command(short_help="Reproduce the paper's figures and tables.")(reproduce)
app.add_typer(figure_app, name="figure", short_help="Draw the paper's figures.")
app.add_typer(bench_app, name="bench", short_help="Measure speed beside alternatives.")


def _version(wanted: bool) -> None:
    if wanted:
        console.say(f"drnet {drnet.__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Build video data sets, train DrNet on them, export and probe its features."""
    if debug:
        os.environ["DRNET_DEBUG"] = "1"


def run() -> None:
    """Run the command line: exit code 0, 1 for an error, 2 for wrong usage, 130 for Ctrl-C, 143 for SIGTERM."""
    console.end_on_signals()
    try:
        app()
    except console.Stopped as signal:
        console.err.print("stopped; the same command continues", markup=False)
        sys.exit(signal.code)
    except (ValueError, OSError, ArithmeticError, ImportError, MemoryError, RecursionError) as error:
        if os.environ.get("DRNET_DEBUG"):
            traceback.print_exc()
        console.err.print(f"drnet: error: {one_line(error)}", markup=False)
        sys.exit(1)


def one_line(error: Exception) -> str:
    """Return an error's message on one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'file'}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
