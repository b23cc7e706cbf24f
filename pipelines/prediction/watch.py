"""How a predictor is looked at while it trains: rollouts of held-out clips, as an error and as a picture.

Axes: B clips, W frames of a window, P pose_dim.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from drnet.datasets.contract import DataError
from drnet.pipelines.looking.pictures import Frames, enlarge, tile, with_margins
from drnet.pipelines.looking.swaps import held_out_clips
from drnet.pipelines.prediction.features import EncodedLater, Windows, windows_of
from drnet.pipelines.prediction.rollout import predicted_frames
from drnet.pipelines.source import Collection
from drnet.predictor import PosePredictor, PredictorConfig
from drnet.trainer import Trainer

CLIPS, SHOWN = 64, 4


class PredictionWatch:
    """Measures rollouts of the first window of some held-out clips, in the units of the training loss.

    Args:
        model: that encodes and decodes, in evaluation mode.
        shards: what training was given.
        training: its clips, which serve where no held-out clip is at hand or long enough.
        config: of the predictor.
        cyclic: whether clips are whole turns.
        device: of the model.
    """

    best: str | None = "held_out/rollout"

    def __init__(
        self,
        model: Any,
        shards: str | Path,
        training: Collection,
        config: PredictorConfig,
        cyclic: bool,
        device: torch.device,
    ) -> None:
        self.model, self.config = model, config
        self.windows = _held_out(shards, training, config, cyclic)
        self.rows = np.unique(np.linspace(0, len(self.windows.clips) - 1, CLIPS).round().astype(np.int64))
        features = EncodedLater(model, self.windows, device)
        self.poses, self.content = features.gather(self.rows, np.zeros(len(self.rows), np.int64))

    @torch.no_grad()
    def measure(self, trainer: Trainer) -> Mapping[str, float]:
        """Return the mean squared error of the next pose, of the rollout, of its last step, and of copying."""
        predictor, observe = _evaluated(trainer), self.config.observe
        followed = self.poses[:, observe:]
        told = predictor(self.content, self.poses[:, :-1])[0][:, observe - 1 :]
        rolled = torch.stack(list(predictor.rollout(self.content, self.poses[:, :observe], self.config.predict)), 1)
        errors = {
            "next": _error(told, followed, predictor),
            "rollout": _error(rolled, followed, predictor),
            "last_step": _error(rolled[:, -1:], followed[:, -1:], predictor),
            "copy": _error(self.poses[:, observe - 1 : observe].expand_as(followed), followed, predictor),
        }
        return {f"held_out/{name}": value for name, value in errors.items()}

    def picture(self, trainer: Trainer) -> Frames:
        """Return the last observed frame and what follows, true and predicted, of some held-out clips."""
        collection, observe = self.windows.collection, self.config.observe
        rows = self.rows[:SHOWN]
        times = self.windows.times(rows, np.zeros(len(rows), np.int64))
        clips = self.windows.clips[rows].tolist()
        truth = [collection.frames(clip)[chosen] for clip, chosen in zip(clips, times, strict=True)]
        observed = np.stack([frames[:observe] for frames in truth])
        predicted = list(predicted_frames(self.model, _evaluated(trainer), observed, self.config.predict))
        lines: list[list[Frames | None]] = []
        for row, frames in enumerate(truth):
            lines += [[*frames[observe - 1 :]], [None, *(step[row] for step in predicted)]]
        sheet = tile([[None if cell is None else enlarge(cell) for cell in line] for line in lines])
        title = f"held-out clips: frame {observe}, the last observed one, and the {self.config.predict} after it"
        return with_margins(sheet, title, ["truth", "predicted"] * len(rows))

    def lines(self, step: int, values: Mapping[str, float], report: bool) -> Sequence[str]:
        """Return how training goes, and a warning where a rollout is worse than the last observed frame."""
        found = []
        if report:
            next_error, copied = values["error/predicted"], max(values["baseline/copy"], 1e-12)
            line = (
                f"step {step}: predicted poses {next_error:.3g}, {next_error / copied:.2f} of what the pose before has"
            )
            if values["sampling"]:
                line += f" (a share {values['sampling']:.2f} of them after own predictions)"
            found.append(line)
        if "held_out/rollout" in values:
            rollout, copied = values["held_out/rollout"], values["held_out/copy"]
            line = f"step {step}: held-out clips {self.config.predict} steps ahead: pose {rollout:.3g}, where the last "
            line += f"observed one, copied, has {copied:.3g}"
            if rollout > copied:
                line += "; the rollout is no better than copying: train longer, or with --sampling 1"
            found.append(line)
        return found


def _held_out(shards: str | Path, training: Collection, config: PredictorConfig, cyclic: bool) -> Windows:
    """Return windows of held-out clips or, where there are none or they are too short, of the training clips."""
    try:
        return windows_of(held_out_clips(shards, training), config.observe, config.predict, cyclic)
    except DataError:
        return windows_of(training, config.observe, config.predict, cyclic)


def _evaluated(trainer: Trainer) -> PosePredictor:
    """Return the predictor of a trainer in evaluation mode."""
    return cast(PosePredictor, trainer.evaluated.eval())


def _error(found: Tensor, true: Tensor, predictor: PosePredictor) -> float:
    return float((found - true).square().sum(-1).mean() / predictor.scale.square())
