"""Predict many windows step by step, and hand the frames of each step to meters: no frame is kept longer.

Axes: B windows, H height, W width, C channels; frames are uint8 (B, H, W, C).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from drnet.pipelines.evaluation.protocols import Window
from drnet.pipelines.evaluation.scenes import DigitScenes
from drnet.pipelines.loader import to_device
from drnet.pipelines.looking.pictures import Frames, unit_to_uint8
from drnet.pipelines.prediction.rollout import predicted_frames
from drnet.pipelines.progress import Progress
from drnet.pipelines.source import Collection
from drnet.predictor import PosePredictor

AT_ONCE, PIXELS = 64, 1 << 19  # windows in a batch, and numbers in one frame of each: 32 windows of 128x128

Advance = Callable[[int], None]


class Meter(Protocol):
    """Takes the frames of one step after the other."""

    def add(self, which: NDArray[np.int64], step: int, truth: Frames, shown: Mapping[str, Frames]) -> None:
        """Take the true frames and those of each row, all (B, H, W, C), of the windows `which` (B,) at a step from 1."""


class Pass:
    """One pass over the windows: observe, predict, and compare with what follows.

    Args:
        model: in evaluation mode, with `content_encoder`, `pose_encoder` and `decode`.
        predictor: of that model; None: only the rows that need none.
        collection: the clips.
        scenes: draws the truth beyond a clip's end; None: clips end.
        observe: frames that are observed.
        device: of the model.
    """

    def __init__(
        self,
        model: Any,
        predictor: PosePredictor | None,
        collection: Collection,
        scenes: DigitScenes | None,
        observe: int,
        device: torch.device,
    ) -> None:
        self.model, self.predictor, self.collection = model, predictor, collection
        self.scenes, self.observe, self.device = scenes, observe, device

    @property
    def rows(self) -> list[str]:
        """The rows that there will be, see `frames.ROWS`."""
        return ["predicted"] * (self.predictor is not None) + ["true_pose", "copy_last"]

    def run(self, windows: Sequence[Window], meters: Sequence[Meter], progress: Progress) -> None:
        """Go through all windows, the longest first, so that those of a batch end together."""
        order = sorted(range(len(windows)), key=lambda number: -windows[number].future)
        size = max(1, min(AT_ONCE, PIXELS // int(np.prod(self.collection.frame_shape))))
        progress.start("predicting", sum(window.future for window in windows), "frames")
        for first in range(0, len(order), size):
            which = np.array(order[first : first + size])
            for step, truth, shown in self._steps([windows[number] for number in which]):
                for meter in meters:
                    meter.add(which[: len(truth)], step, truth, shown)
                progress.advance(len(truth))
        progress.stop()

    @torch.no_grad()
    def _steps(self, windows: Sequence[Window]) -> Iterator[tuple[int, Frames, dict[str, Frames]]]:
        """Yield each step with the true and the shown frames of the windows that go so far: the first ones."""
        clips = [self._frames(window) for window in windows]
        observed = np.stack([clip[: self.observe] for clip in clips])
        content = self.model.content_encoder(self._input(observed[:, -1]))
        steps = windows[0].future
        predicted = predicted_frames(self.model, self.predictor, observed, steps) if self.predictor else repeat(None)
        for step, frames in zip(range(1, steps + 1), predicted, strict=False):
            alive = sum(window.future >= step for window in windows)
            truth = np.stack([self._truth(windows[n], clips[n], step) for n in range(alive)])
            shown: dict[str, Frames] = {} if frames is None else {"predicted": frames[:alive]}
            decoded = self.model.decode(content[:alive], self.model.pose_encoder(self._input(truth)))
            shown["true_pose"] = unit_to_uint8(decoded.float().movedim(-3, -1).cpu().numpy())
            yield step, truth, shown | {"copy_last": observed[:alive, -1]}

    def _frames(self, window: Window) -> Frames:
        """Return a window's own frames, as far as the clip has them."""
        end = window.start + self.observe + (0 if self.scenes else window.future)
        return self.collection.frames(window.clip)[window.start : end]

    def _truth(self, window: Window, clip: Frames, step: int) -> Frames:
        time = self.observe - 1 + step
        return self.scenes.frame(window.clip, window.start + time) if self.scenes else clip[time]

    def _input(self, frames: Frames) -> torch.Tensor:
        return to_device(np.ascontiguousarray(frames), self.device).contiguous(memory_format=torch.channels_last)
