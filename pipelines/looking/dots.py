"""The data set of benchmarks in which all work is the pipeline's own: its clips cost nothing."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from drnet.datasets.contract import About, Clip, Label, SourceFile, Split


class Dots:
    """Clips that cost nothing to draw: a few frames of 16x16 in one grey.

    Args:
        clips: of the train split; there is no other.
        frames: of each clip.
    """

    about = About("dots", 1, "clips that cost nothing", "MIT", "drnet", "number", "number")
    labels: Mapping[str, Label] = {"number": Label("number", unit="id")}

    def __init__(self, clips: int, frames: int = 4) -> None:
        self.number, self.frames = clips, frames

    def parameters(self) -> dict[str, Any]:
        """Return the numbers of clips and of their frames."""
        return {"clips": self.number, "frames": self.frames}

    def sources(self) -> list[SourceFile]:
        """Return no files."""
        return []

    def frame_shape(self) -> tuple[int, int, int]:
        """Return (16, 16, 1)."""
        return 16, 16, 1

    def count(self, split: Split) -> int:
        """Return the number of clips; the test split has none."""
        return self.number if split == "train" else 0

    def item(self, split: Split, index: int) -> str:
        """Return the clip's key."""
        return f"{split}-{index:09d}"

    def clips(self, split: Split, index: int) -> Iterator[Clip]:
        """Yield the clip."""
        yield Clip(self.item(split, index), np.full((self.frames, 16, 16, 1), index % 251, np.uint8), {"number": index})
