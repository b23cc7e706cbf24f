"""Where the digits of a predicted frame are, against where they must be.

A digit is looked for in its own colour plane by its own image, recovered from the clip: at each place, the image times
the factor that fits best explains a share of the plane's squared brightness, and the place that explains most is the
digit's. Pixels that the digit in front covers, in the same frame, count for neither: what is hidden is not missed.

Axes: B windows, S steps, H height, W width, D side of a digit, P places (H - D + 1) * (W - D + 1); colours are 0 red, 1 green.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from drnet.datasets.mnist import COLOURS
from drnet.pipelines.evaluation.frames import ROWS
from drnet.pipelines.evaluation.intervals import Bootstrap
from drnet.pipelines.evaluation.scenes import DigitScenes
from drnet.pipelines.looking.pictures import Frames

STEPS = (1, 2, 5, 10, 95, 500)
INK = 1 / 16  # of full brightness: what is brighter covers what lies behind
BRIGHT = 0.02  # share of the image's squared brightness that the plane must have
VISIBLE = 0.1  # share of it that must not be covered at a place
EXPLAINED = 0.25  # share of the plane's squared brightness that the image must explain: a cosine of 1/2
CHANCE = {
    "middle": "always the middle of the frame: chance",
    "other_clip": "where the digit of another clip is at that step: chance",
}
METHOD = (
    "pixels between the upper left corners of the true digit and of the place where its own image, at the best "
    "brightness, explains most of its colour plane; pixels covered by the digit in front are left out; not found where "
    f"it explains less than {EXPLAINED}, less than {VISIBLE} of it can be seen, or the plane has less than {BRIGHT} of its "
    "squared brightness; both digits of a clip count"
)


class Located(NamedTuple):
    """Where digits were found.

    Attributes:
        places: (B, 2) x and y of the upper left corner in pixels; of no meaning where not found.
        found: (B,) bool.
    """

    places: NDArray[np.int64]
    found: NDArray[np.bool_]


def locate(planes: NDArray[np.float32], digits: NDArray[np.float32], visible: NDArray[np.float32]) -> Located:
    """Find one digit in each plane.

    Args:
        planes: (B, H, W) in [0, 1], one colour each.
        digits: (B, D, D) in [0, 1], the images.
        visible: (B, H, W), 0 where something else covers the plane, else 1.
    """
    plane, digit, mask = (torch.from_numpy(np.ascontiguousarray(part)) for part in (planes, digits, visible))
    seen = plane * mask
    fits, energy = _correlation(seen, digit), _correlation(mask, digit.square())
    ink = digit.square().sum((1, 2)).clamp_min(1e-6)
    brightness = seen.square().sum((1, 2))
    shown = energy >= VISIBLE * ink[:, None, None]
    explained = torch.where(shown, fits.square() / energy.clamp_min(1e-6), 0)
    best = explained.flatten(1).max(1)
    found = (brightness >= BRIGHT * ink) & (best.values >= EXPLAINED * brightness.clamp_min(1e-6))
    width = explained.shape[2]
    places = torch.stack([best.indices % width, best.indices // width], 1)
    return Located(places.numpy(), found.numpy())


def _correlation(planes: torch.Tensor, digits: torch.Tensor) -> torch.Tensor:
    """Correlate each plane (B, H, W) with its image (B, D, D) at every place: (B, H - D + 1, W - D + 1)."""
    return F.conv2d(planes[None], digits[:, None], groups=len(planes))[0]


class PositionMeter:
    """Collects where digits are found at some steps.

    Args:
        scenes: of the clips.
        clips: the clip of each window.
        starts: the frame of its clip that comes before step 1, less one step: time is `start + step`.
        steps: at which digits are looked for.
        rows: which of `frames.ROWS` there will be.
    """

    def __init__(
        self,
        scenes: DigitScenes,
        clips: Sequence[int],
        starts: Sequence[int],
        steps: Sequence[int],
        rows: Sequence[str],
    ) -> None:
        self.scenes, self.clips, self.starts, self.steps = scenes, tuple(clips), tuple(starts), tuple(steps)
        shape = len(clips), len(COLOURS), len(steps)
        chance = ["middle"] + ["other_clip"] * (len(set(clips)) > 1)
        self.errors = {row: np.full(shape, np.nan) for row in (*rows, "truth", *chance)}  # infinite where not found

    def add(self, which: NDArray[np.int64], step: int, truth: Frames, shown: Mapping[str, Frames]) -> None:
        """Look for the digits in the frames of one step, and in the true ones, which tells what the search is worth.

        Args:
            which: (B,) numbers of the windows.
            step: from 1.
            truth: (B, H, W, 3) uint8.
            shown: of each row, the same.
        """
        if step not in self.steps:
            return
        clips = [self.clips[window] for window in which]
        scenes = [self.scenes.scene(clip) for clip in clips]
        there = [self.scenes.positions(c, self.starts[w] + step) for c, w in zip(clips, which, strict=True)]
        digits = np.stack([scene.digits for scene in scenes]).astype(np.float32) / np.float32(255)  # (B, 2, D, D)
        fronts = np.array([scene.front for scene in scenes])
        for row, frames in (*shown.items(), ("truth", truth)):
            errors = position_errors(frames, digits, fronts, np.stack(there), self.scenes.overlap == "hide")
            self.errors[row][which, :, self.steps.index(step)] = errors
        middle = (self.scenes.size - digits.shape[-1]) / 2
        self._add_chance("middle", which, step, np.full((len(which), 2), middle)[:, None] - np.stack(there))
        if "other_clip" in self.errors:
            others = [self._of_another_clip(int(window)) for window in which]
            elsewhere = [self.scenes.positions(self.clips[other], self.starts[other] + step) for other in others]
            self._add_chance("other_clip", which, step, np.stack(elsewhere) - np.stack(there))

    def _of_another_clip(self, window: int) -> int:
        """Return the next window that is of another clip."""
        count = len(self.clips)
        following = ((window + away) % count for away in range(1, count))
        return next(other for other in following if self.clips[other] != self.clips[window])

    def _add_chance(self, row: str, which: NDArray[np.int64], step: int, away: NDArray[Any]) -> None:
        """Take (B, 2, 2) differences of places as the errors of a row."""
        self.errors[row][which, :, self.steps.index(step)] = np.linalg.norm(away, axis=2)

    def report(self, seed: int) -> dict[str, Any]:
        """Return mean and median error of each step with 95% intervals over clips, and the share that was not found."""
        bootstrap = Bootstrap(np.repeat(self.clips, len(COLOURS)), seed)
        rows: dict[str, Any] = {}
        for row, errors in self.errors.items():
            flat = errors.reshape(-1, len(self.steps))
            lost = np.isinf(flat)
            found = np.where(lost, np.nan, flat)
            share = bootstrap.interval(np.where(np.isnan(flat), np.nan, lost.astype(np.float64)))
            rows[row] = {
                "error": bootstrap.interval(found).to_json(),
                "median": [_median(column) for column in found.T],
                "not_found": share.to_json()["mean"],
            }
        known = {**ROWS, **CHANCE, "truth": "the true drawing: the error of the search itself"}
        about = {row: known[row] for row in rows}
        whole = [self.scenes.scene(clip).whole for clip in set(self.clips)]
        return {
            "method": METHOD,
            "unit": "pixel",
            "frame": self.scenes.size,
            "rows": about,
            "clips": len(whole),
            "digits": len(self.clips) * len(COLOURS),
            "clips_drawn_again_exactly": sum(whole),
            "steps": list(self.steps),
            "errors": rows,
        }


def position_errors(
    frames: Frames,
    digits: NDArray[np.float32],
    fronts: NDArray[np.int64],
    truth: NDArray[np.int64],
    hides: bool,
) -> NDArray[np.float64]:
    """Return the distance of each digit from where it must be.

    Args:
        frames: (B, H, W, 3) uint8.
        digits: (B, 2, D, D) in [0, 1].
        fronts: (B,) the colour in front.
        truth: (B, 2, 2) x and y of each colour.
        hides: whether the digit in front covers the other.

    Returns:
        (B, 2) pixels, infinite where a digit was not found.
    """
    planes = frames.astype(np.float32) / np.float32(255)
    errors = np.empty((len(frames), len(COLOURS)))
    for colour in range(len(COLOURS)):
        covered = (planes[..., 1 - colour] > INK) & (fronts != colour)[:, None, None] & hides
        found = locate(planes[..., colour], digits[:, colour], (~covered).astype(np.float32))
        away = np.linalg.norm(found.places - truth[:, colour], axis=1)
        errors[:, colour] = np.where(found.found, away, np.inf)
    return errors


def _median(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else None
