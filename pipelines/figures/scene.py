"""What every figure begins with: a run's model, and the clips to show, held-out ones by default."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from drnet.datasets.contract import SPLITS, DataError, Label
from drnet.guess import guess
from drnet.model import DrNet
from drnet.pipelines.looking.clips import Shot
from drnet.pipelines.looking.pictures import Frames
from drnet.pipelines.looking.swaps import held_out_clips
from drnet.pipelines.run import Checkpoint, data_error_if_size_differs, load_run
from drnet.pipelines.source import Collection, open_shards
from drnet.pipelines.train import choose_device
from drnet.pipelines.versions import versions

METHODS = {"drnet": "DrNet", "autoencoder": "autoencoder"}  # by kind of run
TRIES = 20  # clips looked at for one that is shown, to find such that differ in content


@dataclass(frozen=True)
class Scene:
    """A model and the clips that its figure shows.

    Attributes:
        run: the run folder.
        shards: as the user named them.
        model: in evaluation mode, on the device.
        checkpoint, config: of the run.
        clips: of one split.
        split: which.
        device: where the model is.
        notes: what a reader must be told of the clips.
        name: of the model in a figure that compares several; empty: that of its kind.
        data: what the clips are, in a few words; empty: as their data set says.
    """

    run: Path
    shards: str
    model: DrNet
    checkpoint: Checkpoint
    config: Mapping[str, Any]
    clips: Collection
    split: str
    device: torch.device
    notes: tuple[str, ...] = ()
    name: str = ""
    data: str = ""

    def origin(self, **settings: Any) -> dict[str, Any]:
        """Return what the figure's numbers were made from, as JSON values."""
        manifest = self.clips.manifest
        return {
            "run": str(self.run),
            "checkpoint_sha256": self.checkpoint.sha256,
            "checkpoint_step": self.checkpoint.step,
            "trained_on_build": self.config["data"].get("build"),
            "shards": self.shards,
            "data_set": manifest.about["data_set"] if manifest else None,
            "build": manifest.build if manifest else None,
            "split": self.split,
            "notes": list(self.notes),
            "versions": versions("torch", "python"),
            "settings": settings,
        }

    @property
    def method(self) -> str:
        """The name of the model in a figure that compares several."""
        return self.name or METHODS[self.config["kind"]]

    def key(self, clip: int) -> str:
        """Return a clip's key."""
        return self.clips.sample(clip).key

    def frame(self, clip: int, time: int) -> Frames:
        """Return a clip's frame (H, W, C), writable."""
        return np.array(self.clips.frames(clip)[time])

    def told(self, clip: int, first: int | None = None) -> str:
        """Return what a reader should know of a clip: its categories, then its key, as `KEY:FRAME` where it begins later."""
        name = f"{self.key(clip)}:{first + 1}" if first else self.key(clip)
        return "\n".join([*words_of(self.clips.labels(clip), self.clips.label_types), name])

    def about(self) -> str:
        """Return the note that says which model and which clips a figure shows."""
        manifest = self.clips.manifest
        data = self.data or (manifest.about["title"] if manifest else "foreign shards")
        kind = "held-out clips (test split)" if self.split == "test" else f"{self.split} clips"
        return f"Model: {self.run.name}, {self.checkpoint.step:,} steps. Data: {data}, {kind}."


def words_of(labels: Mapping[str, Any], types: Mapping[str, Label], most: int = 2) -> list[str]:
    """Return a clip's first static categories as words: `walking`; where a word says little, with its label's name.

    Of labels that begin alike only the rest is named: `red 3` and `green 5` of `digit_red` and `digit_green`.
    """
    known = [name for name, label in types.items() if label.kind == "category" and not label.varying]
    begun = [name.partition("_")[0] for name in known]
    found = []
    for name, first in zip(known, begun, strict=True):
        if name in labels:
            word = types[name].names[int(labels[name])]
            short = name.removeprefix(f"{first}_") if begun.count(first) > 1 else name
            found.append(f"{short.replace('_', ' ')} {word}" if len(word) < 3 or word.isdigit() else word)
    return found[:most]


def open_scene(
    run: Path, shards: str | Path, split: str = "test", device: str = "auto", checkpoint: str = "last"
) -> Scene:
    """Load a run's weights and open the clips of a split.

    Args:
        run: the run folder.
        shards: folder, pattern or URL.
        split: `test`: held-out clips and, where there are none, training clips with a note that says so; or `train`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        checkpoint: `last`, `best` or a step.

    Raises:
        ValueError: where run or shards are not right, or do not fit each other.
    """
    chosen = choose_device(device)
    model, weights, config = load_run(run, str(chosen), checkpoint)
    clips, found, notes = clips_of(shards, split)
    data_error_if_size_differs(config, clips.frame_shape)
    trained, here = config["data"].get("build"), clips.manifest.build if clips.manifest else None
    if trained != here:
        notes.append(f"The run was trained on data set {str(trained)[:12]}, these clips are of {str(here)[:12]}.")
    return Scene(run, str(shards), model, weights, config, clips, found, chosen, tuple(notes))


def clips_of(shards: str | Path, split: str) -> tuple[Collection, str, list[str]]:
    """Return the clips of a split, the split they truly are of, and notes where that is another one.

    A pattern or a tar is taken as named where it holds such clips; else the data set that it belongs to is asked.
    """
    if split not in SPLITS:
        raise DataError(f"split {split!r} is not known{guess(split, SPLITS)}; there are test and train")
    if str(shards).partition("?")[0].endswith(".tar"):
        named = open_shards(shards)
        places = [place for place in named.places if place.split == split]
        if places:
            return Collection(places, named.manifest), split, []
        return _other(shards, split, named)
    try:
        return open_shards(shards, [split]), split, []
    except DataError as error:
        if split == "train":
            raise
        training = open_shards(shards, ["train"])
        return training, "train", [f"No held-out clips are at hand ({error}): these are training clips."]


def _other(shards: str | Path, split: str, named: Collection) -> tuple[Collection, str, list[str]]:
    """Return the clips of the split that named shards are not of, from beside them."""
    if split == "train":
        folder = str(shards).rpartition("/")[0] or "."
        return open_shards(folder, ["train"]), "train", []
    try:
        found = held_out_clips(shards, named)
        reason = "the data set has none"
    except DataError as error:
        found, reason = named, str(error)
    if found is named:
        return named, "train", [f"No held-out clips are at hand ({reason}): these are training clips."]
    return found, "test", []


def drawn_clips(
    clips: Collection, count: int, draw: np.random.Generator, least: int = 1, without: Sequence[int] = ()
) -> list[Shot]:
    """Draw clips that differ in content as far as they can, of at least some length as far as there are such.

    Args:
        clips: to draw from.
        count: how many; clips are repeated only where there are fewer.
        draw: random numbers.
        least: frames that a clip should have.
        without: clips not to take where others are left.
    """
    key = clips.manifest.about["content_key"] if clips.manifest else None
    chosen, spare, seen = list[int](), list[tuple[int, int, int]](), set[Any]()
    for rank, number in enumerate(_order(len(clips), count, draw)):
        content = clips.labels(number).get(key) if key else None
        short, known = clips.sample(number).length < least, content is not None and content in seen
        if short or known or number in without:
            spare.append((2 * short + (number in without) + known, rank, number))
            continue
        seen.add(content)
        chosen.append(number)
        if len(chosen) == count:
            break
    chosen += [number for _, _, number in sorted(spare)]
    return [Shot(chosen[number % len(chosen)]) for number in range(count)]


def _order(clips: int, count: int, draw: np.random.Generator) -> list[int]:
    """Return the clips to look at, in random order: all of a few, some of many."""
    looked = min(clips, max(200, TRIES * count))
    return [int(number) for number in draw.choice(clips, looked, replace=False)]


def frame_of(shot: Shot, clips: Collection, draw: np.random.Generator) -> int:
    """Return the named frame of a clip, or a random one."""
    drawn = int(draw.integers(clips.sample(shot.clip).length))
    return drawn if shot.first is None else shot.first
