"""Shared by the tests of figures: clips of a bar that turns, and what a figure shows."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from drnet.datasets.contract import About, Clip, Label, SourceFile, Split
from drnet.pipelines.figures.figure import Figure
from drnet.pipelines.figures.sheet import Sheet, page_of


class Turntable:
    """Grey clips of a bar that turns by 30 degrees a frame."""

    about = About("turntable", 1, "a bar that turns", "MIT", "nobody", "bar", "bar")
    labels: Mapping[str, Label] = {
        "bar": Label("number", unit="id"),
        "azimuth": Label("number", True, unit="degree", period=360),
    }

    def parameters(self) -> dict[str, Any]:
        return {}

    def sources(self) -> list[SourceFile]:
        return []

    def frame_shape(self) -> tuple[int, int, int]:
        return 32, 32, 1

    def count(self, split: Split) -> int:
        return 10 if split == "train" else 3

    def item(self, split: Split, index: int) -> str:
        return f"{split}-{index}"

    def clips(self, split: Split, index: int) -> Iterator[Clip]:
        number = index + (100 if split == "test" else 0)
        angles = (30.0 * np.arange(12) + 330) % 360
        y, x = np.mgrid[:32, :32] - 15.5
        turned = [np.cos(np.deg2rad(a)) * x + np.sin(np.deg2rad(a)) * y for a in angles]
        frames = np.stack([np.where((t > 0) & (t < 9), 60 + number, 0) for t in turned])[..., None].astype(np.uint8)
        yield Clip(f"{split}-{index:03}", frames, {"bar": number, "azimuth": angles.tolist()})


def only(figure: Figure) -> Sheet:
    """The sheet of a picture, which must also be one that can be laid out; its numbers are JSON."""
    (sheet,) = figure.sheets
    page_of(sheet)
    json.dumps(figure.numbers, allow_nan=False)
    return sheet


def frames_of(sheet: Sheet, row: int) -> list[Any]:
    return [cell.frame for cell in sheet.rows[row].cells]
