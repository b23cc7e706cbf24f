"""Predict held-out clips from a run, and score each step against the truth as far as there is one.

Axes: B clips, T time, H height, W width, C channels; frames are uint8. Times count from 0, the first observed frame.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drnet.datasets.contract import DataError
from drnet.datasets.mnist import BouncingDigits
from drnet.datasets.reading.digits import OPTDIGITS
from drnet.pipelines.evaluation.frames import HIGHEST
from drnet.pipelines.evaluation.scenes import DigitScenes
from drnet.pipelines.files import pretty_json, write_whole
from drnet.pipelines.looking.ffmpeg import save_mp4
from drnet.pipelines.looking.pictures import Frames, save_gif, save_png
from drnet.pipelines.prediction.rollout import FOLDER, load_predictor, predicted_frames
from drnet.pipelines.prediction.sheets import contact_sheet, moments, movie_page
from drnet.pipelines.progress import Progress, Silent
from drnet.pipelines.run import RunError, data_error_if_size_differs, latest_checkpoint, load_run
from drnet.pipelines.source import Collection, open_shards
from drnet.pipelines.train import choose_device
from drnet.pipelines.versions import versions

AT_ONCE = 16  # clips that are predicted together: the frames of no more are held
PREDICTION_FORMAT = 1


def predict(run: str | Path, frames: NDArray[np.uint8], steps: int = 10, device: str = "auto") -> NDArray[np.uint8]:
    """Return the frames that follow some observed ones, as a run's model and its predictor expect them.

    For many steps, `drnet.pipelines.prediction.rollout.predicted_frames` yields them one at a time.

    Args:
        run: the run folder, with a predictor (`drnet train-predictor`).
        frames: (B, T, H, W, C) or (T, H, W, C) uint8, observed frames in a row; the predictor was trained on T of 5 or 10.
        steps: how many to predict.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Returns:
        (B, steps, H, W, C) or (steps, H, W, C) uint8.

    Raises:
        ValueError: where the run has no predictor, or the frames do not fit it.
    """
    if frames.dtype != np.uint8 or frames.ndim not in (4, 5) or not frames.shape[-4]:
        shape = f"{frames.dtype} of {frames.shape}"
        raise ValueError(f"frames are {shape}; they must be uint8 of (B, T, H, W, C) or (T, H, W, C)")
    if steps < 1:
        raise ValueError(f"steps {steps} is not allowed; it must be at least 1")
    chosen = str(choose_device(device))
    model, _, config = load_run(Path(run), chosen)
    height, width, channels = frames.shape[-3:]
    data_error_if_size_differs(config, (height, width, channels))
    observed = frames if frames.ndim == 5 else frames[None]
    followed = np.stack(list(predicted_frames(model, load_predictor(Path(run), chosen), observed, steps)), 1)
    return followed if frames.ndim == 5 else followed[0]


@dataclass
class Scores:
    """Errors of every step, summed over the clips whose truth reaches it; pixels are in [0, 1].

    Attributes:
        clips: (steps,) how many clips those are.
        predicted, copied: (steps, 2) sums over clips of a frame's mean squared error and of its PSNR in dB, of the
            prediction and of the last observed frame.
    """

    steps: int
    clips: NDArray[np.int64] = field(init=False)
    predicted: NDArray[np.float64] = field(init=False)
    copied: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.clips = np.zeros(self.steps, np.int64)
        self.predicted, self.copied = np.zeros((2, self.steps, 2))

    def add(self, step: int, true: Frames | None, predicted: Frames, last: Frames) -> None:
        """Score a clip's frame at a step from 0; `true` is None beyond its truth."""
        if true is not None:
            self.clips[step] += 1
            self.predicted[step] += _errors(true, predicted)
            self.copied[step] += _errors(true, last)

    def row(self, step: int) -> dict[str, Any]:
        """Return a step's scores: means over clips, of the PSNR too, as `drnet evaluate` has it; null where none is left."""
        count = int(self.clips[step])
        found: dict[str, Any] = {"step": step + 1, "clips": count}
        for name, sums in (("predicted", self.predicted), ("copy_last_frame", self.copied)):
            means = (sums[step] / count).tolist() if count else (None, None)
            found[name] = dict(zip(("mse", "psnr"), means, strict=True))
        return found


def _errors(one: Frames, other: Frames) -> tuple[float, float]:
    """Return the mean squared error and the PSNR, at most `HIGHEST`, which equal frames have."""
    error = float(np.square((one.astype(np.float64) - other) / 255).mean())
    return error, min(-10 * math.log10(error), float(HIGHEST)) if error else float(HIGHEST)


@dataclass(frozen=True)
class PredictReport:
    """What a prediction did.

    Attributes:
        clips: keys of the scored clips; the first ones are shown.
        observe: frames observed.
        rows: scores of every step, see `Scores.row`.
    """

    clips: Sequence[str]
    observe: int
    rows: Sequence[Mapping[str, Any]]


class Truth:
    """The true frames of some clips at any time: their own, and beyond their end those that are known without being there.

    Args:
        collection: the clips.
        clips: their numbers.
        cyclic: whether clips are whole turns.
    """

    def __init__(self, collection: Collection, clips: Sequence[int], cyclic: bool) -> None:
        self.frames = {clip: collection.frames(clip) for clip in clips}
        self.cyclic, self.drawn = cyclic, drawn_again(collection)

    def at(self, clip: int, time: int) -> Frames | None:
        """Return a clip's frame (H, W, C) at a time; None where it is not known."""
        frames = self.frames[clip]
        if time < len(frames):
            return frames[time]
        if self.cyclic:
            return frames[time % len(frames)]
        return self.drawn(clip, time) if self.drawn is not None else None


def drawn_again(collection: Collection) -> Callable[[int, int], Frames] | None:
    """Return the function that draws a clip of bouncing digits at any time in closed form; None for other data.

    Images of MNIST, whose files may not be at hand, are those that the clip's own frames show.
    """
    manifest = collection.manifest
    if manifest is None or manifest.about["data_set"] != "mnist":
        return None
    if manifest.parameters["source"] != OPTDIGITS:
        return DigitScenes(collection).frame
    data = BouncingDigits(OPTDIGITS, size=manifest.parameters["size"], overlap=manifest.parameters["overlap"])
    labels = functools.lru_cache(AT_ONCE)(collection.labels)
    return lambda clip, time: data.redraw(labels(clip), [time])[0]


class Prediction:
    """Rollouts of some clips beside their truth, and their scores.

    Args:
        run: with a predictor.
        collection: the clips.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        observe: frames that are observed; None: as many as the predictor was trained on.
        steps: predicted ones.
        clips: how many are scored, evenly spaced in the collection.
        rows: how many of them are shown.

    Raises:
        ValueError: for values that are not allowed, a run without predictor, or clips that are all too short.
    """

    def __init__(
        self, run: Path, collection: Collection, device: str, observe: int | None, steps: int, clips: int, rows: int
    ) -> None:
        chosen = str(choose_device(device))
        self.model, self.weights, config = load_run(run, chosen)
        data_error_if_size_differs(config, collection.frame_shape)
        self.predictor = load_predictor(run, chosen)
        self.observe = self.predictor.config.observe if observe is None else observe
        for name, value in (("observe", self.observe), ("steps", steps), ("clips", clips), ("rows", rows)):
            if value < 1:
                raise DataError(f"{name} {value} is not allowed; it must be at least 1")
        self.collection, self.steps, self.cyclic = collection, steps, bool(config["train"]["cyclic"])
        enough = [n for n in range(len(collection)) if collection.sample(n).length > self.observe]
        self.short = len(collection) - len(enough)
        if not enough:
            longest = max(collection.sample(n).length for n in range(len(collection)))
            raise DataError(f"observe {self.observe} is not allowed; the longest clip has {longest} frames")
        self.clips = [enough[n] for n in np.unique(np.linspace(0, len(enough) - 1, clips).round().astype(int))]
        self.shown = min(rows, len(self.clips), AT_ONCE)
        self.scores = Scores(steps)

    @property
    def keys(self) -> list[str]:
        """The scored clips' keys; the first `shown` are shown."""
        return [self.collection.sample(clip).key for clip in self.clips]

    @property
    def splits(self) -> list[str]:
        """The splits that the scored clips are of."""
        return sorted({self.collection.split_of(clip) for clip in self.clips})

    def moments(self, progress: Progress) -> Iterator[tuple[int, list[Frames | None], list[Frames]]]:
        """Yield each time with the truth and the prediction of the shown clips; both are the observed frame at first.

        Memory does not grow with the steps. All clips are scored when it has ended.
        """
        progress.start("predicting", self.steps * len(self.clips), "frames")
        try:
            for first in range(0, len(self.clips), AT_ONCE):
                part = self.clips[first : first + AT_ONCE]
                for time, true, predicted in self._together(part):
                    if time >= self.observe:
                        progress.advance(len(part))
                    if first == 0:
                        yield time, true[: self.shown], predicted[: self.shown]
        finally:
            progress.stop()

    def _together(self, clips: Sequence[int]) -> Iterator[tuple[int, list[Frames | None], list[Frames]]]:
        """Predict some clips at once, score them, and yield as `moments`."""
        truth = Truth(self.collection, clips, self.cyclic)
        observed = np.stack([truth.frames[clip][: self.observe] for clip in clips])
        for time in range(self.observe):
            yield time, list(observed[:, time]), list(observed[:, time])
        for step, predicted in enumerate(predicted_frames(self.model, self.predictor, observed, self.steps)):
            true = [truth.at(clip, self.observe + step) for clip in clips]
            for row, frame in enumerate(true):
                self.scores.add(step, frame, predicted[row], observed[row, -1])
            yield self.observe + step, true, list(predicted)

    def report(self) -> PredictReport:
        """Return the scores, once all moments were seen."""
        return PredictReport(self.keys, self.observe, [self.scores.row(step) for step in range(self.steps)])

    def made_from(self, run: Path) -> dict[str, Any]:
        """Return what the scores depend on."""
        own = latest_checkpoint(run / FOLDER)
        if own is None:
            raise RunError(f"{run / FOLDER}: its checkpoint is gone")
        manifest = self.collection.manifest
        return {
            "drnet": {"step": self.weights.step, "sha256": self.weights.sha256},
            "predictor": {"step": own.step, "sha256": own.sha256},
            "data": {
                "build": manifest.build if manifest else None,
                "order_key": self.collection.order_key,
                "splits": self.splits,
            },
            "observe": self.observe,
            "clips": self.keys,
            "clips_too_short": self.short,
            "versions": versions("torch", "numpy"),
        }


def held_out(shards: str | Path) -> Collection:
    """Return the test split of a data set, or its training clips where it has none; a pattern is taken as it is named.

    Raises:
        DataError: where shards are missing: held-out clips that should be there are never replaced by others.
    """
    try:
        return open_shards(shards, ["test"])
    except DataError:
        training = open_shards(shards)
        if training.manifest is not None and training.manifest.clips("test"):
            raise
        return training


def write_prediction(
    run: Path,
    shards: str | Path,
    out: Path,
    observe: int | None = None,
    steps: int = 100,
    clips: int = 64,
    rows: int = 5,
    at: Sequence[int] = (),
    fps: float = 10,
    metrics: Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> PredictReport:
    """Predict held-out clips, write truth and prediction as a movie or a picture, and score every step.

    Memory does not grow with the steps: a movie's frames are written as they come.

    Args:
        run: with a predictor.
        shards: folder, brace pattern or URL.
        out: a `.gif` or `.mp4`, or a `.png` of some steps.
        observe: frames that are observed; None: as many as the predictor was trained on.
        steps: predicted ones.
        clips: how many held-out clips are scored.
        rows: how many of them are shown.
        at: steps that a `.png` shows, from 1; empty: about a dozen, denser at first.
        fps: frames of a second of a movie.
        metrics: JSON file for the scores.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        progress: told of each predicted frame.

    Raises:
        ValueError: for values that are not allowed, or a run without predictor.
    """
    if wrong := [step for step in at if not 1 <= step <= steps]:
        raise DataError(f"step {wrong[0]} is not there; steps are counted from 1 to {steps}")
    if not 0 < fps <= 50:
        raise DataError(f"fps {fps} is not allowed; it must lie in (0, 50]")
    progress = progress or Silent()
    prediction = Prediction(run, held_out(shards), device, observe, steps, clips, rows)
    if prediction.short:
        count = len(prediction.collection)
        progress.note(f"{prediction.short} of {count} clips have no frame after {prediction.observe} observed ones")
    if "train" in prediction.splits:
        progress.note("no held-out clips are at hand: these are training clips")
    stream = prediction.moments(progress)
    if out.suffix == ".png":
        save_png(out, contact_sheet(stream, prediction.keys, prediction.observe, at or moments(steps)))
    else:
        pages = (movie_page(*moment, prediction.observe, prediction.steps) for moment in stream)
        (save_gif if out.suffix == ".gif" else save_mp4)(out, pages, fps)
    report = prediction.report()
    if metrics is not None:
        found = {"format": PREDICTION_FORMAT, "made_from": prediction.made_from(run), "per_step": list(report.rows)}
        write_whole(metrics, pretty_json(found))
    return report
