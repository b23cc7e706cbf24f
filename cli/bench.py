"""`drnet bench`: measure the product beside its alternatives."""

from typing import Annotated

import typer

from drnet.cli import console

app = typer.Typer(help="Measure speed, as a ratio to an alternative in the same run.", no_args_is_help=True)


@app.callback()
def bench() -> None:
    """Measure speed, as a ratio to an alternative in the same run."""


@app.command()
def digits(
    source: Annotated[str | None, typer.Option(metavar="DIR|optdigits", help="Where the digits come from.")] = None,
    clips: Annotated[int, typer.Option(metavar="N", min=1, help="Clips in each round.")] = 2000,
    rounds: Annotated[int, typer.Option(metavar="N", min=1, help="Rounds of each, in turn.")] = 7,
    codec: Annotated[str, typer.Option(metavar="raw|zstd", help="Codec of the build.")] = "zstd",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Building bouncing digits, encoding and writing included, against drawing them in the plain style of research code.

    Example: drnet bench digits --source optdigits --clips 500 --rounds 3
    """
    from drnet.pipelines.bench import bench_digits

    found = bench_digits(source, clips, rounds, codec, console.Bar())
    if as_json:
        return console.say_json(found)
    rows = [["drnet data build", f"{found['build']:,.0f}"], ["plain style, drawing only", f"{found['plain']:,.0f}"]]
    console.say_table(found["what"], ["", "clips/s"], rows)
    low, high = min(found["ratios"]), max(found["ratios"])
    console.say(f"ratio of medians {found['ratio']:.2f} (rounds {low:.2f} to {high:.2f})")
