"""`drnet figure`: the paper's figures, of a run and of held-out clips."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from drnet.cli import console
from drnet.cli.options import Checkpoint

if TYPE_CHECKING:
    from drnet.pipelines.figures.beside import Beside
    from drnet.pipelines.figures.figure import Figure
    from drnet.pipelines.figures.scene import Scene

app = typer.Typer(help="Draw the paper's figures from a run and held-out clips.", no_args_is_help=True)

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of a trained model.")]
Shards = Annotated[str, typer.Option(metavar="S", help="Folder of a data set, pattern of tars, or URL.")]
Out = Annotated[Path, typer.Option(metavar="F", help="Picture (.png, .svg) or movie (.gif, .mp4).")]
Still = Annotated[Path, typer.Option(metavar="F", help="Picture: .png or .svg.")]
FRAME, SPAN = "KEY:FRAME names a frame too", "KEY:FIRST-LAST names the frames too"
BEGIN = "KEY:FRAME is observed from there"


def _clips(frames: str, default: int) -> Any:
    """Return the option of a figure's clips; its default stands in its help alone, so that a typed one is told from it."""
    told = f"Clips: so many drawn ones, or these; {frames}, from 1.  [default: {default}]"
    return typer.Option(metavar="N|KEY,...", help=told)


Split = Annotated[Literal["test", "train"], typer.Option(help="test: clips that training did not see.")]
Rows = Annotated[int | None, typer.Option(metavar="N", min=1, help="The same as --clips N.")]
Columns = Annotated[int, typer.Option(metavar="N", min=1, help="Frames beside each other.")]
Seed = Annotated[int, typer.Option(metavar="N", min=0, help="Of the clips and frames that are drawn.")]
BesideRuns = Annotated[
    list[str] | None, typer.Option("--beside", metavar="NAME=RUN", help="A further run to show; repeat it for more.")
]
Missing = Annotated[
    list[str] | None,
    typer.Option(
        "--missing",
        metavar="NAME",
        help="A method not implemented yet: an empty place; difference has MCNet's by default.",
    ),
]
Observe = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Observed frames.  [default: as the predictor was trained]")
]
Steps = Annotated[int, typer.Option(metavar="N", min=1, help="Predicted frames.")]
Times = Annotated[
    str, typer.Option("--at", metavar="T,...", help="Frames to show instead, t = 1 is the first observed.")
]
Fps = Annotated[float, typer.Option(metavar="F", min=0.1, max=100, help="Pictures per second of a movie.")]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the numbers that the figure shows, for programs.")]


@app.command(short_help="Content of one clip, pose of another (Fig. 3, 4, 5).")
def swap(
    run: Run,
    shards: Shards,
    out: Out = Path("swap.png"),
    clips: Annotated[str | None, _clips(FRAME, 6)] = None,
    poses: Annotated[
        str | None, typer.Option(metavar="N|KEY,...", help="As --clips, of the top row.  [default: 8]")
    ] = None,
    checkpoint: Checkpoint = "last",
    split: Split = "test",
    rows: Rows = None,
    columns: Annotated[int | None, typer.Option(metavar="N", min=1, help="The same as --poses N.")] = None,
    seed: Seed = 0,
    truth: Annotated[bool, typer.Option("--truth", help="The true frame below each, where it is known.")] = False,
    beside: BesideRuns = None,
    missing: Missing = None,
    fps: Fps = 10,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Draw a grid: each frame has the content of the row's clip in the pose of the column's. In a movie, these clips run.

    Example: drnet figure swap runs/mnist --shards data/mnist --out swap.png
    """
    moving, scene, others = _begin(run, shards, checkpoint, split, device, out, beside)
    from drnet.pipelines.figures.swap import swap_figure

    contents, drawn = _chosen(clips, 6, rows)
    top, across = _chosen(poses, 8, columns, "--poses", "--columns")
    figure = swap_figure(scene, contents, top, drawn, across, seed, truth, others, missing or (), moving)
    _end(out, figure, fps, scene, as_json)


@app.command(short_help="From one pose of a clip to another (Fig. 5).")
def interpolate(
    run: Run,
    shards: Shards,
    out: Out = Path("interpolate.png"),
    clips: Annotated[str | None, _clips(SPAN, 5)] = None,
    checkpoint: Checkpoint = "last",
    split: Split = "test",
    rows: Rows = None,
    columns: Annotated[int, typer.Option(metavar="N", min=2, help="Generated frames, both ends included.")] = 7,
    seed: Seed = 0,
    beside: BesideRuns = None,
    fps: Fps = 10,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Draw frames between two of a clip: the content stays, the pose goes in a straight line from one to the other.

    Where a clip shows a turn (its azimuth is a label), its true frames stand below.

    Example: drnet figure interpolate runs/chairs --shards data/chairs --out interpolate.png
    """
    moving, scene, others = _begin(run, shards, checkpoint, split, device, out, beside)
    from drnet.pipelines.figures.interpolate import interpolate_figure

    _end(out, interpolate_figure(scene, *_chosen(clips, 5, rows), columns, seed, others, moving), fps, scene, as_json)


@app.command(short_help="Predicted futures beside the truth (Fig. 3, 6, 7, 11).")
def rollout(
    run: Run,
    shards: Shards,
    out: Out = Path("rollout.png"),
    clips: Annotated[str | None, _clips(BEGIN, 4)] = None,
    checkpoint: Checkpoint = "last",
    split: Split = "test",
    rows: Rows = None,
    columns: Columns = 10,
    at: Times = "",
    observe: Observe = None,
    steps: Steps = 20,
    seed: Seed = 0,
    copy: Annotated[bool, typer.Option("--copy", help="A row of the last observed frame, copied.")] = False,
    beside: BesideRuns = None,
    missing: Missing = None,
    fps: Fps = 10,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Draw what the run's predictor expects after the first frames of a clip, beside what truly follows.

    Example: drnet figure rollout runs/mnist --shards data/mnist --steps 500 --out rollout.png
    """
    moving, scene, others = _begin(run, shards, checkpoint, split, device, out, beside)
    from drnet.pipelines.figures.rollout import rollout_figure

    figure = rollout_figure(
        scene,
        *_chosen(clips, 4, rows),
        columns,
        _times(at),
        observe,
        steps,
        seed,
        copy,
        others,
        missing or (),
        moving,
    )
    _end(out, figure, fps, scene, as_json)


@app.command(short_help="The nearest training frames (Fig. 10).")
def neighbours(
    run: Run,
    shards: Shards,
    out: Still = Path("neighbours.png"),
    clips: Annotated[str | None, _clips(SPAN, 3)] = None,
    checkpoint: Checkpoint = "last",
    split: Split = "test",
    rows: Rows = None,
    columns: Columns = 6,
    seed: Seed = 0,
    train_clips: Annotated[int, typer.Option(metavar="N", min=1, help="Training clips to search at most.")] = 2000,
    generated: Annotated[
        bool, typer.Option("--generated", help="Look for the predictor's frames instead of true ones.")
    ] = False,
    steps: Steps = 20,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Draw frames of held-out clips and, below each, the nearest training frames by pose, and by content and pose.

    Example: drnet figure neighbours runs/kth --shards data/kth --generated --out neighbours.png
    """
    _, scene, _ = _begin(run, shards, checkpoint, split, device, out, None, movies=False)
    from drnet.pipelines.figures.neighbours import neighbours_figure
    from drnet.pipelines.prediction.rollout import load_predictor

    predictor = load_predictor(run, str(scene.device), scene.checkpoint) if generated else None
    figure = neighbours_figure(
        scene, *_chosen(clips, 3, rows), columns, seed, train_clips, predictor, steps, console.Bar()
    )
    _end(out, figure, 1, scene, as_json)


@app.command(short_help="Predictions minus the truth, with PSNR (Fig. 12).")
def difference(
    run: Run,
    shards: Shards,
    out: Out = Path("difference.png"),
    clips: Annotated[str | None, _clips(BEGIN, 2)] = None,
    checkpoint: Checkpoint = "last",
    split: Split = "test",
    rows: Rows = None,
    columns: Columns = 7,
    at: Times = "",
    observe: Observe = None,
    steps: Steps = 20,
    seed: Seed = 0,
    beside: BesideRuns = None,
    missing: Missing = None,
    fps: Fps = 10,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Draw predictions, the last observed frame copied, and the difference of both from the truth, with PSNR.

    Example: drnet figure difference runs/kth --shards data/kth --out difference.png
    """
    moving, scene, others = _begin(run, shards, checkpoint, split, device, out, beside)
    from drnet.pipelines.figures.difference import MISSING, difference_figure

    empty = MISSING if missing is None else missing
    figure = difference_figure(
        scene, *_chosen(clips, 2, rows), columns, _times(at), observe, steps, seed, others, empty, moving
    )
    _end(out, figure, fps, scene, as_json)


def _begin(
    run: Path,
    shards: str,
    checkpoint: str,
    split: str,
    device: str,
    out: Path,
    beside: list[str] | None,
    movies: bool = True,
) -> "tuple[bool, Scene, list[Beside]]":
    """Check the ending, then load the run, its clips and the runs beside it."""
    from drnet.pipelines.figures.figure import is_movie

    moving = is_movie(out, movies)
    from drnet.pipelines.figures.beside import runs_beside
    from drnet.pipelines.figures.scene import open_scene

    scene = open_scene(run, shards, split, device, checkpoint)
    for note in scene.notes:
        console.err.print(note, markup=False)
    return moving, scene, runs_beside(beside or (), scene.clips.frame_shape, scene.device)


def _end(out: Path, figure: "Figure", fps: float, scene: "Scene", as_json: bool) -> None:
    """Write the figure and say what was written."""
    from drnet.pipelines.figures.figure import write_figure

    write_figure(out, figure, fps)
    if as_json:
        numbers: dict[str, Any] = {"out": str(out), **figure.numbers}
        return console.say_json(numbers)
    console.say(f"{scene.about()}")
    console.say(f"wrote {out}")


def _chosen(
    asked: str | None, default: int, count: int | None, names: str = "--clips", number: str = "--rows"
) -> tuple[list[str], int]:
    """Return the names of clips, or none and how many to draw, of an option and of the one that is its number alone."""
    from drnet.pipelines.looking.clips import asked_clips

    if count is not None and asked is not None:
        raise ValueError(f"{number} {count} is not allowed beside {names} {asked}: both say which clips; leave one out")
    found = count or (default if asked is None else asked_clips(asked))
    return ([], found) if isinstance(found, int) else (found, len(found))


def _words(listed: str) -> list[str]:
    return [word.strip() for word in listed.split(",") if word.strip()]


def _times(listed: str) -> list[int]:
    try:
        return [int(word) for word in _words(listed)]
    except ValueError:
        raise ValueError(f"--at {listed!r} is not understood; write times as numbers, for example 1,5,10") from None
