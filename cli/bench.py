"""`drnet bench`: measure the product beside its alternatives."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from drnet.cli import console

app = typer.Typer(help="Measure speed, as ratios to alternatives in the same run.", no_args_is_help=True)
build_app = typer.Typer(
    help="Measure building data sets beside the work no builder can do without.", no_args_is_help=True
)
app.add_typer(build_app, name="build")

Rounds = Annotated[int, typer.Option(metavar="N", min=1, help="Rounds of each, in turn.")]
Codec = Annotated[Literal["raw", "zstd"], typer.Option(help="Codec of the build.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.callback()
def bench() -> None:
    """Measure speed, as ratios to alternatives in the same run."""


def show(found: dict[str, Any], as_json: bool) -> None:
    """Print what a benchmark found."""
    if as_json:
        return console.say_json(found)
    ratios = found["ratios"]
    rows = []
    for name, rate in found["rates"].items():
        told = ratios.get(name)
        spread = f"{min(told['rounds']):.2f} to {max(told['rounds']):.2f}" if told else ""
        rows.append([name, f"{rate:,.1f}", f"{told['ratio']:.2f}" if told else "", spread])
    first = next(iter(found["rates"]))
    console.say_table(found["what"], ["", f"{found['unit']}/s (median)", f"{first} to it", "rounds"], rows)


@build_app.command()
def mnist(
    source: Annotated[str | None, typer.Option(metavar="DIR|optdigits", help="Where the digits come from.")] = None,
    clips: Annotated[int, typer.Option(metavar="N", min=1, help="Clips in each round.")] = 2000,
    rounds: Rounds = 7,
    codec: Codec = "zstd",
    as_json: AsJson = False,
) -> None:
    """Bouncing digits, encoding and writing included, against only drawing them in the plain style of research code.

    Example: drnet bench build mnist --source optdigits --clips 500 --rounds 3
    """
    from drnet.pipelines.measuring.bench_build import bench_mnist

    show(bench_mnist(source, clips, rounds, codec, console.Bar()), as_json)


@build_app.command()
def chairs(
    clips: Annotated[int, typer.Option(metavar="N", min=1, help="Chairs in each round.")] = 10,
    size: Annotated[int, typer.Option(help="Height and width of the frames.")] = 64,
    shadows: Annotated[bool, typer.Option("--shadows", help="With shadows.")] = False,
    rounds: Rounds = 5,
    as_json: AsJson = False,
) -> None:
    """Generated chairs, encoding and writing included, against pybullet's bare drawing of the same pictures.

    Example: drnet bench build chairs --size 128 --rounds 3
    """
    from drnet.pipelines.measuring.bench_build import bench_chairs

    show(bench_chairs(clips, size, shadows, rounds, console.Bar()), as_json)


@build_app.command()
def kth(
    source: Annotated[str, typer.Option(metavar="DIR", help="Folder with KTH videos; a part of them is enough.")],
    size: Annotated[int, typer.Option(help="Height and width of the frames.")] = 128,
    rounds: Rounds = 5,
    as_json: AsJson = False,
) -> None:
    """KTH videos, scaling, encoding and writing included, against decord's bare decoding of the same files.

    Example: drnet bench build kth --source DIR --rounds 3
    """
    from drnet.pipelines.measuring.bench_build import bench_kth

    show(bench_kth(source, rounds, size, console.Bar()), as_json)


@build_app.command()
def workers(
    clips: Annotated[int, typer.Option(metavar="N", min=1, help="Chairs of a build.")] = 100,
    rounds: Rounds = 3,
    as_json: AsJson = False,
) -> None:
    """Whole builds of generated chairs by two processes against one, starting the processes included.

    Example: drnet bench build workers --clips 40 --rounds 1
    """
    from drnet.datasets.chairs import Chairs
    from drnet.pipelines.measuring.bench_build import bench_workers

    show(bench_workers(Chairs(clips), "zstd", rounds, console.Bar()), as_json)


@build_app.command()
def peak(
    data_set: Annotated[str, typer.Argument(metavar="DATASET", help="mnist, norb, chairs, kth, videos or frames.")],
    source: Annotated[str | None, typer.Option(metavar="DIR", help="Its source, where it has one.")] = None,
    limits: Annotated[str, typer.Option(metavar="N,...", help="Items of each split, for each build.")] = "1,4,16",
    as_json: AsJson = False,
) -> None:
    """How much memory a build holds at most, for ever more items: it must not grow with them.

    Example: drnet bench build peak chairs --limits 1,4,16
    """
    from drnet.datasets.catalogue import restore
    from drnet.pipelines.measuring.bench_peak import bench_peak

    settings = {"allow_missing": True} | ({} if source is None else {"source": source})
    data = restore(data_set, None, **settings)
    found = bench_peak(data, [int(number) for number in limits.split(",")], console.Bar())
    if as_json:
        return console.say_json(found)
    rows = [[f"{row['limit']:,.0f}", f"{row['frames']:,.0f}", f"{row['peak']:,.0f}"] for row in found]
    console.say_table(f"{data_set}, one worker", ["items of each split", "frames", "peak, MB"], rows)


@app.command()
def stream(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a data set.")],
    against: Annotated[str, typer.Option(metavar="PEER,...", help="Peers that read the same shards.")] = "webdataset",
    mosaicml_python: Annotated[
        str | None, typer.Option(metavar="PYTHON", help="Interpreter that has mosaicml-streaming, for --against it.")
    ] = None,
    batch_size: Annotated[int, typer.Option(metavar="N", min=2, help="Clips of a batch.")] = 100,
    rounds: Rounds = 5,
    step: Annotated[
        str | None,
        typer.Option(metavar="PRESET", help="Measure training steps of a preset too, against a cached batch."),
    ] = None,
    memory: Annotated[int | None, typer.Option(metavar="N", help="Read N samples too, and watch the memory.")] = None,
    as_json: AsJson = False,
) -> None:
    """Reading a data set: whole clips, and the frames that training asks for, against peers and the bare files.

    Example: drnet bench stream data/mnist --rounds 3
    """
    from drnet.pipelines.measuring.bench_stream import bench_memory, bench_step, bench_stream

    found = bench_stream(folder, tuple(against.split(",")), batch_size, rounds, console.Bar(), mosaicml_python)
    if step is not None:
        found["step"] = bench_step(folder, step, batch_size, rounds, console.Bar())
    if memory is not None:
        found["memory"] = bench_memory(folder, memory, batch_size, console.Bar())
    if as_json:
        return console.say_json(found)
    for name, title in (("whole", "whole clips"), ("asked", "two frames of each clip, in training order")):
        show({"what": f"{title}: {found['what']}", "unit": "clips", **found[name]}, False)
    console.say(f"whole clips: {found['megabytes']:,.0f} MB/s of frames")
    console.say(
        "a training read, microseconds a clip: " + ", ".join(f"{k} {v:.1f}" for k, v in found["stages"].items())
    )
    if step is not None:
        show(found["step"], False)
    if memory is not None:
        told = found["memory"]
        console.say(
            f"memory over {told['samples']:,} samples: {told['grown']:+.1f} MB from the second tenth to the last"
        )


@app.command()
def train(
    preset: Annotated[str, typer.Option(metavar="NAME", help="A preset, as for drnet train.")] = "mnist",
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to train.")] = "auto",
    batch_size: Annotated[int | None, typer.Option(metavar="B", help="Clips of a batch.  [default: preset's]")] = None,
    precision: Annotated[
        str | None, typer.Option(metavar="fp32|tf32|bf16", help="Of the product's steps.  [default: preset's]")
    ] = None,
    compiling: Annotated[
        Literal["off", "on", "graphs"],
        typer.Option("--compile", help="As for drnet train; the plain style stays as is."),
    ] = "off",
    cache: Annotated[Literal["auto", "device", "stream"], typer.Option(help="As for drnet train.")] = "auto",
    data: Annotated[
        str | None, typer.Option(metavar="S", help="Shards to train on.  [default: noise of the preset's shape]")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Height and width of generated frames.  [default: preset's]")] = None,
    width: Annotated[
        int | None, typer.Option(help="Channels after the first convolution.  [default: preset's]")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Steps of each in a round.  [default: 2, on a GPU 50]")
    ] = None,
    rounds: Rounds = 5,
    out: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Write all that was found into a file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Training steps, fed by the loader, against the same mathematics in the plain style of research code.

    Plain style: float32, eager, PyTorch's own memory order and Adam, features computed twice, losses read at every step.
    Tells the FLOP of a step as a share of the device's rate at large products of matrices of the same precision.

    Example: drnet bench train --preset mnist --precision bf16 --out bench.json
    """
    from drnet.cli.data import overrides
    from drnet.pipelines.files import pretty_json, write_whole
    from drnet.pipelines.measuring.bench_train import bench_train

    if out is not None:
        console.check_ending(out, ".json")
    changes = overrides(batch_size=batch_size, precision=precision, width=width)
    found = bench_train(
        preset,
        device,
        changes,
        data=data,
        size=size,
        steps=steps,
        rounds=rounds,
        compiling=compiling,
        cache=cache,
        progress=console.Bar(),
    )
    if out is not None:
        write_whole(out, pretty_json(found))
    if as_json:
        return console.say_json(found)
    show_training(found)


def show_training(found: dict[str, Any]) -> None:
    """Print what the benchmark of training found."""

    def number(value: float) -> str:
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

    first, rows = next(iter(found["steps"])), []
    for name, rate in found["steps"].items():
        row = [name, number(rate), number(found["pairs"][name]), number(found["flop"][name] / 1e9)]
        row += [f"{100 * found['share'][name]:.1f} %", number(found["peak"][name]) if name in found["peak"] else ""]
        told = found["ratios"].get(name)
        row += [f"{told['ratio']:.2f}", f"{min(told['rounds']):.2f} to {max(told['rounds']):.2f}"] if told else ["", ""]
        rows.append(row)
    columns = ["", "steps/s", "frame pairs/s", "GFLOP a step", "of products", "peak, MB", f"{first} to it", "rounds"]
    console.say_table(found["what"], columns, rows)
    console.say(f"large products of matrices: {found['products'] / 1e12:,.3f} TFLOP/s")
    console.say(f"waiting for the loader: {100 * found['stall']:.2f} % of the time")
    minutes = found["horizon_seconds"] / 60
    duration = f"{minutes:,.1f} minutes" if minutes < 600 else f"{minutes / 60:,.0f} hours"
    console.say(f"all {found['horizon']:,} steps of {found['settings']['preset']} at this rate: {duration}")


@app.command()
def growth(
    shards: Annotated[str, typer.Option(metavar="N,...", help="Shards of each data set.")] = "10,100,1000,10000",
    as_json: AsJson = False,
) -> None:
    """What grows with the number of shards: opening a data set, its first batch, a far batch, the rate.

    Example: drnet bench growth --shards 10,100,1000
    """
    from drnet.pipelines.measuring.bench_growth import bench_growth

    found = bench_growth([int(number) for number in shards.split(",")], progress=console.Bar())
    if as_json:
        return console.say_json(found)
    rows = []
    for row in found:
        times = [f"{1e3 * row[key]:,.1f}" for key in ("open", "first", "far")]
        rows.append([f"{row['shards']:,.0f}", *times, f"{row['rate']:,.0f}", f"{row['manifest'] / 1e3:,.0f} kB"])
    columns = ["shards", "open, ms", "first batch, ms", "batch 1,000,000, ms", "clips/s", "manifest"]
    console.say_table("ten clips of 4x16x16x1 a shard, batches of 100", columns, rows)


faults_app = typer.Typer(help="Prove that what is promised survives kills and faults.", no_args_is_help=True)
app.add_typer(faults_app, name="faults")


@faults_app.callback()
def faults() -> None:
    """Prove that what is promised survives kills and faults."""


@faults_app.command("build")
def faults_build(
    kills: Annotated[int, typer.Option(metavar="N", min=1, help="Builds to kill.")] = 200,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of when and where.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Kill builds at random moments, fill their disk, stop them by signals; run each again, and compare every byte.

    Example: drnet bench faults build --kills 20
    """
    from drnet.pipelines.measuring.faults import bench_faults

    found = bench_faults(kills, seed, progress=console.Bar())
    if as_json:
        console.say_json(found)
    else:
        for name, value in found.items():
            console.say(f"{name}: {value}")
    if found["wrong"]:
        raise typer.Exit(1)


@app.command()
def scale(
    clips: Annotated[str, typer.Option(metavar="N,...", help="Clips of each build.")] = "1000,10000,100000",
    per_shard: Annotated[int, typer.Option(metavar="N", min=1, help="Clips of a shard.")] = 1000,
    as_json: AsJson = False,
) -> None:
    """What a build costs as it grows, with tiny clips: time and memory of the parent, size of the manifest.

    Example: drnet bench scale --clips 1000,10000
    """
    from drnet.pipelines.measuring.bench_scale import bench_scale

    found = bench_scale([(int(number), per_shard) for number in clips.split(",")], progress=console.Bar())
    if as_json:
        return console.say_json(found)
    rows = []
    for row in found:
        counts = [f"{row['clips']:,.0f}", f"{row['shards']:,.0f}", f"{row['build']:,.1f}", f"{row['finish']:,.2f}"]
        sizes = [f"{row['memory']:,.0f}", f"{row['manifest'] / 1e3:,.0f}", f"{1e3 * row['load']:,.1f}"]
        rows.append(counts + sizes)
    columns = ["clips", "shards", "build, s", "accounting, s", "peak, MB", "manifest, kB", "loading it, ms"]
    console.say_table("one worker, raw clips that cost nothing to draw", columns, rows)
