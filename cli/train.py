"""`drnet train`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from drnet.cli import console
from drnet.cli.data import overrides


def train(
    shards: Annotated[str, typer.Option(metavar="S", help="Folder of a data set, pattern of tars, or URL.")],
    out: Annotated[Path, typer.Option(metavar="RUN", help="Run folder; an existing run is continued.")],
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The paper's, for a GPU: mnist (64x64), norb (64x64 or 96x96), chairs (64x64), kth (128x128), "
            "kth-actions (128x128). For a CPU: mnist-small (32x32), chairs-small (64x64).  "
            "[default: the run's own, in a new one mnist]",
        ),
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(
            metavar="paper|authors",
            help="Where the paper and its authors' code differ, follow the one or the other.  [default: paper]",
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", help="Step to stop at.  [default: the horizon]")] = None,
    horizon: Annotated[int | None, typer.Option(metavar="N", help="Length of the schedules, in steps.")] = None,
    max_offset: Annotated[int | None, typer.Option(metavar="K", help="Largest distance of two frames.")] = None,
    cyclic: Annotated[bool | None, typer.Option(help="Let t + k pass a clip's end: clips are whole turns.")] = None,
    batch_size: Annotated[int | None, typer.Option(metavar="B", help="Clips in the global batch.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Weight of the similarity loss (Eq. 5).")] = None,
    beta: Annotated[float | None, typer.Option(help="Weight of the adversarial losses (Eq. 5).")] = None,
    negatives: Annotated[
        str | None,
        typer.Option(
            metavar="shift|other-content|permuted",
            help="Different clips for the discriminator: any other one, one of other content, or a permuted half batch.",
        ),
    ] = None,
    pose_dim: Annotated[int | None, typer.Option(help="Numbers in a pose vector.")] = None,
    content_dim: Annotated[int | None, typer.Option(help="Numbers in a content vector.")] = None,
    width: Annotated[int | None, typer.Option(help="Channels after the first convolution.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the weights and of the batches.")] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to train.")] = "auto",
    precision: Annotated[str | None, typer.Option(metavar="fp32|bf16", help="bf16: autocast to bfloat16.")] = None,
    max_skipped: Annotated[
        str, typer.Option(metavar="N|P%", help="Clips that may be left out because they cannot be read.")
    ] = "0",
    log_every: Annotated[int, typer.Option(metavar="N", help="Steps between lines of metrics.jsonl.")] = 50,
    checkpoint_every: Annotated[int, typer.Option(metavar="N", help="Steps between checkpoints.")] = 1000,
    sample_every: Annotated[int, typer.Option(metavar="N", help="Steps between pictures in samples/.")] = 1000,
    wandb: Annotated[
        bool,
        typer.Option(
            "--wandb", help="Send metrics and pictures to Weights & Biases too; WANDB_MODE=offline keeps them."
        ),
    ] = False,
    wandb_project: Annotated[
        str | None,
        typer.Option(metavar="[TEAM/]NAME", help="Its project; implies --wandb.  [default: the run's own, or drnet]"),
    ] = None,
) -> None:
    """Train DrNet on shards into a run folder.

    To resume, run the same command again; a larger --steps trains on. Settings that are not given are the preset's or,
    in a run that is continued, its own. Quote a pattern: 'DIR/train-{000000..000009}.tar'.
    Ctrl-C and SIGTERM write a checkpoint first.

    Example: drnet train --shards data/mnist --out runs/mnist --preset mnist-small
    """
    from drnet.pipelines.failures import parse_budget
    from drnet.pipelines.train import Logging
    from drnet.pipelines.train import train as run_training
    from drnet.pipelines.urls import shown as without_secrets

    changes = overrides(
        variant=variant,
        horizon=horizon,
        max_offset=max_offset,
        cyclic=cyclic,
        batch_size=batch_size,
        lr=lr,
        alpha=alpha,
        beta=beta,
        negatives=negatives,
        pose_dim=pose_dim,
        content_dim=content_dim,
        width=width,
        seed=seed,
        precision=precision,
    )
    project = wandb_project or ("" if wandb else None)
    budget = parse_budget(max_skipped, "max-skipped")
    logging = Logging(log_every, checkpoint_every, sample_every, wandb=project, max_skipped=budget)
    with console.stop_event() as (stop, signals):
        report = run_training(shards, out, preset, steps, device, changes, logging, console.Bar(), stop)
    if report.stopped:
        console.err.print(f"stopped at step {report.checkpoint.step}; the same command continues", markup=False)
        raise typer.Exit(128 + signals[0])
    if report.start == report.checkpoint.step:
        console.say(f"{out} has {report.start} steps already; a larger --steps trains on")
    console.say(f"{report.checkpoint.step} steps: {report.checkpoint.folder}")
    if report.metrics:
        shown = {name.split("/")[-1]: value for name, value in report.metrics.items() if name.startswith("loss/")}
        console.say("last losses: " + ", ".join(f"{name} {value:.4g}" for name, value in shown.items()))
    where = " ".join(map(shlex.quote, (str(out), "--shards", without_secrets(shards))))
    console.say(f"next: drnet export-features {where} --out features.h5")
