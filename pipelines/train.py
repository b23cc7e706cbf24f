"""Train a model on shards into a run folder, continue it, and stop it at any moment without loss."""

import math
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch

from drnet.datasets.contract import DataError
from drnet.model import DrNet, DrNetConfig
from drnet.pipelines.failures import Budget
from drnet.pipelines.loader import Batch, FrameStream, PlannedFrames, to_device
from drnet.pipelines.pictures import save_png
from drnet.pipelines.plan import Plan
from drnet.pipelines.progress import Progress, Silent
from drnet.pipelines.run import (
    CONFIG,
    GO_BACK,
    RUN_FORMAT,
    TRAINER,
    Checkpoint,
    RunError,
    cut_metrics,
    drop_old_checkpoints,
    latest_checkpoint,
    load_tensors,
    load_weights,
    read_config,
    run_folder,
    save_checkpoint,
    settle_config,
    train_config,
)
from drnet.pipelines.skipped import Skipped
from drnet.pipelines.source import Collection, open_shards
from drnet.pipelines.swaps import HeldOut, held_out_frames
from drnet.pipelines.writers import Writers, check_wandb, open_writers
from drnet.presets import preset, variant_settings
from drnet.trainer import NotFinite, Trainer


@dataclass(frozen=True)
class Logging:
    """What a run writes while it trains; none of it influences the weights.

    Attributes:
        log_every: steps between two lines of metrics.
        checkpoint_every: steps between two checkpoints.
        sample_every: steps between two pictures.
        keep: newest checkpoints that stay.
        wandb: project at Weights & Biases, see `drnet.pipelines.writers.WeightsAndBiases`; None leaves it out.
        max_skipped: clips that may be left out because they cannot be read, before training stops.
    """

    log_every: int = 50
    checkpoint_every: int = 1000
    sample_every: int = 1000
    keep: int = 3
    wandb: str | None = None
    max_skipped: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        for name in ("log_every", "checkpoint_every", "sample_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is not allowed; it must be at least 1")


@dataclass(frozen=True)
class TrainReport:
    """What a training command did."""

    run: Path
    checkpoint: Checkpoint
    start: int
    stopped: bool  # by a signal, before its last step
    seconds: float
    metrics: Mapping[str, float]


def resolve(
    name: str | None,
    overrides: Mapping[str, Any],
    shape: tuple[int, int, int],
    before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a run's complete settings: a preset, the user's changes, and what follows from the data.

    Args:
        name: of the preset; None for the run's own, or `mnist`.
        overrides: values by field name, of the model or of the training; None leaves the preset's. `variant`, `paper` or
            `authors`, switches all that the two differ in; other values go before it.
        shape: (H, W, C) of the frames.
        before: settings of the run that is continued: what is not given stays as it was.

    Raises:
        ValueError: where a value or the frames' shape is not allowed.
    """
    height, width, channels = shape
    if height != width:
        raise DataError(f"frames of {height}x{width} are not allowed; the networks take square ones: build with --size")
    if before is not None and name in (None, before["preset"]):
        name, base_model, base_train = before["preset"], DrNetConfig(**before["model"]), train_config(before)
    else:
        name = name or "mnist"
        base_model, base_train = preset(name).model, preset(name).train
    given = {key: value for key, value in overrides.items() if value is not None}
    if "variant" in given:
        given = variant_settings(name, given.pop("variant")) | given
    model_fields = base_model.to_json().keys()
    unknown = given.keys() - model_fields - base_train.to_json().keys()
    if unknown:
        raise ValueError(f"setting {sorted(unknown)[0]!r} is not known")
    if "horizon" in given:
        share = given["horizon"] / base_train.horizon  # warm-ups are parts of the horizon, and follow it
        warmups = {"warmup": base_train.warmup, "alpha_warmup": base_model.alpha_warmup}
        warmups["beta_warmup"] = base_model.beta_warmup
        given = {key: round(steps * share) for key, steps in warmups.items()} | given
    model = replace(base_model, size=height, channels=channels, **{k: v for k, v in given.items() if k in model_fields})
    train = replace(base_train, **{k: v for k, v in given.items() if k not in model_fields})
    return {"preset": name, "model": model.to_json(), "train": train.to_json()}


def train(
    shards: str | Path,
    run: Path,
    preset_name: str | None = None,
    steps: int | None = None,
    device: str = "auto",
    overrides: Mapping[str, Any] | None = None,
    logging: Logging | None = None,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> TrainReport:
    """Train DrNet, or continue a run to a larger step.

    Args:
        shards: folder, brace pattern or URL.
        run: the run folder.
        preset_name: a row of `drnet.presets.PRESETS`; None for the run's own, in a new one `mnist`.
        steps: absolute step to stop at; the preset's horizon by default. It influences nothing else.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        overrides: settings that differ from the preset's, by field name.
        logging: what is written while it trains.
        progress: told of each step.
        stop: when set, training ends after the current step, with a checkpoint.

    Raises:
        ValueError: for settings that are not allowed, shards that are not right, or another run in the folder.
    """
    logging, progress, stop = logging or Logging(), progress or Silent(), stop or threading.Event()
    if logging.wandb is not None:
        check_wandb(logging.wandb)
    collection = open_shards(shards)
    before = read_config(run) if (run / CONFIG).exists() else None
    settings = resolve(preset_name, overrides or {}, collection.frame_shape, before)
    if settings["train"]["cyclic"]:
        check_cyclic(collection)
    target = settings["train"]["horizon"] if steps is None else steps
    if target < 1:
        raise ValueError(f"steps {target} is not allowed; it must be at least 1")
    config = {"format": RUN_FORMAT, **settings, "data": describe(collection)}
    trainer = make_trainer(config, choose_device(device))
    samples = held_out_frames(shards, collection)
    session = Session(run, trainer, collection, logging, progress, samples, config["data"])
    with run_folder(run):
        settle_config(run, config)
        if before is None:
            note_unusual_size(settings, progress)
        start = restore(run, trainer)
        began = time.monotonic()
        if start < target:
            cut_metrics(run, start)
            session.run_to(target, stop)
        checkpoint = latest_checkpoint(run)
    assert checkpoint is not None, "a session ends with a checkpoint"
    seconds = time.monotonic() - began
    return TrainReport(run, checkpoint, start, trainer.step < target, seconds, session.last)


def describe(collection: Collection) -> dict[str, Any]:
    """Return what identifies the data of a run: no path, no tool version."""
    manifest = collection.manifest
    return {
        "order_key": collection.order_key,
        "clips": len(collection),
        "frame_shape": list(collection.frame_shape),
        "build": manifest.build if manifest else None,
        "data_set": manifest.about["data_set"] if manifest else None,
    }


def note_unusual_size(settings: Mapping[str, Any], progress: Progress) -> None:
    """Say where a preset is used with frames of a size it was not made for."""
    size, sizes = settings["model"]["size"], preset(settings["preset"]).sizes
    if size not in sizes:
        meant = " or ".join(map(str, sizes))
        progress.note(f"preset {settings['preset']} is meant for frames of {meant}, and these are {size}")


def check_cyclic(collection: Collection) -> None:
    """Raise DataError where a collection's clips are not whole turns: no label that varies has a period."""
    if not any(label.varying and label.period for label in collection.label_types.values()):
        raise DataError("cyclic training needs clips that are whole turns, and these are not; add --no-cyclic")


def choose_device(name: str) -> torch.device:
    """Return the device of a name; `auto` takes CUDA where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device {name!r} is not known; supported are auto, cpu, cuda and cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device {name!r} is not supported; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r} is not at hand: PyTorch sees no CUDA GPU; use --device cpu")
    return device


def make_trainer(config: Mapping[str, Any], device: torch.device) -> Trainer:
    """Return a fresh model and its trainer; the weights depend on the seed alone."""
    settings = train_config(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = DrNet(DrNetConfig(**config["model"]))
    return Trainer(model, settings, device)


def restore(run: Path, trainer: Trainer) -> int:
    """Load the newest checkpoint, where there is one; returns its step."""
    checkpoint = latest_checkpoint(run)
    if checkpoint is None:
        return 0
    load_weights(trainer.model, checkpoint)
    path = checkpoint.folder / TRAINER
    state = load_tensors(path, checkpoint.trainer_sha256)
    try:
        trainer.load_state(state)
    except (LookupError, ValueError, RuntimeError) as error:
        raise RunError(f"{path}: not the state of this run's trainer ({type(error).__name__}); {GO_BACK}") from None
    if trainer.step != checkpoint.step:
        raise RunError(f"{checkpoint.folder}: its files are of different steps; delete it to go on from the one before")
    return trainer.step


@dataclass
class Clock:
    """Measures how fast training goes, and which share of the time it waits for data, between two lines of metrics."""

    began: float = field(default_factory=time.perf_counter)
    steps: int = 0
    waited: float = 0.0

    def next_of(self, batches: Iterator[Batch]) -> Batch:
        """Return the next batch, with the wait for it measured."""
        began = time.perf_counter()
        batch = next(batches)
        self.waited += time.perf_counter() - began
        self.steps += 1
        return batch

    def take(self) -> dict[str, float]:
        """Return the metrics of time and start anew."""
        now = time.perf_counter()
        seconds = max(now - self.began, 1e-9)
        found = {"time/steps_per_second": self.steps / seconds, "time/waiting_for_data": self.waited / seconds}
        self.began, self.steps, self.waited = now, 0, 0.0
        return found


class Session:
    """One stretch of training: the loop, and what is written on the way."""

    def __init__(
        self,
        run: Path,
        trainer: Trainer,
        collection: Collection,
        logging: Logging,
        progress: Progress,
        samples: HeldOut,
        data: Mapping[str, Any],
    ) -> None:
        self.run, self.trainer, self.logging, self.progress = run, trainer, logging, progress
        self.samples, self.data = samples, data
        config = trainer.config
        self.plan = Plan(
            collection.order_key, config.seed, [place.clips for place in collection.places], config.batch_size
        )
        self.collection = collection
        self.skipped = Skipped(logging.max_skipped, len(collection), progress)
        self.keyed = cast(DrNet, trainer.model).config.negatives == "other-content"
        self.last: dict[str, float] = {}
        self.asked = 0

    def run_to(self, target: int, stop: threading.Event) -> None:
        """Train up to a step, or until told to stop; a checkpoint is written in either case."""
        start, self.asked = self.trainer.step, target
        config = self.trainer.config
        source = PlannedFrames(
            self.collection,
            self.plan,
            config.max_offset,
            start,
            config.cyclic,
            tolerant=bool(self.skipped.budget),
            drawn=config.frames,
            keyed=self.keyed,
        )
        self.progress.start("training", target, "steps", done=start)
        batches = FrameStream(source).batches()
        clock = Clock()
        try:
            with open_writers(self.run, start, self.progress.note, self.logging.wandb) as writers:
                last = False
                while not last:
                    batch = clock.next_of(batches)
                    self.skipped.add(batch)
                    keys = None if batch.keys is None else torch.from_numpy(batch.keys).to(self.trainer.device)
                    self.trainer.train_step(to_device(batch.frames, self.trainer.device), keys)
                    last = stop.is_set() or self.trainer.step == target
                    self._record(last, clock, writers)
        except NotFinite as error:
            checkpoint = latest_checkpoint(self.run)
            good = f"the last good checkpoint is {checkpoint.folder}" if checkpoint else "there is no checkpoint yet"
            raise RunError(f"{error}; {good}") from None
        finally:
            batches.close()
            self.progress.stop()

    def _record(self, last: bool, clock: Clock, writers: Writers) -> None:
        """Write what is due after a step; after the last one of a session, a picture and a checkpoint."""
        trainer, every, step = self.trainer, self.logging, self.trainer.step
        if step % every.log_every == 0:
            self._log(clock, writers)
        if step % every.sample_every == 0 or last:
            grid = self.samples.grid(trainer.model, trainer.device)
            save_png(self.run / "samples" / f"{step:08d}.png", grid)
            writers.image(step, "samples", grid)
        if step % every.checkpoint_every == 0 or last:
            writers.flush()
            self._checkpoint()
        self.progress.advance(1, **{name.split("/")[-1]: value for name, value in self.last.items() if "loss" in name})

    def _log(self, clock: Clock, writers: Writers) -> None:
        step, metrics = self.trainer.step, self.trainer.take_metrics()
        self.last = metrics
        writers.scalars(step, {**metrics, **clock.take(), "data/skipped": len(self.skipped.reasons)})
        if step % (10 * self.logging.log_every) == 0:
            self.progress.note(health_line(step, metrics))

    def _checkpoint(self) -> None:
        trainer = self.trainer
        trainer.check_finite()
        state = {"step": trainer.step, "samples": trainer.step * trainer.config.batch_size, "data": dict(self.data)}
        state["asked"] = self.asked  # tells `drnet runs` whether it was stopped before that
        save_checkpoint(self.run, trainer.model, trainer.state(), state)
        drop_old_checkpoints(self.run, self.logging.keep)


NEARLY_CONSTANT = 1e-5  # of a variance of at most 1; a pose of .001 was seen to tell positions with R2 .98


def health_line(step: int, metrics: Mapping[str, float]) -> str:
    """Say in one line how training goes, and warn of the ways it dies."""
    error, baseline = metrics["loss/reconstruction"], metrics["baseline/mean_frame"]
    line = (
        f"step {step}: reconstruction {error:.4f} ({error / max(baseline, 1e-12):.2f} of the mean frame's), "
        f"similarity {metrics['loss/similarity']:.2g}, discriminator accuracy {metrics['discriminator/accuracy']:.2f} "
        f"(BCE {metrics['discriminator/bce']:.3f}, chance {math.log(2):.3f}), "
        f"variance of pose {metrics['variance/pose']:.2g}, of content {metrics['variance/content']:.2g}"
    )
    if metrics["variance/pose"] < NEARLY_CONSTANT:
        line += "; the pose is nearly constant: try a smaller --beta"
    if metrics["variance/content"] < NEARLY_CONSTANT:
        line += "; the content is nearly constant: try a smaller --alpha"
    return line
