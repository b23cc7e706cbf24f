"""Swap grids of held-out clips, with the truth beside them where the data set can draw it.

Axes: R rows (content), K columns (pose), H height, W width, C channels.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from drnet.model import DrNet
from drnet.pipelines.loader import to_device
from drnet.pipelines.pictures import Frames, swap_sheet, unit_to_uint8
from drnet.pipelines.source import Collection, open_shards
from drnet.swap import swap

ROWS, COLUMNS = 6, 8


@dataclass(frozen=True)
class HeldOut:
    """Frames to swap: contents (R, H, W, C) and poses (K, H, W, C), uint8, from clips that training does not see."""

    content: NDArray[np.uint8]
    pose: NDArray[np.uint8]

    def grid(self, model: DrNet, device: torch.device) -> Frames:
        """Return the swap grid of a model as a picture; the model's mode is restored."""
        training = model.training
        model.eval()
        swapped = swap(model, to_device(self.content, device), to_device(self.pose, device))
        model.train(training)
        frames = unit_to_uint8(swapped.movedim(-3, -1).cpu().numpy())
        return swap_sheet(list(self.content), list(self.pose), frames)


def held_out(shards: str | Path, training: Collection) -> HeldOut:
    """Choose the first test clips of the data set, or where it has none the first training clips.

    Contents come from the clips' first frames; poses from later frames of the clips after them.
    """
    collection = training
    if training.manifest is not None and training.manifest.clips("test"):
        folder = shards if not str(shards).endswith(".tar") else str(shards).rsplit("/", 1)[0]
        collection = open_shards(folder, ["test"])
    clips = [collection.frames(number % len(collection)) for number in range(ROWS + COLUMNS)]
    content = np.stack([clip[0] for clip in clips[:ROWS]])
    pose = np.stack([clip[(5 * k + 2) % len(clip)] for k, clip in enumerate(clips[ROWS:])])
    return HeldOut(content, pose)
