"""Train a model on shards into a run folder, continue it, and stop it at any moment without loss."""

import contextlib
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from drnet.datasets.contract import DataError
from drnet.guess import guess
from drnet.health import evaluating
from drnet.kinds import KINDS, kind_of
from drnet.model import DrNet
from drnet.pipelines.feeding.device_frames import Cache, choose_frames
from drnet.pipelines.feeding.skipped import Skipped
from drnet.pipelines.files import canonical_json
from drnet.pipelines.loader import Batch, PlannedFrames, to_device
from drnet.pipelines.looking.pictures import Frames
from drnet.pipelines.looking.swaps import HeldOut, held_out_frames
from drnet.pipelines.plan import Plan
from drnet.pipelines.progress import Progress, Silent
from drnet.pipelines.run import (
    CONFIG,
    GO_BACK,
    RUN_FORMAT,
    TRAINER,
    Checkpoint,
    RunError,
    latest_checkpoint,
    load_tensors,
    load_weights,
    read_config,
    settle_config,
    train_config,
)
from drnet.pipelines.source import Collection, open_shards
from drnet.pipelines.training.health import Health
from drnet.pipelines.training.loop import Logging, Loop
from drnet.pipelines.training.processes import Processes, together
from drnet.pipelines.training.session import cut_metrics, session
from drnet.pipelines.training.writers import check_wandb
from drnet.presets import preset, variant_settings
from drnet.trainer import Compiling, Trainer

Resume = Literal["auto", "never", "always"]


@dataclass(frozen=True)
class TrainReport:
    """What a training command did."""

    run: Path
    checkpoint: Checkpoint
    start: int
    stopped: bool  # by a signal, before its last step
    seconds: float
    metrics: Mapping[str, float]
    first: bool = True  # of the processes that train together: the one that tells of it


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
    if before is not None and "size" not in before["model"]:
        raise DataError(f"a run of kind {before['kind']!r} is not trained on frames; choose another --out")
    if before is not None and name in (None, before.get("preset")):
        name, base_train = str(before.get("preset")), train_config(before)
        base_model = KINDS[before["kind"]].config(**before["model"])
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
        fields = base_train.to_json() | base_model.to_json()
        warmups = {key: fields[key] for key in ("warmup", "alpha_warmup", "beta_warmup") if key in fields}
        given = {key: round(steps * share) for key, steps in warmups.items()} | given
    model = replace(base_model, size=height, channels=channels, **{k: v for k, v in given.items() if k in model_fields})
    train = replace(base_train, **{k: v for k, v in given.items() if k not in model_fields})
    return {"preset": name, "kind": kind_of(model), "model": model.to_json(), "train": train.to_json()}


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
    *,
    cache: Cache = "auto",
    compiling: Compiling = "off",
    resume: Resume = "auto",
) -> TrainReport:
    """Train DrNet, or another model of a preset, or continue a run to a larger step.

    Processes that torchrun or Slurm started together train one model, each on its part of every batch.

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
        cache: whether all frames are kept on the device, see `drnet.pipelines.feeding.device_frames`.
        compiling: see `drnet.trainer.Trainer`.
        resume: `auto` continues what the run folder holds; `never` refuses a run with a checkpoint, `always` one without.

    Raises:
        ValueError: for settings that are not allowed, shards that are not right, or another run in the folder.
    """
    logging, progress, stop = logging or Logging(), progress or Silent(), stop or threading.Event()
    if logging.wandb is not None:
        check_wandb(logging.wandb)
    check_resume(run, resume)
    with together(device) as processes:
        progress = progress if processes.first else Silent()
        collection = open_shards(shards)
        before = read_config(run) if (run / CONFIG).exists() else None
        settings = resolve(preset_name, overrides or {}, collection.frame_shape, before)
        if settings["train"]["cyclic"]:
            check_cyclic(collection)
        target = settings["train"]["horizon"] if steps is None else steps
        if target < 1:
            raise ValueError(f"steps {target} is not allowed; it must be at least 1")
        config = {"format": RUN_FORMAT, **settings, "data": describe(collection)}
        trainer = make_trainer(config, choose_device(processes.device(device)), compiling)
        watch = FrameWatch(shards, collection, trainer)
        start = 0
        with session(run, lambda: trainer.step > start) if processes.first else contextlib.nullcontext():
            if processes.first:
                settle_config(run, config)
            processes.wait()
            if before is None:
                note_unusual_size(settings, progress)
            start = restore(run, trainer)
            if not processes.same(canonical_json({**config, "step": start})):
                raise RunError(
                    f"{run}: the processes differ in their shards, settings or last checkpoint; "
                    "all machines must see the same run folder and data set"
                )
            began = time.monotonic()
            feed = FrameFeed(collection, trainer, logging, progress, processes, cache, stop)
            loop = Loop(run, trainer, feed, watch, logging, progress, config["data"], processes)
            if start < target:
                if processes.first:
                    cut_metrics(run, start)
                loop.run_to(target, stop)
            checkpoint = latest_checkpoint(run)
    assert checkpoint is not None, "a session ends with a checkpoint"
    seconds = time.monotonic() - began
    return TrainReport(run, checkpoint, start, trainer.step < target, seconds, loop.last, processes.first)


def check_resume(run: Path, resume: Resume) -> None:
    """Raise RunError where a run folder is not as `resume` wants it."""
    if resume not in ("auto", "never", "always"):
        raise RunError(f"resume {resume!r} is not allowed; supported are auto, never and always")
    found = latest_checkpoint(run)
    if resume == "never" and found is not None:
        raise RunError(f"{run}: is at step {found.step} already; choose another --out, or --resume auto to continue it")
    if resume == "always" and found is None:
        raise RunError(f"{run}: no checkpoint to continue from; --resume auto starts a run where there is none")


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
        known = guess(name, ("auto", "cpu", "cuda"))
        raise ValueError(f"device {name!r} is not known{known}; supported are auto, cpu, cuda and cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device {name!r} is not supported; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r} is not at hand: PyTorch sees no CUDA GPU; use --device cpu")
    return device


def make_trainer(config: Mapping[str, Any], device: torch.device, compiling: Compiling = "off") -> Trainer:
    """Return a fresh model and its trainer; the weights depend on the seed alone."""
    settings = train_config(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        kind = KINDS[config["kind"]]
        model = kind.model(kind.config(**config["model"]))
    return Trainer(model, settings, device, compiling)


def restore(run: Path, trainer: Trainer) -> int:
    """Load the newest checkpoint, where there is one; returns its step."""
    checkpoint = latest_checkpoint(run)
    if checkpoint is None:
        return 0
    load_weights(trainer.evaluated, checkpoint)
    path = checkpoint.folder / TRAINER
    state = load_tensors(path, checkpoint.trainer_sha256)
    try:
        trainer.load_state(state)
    except (LookupError, ValueError, RuntimeError, TypeError, OverflowError) as error:
        raise RunError(f"{path}: not the state of this run's trainer ({type(error).__name__}); {GO_BACK}") from None
    if trainer.step != checkpoint.step:
        raise RunError(f"{checkpoint.folder}: its files are of different steps; delete it to go on from the one before")
    return trainer.step


class FrameFeed:
    """Frames of clips, in the plan's order."""

    lighter = "a smaller --batch-size, or --cache stream where frames are kept there"

    def __init__(
        self,
        collection: Collection,
        trainer: Trainer,
        logging: Logging,
        progress: Progress,
        processes: Processes,
        cache: Cache,
        stop: threading.Event,
    ) -> None:
        config = trainer.config
        counts = [place.clips for place in collection.places]
        self.plan = Plan(collection.order_key, config.seed, counts, config.batch_size)
        self.collection, self.config, self.device, self.progress = collection, config, trainer.device, progress
        self.processes, self.cache, self.stop = processes, cache, stop
        self.skipped = Skipped(logging.max_skipped, len(collection), progress)
        self.keyed = getattr(trainer.model.config, "negatives", None) == "other-content"

    def batches(self, start: int) -> Generator[Batch, None, None]:
        """Yield this process's part of every batch."""
        source = PlannedFrames(
            self.collection,
            self.plan,
            self.config.max_offset,
            start,
            self.config.cyclic,
            self.processes.rank,
            self.processes.count,
            tolerant=bool(self.skipped.budget),
            drawn=self.config.frames,
            keyed=self.keyed,
            parts=self.config.accumulate,
        )
        return choose_frames(source, self.device, self.cache, self.progress, self.stop).batches()

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """Return frames (B, F, C, H, W) float32 in [0, 1], and the content keys where the model needs them."""
        self.skipped.add(batch)
        frames = to_device(batch.frames, self.device)
        return (frames,) if batch.keys is None else (frames, torch.from_numpy(batch.keys).to(self.device))

    def names(self, step: int) -> Sequence[str]:
        """Return the keys of a batch's clips."""
        return [self.collection.sample(clip).key for clip in self.plan.batch(step).clips.tolist()]

    def counted(self) -> Mapping[str, float]:
        """Return how many clips the processes together could not read; all must ask."""
        count = len(self.processes.union(self.skipped.reasons))
        self.skipped.check(count)
        return {"data/skipped": count}


class FrameWatch:
    """Looks at a model of frames: swaps of held-out clips, measurements, alarms."""

    best: str | None = "held_out/reconstruction"

    def __init__(self, shards: str | Path, training: Collection, trainer: Trainer) -> None:
        self.samples: HeldOut = held_out_frames(shards, training)
        self.health = Health(shards, training, trainer.config, trainer.model.config)

    def measure(self, trainer: Trainer) -> Mapping[str, float]:
        """Measure held-out clips with the weights that evaluation uses."""
        return self.health.measure(trainer.evaluated, trainer.device, trainer.autocast)

    def picture(self, trainer: Trainer) -> Frames:
        """Return a swap grid of held-out clips."""
        model = cast(DrNet, trainer.evaluated)  # or an autoencoder, used in the same way
        with evaluating(model):  # uncompiled, as for measurements
            return self.samples.grid(model, trainer.device)

    def lines(self, step: int, values: Mapping[str, float], report: bool) -> Sequence[str]:
        """Return alarms, and where asked for how training goes."""
        return self.health.lines(step, values, report)
