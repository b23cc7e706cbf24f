"""`drnet data`: build data sets, and look at them."""

import shlex
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from drnet.cli import console
from drnet.datasets.contract import DataSet

app = typer.Typer(help="Build data sets as WebDataset shards; inspect, verify and preview them.", no_args_is_help=True)
build_app = typer.Typer(help="Build a data set. To resume, run the same command again.", no_args_is_help=True)
app.add_typer(build_app, name="build")


class CodecName(StrEnum):
    """Values of --codec."""

    raw = "raw"
    zstd = "zstd"


class OverlapName(StrEnum):
    """Values of --overlap."""

    hide = "hide"
    add = "add"


class SplitName(StrEnum):
    """Values of --split."""

    train = "train"
    test = "test"


Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the data set; made where it is missing.")]
Seed = Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")]
TestClips = Annotated[
    int | None, typer.Option(metavar="M", min=0, help="Clips of the test split.  [default: 10% of --clips]")
]
CodecOption = Annotated[CodecName, typer.Option("--codec", help="raw: NPY; zstd: compressed NPY.")]
PerShard = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Clips in each shard.  [default: a sixteenth of --clips, at most 1000]"),
]
Workers = Annotated[int, typer.Option(metavar="N", min=1, help="Processes; the result is the same with any number.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be built, and write nothing.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a data set.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@build_app.command()
def mnist(
    out: Out,
    source: Annotated[
        str | None,
        typer.Option(metavar="DIR|optdigits", help="Folder with the four IDX files, or scikit-learn's own digits."),
    ] = None,
    clips: Annotated[int, typer.Option(metavar="N", min=1, help="Clips of the train split.")] = 10_000,
    test_clips: TestClips = None,
    frames: Annotated[int, typer.Option(metavar="T", min=1, help="Frames of a clip.")] = 20,
    size: Annotated[int, typer.Option(help="Height and width of the frames: a multiple of 16, 16 to 512.")] = 64,
    overlap: Annotated[
        OverlapName, typer.Option(help="The front digit hides the other, or both show.")
    ] = OverlapName.hide,
    seed: Seed = 0,
    codec: CodecOption = CodecName.zstd,
    clips_per_shard: PerShard = None,
    workers: Workers = 1,
    dry_run: DryRun = False,
) -> None:
    """Two handwritten digits, one red and one green, bouncing in a square.

    Without --source, MNIST is looked for in the cache, then downloaded.

    Example: drnet data build mnist --out data/mnist --source optdigits --clips 1000 --size 32
    """
    from drnet.datasets.mnist import BouncingDigits

    _build(
        BouncingDigits(source, clips, test_clips, frames, size, seed, overlap.value),
        out,
        codec,
        clips_per_shard,
        workers,
        dry_run,
    )


@build_app.command()
def chairs(
    out: Out,
    clips: Annotated[int, typer.Option(metavar="N", min=1, help="Chairs of the train split.")] = 400,
    test_clips: TestClips = None,
    frames: Annotated[int, typer.Option(metavar="T", min=1, help="Azimuths in a full turn.")] = 36,
    size: Annotated[int, typer.Option(help="Height and width of the frames: 32, 64, 128 or 256.")] = 64,
    elevation: Annotated[
        float, typer.Option(metavar="DEGREES", help="Of the camera above the horizon, 0 to 60.")
    ] = 20.0,
    seed: Seed = 0,
    codec: CodecOption = CodecName.zstd,
    clips_per_shard: PerShard = None,
    workers: Workers = 1,
    dry_run: DryRun = False,
) -> None:
    """A camera turning around generated chairs, drawn by pybullet. Needs no download.

    Example: drnet data build chairs --out data/chairs --clips 400 --workers 2
    """
    from drnet.datasets.chairs import Chairs

    _build(Chairs(clips, test_clips, size, frames, elevation, seed), out, codec, clips_per_shard, workers, dry_run)


def count_of(problems: Sequence[str]) -> str:
    """Say how many problems there are."""
    return f"{len(problems) or 'no'} problem{'' if len(problems) == 1 else 's'}"


def _build(data: DataSet, out: Path, codec: CodecName, per_shard: int | None, workers: int, dry_run: bool) -> None:
    from drnet.pipelines.build import build, plan_build, refuse_other_build, shard_is_done

    plan = plan_build(data, codec.value, per_shard)
    if dry_run:
        refuse_other_build(out, plan)
        counts = ", ".join(f"{data.count(split)} {split}" for split in ("train", "test"))
        kept = sum(shard_is_done(out / job.name, plan.build) for job in plan.jobs)
        console.say(
            f"would write {len(plan.jobs) - kept} of {len(plan.jobs)} shards and keep {kept}: {counts} clips in {out} "
            f"(build {plan.build[:12]})"
        )
        return
    report = build(plan, out, workers, console.Bar())
    for split, counted in report.counts.items():
        console.say(f"{split}: " + (", ".join(f"{number} {fate}" for fate, number in counted.items()) or "none"))
    console.say(f"{report.written} shards written, {report.kept} kept: {out}")
    console.say(f"next: drnet data preview {shlex.quote(str(out))} --out preview.png")


@app.command()
def info(folder: Folder, as_json: AsJson = False) -> None:
    """Say what a data set holds.

    Example: drnet data info data/mnist
    """
    from drnet.pipelines.inspect import describe_data

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
    for split, part in found["splits"].items():
        console.say(f"{split} items: " + ", ".join(f"{number} {fate}" for fate, number in part["items"].items()))
    for note in found["notes"]:
        console.say(f"note: {note}")
    console.say(f"licence: {found['licence']}")
    console.say(f"cite: {found['citation']}")


@app.command()
def verify(
    folder: Folder,
    fast: Annotated[bool, typer.Option("--fast", help="Hashes only; do not decode the clips.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check every file of a data set: hashes, archive members, labels, and every frame.

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
    folder: Annotated[str, typer.Argument(metavar="DIR|URL", help="A data set, or a pattern of its shards.")],
    out: Annotated[Path, typer.Option(metavar="x.png|x.gif|x.mp4", help="A contact sheet, or an animation.")],
    split: Annotated[SplitName, typer.Option(help="Which clips.")] = SplitName.train,
    clips: Annotated[int, typer.Option(metavar="N", min=1, help="How many clips.")] = 8,
    first: Annotated[int, typer.Option(metavar="I", min=0, help="Number of the first clip.")] = 0,
) -> None:
    """Draw clips with their labels.

    Example: drnet data preview data/mnist --out preview.gif
    """
    from drnet.pipelines.inspect import preview_data

    preview_data(folder, out, split.value, clips, first)
    console.say(f"wrote {out}")


def overrides(**values: Any) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in values.items() if value is not None}
