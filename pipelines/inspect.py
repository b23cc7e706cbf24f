"""See what a data set is: its description as plain values, and pictures of its clips with their labels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from drnet.datasets.contract import DataError, Label
from drnet.pipelines.manifest import read_manifest
from drnet.pipelines.pictures import enlarge, save_gif, save_png, tile, to_rgb, with_margins
from drnet.pipelines.source import open_shards

SHEET_COLUMNS = 10  # frames of a clip on a contact sheet
SMALLEST = 96  # pixels: smaller frames are enlarged to about this
SHOWN_LABELS = 4


def describe_data(folder: Path) -> dict[str, Any]:
    """Return a data set's description: names, counts and types, without shard rows."""
    manifest = read_manifest(folder)
    return {
        **manifest.about,
        "build": manifest.build,
        "codec": manifest.codec,
        "frame_shape": list(manifest.frame_shape),
        "parameters": dict(manifest.parameters),
        "labels": {name: describe_label(label) for name, label in manifest.labels.items()},
        "splits": {
            split: {
                "clips": sum(row.clips for row in rows),
                "frames": sum(row.frames for row in rows),
                "shards": len(rows),
                "bytes": sum(row.size for row in rows),
                "items": dict(manifest.accounting[split]),
            }
            for split, rows in manifest.splits.items()
        },
        "sources": [source["name"] for source in manifest.sources],
    }


def describe_label(label: Label) -> str:
    """Say a label's type in a few words."""
    time = "varying" if label.varying else "static"
    if label.kind == "category":
        return f"{time} category of {len(label.names)}"
    return f"{time} number{f' in {label.unit}' if label.unit else ''}{f', period {label.period:g}' if label.period else ''}"


def caption(labels: Mapping[str, Any], types: Mapping[str, Label], time: int | None) -> str:
    """Return a clip's first labels as lines of text: static ones, or at a time also varying ones."""
    lines = []
    for name, label in types.items():
        if name not in labels or (label.varying and time is None):
            continue
        value = labels[name][time] if label.varying else labels[name]
        if label.kind == "category" and label.names:
            value = label.names[int(value)]
        lines.append(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}")
    return "\n".join(lines[:SHOWN_LABELS])


def preview_data(folder: str | Path, out: Path, split: str = "train", clips: int = 8, first: int = 0) -> None:
    """Draw a contact sheet (`.png`, a row for each clip) or an animation (`.gif`) of some clips, with labels.

    Raises:
        DataError: where the split has no such clips, or the file name ends in neither.
    """
    if out.suffix not in (".png", ".gif"):
        raise DataError(
            f"{out}: {out.suffix or 'no ending'} is not supported; use .png (contact sheet) or .gif (animation)"
        )
    collection = open_shards(folder, [split])
    if first >= len(collection):
        raise DataError(f"clip {first} is not there: split {split} has {len(collection)} clips")
    numbers = range(first, min(first + clips, len(collection)))
    videos = [collection.frames(number) for number in numbers]
    labels = [collection.labels(number) for number in numbers]
    factor = max(1, SMALLEST // collection.frame_shape[0])
    keys = [collection.sample(number).key for number in numbers]
    if out.suffix == ".png":
        chosen = [np.unique(np.linspace(0, len(v) - 1, SHEET_COLUMNS).round().astype(int)) for v in videos]
        sheet = tile([[enlarge(video[t], factor) for t in times] for video, times in zip(videos, chosen, strict=True)])
        texts = [f"{k}\n{caption(row, collection.label_types, None)}" for k, row in zip(keys, labels, strict=True)]
        save_png(out, with_margins(sheet, f"{folder}: {split}, frames in time from left to right", texts))
        return
    sheets = []
    for time in range(max(len(video) for video in videos)):
        now = [min(time, len(video) - 1) for video in videos]
        cells = [
            with_margins(to_rgb(enlarge(video[t], factor)), caption(row, collection.label_types, t).split("\n")[0])
            for video, row, t in zip(videos, labels, now, strict=True)
        ]
        width = max(cell.shape[1] for cell in cells)
        cells = [np.pad(c, ((0, 0), (0, width - c.shape[1]), (0, 0)), constant_values=255) for c in cells]
        half = -(-len(cells) // 2)
        sheets.append(tile([cells[:half], cells[half:]] if len(cells) > 3 else [cells]))
    save_gif(out, sheets)
