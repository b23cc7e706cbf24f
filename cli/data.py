"""`drnet data`: build data sets, and look at them."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from drnet.cli import console
from drnet.cli.build import MaxFailures, Scheduler, Workers, tell_report
from drnet.cli.build import app as build_app
from drnet.cli.fetch import fetch, size_of

app = typer.Typer(help="Build data sets as WebDataset shards; inspect, verify and preview them.", no_args_is_help=True)
app.add_typer(build_app, name="build")


class SplitName(StrEnum):
    """Values of --split."""

    train = "train"
    test = "test"


def local_folder(text: str) -> Path:
    """Return the folder that an argument names; a URL is wrong usage of what writes there or sends from there."""
    if "://" in text and not text.startswith("file:///"):
        raise typer.BadParameter("a URL is not allowed here; name the data set's folder on this machine")
    return Path(text.removeprefix("file://"))


Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a data set.", parser=local_folder)]
Data = Annotated[str, typer.Argument(metavar="DIR|URL", help="A data set, or a pattern of its shards.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def count_of(problems: Sequence[str]) -> str:
    """Say how many problems there are."""
    return f"{len(problems) or 'no'} problem{'' if len(problems) == 1 else 's'}"


app.command()(fetch)


@app.command("list")
def list_data_sets(as_json: AsJson = False) -> None:
    """Say which data sets there are, what each takes, its licence, what to cite, and what is on this machine.

    Example: drnet data list
    """
    from drnet.pipelines.looking.inspect import list_data

    found = list_data()
    if as_json:
        return console.say_json(found)
    rows = []
    for row in found:
        size = size_of(row["bytes"]) if row["files"] else "nothing"
        here = f"{row['here']} of {row['files']}" if row["files"] else ""
        rows.append([row["name"], size, here, row["title"]])
    console.say_table("", ["data set", "to download", "files here", "what it is"], rows)
    for row in found:
        console.say(f"{row['name']}: licence {row['licence']}; cite {row['citation']}")
    console.say("one's own: drnet data build MODULE:CLASS, of a file in the folder one works in")


@app.command()
def info(folder: Data, as_json: AsJson = False) -> None:
    """Say what a data set holds.

    Example: drnet data info data/mnist
    """
    from drnet.pipelines.looking.inspect import describe_data

    found = describe_data(folder)
    if as_json:
        return console.say_json(found)
    console.say(f"{found['title']} ({found['data_set']}, version {found['version']}, build {found['build'][:12]})")
    rows = [
        [split, f"{part['clips']:,}", f"{part['frames']:,}", str(part["shards"]), f"{part['bytes'] / 1e6:,.1f} MB"]
        for split, part in found["splits"].items()
    ]
    console.say_table("", ["split", "clips", "frames", "shards", "size"], rows)
    height, width, channels = found["frame_shape"]
    console.say(f"frames: {height}x{width}x{channels} uint8, codec {found['codec']}")
    console.say("labels:")
    for kind in dict.fromkeys(found["labels"].values()):
        console.say(f"  {kind}: " + ", ".join(name for name, text in found["labels"].items() if text == kind))
    console.say(f"split by {found['split_key']}; content by {found['content_key']}")
    console.say("parameters: " + ", ".join(f"{k} {v}" for k, v in found["parameters"].items()))
    for split, part in found["splits"].items() if found["whole"] else ():
        console.say(f"{split} items: " + ", ".join(f"{number} {fate}" for fate, number in part["items"].items()))
    for note in found["notes"]:
        console.say(f"note: {note}")
    console.say(f"licence: {found['licence']}")
    console.say(f"cite: {found['citation']}")


@app.command()
def verify(
    folder: Data,
    fast: Annotated[bool, typer.Option("--fast", help="Hashes only; do not decode the clips.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check every file of a data set: hashes, archive members, labels, and every frame. Behind a URL, all are fetched.

    Example: drnet data verify data/mnist
    """
    from drnet.pipelines.verify import verify_data

    problems, checked = verify_data(folder, full=not fast, progress=console.Bar())
    if as_json:
        console.say_json({"problems": problems, **checked})
    else:
        for problem in problems:
            console.say(problem)
        console.say(f"{checked['shards']} shards, {checked['clips']} clips checked: {count_of(problems)}")
    if problems:
        raise typer.Exit(1)


@app.command()
def preview(
    folder: Data,
    out: Annotated[Path, typer.Option(metavar="x.png|x.gif|x.mp4", help="A contact sheet, or an animation.")],
    split: Annotated[SplitName, typer.Option(help="Which clips.")] = SplitName.train,
    clips: Annotated[int, typer.Option(metavar="N", min=1, help="How many clips.")] = 8,
    first: Annotated[int, typer.Option(metavar="I", min=0, help="Number of the first clip.")] = 0,
) -> None:
    """Draw clips with their labels.

    Example: drnet data preview data/mnist --out preview.gif
    """
    from drnet.pipelines.looking.inspect import preview_data

    preview_data(folder, out, split.value, clips, first)
    console.say(f"wrote {out}")


@app.command()
def retry(
    folder: Folder,
    source: Annotated[
        str | None, typer.Option(metavar="DIR", help="The source of the build, which no data set records.")
    ] = None,
    data_set: Annotated[
        str | None, typer.Option(metavar="MODULE:CLASS", help="The class of one's own data set.")
    ] = None,
    workers: Workers = 1,
    scheduler: Scheduler = None,
    max_failures: MaxFailures = "0",
) -> None:
    """Try again the items of a data set that failed, where the error may have been a passing one.

    Example: drnet data retry data/kth --source DIR
    """
    from drnet.pipelines.build import restore_plan
    from drnet.pipelines.build import retry as retry_failed
    from drnet.pipelines.building.failures import parse_budget

    budget = parse_budget(max_failures)
    plan = restore_plan(folder, data_set, source, console.Bar())
    tell_report(retry_failed(plan, folder, workers=workers, progress=console.Bar(), scheduler=scheduler, budget=budget))


@app.command()
def card(
    folder: Folder,
    picture: Annotated[
        bool | None,
        typer.Option("--picture/--no-picture", help="Draw preview.png too.  [default: unless it would show persons]"),
    ] = None,
) -> None:
    """Write a data set card into the folder: README.md as the Hugging Face hub reads it, and a picture.

    Example: drnet data card data/mnist
    """
    from drnet.pipelines.sharing.card import write_card

    for path in write_card(folder, picture):
        console.say(f"wrote {path}")


@app.command()
def push(
    folder: Folder,
    target: Annotated[str, typer.Argument(metavar="URL", help="hf://datasets/USER/NAME, s3://BUCKET/NAME, gs://...")],
) -> None:
    """Copy a data set to the Hugging Face hub or to object storage. To continue, run the same command again.

    Example: drnet data push data/mnist hf://datasets/USER/NAME
    """
    from drnet.pipelines.sharing.push import push as push_data
    from drnet.pipelines.sharing.push import store_of

    try:
        done = push_data(folder, store_of(target), console.Bar())
    except (ValueError, OSError):
        raise
    except Exception as error:  # each service's package has errors of its own
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ValueError(f"{target}: {said}; check credentials and network, then run the same command again") from error
    console.say(f"{done['sent']} files sent, {done['kept']} were there: {target}")


def overrides(**values: Any) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in values.items() if value is not None}
