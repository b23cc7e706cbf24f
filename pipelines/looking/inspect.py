"""See what a data set is: its description as plain values, and pictures of its clips with their labels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from drnet.datasets.cache import cache_folder
from drnet.datasets.catalogue import BUILDERS, data_set_class
from drnet.datasets.contract import DataError, Label
from drnet.datasets.fetching import fetch
from drnet.datasets.fetching.originals import ORIGINALS
from drnet.pipelines.looking.ffmpeg import save_mp4
from drnet.pipelines.looking.pictures import enlarge, save_gif, save_png, tile, to_rgb, with_margins
from drnet.pipelines.source import Collection, find_data, open_shards

SHEET_COLUMNS = 10  # frames of a clip on a contact sheet
SHOWN_LABELS = 4
LETTER = 7  # pixels, more than one takes on average: captions of changing numbers keep their width
UNITS = {"degree": "°"}


def list_data() -> list[dict[str, Any]]:
    """Return a row for each data set: name, title, licence, citation, and its raw files.

    `files` is how many raw files the data set is made from that can be downloaded, `bytes` their size there, `here` how
    many of them the cache holds; zeros for what is generated, or made from the user's own files.
    """
    rows = []
    for name in BUILDERS:
        about = data_set_class(name).about
        originals = ORIGINALS.get(name)
        files = originals.files if originals else ()
        absent = fetch.missing(name, cache_folder() / name) if originals else []
        rows.append(
            {
                "name": name,
                "title": about.title,
                "licence": about.licence,
                "citation": about.citation,
                "files": len(files),
                "bytes": sum(file.size for file in files),
                "here": len(files) - len(absent),
            }
        )
    return rows


def describe_data(spec: str | Path) -> dict[str, Any]:
    """Return a data set's description: names, counts and types, without shard rows.

    Args:
        spec: its folder or URL; a pattern of some of its tars: then counts are theirs, and of source items none are told.
    """
    found = find_data(spec)
    manifest = found.manifest
    return {
        **manifest.about,
        "build": manifest.build,
        "whole": found.whole,
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
                "items": dict(manifest.accounting[split]) if found.whole else {},
            }
            for split, rows in found.rows.items()
        },
        "sources": [source["name"] for source in manifest.sources],
    }


def describe_label(label: Label) -> str:
    """Say a label's type in a few words."""
    time = "varying" if label.varying else "static"
    if label.kind == "category":
        return f"{time} category of {len(label.names)}"
    unit = " that only names (id)" if label.unit == "id" else f" in {label.unit}" if label.unit else ""
    return f"{time} number{unit}{f', period {label.period:g}' if label.period else ''}"


def caption(labels: Mapping[str, Any], types: Mapping[str, Label], time: int | None) -> list[str]:
    """Return a clip's most telling labels, one a line: categories, then numbers; never one that only names a thing.

    Args:
        labels: of the clip.
        types: of the data set.
        time: frame whose varying labels are told, before static numbers; None: static labels alone.
    """
    told = [
        (label.kind == "number", not label.varying, name)
        for name, label in types.items()
        if name in labels and label.unit != "id" and not (label.varying and time is None)
    ]
    lines = []
    for _, static, name in sorted(told, key=lambda row: row[:2])[:SHOWN_LABELS]:
        value, label = labels[name] if static else labels[name][time], types[name]
        text = label.names[int(value)] if label.kind == "category" else f"{value:.4g}"
        lines.append(f"{name} {text}{UNITS.get(label.unit, '')}")
    return lines


def preview_data(folder: str | Path, out: Path, split: str = "train", clips: int = 8, first: int = 0) -> None:
    """Draw a contact sheet (`.png`, a row for each clip) or an animation (`.gif`, `.mp4`) of some clips, with labels.

    Args:
        folder: of the data set, or anything else that `open_shards` takes.
        out: picture to write.
        split: which clips.
        clips: how many of them.
        first: number of the first one.

    Raises:
        DataError: where the split has no such clips, or the file name ends in none of them.
    """
    draw = {".png": _contact_sheet, ".gif": _animation, ".mp4": _animation}.get(out.suffix.lower())
    if draw is None:
        ending = out.suffix or "no ending"
        raise DataError(f"{out}: {ending} is not supported; use .png (contact sheet), .gif or .mp4 (animation)")
    collection = open_shards(folder, [split])
    if not 0 <= first < len(collection):
        raise DataError(f"clip {first} is not there: split {split} has {len(collection)} clips, numbered from 0")
    numbers = range(first, min(first + clips, len(collection)))
    draw(collection, numbers, f"{folder}: {split}, clips {numbers[0]} to {numbers[-1]}", out)


def _contact_sheet(collection: Collection, numbers: range, title: str, out: Path) -> None:
    """Each clip's frames in a row, evenly spaced in time, with its key and labels beside it."""
    rows, texts = [], []
    for number in numbers:
        video = collection.frames(number)
        times = np.unique(np.linspace(0, len(video) - 1, SHEET_COLUMNS).round().astype(int))
        rows.append([enlarge(video[time]) for time in times])
        lines = caption(collection.labels(number), collection.label_types, None)
        texts.append("\n".join([collection.sample(number).key, *lines]))
    save_png(out, with_margins(tile(rows), f"{title}, frames in time from left to right", texts))


def _animation(collection: Collection, numbers: range, title: str, out: Path) -> None:
    """All clips beside each other; one that has ended shows its last frame."""
    videos = [collection.frames(number) for number in numbers]
    labels = [collection.labels(number) for number in numbers]
    longest = max(len(video) for video in videos)
    texts = [
        [caption(row, collection.label_types, min(time, len(video) - 1)) for time in range(longest)]
        for video, row in zip(videos, labels, strict=True)
    ]
    width = max(len(line) for clip in texts for lines in clip for line in lines or [""])
    columns = len(videos) if len(videos) < 4 else -(-len(videos) // 2)
    sheets = []
    for time in range(longest):
        cells = []
        for video, lines in zip(videos, texts, strict=True):
            cell = to_rgb(enlarge(video[min(time, len(video) - 1)]))
            for line in reversed(lines[time]):
                cell = with_margins(cell, line)
            cells.append(cell)
        wide = max(width * LETTER, *(cell.shape[1] for cell in cells))
        padded = [np.pad(c, ((0, 0), (0, wide - c.shape[1]), (0, 0)), constant_values=255) for c in cells]
        sheets.append(tile([padded[at : at + columns] for at in range(0, len(padded), columns)]))
    save = save_gif if out.suffix.lower() == ".gif" else save_mp4
    save(out, sheets)
