"""`manifest.json`: what a data set is, and which shards it has. Written last, it exists only for a whole build."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drnet.datasets.contract import SPLITS, DataError, Label
from drnet.pipelines.fields import HASH, LARGEST, count, harmless, items, objects, short, text
from drnet.pipelines.files import canonical_json, pretty_json, read_json, sha256_of
from drnet.pipelines.mistaken import DATA, mistaken
from drnet.pipelines.shards.codec import CLIP_LIMIT, EXTENSIONS
from drnet.pipelines.shards.shard import FORMAT, NAME, check_format

MANIFEST = "manifest.json"
ACCOUNTING = "accounting.jsonl"
AGAIN = "run the build again"
CARD, PICTURE = "README.md", "preview.png"  # a data set card, which may lie beside the rest


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
        clips_per_shard: source items that each shard was made from, but for a split's last one.
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
    clips_per_shard: int
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
            "clips_per_shard": self.clips_per_shard,
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

    def expected_build(self) -> str:
        """The build id that its settings and sources make."""
        sources = [(row["name"], row["sha256"]) for row in self.sources]
        name, version = self.about["data_set"], self.about["version"]
        return build_id(name, version, self.parameters, self.codec, self.clips_per_shard, sources)

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
        if any(folder.glob("*.tar")):
            raise DataError(f"{path} is missing: the build is not complete; run the same build command again")
        if found := mistaken(folder, DATA):
            raise DataError(found)
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; give the folder of a data set that `drnet data build` made")
        raise DataError(f"{path} is missing: this is not a data set built by drnet")
    body = read_json(path, "the manifest", AGAIN)
    if not isinstance(body, dict) or "format" not in body:
        raise DataError(f"{path}: this is not a manifest of drnet; {AGAIN}, or give another folder")
    check_format(body["format"], path)
    try:
        if body.pop("checksum", "") != sha256_of(canonical_json(body)):
            raise DataError(f"{path}: its checksum does not match, so it was changed after the build; {AGAIN}")
        return _parse(body)
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: damaged ({error}); {AGAIN}") from None


def _parse(body: Mapping[str, Any]) -> Manifest:
    splits = {split: _rows(part) for split, part in objects(body, "splits").items()}
    accounting = {split: _counts(part) for split, part in objects(body, "accounting").items()}
    if not set(splits) == set(accounting) <= set(SPLITS):
        raise ValueError(f"splits and their accounting are not those of {' and '.join(SPLITS)}")
    if (codec := text(body, "codec")) not in EXTENSIONS:
        raise ValueError(f"codec {short(codec)} is not known")
    return Manifest(
        build=text(body, "build", HASH),
        about=_about(body),
        parameters=harmless(objects(body, "parameters"), "parameters"),
        codec=codec,
        clips_per_shard=count(body, "clips_per_shard", 1),
        frame_shape=_frame_shape(items(body, "frame_shape")),
        labels={harmless(name, "labels"): _label(row) for name, row in objects(body, "labels").items()},
        splits=splits,
        sources=tuple(_source(row) for row in items(body, "sources")),
        accounting=accounting,
        accounting_sha256=text(body, "accounting_sha256", HASH),
        tools=harmless(objects(body, "tools"), "tools"),
    )


def _about(body: Mapping[str, Any]) -> dict[str, Any]:
    kinds: dict[str, Callable[[Any, str], Any]] = {"version": count, "notes": items}
    about = {key: kinds.get(key, text)(body, key) for key in ABOUT_KEYS}
    if not all(isinstance(note, str) for note in harmless(about["notes"], "notes")):
        raise ValueError("notes that are no texts")
    return about


def _rows(part: Any) -> tuple[ShardRow, ...]:
    return tuple(
        ShardRow(
            text(row, "name", NAME),
            text(row, "sha256", HASH),
            count(row, "bytes", 1),
            count(row, "clips"),
            count(row, "frames"),
        )
        for row in items(part, "shards")
    )


def _counts(part: Any) -> dict[str, int]:
    return {harmless(fate, "fate"): count(part, fate) for fate in objects({"fates": part}, "fates")}


def _source(row: Any) -> dict[str, Any]:
    return {"name": text(row, "name"), "bytes": count(row, "bytes"), "sha256": text(row, "sha256", HASH)}


def _frame_shape(sides: list[Any]) -> tuple[int, int, int]:
    match sides:
        case [int(height), int(width), int(channels)] if min(sides) > 0 and height * width * channels <= CLIP_LIMIT:
            return height, width, channels
    raise ValueError(f"frame_shape is not height, width and channels of at most {CLIP_LIMIT} bytes")


def _label(row: Any) -> Label:
    kind, time, period = text(row, "kind"), text(row, "time"), row.get("period")
    if kind not in ("category", "number") or time not in ("static", "varying"):
        raise ValueError(
            f"a label that is {short(time)} {short(kind)}; it must be static or varying, a category or a number"
        )
    if kind == "category" and not all(isinstance(name, str) for name in items(row, "names")):
        raise ValueError("names of categories that are no texts")
    if period is not None and not (type(period) in (int, float) and 0 < period < LARGEST):
        raise ValueError(f"period {short(period)} is not a number above 0")
    return Label.from_json(harmless(row, "label"))


def build_id(
    data_set: str,
    version: int,
    parameters: Mapping[str, Any],
    codec: str,
    clips_per_shard: int,
    sources: Iterable[tuple[str, str]],
) -> str:
    """Return the build id: SHA-256 over all that decides the bytes of a data set.

    Args:
        data_set: its name.
        version: of the class that makes it.
        parameters: of the data set, its seed included.
        codec: how frames are stored.
        clips_per_shard: source items of each shard.
        sources: name and SHA-256 of each raw file.
    """
    identity = {
        "format": FORMAT,
        "data_set": data_set,
        "version": version,
        "parameters": parameters,
        "codec": codec,
        "clips_per_shard": clips_per_shard,
        "sources": sorted([name, digest] for name, digest in sources),
    }
    return sha256_of(canonical_json(identity))


def order_key(shards: Iterable[tuple[str, str]]) -> str:
    """Return the key that a reading order depends on: SHA-256 over the sorted (shard name, SHA-256) in use."""
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(shards))
    return hashlib.sha256(lines.encode()).hexdigest()
