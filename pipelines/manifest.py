"""`manifest.json`: what a data set is, and which shards it has. Written last, it exists only for a whole build."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drnet.datasets.contract import DataError, Label
from drnet.pipelines.codec import EXTENSIONS
from drnet.pipelines.files import canonical_json, pretty_json, read_json, sha256_of
from drnet.pipelines.shard import FORMAT, check_format

MANIFEST = "manifest.json"
ACCOUNTING = "accounting.jsonl"


@dataclass(frozen=True)
class ShardRow:
    """A shard as the manifest lists it."""

    name: str
    sha256: str
    size: int  # bytes
    clips: int
    frames: int

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's row."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "bytes": self.size,
            "clips": self.clips,
            "frames": self.frames,
        }


@dataclass(frozen=True)
class Manifest:
    """A data set's description. Shard rows and counts only: it stays small for any number of clips.

    Attributes:
        build: build id.
        about: data_set, version, title, licence, citation, notes, split_key and content_key.
        parameters: every setting that influenced the bytes.
        codec: how frames are stored.
        frame_shape: (H, W, C).
        labels: type of each label.
        splits: shard rows of each split, in order.
        sources: the raw files' names, bytes and SHA-256.
        accounting: for each split, how many source items ended in which way.
        accounting_sha256: of `accounting.jsonl`, which has a line for each item.
        tools: versions of what wrote it.
    """

    build: str
    about: Mapping[str, Any]
    parameters: Mapping[str, Any]
    codec: str
    frame_shape: tuple[int, int, int]
    labels: Mapping[str, Label]
    splits: Mapping[str, tuple[ShardRow, ...]]
    sources: tuple[Mapping[str, Any], ...]
    accounting: Mapping[str, Mapping[str, int]]
    accounting_sha256: str
    tools: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the file's content, its own checksum included."""
        splits = {
            split: {
                "clips": sum(row.clips for row in rows),
                "frames": sum(row.frames for row in rows),
                "shards": [row.to_json() for row in rows],
            }
            for split, rows in self.splits.items()
        }
        body = {
            "format": FORMAT,
            "build": self.build,
            **self.about,
            "parameters": dict(self.parameters),
            "codec": self.codec,
            "frame_shape": list(self.frame_shape),
            "labels": {name: label.to_json() for name, label in self.labels.items()},
            "splits": splits,
            "sources": [dict(row) for row in self.sources],
            "accounting": {split: dict(counts) for split, counts in self.accounting.items()},
            "accounting_sha256": self.accounting_sha256,
            "tools": dict(self.tools),
        }
        return body | {"checksum": sha256_of(canonical_json(body))}

    def to_bytes(self) -> bytes:
        """Return the file as it is written."""
        return pretty_json(self.to_json())

    def clips(self, split: str) -> int:
        """Number of clips of a split."""
        return sum(row.clips for row in self.splits.get(split, ()))


ABOUT_KEYS = ("data_set", "version", "title", "licence", "citation", "split_key", "content_key", "notes")


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a data set.

    Raises:
        DataError: where it is missing (an unfinished build) or damaged.
        OtherFormat: where it is of another format version.
    """
    path = folder / MANIFEST
    if not path.exists():
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "no such folder"
            raise DataError(f"{folder}: {what}; give the folder of a data set that `drnet data build` made")
        hint = "the build is not complete; run the same build command again" if any(folder.glob("*.tar")) else ""
        raise DataError(f"{path} is missing: {hint or 'this is not a data set built by drnet'}")
    body = read_json(path, "the manifest", "run the build again")
    if not isinstance(body, dict) or "format" not in body:
        raise DataError(f"{path}: this is not a manifest of drnet")
    check_format(body["format"], path)
    checksum = body.pop("checksum", "")
    if sha256_of(canonical_json(body)) != checksum:
        raise DataError(f"{path}: its checksum does not match, so it was changed after the build; run the build again")
    try:
        return _parse(body)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({error!r}); run the build again") from None


def _parse(body: Mapping[str, Any]) -> Manifest:
    rows = {
        split: tuple(ShardRow(r["name"], r["sha256"], r["bytes"], r["clips"], r["frames"]) for r in part["shards"])
        for split, part in body["splits"].items()
    }
    for row in (row for part in rows.values() for row in part):
        if Path(row.name).name != row.name or not row.name.endswith(".tar") or min(row.size, row.clips, row.frames) < 0:
            raise ValueError(row.name)
    if body["codec"] not in EXTENSIONS:
        raise ValueError(body["codec"])
    height, width, channels = (int(n) for n in body["frame_shape"])
    return Manifest(
        build=body["build"],
        about={key: body[key] for key in ABOUT_KEYS},
        parameters=body["parameters"],
        codec=body["codec"],
        frame_shape=(height, width, channels),
        labels={name: Label.from_json(row) for name, row in body["labels"].items()},
        splits=rows,
        sources=tuple(body["sources"]),
        accounting=body["accounting"],
        accounting_sha256=body["accounting_sha256"],
        tools=body["tools"],
    )


def order_key(shards: Iterable[tuple[str, str]]) -> str:
    """Return the key that a reading order depends on: SHA-256 over the sorted (shard name, SHA-256) in use."""
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(shards))
    return hashlib.sha256(lines.encode()).hexdigest()
