"""Train a predictor of poses on the frozen features of a run, into the run's folder `predictor` (Sec. 3.1)."""

import shutil
import threading
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from drnet.datasets.draws import integers, key_of, uniforms, words
from drnet.pipelines.plan import Plan
from drnet.pipelines.prediction.features import Encoded, Windows, encoded, features_of, windows_of
from drnet.pipelines.prediction.rollout import FOLDER, check_belongs
from drnet.pipelines.prediction.watch import PredictionWatch
from drnet.pipelines.progress import Progress, Silent
from drnet.pipelines.run import (
    CONFIG,
    RUN_FORMAT,
    Checkpoint,
    data_error_if_size_differs,
    latest_checkpoint,
    load_run,
    read_config,
    run_folder,
    settle_config,
)
from drnet.pipelines.source import Collection, open_shards
from drnet.pipelines.train import choose_device, describe, make_trainer, restore
from drnet.pipelines.training.loop import Logging, Loop
from drnet.pipelines.training.session import cut_metrics
from drnet.pipelines.training.writers import check_wandb
from drnet.predictor import PosePredictor, PredictorConfig
from drnet.trainer import TrainConfig

MEASURED = 256  # clips whose poses give the spread that a predictor sees poses relative to
PAPER: dict[str, tuple[int, int]] = {"mnist": (5, 10), "kth": (10, 10)}  # observed and predicted frames (Sec. 4.1)
ELSE = (5, 10)  # for data that the paper predicts nothing of
HORIZON = 20_000  # steps; the paper gives none


@dataclass(frozen=True)
class PredictorReport:
    """What training a predictor did.

    Attributes:
        folder: of the predictor.
        checkpoint: the newest; None where it was stopped before the first.
        start: step it began at.
        stopped: whether a signal ended it before its last step.
        metrics: last logged.
    """

    folder: Path
    checkpoint: Checkpoint | None
    start: int
    stopped: bool
    metrics: Mapping[str, float]


def train_predictor(
    run: Path,
    shards: str | Path,
    steps: int | None = None,
    device: str = "auto",
    overrides: Mapping[str, Any] | None = None,
    logging: Logging | None = None,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
    anew: bool = False,
) -> PredictorReport:
    """Train a predictor on a run's newest weights, or continue it to a larger step.

    Args:
        run: folder of the DrNet, or of another model that encodes and decodes as it does.
        shards: folder, brace pattern or URL.
        steps: absolute step to stop at; the horizon of the schedule by default.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        overrides: settings by field name, of `PredictorConfig` or `TrainConfig`; None leaves the default.
        logging: what is written while it trains.
        progress: told of each clip that is encoded, and of each step.
        stop: when set, it ends after the current step, with a checkpoint.
        anew: delete the predictor that the run has.

    Raises:
        ValueError: for settings that are not allowed, shards that do not fit the run, or a predictor of other weights.
    """
    logging, progress, stop = logging or Logging(), progress or Silent(), stop or threading.Event()
    if logging.wandb is not None:
        check_wandb(logging.wandb)
    chosen, folder = choose_device(device), run / FOLDER
    model, weights, origin = load_run(run, str(chosen))
    collection = open_shards(shards)
    data_error_if_size_differs(origin, collection.frame_shape)
    note_other_data(origin, collection, progress)
    before = _before(run, folder, weights, anew)
    settings = resolve(origin, sizes_of(model, collection, chosen), overrides or {}, before)
    own, train = PredictorConfig(**settings["model"]), TrainConfig(**settings["train"])
    target = train.horizon if steps is None else steps
    if target < 1:
        raise ValueError(f"steps {target} is not allowed; it must be at least 1")
    windows = windows_of(collection, own.observe, own.predict, train.cyclic)
    if windows.short:
        progress.note(
            f"{windows.short} of {len(collection)} clips have fewer than {own.window} frames and are left out"
        )
    drnet = {"sha256": weights.sha256, "step": weights.step}
    data = describe(collection) | {"clips_too_short": windows.short}
    config = {"format": RUN_FORMAT, **settings, "drnet": drnet, "data": data}
    with run_folder(folder):
        settle_config(folder, config)
        identity = {"drnet": weights.sha256, "order_key": collection.order_key, "cyclic": train.cyclic}
        identity |= {"observe": own.observe, "predict": own.predict}
        sizes = (own.pose_dim, own.content_dim)
        features = features_of(model, windows, sizes, identity, folder, chosen, progress, stop)
        if features is None:
            return PredictorReport(folder, latest_checkpoint(folder), 0, stopped=True, metrics={})
        trainer = make_trainer(config, chosen)
        start = restore(folder, trainer)
        if start == 0:
            measure(cast(PosePredictor, trainer.model), features, windows)
        feed = WindowFeed(features, windows, train, chosen)
        watch = PredictionWatch(model, shards, collection, own, train.cyclic, chosen)
        loop = Loop(folder, trainer, feed, watch, logging, progress, data)
        if start < target:
            cut_metrics(folder, start)
            loop.run_to(target, stop)
        return PredictorReport(folder, latest_checkpoint(folder), start, trainer.step < target, loop.last)


def _before(run: Path, folder: Path, weights: Checkpoint, anew: bool) -> dict[str, Any] | None:
    """Return the settings of the predictor that is continued; None where there is none. Raises RunError for a foreign one."""
    if not (folder / CONFIG).exists():
        return None
    before = read_config(folder)
    if anew and before["kind"] == "predictor":
        shutil.rmtree(folder)
        return None
    check_belongs(run, before, weights)
    return before


def resolve(
    origin: Mapping[str, Any],
    sizes: tuple[int, int],
    overrides: Mapping[str, Any],
    before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a predictor's complete settings: those that follow from its run, and the user's changes.

    Args:
        origin: settings of the run that it belongs to.
        sizes: lengths of a pose and of a content vector.
        overrides: values by field name; None leaves the default.
        before: settings of the predictor that is continued: what is not given stays as it was.

    Raises:
        ValueError: where a value is not allowed.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    if before is not None:
        model, train = PredictorConfig(**before["model"]), TrainConfig(**before["train"])
    else:
        observe, predict = PAPER.get(str(origin.get("preset")).split("-")[0], ELSE)
        output = {True: "unit", False: "tanh"}.get(origin["model"].get("unit_norm"), "linear")
        model = PredictorConfig(*sizes, observe=observe, predict=predict)
        train = TrainConfig(horizon=HORIZON, cyclic=origin["train"]["cyclic"], precision=origin["train"]["precision"])
        given = {"output": output} | given
    own = {name: given.pop(name) for name in model.to_json() if name in given}
    if unknown := given.keys() - train.to_json().keys():
        raise ValueError(f"setting {sorted(unknown)[0]!r} is not known")
    train = replace(train, **given)
    if before is None and "sampling_steps" not in own:
        own["sampling_steps"] = train.horizon
    model = replace(model, **own)
    return {"preset": origin.get("preset"), "kind": "predictor", "model": model.to_json(), "train": train.to_json()}


def note_other_data(origin: Mapping[str, Any], collection: Collection, progress: Progress) -> None:
    """Say where shards are of another data set than a run was trained on."""
    trained, here = origin["data"]["build"], collection.manifest.build if collection.manifest else None
    if trained != here:
        progress.note(f"the run was trained on data set {str(trained)[:12]}, these shards are of {str(here)[:12]}")


def sizes_of(model: Any, collection: Collection, device: torch.device) -> tuple[int, int]:
    """Return the lengths of a model's pose and content vectors."""
    frames = collection.frames(0)[:1]
    return encoded(model.pose_encoder, frames, device).shape[1], encoded(model.content_encoder, frames, device).shape[1]


def measure(predictor: PosePredictor, features: Encoded, windows: Windows) -> None:
    """Tell a fresh predictor the mean and the spread of the poses of some clips, from all over the collection."""
    rows = sorted(set(np.linspace(0, len(windows.clips) - 1, MEASURED).round().astype(int).tolist()))
    predictor.measure(torch.cat([features.poses_of(row) for row in rows]))


class WindowFeed:
    """Windows of features: which ones is a pure function of (order key, seed, step).

    Args:
        features: of the windows.
        windows: of all clips.
        config: batch size and seed.
        device: where the features are.
    """

    lighter = "a smaller --batch-size"

    def __init__(self, features: Encoded, windows: Windows, config: TrainConfig, device: torch.device) -> None:
        self.features, self.windows, self.config, self.device = features, windows, config, device
        self.order_key = windows.collection.order_key
        self.plan = Plan(self.order_key, config.seed, windows.counts(), config.batch_size)

    def batches(self, start: int) -> Generator[int, None, None]:
        """Yield the numbers of the steps: nothing has to be read ahead."""
        yield from count(start)

    def inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Return poses (B, W, P), content (B, C) and uniform draws (B, W) of a step."""
        planned = self.plan.batch(batch)
        rows = planned.clips
        poses, content = self.features.gather(rows, integers(planned.raw[:, 0], self.windows.starts[rows]))
        width = -(-self.windows.window // 4) * 4
        raw = words(key_of(self.order_key, self.config.seed, "sampling"), batch * len(rows), len(rows), width)
        draws = torch.from_numpy(uniforms(raw[:, : self.windows.window])).float()
        return poses, content, draws.to(self.device)

    def names(self, step: int) -> Sequence[str]:
        """Return the keys of a batch's clips."""
        clips = self.windows.clips[self.plan.batch(step).clips]
        return [self.windows.collection.sample(clip).key for clip in clips.tolist()]

    def counted(self) -> Mapping[str, float]:
        """Return nothing: every clip is read, or training ends."""
        return {}
