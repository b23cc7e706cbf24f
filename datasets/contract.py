"""The builder's contract: a data set names its items in order, and turns each into clips.

A data set is one file in this folder with one class that satisfies `DataSet`. It reads its raw source and yields `Clip`s;
everything about shards, workers, resuming and accounting is the builder's. Adding a data set is such a file and a test.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")
Tell = Callable[[str, int, int | None], None]  # a download: the file's name, bytes that lie here, of how many if known


class DataError(ValueError):
    """Something about a data set, a shard or its source that the user can put right; the message is one line."""


class ItemMissing(Exception):  # noqa: N818 - an outcome that the build counts
    """Raised by `DataSet.clips` for an item that the source does not have, where that is allowed; counted by name."""


class ItemFiltered(Exception):  # noqa: N818 - an outcome, not an error
    """Raised by `DataSet.clips` for an item left out on purpose; the message says why and is counted."""


class ItemFailed(Exception):  # noqa: N818 - an outcome that the build counts
    """Raised by `DataSet.clips` for an item that cannot be read; the message says why and is counted."""


@dataclass(frozen=True)
class Label:
    """The type of a label: what exports, probes and previews need to know about it.

    Attributes:
        kind: `category` (an index into `names`) or `number`.
        varying: False, one value for the clip; True, a list with one value for each frame.
        names: the categories' names, for a category.
        unit: for a number, for example `pixel` or `degree`; `id` for a number that only names a thing.
        period: for a number that wraps (an azimuth in degrees: 360), else None.
    """

    kind: Literal["category", "number"]
    varying: bool = False
    names: tuple[str, ...] = ()
    unit: str = ""
    period: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the label as the manifest holds it."""
        row: dict[str, Any] = {"kind": self.kind, "time": "varying" if self.varying else "static"}
        if self.kind == "category":
            row["names"] = list(self.names)
        else:
            row["unit"] = self.unit
        if self.period is not None:
            row["period"] = self.period
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Label":
        """Read a label from a manifest's row."""
        return cls(
            row["kind"], row["time"] == "varying", tuple(row.get("names", ())), row.get("unit", ""), row.get("period")
        )


@dataclass(frozen=True)
class Clip:
    """One clip of video with its ground truth.

    Attributes:
        key: unique in the data set, without dots or slashes; keys sort in build order within a split.
        frames: (T, H, W, C) uint8, C is 1 (grey) or 3 (red, green, blue).
        labels: JSON values under the names of `DataSet.labels` (varying: a list of T), and any further facts.
    """

    key: str
    frames: NDArray[np.uint8]
    labels: Mapping[str, Any]


@dataclass(frozen=True)
class LeftOut:
    """Yielded by `DataSet.clips` in place of a clip that is left out on purpose, while the item's others are kept.

    Attributes:
        why: a word or two that many clips share, such as `still`; the accounting counts clips for each.
    """

    why: str


@dataclass(frozen=True)
class SourceFile:
    """A raw file the clips are made from, as the manifest records it (name only, never a path of this machine)."""

    name: str
    size: int  # bytes
    sha256: str


@dataclass(frozen=True)
class About:
    """What a manifest and a data set card say about a data set.

    Attributes:
        name: name of the data set and of its command.
        version: rises when the same parameters would give other bytes.
        title: one line for `drnet data list`.
        licence: licence of what the clips show.
        citation: what to cite.
        split_key: the label that never lies in two splits (person, instance, chair, file).
        content_key: the label whose equal values share content (the source video, the object).
    """

    name: str
    version: int
    title: str
    licence: str
    citation: str
    split_key: str
    content_key: str
    notes: tuple[str, ...] = field(default=())


@runtime_checkable
class DataSet(Protocol):
    """What the builder needs of a data set. Instances are small and can be pickled: they travel to worker processes.

    Reading the source happens in `clips`, lazily, once a process. Each item is a pure function of (data set, split, index):
    no state is carried from one item to the next, so that any worker may build any shard at any time.

    A class may say what its items are, `items_are = "videos"`: the word beside their number while they are built.
    """

    about: About
    labels: Mapping[str, Label]

    def parameters(self) -> dict[str, Any]:
        """Return every setting that influences the bytes, as JSON values (never a path or a worker count)."""

    def sources(self) -> list[SourceFile]:
        """Return the raw files in use; raises DataError in one line where one is missing or wrong."""

    def frame_shape(self) -> tuple[int, int, int]:
        """Return (H, W, C) of every frame."""

    def count(self, split: Split) -> int:
        """Return the number of source items of a split."""

    def item(self, split: Split, index: int) -> str:
        """Return the item's name for the accounting; unique in the split."""

    def clips(self, split: Split, index: int) -> Iterator[Clip | LeftOut]:
        """Yield the item's clips. Raises ItemMissing, ItemFiltered or ItemFailed with the reason where there are none.

        Keys sort in the order of the items and, in an item, of its clips. Clips yielded before an item fails are kept,
        and counted with the failure.
        """


@runtime_checkable
class Fetching(Protocol):
    """A data set that can download its raw files, beside what every `DataSet` does."""

    def fetch_missing(self, tell: Tell | None = None) -> None:
        """Download what is missing, where that was asked for; what it hears of the progress goes to `tell`."""


@runtime_checkable
class Lacking(Protocol):
    """A data set that knows without reading its items which of them the source does not have."""

    def missing_items(self, split: Split) -> list[str]:
        """Return the names of the items for which `clips` raises ItemMissing."""


@dataclass(frozen=True)
class Setting:
    """What the command line says of an argument: stands in `Annotated` in a data set's constructor.

    An argument with one becomes an option of `drnet data build`, of the same name; one without stays Python's.

    Attributes:
        help: one sentence.
        metavar: what stands for the value, such as `DIR`.
        is_source: whether it says where the raw files are, under another name than `source`.
    """

    help: str
    metavar: str | None = None
    is_source: bool = False


class Limited:
    """The first items of each split of a data set, for a first look. Everything else is the data set's own.

    Args:
        data: the data set.
        limit: items of each split.
    """

    def __init__(self, data: DataSet, limit: int) -> None:
        if limit < 1:
            raise DataError(f"limit {limit} is not allowed; it must be at least 1")
        self.data, self.limit = data, limit
        self.about, self.labels = data.about, data.labels
        self.items_are = getattr(data, "items_are", "items")

    def parameters(self) -> dict[str, Any]:
        """Return the data set's settings and the limit."""
        return {**self.data.parameters(), "limit": self.limit}

    def sources(self) -> list[SourceFile]:
        """Return the data set's raw files."""
        return self.data.sources()

    def frame_shape(self) -> tuple[int, int, int]:
        """Return (H, W, C)."""
        return self.data.frame_shape()

    def count(self, split: Split) -> int:
        """Return the number of items, at most the limit."""
        return min(self.limit, self.data.count(split))

    def item(self, split: Split, index: int) -> str:
        """Return the item's name."""
        return self.data.item(split, index)

    def missing_items(self, split: Split) -> list[str]:
        """Return the names of those among the first items that the source does not have."""
        missing = set(self.data.missing_items(split)) if isinstance(self.data, Lacking) else set()
        return [name for name in (self.item(split, index) for index in range(self.count(split))) if name in missing]

    def clips(self, split: Split, index: int) -> Iterator[Clip | LeftOut]:
        """Yield the item's clips."""
        return self.data.clips(split, index)
