"""`drnet train`."""

import shlex
import signal
from pathlib import Path
from typing import Annotated, Literal

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
            help="The paper's, for a GPU: mnist (64x64), norb (64x64 or 96x96), chairs (64x64), kth, kth-actions and its "
            "baseline kth-autoencoder (128x128). For a CPU: mnist-small, mnist-medium (32x32), chairs-small, kth-small and its "
            "baseline kth-small-autoencoder (64x64).  "
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
    precision: Annotated[
        str | None,
        typer.Option(metavar="fp32|tf32|bf16", help="tf32: rounded products on a GPU; bf16: autocast to bfloat16."),
    ] = None,
    clip_norm: Annotated[
        float | None, typer.Option(metavar="N", help="Largest norm of the gradient of each loss; 0: any.")
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(metavar="D", help="Evaluate an average of the weights that decays by D, as .999; 0: the weights."),
    ] = None,
    accumulate: Annotated[
        int | None, typer.Option(metavar="N", help="Compute each batch in N parts, which takes less memory.")
    ] = None,
    sync_batchnorm: Annotated[
        bool | None, typer.Option(help="With several GPUs: BatchNorm sees the whole batch, not a GPU's part.")
    ] = None,
    cache: Annotated[
        Literal["auto", "device", "stream"],
        typer.Option(
            help="Keep all frames in the device's memory, or stream them; auto: on a GPU where they fit.",
        ),
    ] = "auto",
    compiling: Annotated[
        Literal["off", "on", "graphs"],
        typer.Option("--compile", help="torch.compile; graphs: with CUDA graphs too."),
    ] = "off",
    resume: Annotated[
        Literal["auto", "never", "always"],
        typer.Option(
            help="auto: continue the run in --out, or start one; never: refuse a run that is there; always: refuse to start.",
        ),
    ] = "auto",
    keep: Annotated[int, typer.Option(metavar="N", help="Newest checkpoints to keep; the best one stays, too.")] = 3,
    max_skipped: Annotated[
        str, typer.Option(metavar="N|P%", help="Clips that may be left out because they cannot be read.")
    ] = "0",
    log_every: Annotated[int, typer.Option(metavar="N", help="Steps between lines of metrics.jsonl.")] = 50,
    checkpoint_every: Annotated[int, typer.Option(metavar="N", help="Steps between checkpoints.")] = 1000,
    sample_every: Annotated[int, typer.Option(metavar="N", help="Steps between pictures in samples/.")] = 1000,
    measure_every: Annotated[
        int | None,
        typer.Option(metavar="N", help="Steps between measurements of held-out clips.  [default: at checkpoints]"),
    ] = None,
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
    from drnet.pipelines.building.failures import parse_budget
    from drnet.pipelines.remote.urls import shown as without_secrets
    from drnet.pipelines.train import Logging
    from drnet.pipelines.train import train as run_training

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
        clip_norm=clip_norm,
        ema=ema,
        accumulate=accumulate,
        sync_batchnorm=sync_batchnorm,
    )
    project = wandb_project or ("" if wandb else None)
    budget = parse_budget(max_skipped, "max-skipped")
    logging = Logging(log_every, checkpoint_every, sample_every, measure_every, keep, project, budget)
    with console.stop_event() as (stop, signals):
        report = run_training(
            shards,
            out,
            preset,
            steps,
            device,
            changes,
            logging,
            console.Bar(),
            stop,
            cache=cache,
            compiling=compiling,
            resume=resume,
        )
    if report.stopped:
        if report.first:
            console.err.print(f"stopped at step {report.checkpoint.step}; the same command continues", markup=False)
        raise typer.Exit(128 + (signals[0] if signals else signal.SIGTERM))  # another process was told to
    if not report.first:
        return
    if report.start == report.checkpoint.step:
        console.say(f"{out} has {report.start} steps already; a larger --steps trains on")
    console.say(f"{report.checkpoint.step} steps: {report.checkpoint.folder}")
    if report.metrics:
        shown = {name.split("/")[-1]: value for name, value in report.metrics.items() if name.startswith("loss/")}
        console.say("last losses: " + ", ".join(f"{name} {value:.4g}" for name, value in shown.items()))
    where = " ".join(map(shlex.quote, (str(out), "--shards", without_secrets(shards))))
    console.say(f"next: drnet export-features {where} --out features.h5")
