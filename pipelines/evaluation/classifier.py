"""Classifiers that judge generated frames: trained on true frames of the training split, shown with their own accuracy.

A run has no part in one: it sees true frames and labels of a data set, never a decoded frame. It is kept in a folder under
the hash of all that it was made from: a JSON, written last, that names a safetensors file by the hash of its content. Two
evaluations at once, on devices that do not round alike, so leave two such files, and one JSON that fits its own.

Axes: N examples, L labels, W frames in a row, H height, C channels, Y classes.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray

from drnet.datasets.contract import DataError
from drnet.datasets.draws import integers, key_of, permutation, words
from drnet.datasets.reading.source_files import sha256_file
from drnet.frame_classifier import FrameClassifier
from drnet.pipelines.fields import HASH, text
from drnet.pipelines.files import canonical_json, pretty_json, read_json, regular_size, sha256_of, write_whole
from drnet.pipelines.loader import to_device
from drnet.pipelines.progress import Progress, Silent
from drnet.pipelines.source import Collection
from drnet.scores import share_interval
from drnet.trainer import TrainConfig, Trainer

VERSION = 2  # rises when the same settings would give another classifier, or other facts about it
AT_ONCE = 512
EXAMPLES, HELD_OUT = 40_000, 4_000  # at most, over all labels
MEMORY = 2**29  # bytes that the examples may take

View = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


@dataclass(frozen=True)
class ClassifierConfig:
    """How a classifier is trained.

    Attributes:
        steps, batch_size, lr: of Adam, with a cosine schedule down to 0.
        width: channels of the first map.
        mirrored: whether half of the examples are shown mirrored, left to right.
        seed: of the weights, the examples and the batches.
    """

    steps: int = 1500
    batch_size: int = 128
    lr: float = 0.002
    width: int = 32
    mirrored: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Task:
    """What is told from what.

    Attributes:
        name: of the view, part of what a kept classifier is known by.
        labels: static categories of the same classes, told by one network.
        window: frames in a row that are looked at.
        view: (N, window, H, W, C) uint8 -> what is shown for each label, (N, L, h, h, c) uint8.
        front: the label that says which of `labels` belongs to the thing in front; empty where nothing hides another.
    """

    name: str
    labels: tuple[str, ...]
    window: int
    view: View
    front: str = ""

    def classes(self, collection: Collection) -> tuple[str, ...]:
        """Return the names of the classes; raises DataError where a collection has not these labels."""
        known = collection.label_types
        found = {known[label].names for label in self.labels if label in known and not known[label].varying}
        if len(found) != 1 or any(label not in known for label in self.labels) or not (names := found.pop()):
            raise DataError(f"the data set has no static categories {', '.join(self.labels)}; they are what is judged")
        return names

    def shown(self, collection: Collection) -> tuple[int, int, int]:
        """Return the shape (h, h, c) of what is shown for each label."""
        frames = np.zeros((1, self.window, *collection.frame_shape), np.uint8)
        height, width, channels = self.view(frames).shape[2:]
        return height, width, channels


@dataclass(frozen=True)
class Classifier:
    """A trained classifier and how good it is.

    Attributes:
        net: in evaluation mode.
        task: what it tells.
        classes: names, Y. seen: how many of them the training examples had.
        accuracy: share of held-out examples told rightly. by_label: the same for each label.
        held_out: how many examples that were, from how many clips.
        frequent: the most frequent class of these examples, and its share: the accuracy of always naming it.
        origin: all that it was made from.
    """

    net: FrameClassifier
    task: Task
    classes: tuple[str, ...]
    seen: int
    accuracy: float
    by_label: dict[str, float]
    held_out: tuple[int, int]
    frequent: tuple[str, float]
    origin: dict[str, Any]

    def probabilities(self, frames: NDArray[np.uint8]) -> NDArray[np.float64]:
        """(N, window, H, W, C) uint8 -> (N, L, Y)."""
        seen = self.task.view(frames)
        return _probabilities(self.net, seen.reshape(-1, *seen.shape[2:])).reshape(*seen.shape[:2], -1)

    def read(self, frames: NDArray[np.uint8]) -> NDArray[np.int64]:
        """(N, window, H, W, C) uint8 -> (N, L), the likeliest class of each label."""
        return self.probabilities(frames).argmax(-1)

    def to_json(self) -> dict[str, Any]:
        """Return what a reader of its judgements must know."""
        examples, clips = self.held_out
        return {
            "accuracy": self.accuracy,
            "interval": list(share_interval(round(self.accuracy * clips), clips)),  # a clip's windows are alike
            "accuracy_by_label": self.by_label,
            "held_out": {"examples": examples, "clips": clips},
            "most_frequent": {"class": self.frequent[0], "share": self.frequent[1]},
            "classes": list(self.classes),
            "classes_seen": self.seen,
            "origin": self.origin,
        }


@dataclass(frozen=True)
class _Examples:
    frames: NDArray[np.uint8]  # (N, L, h, h, c)
    classes: NDArray[np.int64]  # (N, L)
    clips: int
    short: int  # clips that have fewer frames than a window, left out

    def flat(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        return self.frames.reshape(-1, *self.frames.shape[2:]), self.classes.reshape(-1)


def train_classifier(
    task: Task,
    training: Collection,
    held_out: Collection,
    config: ClassifierConfig,
    cache: Path | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Classifier:
    """Train a classifier on a training split, and measure it on another one; or take it from a folder where it is kept.

    Args:
        task: what is told from what.
        training: clips of the training split alone.
        held_out: clips of the test split.
        config: how.
        cache: the folder; None keeps nothing.
        device: `cpu` or `cuda`.
        progress: told of each step.

    Raises:
        DataError: where the labels or examples are missing, or the two collections share clips.
    """
    progress = progress or Silent()
    names = task.classes(training)
    for collection, split, use in ((training, "train", "learns from"), (held_out, "test", "is measured on")):
        if wrong := {place.split for place in collection.places} - {split}:
            raise DataError(f"the {wrong.pop()} split is not allowed here; a judge {use} the {split} split alone")
    origin = {
        "version": VERSION,
        "view": task.name,
        "labels": list(task.labels),
        "window": task.window,
        "training": training.order_key,
        "held_out": held_out.order_key,
        "build": training.manifest.build if training.manifest else None,
        **asdict(config),
    }
    height, width, channels = task.shown(training)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        net = FrameClassifier(channels, min(height, width), len(names), config.width).to(device)
    kept = cache / f"judge-{sha256_of(canonical_json(origin))[:16]}.json" if cache else None
    if kept and (facts := _kept(kept, net, origin, progress)):
        return Classifier(net.eval(), task, names, **facts)
    examples = _draw(task, training, EXAMPLES, config.seed)
    tests = _draw(task, held_out, HELD_OUT, config.seed)
    _fit(net, *examples.flat(), config, torch.device(device), progress)
    counts = np.bincount(tests.classes.reshape(-1), minlength=len(names))
    right = _probabilities(net, tests.flat()[0]).argmax(1).reshape(tests.classes.shape) == tests.classes
    facts = {
        "seen": len(np.unique(examples.classes)),
        "accuracy": float(right.mean()),
        "by_label": dict(zip(task.labels, right.mean(0).tolist(), strict=True)),
        "held_out": (right.size, tests.clips),
        "frequent": (names[int(counts.argmax())], float(counts.max() / counts.sum())),
        "origin": origin | {"short_clips": {"train": examples.short, "test": tests.short}},
    }
    if kept:
        try:
            _keep(kept, net, facts)
        except OSError as error:  # a cache that cannot be written costs time, not the result
            progress.note(f"{kept}: not kept ({error.strerror}); the next evaluation trains the judge again")
    return Classifier(net, task, names, **facts)


def _draw(task: Task, collection: Collection, most: int, seed: int) -> _Examples:
    """Choose windows of a collection, of as many clips as possible, and as many from each."""
    room = max(1, min(most, MEMORY // math.prod(task.shown(collection))) // len(task.labels))
    order = permutation(key_of("judge", seed), len(collection))[:room].tolist()
    long = [clip for clip in order if collection.sample(clip).length >= task.window]
    if not long:
        raise DataError(f"no clip has the {task.window} frames in a row that are judged; build longer clips")
    each = max(1, room // len(long))
    places = {clip: collection.sample(clip).length - task.window + 1 for clip in long}
    starts = [permutation(key_of("windows", seed, clip), count)[:each] for clip, count in places.items()]
    count, labels = sum(map(len, starts)), len(task.labels)
    frames = np.empty((count, labels, *task.shown(collection)), np.uint8)  # filled in place: it may be large
    classes = np.empty((count, labels), np.int64)
    at = 0
    for clip, firsts in zip(long, starts, strict=True):
        part = slice(at, at := at + len(firsts))
        frames[part] = task.view(collection.frames(clip)[firsts[:, None] + np.arange(task.window)])
        known = collection.labels(clip)
        classes[part] = [known[label] for label in task.labels]
    return _Examples(frames, classes, len(long), len(order) - len(long))


def _fit(
    net: FrameClassifier,
    frames: NDArray[np.uint8],
    classes: NDArray[np.int64],
    config: ClassifierConfig,
    device: torch.device,
    progress: Progress,
) -> None:
    """Train a network on (N, h, h, c) frames: a pure function of these, the settings and the kind of device."""
    settings = TrainConfig(
        batch_size=config.batch_size,
        lr=config.lr,
        schedule="cosine",
        warmup=config.steps // 20,
        horizon=config.steps,
        seed=config.seed,
    )
    key = key_of("classifier", config.seed)
    progress.start("training a judge on true frames", config.steps, "steps")
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(config.seed)  # of dropout
            trainer = Trainer(net, settings, device)
            for step in range(config.steps):
                raw = words(key, step * config.batch_size, config.batch_size)
                chosen = integers(raw[:, 0], len(frames))
                batch = frames[chosen]
                if config.mirrored:
                    turned = integers(raw[:, 1], 2) == 1
                    batch[turned] = batch[turned, :, ::-1]
                trainer.train_step(to_device(batch, device), torch.from_numpy(classes[chosen]).to(device))
                progress.advance(1)
        trainer.check_finite()
    finally:
        progress.stop()
    net.eval()


def _probabilities(net: FrameClassifier, frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(N, h, h, c) uint8 -> (N, Y)."""
    device = next(net.parameters()).device
    parts = [
        net.probabilities(to_device(frames[first : first + AT_ONCE].copy(), device)).double().cpu()
        for first in range(0, len(frames), AT_ONCE)
    ]
    found: NDArray[np.float64] = torch.cat(parts).numpy()
    return found


def _keep(path: Path, net: FrameClassifier, facts: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = safetensors.torch.save({name: value.cpu().contiguous() for name, value in net.state_dict().items()})
    sha256 = sha256_of(data)
    write_whole(_weights(path, sha256), data)
    write_whole(path, pretty_json(facts | {"sha256": sha256}))


def _weights(path: Path, sha256: str) -> Path:
    return path.with_name(f"{path.stem}-{sha256[:16]}.safetensors")


def _kept(path: Path, net: FrameClassifier, origin: dict[str, Any], progress: Progress) -> dict[str, Any] | None:
    """Load the weights kept under a name and return what is known of them.

    None where there are none, or where they cannot be read or are damaged, which is said.
    """
    try:
        if not path.exists():
            return None
        facts: dict[str, Any] = read_json(path, "a judge")
        sha256 = text(facts, "sha256", HASH)
        weights = _weights(path, sha256)
        regular_size(weights)
        if sha256_file(weights) != sha256:
            raise ValueError("its weights are damaged")
        tensors = safetensors.torch.load_file(weights)
        if facts["origin"] | origin != facts["origin"]:
            raise ValueError("made from something else")
        if {name: value.shape for name, value in tensors.items()} != {n: v.shape for n, v in net.state_dict().items()}:
            raise ValueError("of other layers")
        facts |= {name: tuple(facts[name]) for name in ("held_out", "frequent")}
        net.load_state_dict(tensors, strict=True)
        return {name: facts[name] for name in ("seen", "accuracy", "by_label", "held_out", "frequent", "origin")}
    except OSError as error:
        why = f"{Path(error.filename or path).name}: {error.strerror or error}"
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        why = " ".join(str(error).split())[:120]
    progress.note(f"{path}: this judge cannot be used ({why}); it is trained again")
    return None
