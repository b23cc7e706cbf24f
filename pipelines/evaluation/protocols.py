"""Which frames of a clip are observed and which are to be predicted: the protocols of several papers, by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from drnet.datasets.contract import DataError
from drnet.guess import guess
from drnet.pipelines.source import Collection

DIGITS = "mnist"  # the data set whose truth goes on for ever
FAST = ("jogging", "running")  # KTH actions that leave the frame soon
LONGEST = 10_000  # steps


@dataclass(frozen=True)
class Protocol:
    """What is observed, how far it is predicted, and on which windows of the clips.

    Attributes:
        name: as the user gives it.
        observe: frames in a row that the model sees.
        steps: frames after them that are scored, as far as a clip goes.
        means: horizons for which the mean over their steps is given.
        windows: where windows begin: `first` frame of each clip, `every` some frames, or `random`, one of each clip.
        size: height and width of the frames in the literature; None: any.
        persons: of the KTH test split in the literature; empty: any.
        about: where it comes from, and how this differs.
    """

    name: str
    observe: int
    steps: int
    means: tuple[int, ...]
    windows: str
    size: int | None
    persons: str
    about: str

    def __post_init__(self) -> None:
        for name, value in (("observe", self.observe), ("steps", self.steps)):
            if not 1 <= value <= LONGEST:
                raise DataError(f"{name} {value} is not allowed; it must be from 1 to {LONGEST}")

    def to_json(self) -> dict[str, Any]:
        """Return what a report says of it."""
        return {
            "name": self.name,
            "observe": self.observe,
            "steps": self.steps,
            "windows": self.windows,
            "samples": 1,
            "about": self.about,
        }


PROTOCOLS = {
    "drnet": Protocol(
        "drnet", 10, 100, (20, 100), "first", None, "", "Denton and Birodkar 2017: 10 frames, then 20 and 100 (KTH)."
    ),
    "mcnet": Protocol(
        "mcnet",
        10,
        20,
        (20,),
        "every",
        128,
        "17-25",
        "Villegas et al. 2017: windows of 10 + 20 frames of each clip of the KTH test list, one every 20 frames, one every "
        "3 for jogging and running; as in their code, the last begins 32 frames or more before the clip's last one.",
    ),
    "svg": Protocol(
        "svg",
        10,
        30,
        (30,),
        "random",
        64,
        "21-25",
        "Denton and Fergus 2018: 64x64, persons 21 to 25, windows of 10 + 30 frames at random places (here one of each "
        "clip, drawn by the seed), best of 100 samples. DrNet is deterministic: every sample would be the same, so N is 1.",
    ),
}


def protocol_of(name: str, data_set: str, observe: int | None = None, steps: int | None = None) -> Protocol:
    """Return a protocol by name; `drnet` is 5 observed digits and 500 steps on digits, as in the paper.

    Raises:
        DataError: where there is none of this name, or a length is not allowed.
    """
    if name not in PROTOCOLS:
        raise DataError(f"protocol {name!r} is not known{guess(name, PROTOCOLS)}; supported are {', '.join(PROTOCOLS)}")
    found = PROTOCOLS[name]
    if name == "drnet" and data_set == DIGITS:
        about = "Denton and Birodkar 2017: 5 frames of digits, then 500; the predictor is trained for 10."
        found = replace(found, observe=5, steps=500, means=(10, 100, 500), about=about)
    if observe is not None:
        found = replace(found, observe=observe)
    if steps is not None:
        found = replace(found, steps=steps, means=(*(mean for mean in found.means if mean < steps), steps))
    return found


def differences(protocol: Protocol, collection: Collection) -> list[str]:
    """Return in what the data, or the user's own settings, are not what the literature's numbers are made of."""
    told = []
    standard, manifest = PROTOCOLS[protocol.name], collection.manifest
    data_set = manifest.about["data_set"] if manifest else "data without a manifest"
    if protocol.name == "drnet":
        return []
    if data_set != "kth":
        told.append(f"the clips are of {data_set}, the protocol is for kth")
    elif manifest and standard.persons and manifest.parameters["test_persons"] != standard.persons:
        told.append(f"test persons are {manifest.parameters['test_persons']}, in the protocol {standard.persons}")
    if manifest and data_set == "kth":
        counts = manifest.accounting.get("test", {})
        if missing := counts.get("missing", 0) + counts.get("failed", 0):
            told.append(f"{missing} of {sum(counts.values())} test videos are missing or failed")
    height, width = collection.frame_shape[:2]
    if standard.size and (height, width) != (standard.size, standard.size):
        told.append(f"frames are {height}x{width}, in the protocol {standard.size}x{standard.size}")
    for what, value, usual in (
        ("observed frames", protocol.observe, standard.observe),
        ("steps", protocol.steps, standard.steps),
    ):
        if value != usual:
            told.append(f"{what} are {value}, in the protocol {usual}")
    return told


@dataclass(frozen=True)
class Window:
    """A part of a clip to predict.

    Attributes:
        clip: its number in the collection.
        start: the first observed frame.
        future: how many frames after the observed ones are known and scored.
    """

    clip: int
    start: int
    future: int


@dataclass(frozen=True)
class Windows:
    """The windows of some clips.

    Attributes:
        chosen: those that are scored.
        left_out: clips without one, because they are too short.
    """

    chosen: tuple[Window, ...]
    left_out: int


def windows_of(
    protocol: Protocol,
    collection: Collection,
    clips: Sequence[int],
    seed: int,
    endless: bool,
    starts: Mapping[int, Sequence[int]] | None = None,
) -> Windows:
    """Choose the windows of some clips.

    Args:
        protocol: says how.
        collection: the clips.
        clips: numbers in the collection.
        seed: of random places.
        endless: whether the truth is known beyond a clip's end.
        starts: where the windows of some clips begin instead; they go as far as is known.

    Raises:
        DataError: where no clip is long enough.
    """
    draw = np.random.default_rng(seed)
    chosen, left_out = list[Window](), 0
    for clip in clips:
        length = collection.sample(clip).length
        if starts and clip in starts:
            found = [one for start in starts[clip] for one in _from(start, protocol, length, endless)]
        else:
            found = _of_clip(protocol, length, _skip(protocol, collection, clip), draw, endless)
        chosen += [Window(clip, start, future) for start, future in found]
        left_out += not found
    if not chosen:
        needed = (
            protocol.observe + {"first": 1, "every": protocol.steps + 3, "random": protocol.steps}[protocol.windows]
        )
        raise DataError(
            f"none of {len(clips)} clips has the {needed} frames that protocol {protocol.name} needs; "
            "choose fewer with --observe or --steps, or build longer clips"
        )
    return Windows(tuple(chosen), left_out)


def _of_clip(
    protocol: Protocol, length: int, skip: int, draw: np.random.Generator, endless: bool
) -> list[tuple[int, int]]:
    """Return the windows of one clip: (start, known frames after the observed ones)."""
    observe, steps = protocol.observe, protocol.steps
    if protocol.windows == "first":
        return _from(0, protocol, length, endless)
    if protocol.windows == "every":
        return [(start, steps) for start in range(0, length - observe - steps - 2, skip)]
    last = length - observe - steps
    return [(int(draw.integers(last + 1)), steps)] if last >= 0 else []


def _from(start: int, protocol: Protocol, length: int, endless: bool) -> list[tuple[int, int]]:
    """Return the window of a clip that begins at a frame, as far as its truth goes; none where it is too short."""
    left = length - start - protocol.observe
    future = protocol.steps if endless and left >= 0 else min(protocol.steps, left)
    return [(start, future)] if future > 0 else []


def _skip(protocol: Protocol, collection: Collection, clip: int) -> int:
    """Return the distance of two windows of a clip (MCNet): as many frames as are predicted, 3 where persons are fast."""
    label = collection.label_types.get("action")
    if protocol.windows != "every" or label is None or not label.names:
        return protocol.steps
    labels: Mapping[str, Any] = collection.labels(clip)
    return 3 if label.names[labels["action"]] in FAST else protocol.steps
