"""`drnet classify`."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from drnet.cli import console

if TYPE_CHECKING:
    from drnet.pipelines.evaluation.classify_result import Result

LARGEST = 1000  # training groups that can be asked for


def classify(
    features: Annotated[
        list[str], typer.Argument(metavar="[NAME=]F.h5...", help="From drnet export-features; several are compared.")
    ],
    label: Annotated[str, typer.Option(metavar="L", help="Category to tell, such as action.")],
    from_: Annotated[
        str, typer.Option("--features", metavar="content|pose|both", help="Vectors to tell it from.")
    ] = "content",
    test: Annotated[
        Path | None, typer.Option(metavar="F.h5", help="Score on this file's test clips instead (one file only).")
    ] = None,
    persons: Annotated[
        str | None, typer.Option(metavar="1-12", help="Numbers of training groups to draw: 1-12, or 1,2,4.")
    ] = None,
    draws: Annotated[int, typer.Option(metavar="D", help="Draws of groups for each of --persons.")] = 5,
    seeds: Annotated[
        int | None, typer.Option(metavar="N", help="Fits of each draw.  [default: 5; 1 with --persons]")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(metavar="L", help="Label kept together, or clip.  [default: what the data set is split by]"),
    ] = None,
    window: Annotated[
        int | None, typer.Option(metavar="N", help="Consecutive frames of a row.  [default: 24 for KTH, else 1]")
    ] = None,
    stride: Annotated[
        int | None, typer.Option(metavar="N", help="Frames from one window to the next.  [default: --window]")
    ] = None,
    hidden: Annotated[
        int | None, typer.Option(metavar="N", help="Units of each layer.  [default: 256; 1200 for windows]")
    ] = None,
    dropout: Annotated[float, typer.Option(metavar="P", help="Share of units left out in training.")] = 0.5,
    clips: Annotated[int | None, typer.Option(metavar="N", help="At most so many clips of each split.")] = None,
    reference: Annotated[
        list[str] | None, typer.Option(metavar="NAME=PERCENT", help="A line in the curve: another's accuracy.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="F.json", help="Write everything; pictures (PNG) lie beside it.")
    ] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to train.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of tables.")] = False,
) -> None:
    """Tell a category from features with the paper's two-layer network, and with logistic regression beside it.

    A quarter of the training groups, at least one, is held out to stop early; both are scored on the test split. With
    --persons the number of training groups varies (the paper's Fig. 8).

    Example: drnet classify features.h5 --features content --label category --out classify.json

    Example: drnet classify DrNet=drnet.h5 "autoencoder 24=ae.h5" --features pose --label action --persons 1-12
    """
    if out is not None:
        console.check_ending(out, ".json")
    files = named_files(features)
    if test is not None and len(files) > 1:
        raise ValueError(f"--test {test} is not allowed with {len(files)} files; classify them one at a time")
    counts, lines = () if persons is None else numbers_of(persons), references_of(reference or [])
    from drnet.pipelines.evaluation.classify import ClassifySettings
    from drnet.pipelines.evaluation.classify_files import classify_files, write_results
    from drnet.pipelines.evaluation.windows import Which

    settings = ClassifySettings(
        label=label,
        features=cast(Which, from_),  # checked there
        window=window,
        stride=stride,
        hidden=hidden,
        dropout=dropout,
        group=group,
        persons=counts,
        draws=draws,
        seeds=seeds,
        clips=clips,
    )
    results = classify_files(files, settings, test, device, console.Bar())
    written = [] if out is None else write_results(out, results, lines)
    if as_json:
        return console.say_json({name: result.to_json() for name, result in results.items()})
    for name, result in results.items():
        _show(name, result)
    for path in written:
        console.say(f"wrote {path}")
    if out is None:
        console.say("next: the same with --out classify.json writes figures and pictures")


def _show(name: str, result: "Result") -> None:
    from drnet.pipelines.evaluation.classify_pictures import POINTS, confusion_rows, point_rows, spread_text

    settings = result.settings
    told = f"{name}: {result.label} from {settings['features']}"
    tested = f"accuracy on {result.rows['test']:,} test rows ({spread_text(result)})"
    frames = "1 frame" if settings["window"] == 1 else f"{settings['window']} frames"
    facts = f"a row is {frames}, a group one {settings['group']}; always {result.commonest}: {100 * result.chance:.1f}%"
    console.say_table(f"{told}, {tested}; {facts}", POINTS, point_rows(result))
    columns, rows = confusion_rows(result)
    title = f"{name}: the network's confusion, summed over {len(result.points[-1].runs)} fits"
    console.say_table(title, columns, rows)
    for note in result.notes():
        console.say(f"{name}: {note}")


def named_files(texts: list[str]) -> dict[str, Path]:
    """Return files by name from texts such as `F.h5` or `NAME=F.h5`.

    Raises:
        ValueError: two have one name, or a file is missing.
    """
    files: dict[str, Path] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or Path(text).exists():
            name, path = Path(text).stem, text
        if not name or name in files:
            raise ValueError(
                f"{text}: the name '{name}' is not allowed twice or empty; give each file its own: NAME={path}"
            )
        if not Path(path).exists():
            raise ValueError(f"{path}: no such file; `drnet export-features RUN --shards S --out {path}` writes it")
        files[name] = Path(path)
    return files


def numbers_of(text: str) -> tuple[int, ...]:
    """Return the numbers of a text such as `1-12`, `1..12` or `1,2,4-6`.

    Raises:
        ValueError: it is not understood.
    """
    numbers: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,4})\s*(?:(?:-|\.\.)\s*(\d{1,4})\s*)?", part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if not 1 <= first <= last <= LARGEST:
            raise ValueError(
                f"persons '{text}' is not allowed; give numbers from 1 to {LARGEST}, such as 1-12 or 1,2,4"
            )
        numbers += range(first, last + 1)
    return tuple(sorted(set(numbers)))


def references_of(texts: list[str]) -> dict[str, float]:
    """Return accuracies in percent by name, from texts such as `fully supervised=93.9`.

    Raises:
        ValueError: it is not understood.
    """
    lines: dict[str, float] = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        try:
            lines[name] = float(value)
        except ValueError:
            lines[name] = -1.0
        if not name or not 0 <= lines[name] <= 100:
            raise ValueError(f"reference '{text}' is not allowed; it must be NAME=PERCENT, such as supervised=93.9")
    return lines
