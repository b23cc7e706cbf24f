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
from drnet.pipelines.looking.clips import Shot, named_clips
from drnet.pipelines.looking.ffmpeg import save_mp4
from drnet.pipelines.looking.pictures import Frames, save_gif, save_png
from drnet.pipelines.prediction.rollout import FOLDER, load_predictor, predicted_frames
from drnet.pipelines.prediction.sheets import contact_sheet, moments, movie_page
from drnet.pipelines.progress import Progress, Silent
from drnet.pipelines.run import RunError, data_error_if_size_differs, latest_checkpoint, load_run
from drnet.pipelines.source import Collection, open_shards
from drnet.pipelines.train import choose_device
from drnet.pipelines.versions import versions

ROWS = 5  # clips that are shown where none are named
AT_ONCE = 16  # clips that are predicted together: the frames of no more are held
PREDICTION_FORMAT = 1


def predict(
    run: str | Path, frames: NDArray[np.uint8], steps: int = 10, device: str = "auto", checkpoint: str = "last"
) -> NDArray[np.uint8]:
    """Return the frames that follow some observed ones, as a run's model and its predictor expect them.

    For many steps, `drnet.pipelines.prediction.rollout.predicted_frames` yields them one at a time.

    Args:
        run: the run folder, with a predictor (`drnet train-predictor`).
        frames: (B, T, H, W, C) or (T, H, W, C) uint8, observed frames in a row; the predictor was trained on T of 5 or 10.
        steps: how many to predict.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        checkpoint: of the run, `last`, `best` or a step; the predictor belongs to one.

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
    model, weights, config = load_run(Path(run), chosen, checkpoint)
    height, width, channels = frames.shape[-3:]
    data_error_if_size_differs(config, (height, width, channels))
    observed = frames if frames.ndim == 5 else frames[None]
    predictor = load_predictor(Path(run), chosen, weights)
    followed = np.stack(list(predicted_frames(model, predictor, observed, steps)), 1)
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
        clips: the scored clips as `--clips` names them; the first ones are shown.
        step: of the run's checkpoint.
        observe: frames observed.
        rows: scores of every step, see `Scores.row`.
    """

    clips: Sequence[str]
    step: int
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
        clips: how many are scored, evenly spaced in the collection; or their names, `KEY:FRAME` to begin at a frame.
        rows: how many of them are shown; None: all that are named, or 5.
        checkpoint: of the run, `last`, `best` or a step.

    Raises:
        ValueError: for values that are not allowed, a run without predictor, or clips that are too short.
    """

    def __init__(
        self,
        run: Path,
        collection: Collection,
        device: str,
        observe: int | None,
        steps: int,
        clips: int | Sequence[str],
        rows: int | None = None,
        checkpoint: str = "last",
    ) -> None:
        chosen = str(choose_device(device))
        self.model, self.weights, config = load_run(run, chosen, checkpoint)
        data_error_if_size_differs(config, collection.frame_shape)
        self.predictor = load_predictor(run, chosen, self.weights)
        self.observe = self.predictor.config.observe if observe is None else observe
        rows = (ROWS if isinstance(clips, int) else AT_ONCE) if rows is None else rows
        count = clips if isinstance(clips, int) else len(clips)
        for name, value in (("observe", self.observe), ("steps", steps), ("clips", count), ("rows", rows)):
            if value < 1:
                raise DataError(f"{name} {value} is not allowed; it must be at least 1")
        self.collection, self.steps, self.cyclic = collection, steps, bool(config["train"]["cyclic"])
        self.short = 0
        self.shots = self._spread(clips) if isinstance(clips, int) else self._named(clips)
        self.shown = min(rows, len(self.shots), AT_ONCE)
        self.scores = Scores(steps)

    def _spread(self, count: int) -> list[Shot]:
        """Return so many clips at even distances, of those that are long enough; and count those that are not."""
        lengths = [self.collection.sample(n).length for n in range(len(self.collection))]
        enough = [n for n, length in enumerate(lengths) if length > self.observe]
        self.short = len(lengths) - len(enough)
        if not enough:
            raise DataError(f"observe {self.observe} is not allowed; the longest clip has {max(lengths)} frames")
        return [Shot(enough[n]) for n in np.unique(np.linspace(0, len(enough) - 1, count).round().astype(int))]

    def _named(self, names: Sequence[str]) -> list[Shot]:
        shots = named_clips(self.collection, names, self.collection.split_of(0), spans=False)
        for name, shot in zip(names, shots, strict=True):
            left = self.collection.sample(shot.clip).length - (shot.first or 0)
            if left <= self.observe:
                raise DataError(
                    f"clip {name} has {left} frames there; {self.observe} are observed, and one must follow"
                )
        return shots

    @property
    def keys(self) -> list[str]:
        """The scored clips, `KEY:FRAME` where one does not begin at its first frame; the first `shown` are shown."""
        named = ((self.collection.sample(shot.clip).key, shot.first) for shot in self.shots)
        return [f"{key}:{first + 1}" if first else key for key, first in named]

    @property
    def splits(self) -> list[str]:
        """The splits that the scored clips are of."""
        return sorted({self.collection.split_of(shot.clip) for shot in self.shots})

    def moments(self, progress: Progress) -> Iterator[tuple[int, list[Frames | None], list[Frames]]]:
        """Yield each time with the truth and the prediction of the shown clips; both are the observed frame at first.

        Memory does not grow with the steps. All clips are scored when it has ended.
        """
        progress.start("predicting", self.steps * len(self.shots), "frames")
        try:
            for first in range(0, len(self.shots), AT_ONCE):
                part = self.shots[first : first + AT_ONCE]
                for time, true, predicted in self._together(part):
                    if time >= self.observe:
                        progress.advance(len(part))
                    if first == 0:
                        yield time, true[: self.shown], predicted[: self.shown]
        finally:
            progress.stop()

    def _together(self, shots: Sequence[Shot]) -> Iterator[tuple[int, list[Frames | None], list[Frames]]]:
        """Predict some clips at once, score them, and yield as `moments`."""
        truth = Truth(self.collection, [shot.clip for shot in shots], self.cyclic)
        begins = [(shot.clip, shot.first or 0) for shot in shots]
        observed = np.stack([truth.frames[clip][first : first + self.observe] for clip, first in begins])
        for time in range(self.observe):
            yield time, list(observed[:, time]), list(observed[:, time])
        for step, predicted in enumerate(predicted_frames(self.model, self.predictor, observed, self.steps)):
            true = [truth.at(clip, first + self.observe + step) for clip, first in begins]
            for row, frame in enumerate(true):
                self.scores.add(step, frame, predicted[row], observed[row, -1])
            yield self.observe + step, true, list(predicted)

    def report(self) -> PredictReport:
        """Return the scores, once all moments were seen."""
        return PredictReport(
            self.keys, self.weights.step, self.observe, [self.scores.row(step) for step in range(self.steps)]
        )

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
    clips: int | Sequence[str] = 64,
    rows: int | None = None,
    at: Sequence[int] = (),
    fps: float = 10,
    metrics: Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    checkpoint: str = "last",
) -> PredictReport:
    """Predict held-out clips, write truth and prediction as a movie or a picture, and score every step.

    Memory does not grow with the steps: a movie's frames are written as they come.

    Args:
        run: with a predictor.
        shards: folder, brace pattern or URL.
        out: a `.gif` or `.mp4`, or a `.png` of some steps.
        observe: frames that are observed; None: as many as the predictor was trained on.
        steps: predicted ones.
        clips: how many held-out clips are scored, or their names.
        rows: how many of them are shown; None: all that are named, or 5.
        at: steps that a `.png` shows, from 1; empty: about a dozen, denser at first.
        fps: frames of a second of a movie.
        metrics: JSON file for the scores.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        progress: told of each predicted frame.
        checkpoint: of the run, `last`, `best` or a step.

    Raises:
        ValueError: for values that are not allowed, or a run without predictor.
    """
    if wrong := [step for step in at if not 1 <= step <= steps]:
        raise DataError(f"step {wrong[0]} is not there; steps are counted from 1 to {steps}")
    if not 0 < fps <= 50:
        raise DataError(f"fps {fps} is not allowed; it must lie in (0, 50]")
    progress = progress or Silent()
    prediction = Prediction(run, held_out(shards), device, observe, steps, clips, rows, checkpoint)
    if prediction.short:
        count = len(prediction.collection)
        progress.note(f"{prediction.short} of {count} clips have no frame after {prediction.observe} observed ones")
    if "train" in prediction.splits:
        progress.note("no held-out clips are at hand: these are training clips")
    stream = prediction.moments(progress)
    if out.suffix == ".png":
        save_png(out, contact_sheet(stream, prediction.keys, prediction.observe, at or moments(steps)))
    else:
        shown = prediction.keys[: prediction.shown]
        pages = (movie_page(*moment, prediction.observe, prediction.steps, shown) for moment in stream)
        (save_gif if out.suffix == ".gif" else save_mp4)(out, pages, fps)
    report = prediction.report()
    if metrics is not None:
        found = {"format": PREDICTION_FORMAT, "made_from": prediction.made_from(run), "per_step": list(report.rows)}
        write_whole(metrics, pretty_json(found))
    return report
