"""`drnet train-predictor` and `drnet predict`."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from drnet.cli import console
from drnet.cli.data import overrides
from drnet.cli.options import Checkpoint

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.", show_default=False)]
Shards = Annotated[str, typer.Option(metavar="S", help="Folder of a data set, pattern of tars, or URL.")]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")]


def train_predictor(
    run: Run,
    shards: Shards,
    steps: Annotated[int | None, typer.Option(metavar="N", help="Step to stop at.  [default: the horizon]")] = None,
    horizon: Annotated[
        int | None, typer.Option(metavar="N", help="Length of the schedules, in steps.  [default: 20000]")
    ] = None,
    observe: Annotated[
        int | None, typer.Option(metavar="N", help="Frames it observes.  [default: the paper's, 10 for KTH, else 5]")
    ] = None,
    predict: Annotated[
        int | None, typer.Option(metavar="N", help="Frames it then predicts in training.  [default: 10]")
    ] = None,
    sampling: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="Scheduled sampling: share of the predicted steps that see their own prediction, reached linearly "
            "over the horizon; 0, the paper's, always shows the truth.  [default: 0]",
        ),
    ] = None,
    sampling_steps: Annotated[
        int | None, typer.Option(metavar="N", help="Reach that share after N steps instead.")
    ] = None,
    residual: Annotated[bool | None, typer.Option(help="Predict the change of the pose, not the pose.")] = None,
    loss_on: Annotated[
        Literal["all", "predicted"] | None, typer.Option(help="Steps that the loss is of.  [default: all]")
    ] = None,
    hidden: Annotated[int | None, typer.Option(help="Cells of an LSTM layer.  [default: 256]")] = None,
    layers: Annotated[int | None, typer.Option(help="LSTM layers.  [default: 2]")] = None,
    batch_size: Annotated[int | None, typer.Option(metavar="B", help="Windows in a batch.  [default: 100]")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.  [default: .002]")] = None,
    schedule: Annotated[
        Literal["constant", "cosine"] | None, typer.Option(help="Of the learning rate.  [default: constant]")
    ] = None,
    clip_norm: Annotated[
        float | None, typer.Option(metavar="N", help="Largest norm of the gradient; 0: any.  [default: 0]")
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(metavar="D", help="Predict with an average of the weights that decays by D; 0: none."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the weights and of the batches.")] = None,
    precision: Annotated[
        str | None, typer.Option(metavar="fp32|tf32|bf16", help="Of the LSTM.  [default: the run's]")
    ] = None,
    device: Device = "auto",
    anew: Annotated[
        bool, typer.Option("--anew", help="Delete the predictor that the run has, and start again.")
    ] = False,
    log_every: Annotated[int, typer.Option(metavar="N", help="Steps between lines of metrics.jsonl.")] = 50,
    checkpoint_every: Annotated[int, typer.Option(metavar="N", help="Steps between checkpoints.")] = 1000,
    sample_every: Annotated[int, typer.Option(metavar="N", help="Steps between pictures in samples/.")] = 1000,
) -> None:
    """Train the LSTM that predicts the next pose of a clip, on the frozen features of a run.

    It is written to RUN/predictor. To resume, run the same command again; a larger --steps trains on. It belongs to the
    weights that the run has now: after more of `drnet train`, train it --anew.

    Example: drnet train-predictor runs/mnist --shards data/mnist
    """
    from drnet.pipelines.prediction.train import train_predictor as run_training
    from drnet.pipelines.remote.urls import shown as without_secrets
    from drnet.pipelines.training.loop import Logging

    changes = overrides(
        horizon=horizon,
        observe=observe,
        predict=predict,
        sampling=sampling,
        sampling_steps=sampling_steps,
        residual=residual,
        loss_on=loss_on,
        hidden=hidden,
        layers=layers,
        batch_size=batch_size,
        lr=lr,
        schedule=schedule,
        clip_norm=clip_norm,
        ema=ema,
        seed=seed,
        precision=precision,
    )
    logging = Logging(log_every, checkpoint_every, sample_every)
    with console.stop_event() as (stop, signals):
        report = run_training(run, shards, steps, device, changes, logging, console.Bar(), stop, anew)
    if report.stopped:
        step = report.checkpoint.step if report.checkpoint else 0
        console.err.print(f"stopped at step {step}; the same command continues", markup=False)
        raise typer.Exit(128 + signals[0])
    assert report.checkpoint is not None, "training ends with a checkpoint"
    if report.start == report.checkpoint.step:
        console.say(f"{report.folder} has {report.start} steps already; a larger --steps trains on")
    console.say(f"{report.checkpoint.step} steps: {report.checkpoint.folder}")
    where = " ".join(map(shlex.quote, (str(run), "--shards", without_secrets(shards))))
    console.say(f"next: drnet predict {where} --steps 100 --out prediction.gif")


def predict(
    run: Run,
    shards: Shards,
    out: Annotated[Path, typer.Option(metavar="F", help="A .gif or .mp4, or a .png of some steps.")],
    observe: Annotated[
        int | None, typer.Option(metavar="N", help="Frames it observes.  [default: as it was trained]")
    ] = None,
    steps: Annotated[int, typer.Option(metavar="N", help="Frames it then predicts.")] = 100,
    clips: Annotated[
        str,
        typer.Option(
            metavar="N|KEY,...",
            help="Held-out clips to score: so many, evenly spread, or these; KEY:FRAME is observed from there, from 1.",
        ),
    ] = "64",
    rows: Annotated[
        int | None, typer.Option(metavar="N", help="How many of them to show, at most 16.  [default: 5, or all named]")
    ] = None,
    show_step: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N", help="Show this step in a .png, 1 is the first predicted; may be repeated.  [default: a dozen]"
        ),
    ] = None,
    fps: Annotated[float, typer.Option(help="Frames of a second of a movie.")] = 10,
    metrics: Annotated[
        Path | None, typer.Option(metavar="F", help="Write errors and PSNR of every step to this .json.")
    ] = None,
    checkpoint: Checkpoint = "last",
    device: Device = "auto",
) -> None:
    """Predict held-out clips and show truth above, prediction below.

    Blue borders are observed frames, orange ones predicted. Beyond a clip's end bouncing digits are drawn again in closed
    form and whole turns go on at their beginning; other clips are scored as far as they go, and a grey place says that
    they have ended. Memory does not grow with --steps.

    Example: drnet predict runs/mnist --shards data/mnist --steps 500 --out movie.gif
    """
    from drnet.pipelines.looking.clips import asked_clips
    from drnet.pipelines.prediction.predict import write_prediction

    console.check_ending(out, ".gif", ".mp4", ".png")
    if metrics is not None:
        console.check_ending(metrics, ".json")
    report = write_prediction(
        run,
        shards,
        out,
        observe,
        steps,
        asked_clips(clips),
        rows,
        show_step or (),
        fps,
        metrics,
        device,
        console.Bar(),
        checkpoint,
    )
    shown = [row for row in report.rows if row["step"] in (1, 2, 5, 10, 20, 30, 50, 95, 100, 500, steps)]
    lines = [(str(row["step"]), str(row["clips"]), _db(row["predicted"]), _db(row["copy_last_frame"])) for row in shown]
    title = f"step {report.step:,} of the run; {report.observe} frames observed; mean PSNR of a frame in dB"
    console.say_table(title, ("step", "clips", "prediction", "last frame copied"), lines)
    for path in (out, metrics):
        if path is not None:
            console.say(str(path))


def _db(score: dict[str, float | None]) -> str:
    return "-" if score["psnr"] is None else "exact" if score["mse"] == 0 else f"{score['psnr']:.2f}"
