"""A data set's card: `README.md` with the front matter that the Hugging Face hub reads, and a picture of some clips."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drnet.datasets.contract import Label
from drnet.pipelines.files import whole_file
from drnet.pipelines.looking.inspect import describe_data, describe_label, preview_data
from drnet.pipelines.shards.manifest import CARD, PICTURE, Manifest, read_manifest

LICENCES = {"MIT": "mit", "CC0 1.0": "cc0-1.0", "CC BY 4.0": "cc-by-4.0", "CC BY-SA 3.0": "cc-by-sa-3.0"}
NOT_SHOWN = frozenset({"kth"})  # data sets whose pictures may not be published: they show persons
MOST_SOURCES = 20  # named one by one
BINS = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10**7, "1M<n<10M"))


def write_card(folder: Path, picture: bool | None = None) -> list[Path]:
    """Write a data set's card into its folder; a card that is there is replaced.

    Args:
        folder: of the data set.
        picture: draw `preview.png` too, a contact sheet of train clips; None: unless its pictures may not be published.

    Returns:
        The files written.

    Raises:
        DataError: where there is no data set.
    """
    manifest = read_manifest(folder)
    shown = next((split for split in manifest.splits if manifest.clips(split)), None)
    picture = manifest.about["data_set"] not in NOT_SHOWN if picture is None else picture
    written = []
    if picture and shown is not None:
        preview_data(folder, folder / PICTURE, shown, clips=6)
        written.append(folder / PICTURE)
    with whole_file(folder / CARD) as file:
        file.write(card_text(manifest, describe_data(folder), bool(written)).encode())
    return [folder / CARD, *written]


def card_text(manifest: Manifest, found: Mapping[str, Any], picture: bool) -> str:
    """Return the card: front matter, then what a reader wants to know first.

    Args:
        manifest: of the data set.
        found: as `describe_data` returns it.
        picture: whether `preview.png` lies beside it.
    """
    about = manifest.about
    rows = [
        f"| {split} | {part['clips']:,} | {part['frames']:,} | {part['bytes'] / 1e6:,.1f} MB | "
        + ", ".join(f"{number:,} {fate}" for fate, number in part["items"].items())
        + " |"
        for split, part in found["splits"].items()
    ]
    height, width, channels = manifest.frame_shape
    parts = [
        front_matter(manifest),
        f"# {about['title']}",
        f"![Clips of the data set, frames in time from left to right]({PICTURE})" if picture else "",
        f"Video clips of {height}x{width}x{channels} uint8, made by `drnet data build {about['data_set']}` "
        f"(version {about['version']}, build `{manifest.build[:12]}`).",
        *(f"*{note[:1].upper()}{note[1:]}.*" for note in about["notes"]),
        "## Splits",
        "\n".join(["| split | clips | frames | size | source items |", "| --- | --- | --- | --- | --- |", *rows]),
        f"No value of `{about['split_key']}` lies in two splits. "
        f"Clips of the same `{about['content_key']}` show the same content.",
        "## Features",
        "\n".join(
            [
                f"* `<key>.{'npy' if manifest.codec == 'raw' else 'npy.zst'}`: the frames, (T, {height}, {width}, {channels})",
                "* `<key>.json`: the labels, ground truth among them:",
                *(label_line(name, label) for name, label in manifest.labels.items()),
            ]
        ),
        "## Source",
        "\n".join(source_lines(manifest)),
        "Parameters: " + ", ".join(f"`{k}` {json.dumps(v)}" for k, v in manifest.parameters.items()),
        "## Licence and citation",
        f"Licence: {about['licence']}",
        f"Cite: {about['citation']}",
        "## Use",
        "```\n" + "\n".join(use_lines(manifest)) + "\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def front_matter(manifest: Manifest) -> str:
    """Return the YAML that the hub reads; its values are JSON, which YAML contains."""
    about = manifest.about
    licence = next(
        (value for name, value in LICENCES.items() if re.search(rf"\b{re.escape(name)}\b", about["licence"])), "other"
    )
    values: dict[str, Any] = {"pretty_name": about["title"], "license": licence}
    if licence == "other":
        values["license_name"] = about["licence"]
    clips = sum(manifest.clips(split) for split in manifest.splits)
    values["size_categories"] = [next((name for most, name in BINS if clips < most), "n>10M")]
    values["tags"] = ["video", "webdataset", "disentanglement", "drnet"]
    files = [
        {"split": split, "path": f"{split}-*.tar"}
        for split, rows in manifest.splits.items()
        if sum(r.clips for r in rows)
    ]
    values["dataset_info"] = {
        "splits": [
            {
                "name": split,
                "num_examples": sum(row.clips for row in rows),
                "num_bytes": sum(row.size for row in rows),
            }
            for split, rows in manifest.splits.items()
            if any(row.clips for row in rows)
        ]
    }
    values["source_datasets"] = ["original"]
    values["configs"] = [{"config_name": "default", "data_files": files}]
    return (
        "---\n" + "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items()) + "---"
    )


def label_line(name: str, label: Label) -> str:
    """Return one label as an item of a list, a category with its names."""
    names = f" ({', '.join(label.names[:12])}{', ...' if len(label.names) > 12 else ''})" if label.names else ""
    return f"    * `{name}`: {describe_label(label)}{names}"


def source_lines(manifest: Manifest) -> list[str]:
    """Return the raw files with their hashes, or that there are none."""
    if not manifest.sources:
        return ["Generated: there are no source files."]
    lines = [f"* `{row['name']}`, {row['bytes']:,} bytes, SHA-256 `{row['sha256']}`" for row in manifest.sources]
    more = len(lines) - MOST_SOURCES
    return lines[:MOST_SOURCES] + ([f"* and {more} more, listed in `manifest.json`"] if more > 0 else [])


def use_lines(manifest: Manifest) -> list[str]:
    """Return commands to begin with."""
    if manifest.codec == "raw":
        more = ['datasets.load_dataset("webdataset", data_files="DIR/train-*.tar")  # Hugging Face, in Python']
    else:
        more = []
    return ["drnet data verify DIR", "drnet train --shards DIR --out RUN", *more]
