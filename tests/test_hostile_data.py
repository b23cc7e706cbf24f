"""Hostile descriptions of data sets: each is refused in one line that names the file, in little memory and time."""

import contextlib
import functools
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from little_memory import check_refused, outcomes_of

from drnet.datasets.contract import SPLITS, About, Clip, DataError, Label, SourceFile, Split
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.files import canonical_json, pretty_json, sha256_of
from drnet.pipelines.looking.inspect import describe_data
from drnet.pipelines.shards.manifest import ACCOUNTING, MANIFEST
from drnet.pipelines.source import open_shards
from drnet.pipelines.verify import verify_data

MEMORY = 300 << 20  # bytes that a trick may take: a bomb of as many values as JSON may have
SECONDS = 5.0
FRAMES = np.zeros((2, 4, 4, 1), np.uint8)
TERA = 1 << 40


def sparse(path: Path) -> None:
    """Write a file that states a terabyte and takes no room for it."""
    with path.open("wb") as file:
        file.write(b'{"format": 1}')
        file.truncate(TERA)


STRANGE: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "terabyte": sparse,
}


def read_shards(path: Path) -> None:
    collection = open_shards(path, SPLITS)
    for number in range(len(collection)):
        collection.labels(number)
        collection.frames(number)


class One:
    """A data set of one clip."""

    about = About("one", 1, "one", "none", "nobody", split_key="x", content_key="x")
    labels: dict[str, Label] = {"x": Label("number", unit="id")}  # noqa: RUF012

    def parameters(self) -> dict[str, Any]:
        return {}

    def sources(self) -> list[SourceFile]:
        return []

    def frame_shape(self) -> tuple[int, int, int]:
        return (4, 4, 1)

    def count(self, split: Split) -> int:
        return int(split == "train")

    def item(self, split: Split, index: int) -> str:
        return "a"

    def clips(self, split: Split, index: int) -> Iterator[Clip]:
        yield Clip("a", FRAMES, {"x": 1})


@functools.cache
def built() -> dict[str, bytes]:
    """The files of a build of one clip."""
    with tempfile.TemporaryDirectory() as folder:
        build(plan_build(One(), "raw"), Path(folder))
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def good(folder: Path) -> dict[str, Any]:
    """Write a good data set; returns its manifest."""
    for name, data in built().items():
        (folder / name).write_bytes(data)
    manifest: dict[str, Any] = json.loads(built()[MANIFEST])
    return manifest


def seal(path: Path, body: dict[str, Any]) -> None:
    """Write a description as the builder writes it, with its right checksum, as far as JSON has one for it."""
    body.pop("checksum", None)
    try:
        whole = {**body, "checksum": sha256_of(canonical_json(body))}
        path.write_bytes(pretty_json(whole) if path.name == MANIFEST else canonical_json(whole) + b"\n")
    except ValueError:
        path.write_text(json.dumps(body))


def put(body: Any, place: str, value: Any) -> None:
    """Set a value deep in a description: `splits.train.shards.0.clips`."""
    *steps, last = [int(step) if step.isdigit() else step for step in place.split(".")]
    for step in steps:
        body = body[step]
    body[last] = value


ROW = "splits.train.shards.0"
ABSURD = [-1, 1e308, 0.5, 1 << 53, 10**4000, True, None, "1", [], {}, float("nan"), float("inf"), float("-inf")]
MANIFESTS: dict[str, tuple[str, Any]] = {
    **{f"{name} {str(value)[:9]}": (f"{ROW}.{name}", value) for name in ("clips", "frames", "bytes") for value in ABSURD},
    **{f"accounting {str(value)[:9]}": ("accounting.train.written", value) for value in ABSURD[:6]},
    **{f"frame shape {value}": ("frame_shape", value) for value in (
        [10**9] * 3, [1e308, 1, 1], [0, 4, 1], [-4, -4, 1], [4, 4], [4] * 9, "444", None, [[4], 4, 1], [True, 4, 1.5])},
    **{f"shard {value!r}": (f"{ROW}.name", value) for value in (
        "../x.tar", "/etc/passwd", "a\0.tar", "a\nb.tar", "x.zip", "", 7, None, "a" * 300 + ".tar", "..", "\x1b.tar")},
    **{f"hash {value!r}": (f"{ROW}.sha256", value) for value in ("", "0" * 63, "A" * 64, 0, None)},
    **{f"{name} that steers a terminal": (name, "\x1b]0;x\x07") for name in ("title", "licence", "data_set", "citation")},
    "notes that steer": ("notes", ["ok", "\x9b31m"]), "parameters that steer": ("parameters", {"a": [{"\x1b": 1}]}),
    "tools that steer": ("tools", {"numpy": "\x1bc"}), "label that steers": ("labels", {"\x1b": {"kind": "number"}}),
    "no notes": ("notes", "abc"), "title of no text": ("title", ["x"]), "version of no number": ("version", "1"),
    "label of no kind": ("labels.x.kind", "object"), "label of no time": ("labels.x.time", "?"), "labels": ("labels", []),
    "period": ("labels.x.period", -1), "period nan": ("labels.x.period", float("nan")), "period text": ("labels.x.period", "9"),
    "names": ("labels.x", {"kind": "category", "time": "static", "names": [1]}), "split": ("splits.x", {"shards": []}),
    "codec": ("codec", "pickle"), "build": ("build", "x"), "sources": ("sources", [{"name": "x"}]), "tool": ("tools", 3),
    "no shards": ("splits.train.shards", {}), "rows": ("splits.train.shards", [[]]), "parameters": ("parameters", None),
    "ten million shards": ("splits.train.shards", [0] * 5_000_000), "a bomb": ("parameters", {"a": [[]] * 5_000_000}),
    "a bomb below the limit": ("notes", [[]] * 2_000_000),
}  # fmt: skip
TEXTS: dict[str, bytes] = {
    "nesting": b"[" * 1_000_000,
    "nested objects": b'{"format":' * 100_000,
    "nested whole": b'{"format": 1, "a": ' + b"[" * 900 + b"]" * 900 + b"}",
    "nested far": b'{"format": 1, "a": ' + b"[" * 99_000 + b"]" * 99_000 + b"}",
    "long number": b'{"format": ' + b"1" * 1_000_000 + b"}",
    "NaN": b'{"format": NaN}',
    "infinity": b'{"format": 1, "a": 1e999}',
    "half a character": b'{"format": 1, "a": "\\ud800"}',
    "null": b"null",
    "zeros": bytes(9999),
    "utf-16": '{"format": 1}'.encode("utf-16"),
}
SIDECARS: dict[str, tuple[str, Any]] = {
    **{f"{name} {str(value)[:9]}": (name, value) for name in ("tar.bytes", "samples.0.length") for value in ABSURD},
    **{f"{name} {str(value)[:24]}": (f"samples.0.{name}", value) for name in ("frames", "labels") for value in (
        [-512, 100], [512, -1], [512, TERA], [TERA, 10], [512], [512, 10, 10], "512", [1e308, 1], [512, 1 << 31], None)},
    **{f"key {value!r}": ("samples.0.key", value) for value in ("a.b", "", "a" * 81, 3, None, "\x1b", "../a")},
    "item": ("samples.0.item", {"a": 1}), "item that steers": ("samples.0.item", "\x1b[2J"), "checks": ("samples.0.crc", 7),
    "checks of no digits": ("samples.0.crc", "z" * 16), "labels' check": ("samples.0.labels_crc", "0x000000"),
    "samples": ("samples", {"a": 1}), "sample": ("samples", [7]), "left out": ("left_out", [{"why": []}]), "tar": ("tar", []),
    "left out of nothing": ("left_out", [{"split": "train", "item": "a", "fate": "x", "clips": 1e308}]),
    "a million samples": ("samples", [0] * 5_000_000), "codec": ("codec", "../x"), "another shard": ("shard", "\x1b.tar"),
}  # fmt: skip
LINES: dict[str, bytes] = {
    "nesting": b"[" * 100_000 + b"\n",
    "long line": b" " * (2 << 20) + b"{}\n",
    "no line end": b'{"split": "train"}',
    "another split": b'{"split": "x", "item": "a", "fate": "written", "clips": 1}\n',
    "a list as split": b'{"split": [], "item": "a", "fate": "written", "clips": 1}\n',
    "1e308 clips": b'{"split": "train", "item": "a", "fate": "written", "clips": 1e308}\n',
    "text that steers": b'{"split": "train", "item": "\\u001b", "fate": "written", "clips": 1}\n',
}


def describe(kind: str, trick: str, folder: Path) -> Path:
    """Write a data set with one hostile description."""
    body = good(folder)
    sidecar = folder / "train-000000.json"
    if kind == "manifest":
        put(body, *MANIFESTS[trick])
    seal(folder / MANIFEST, body)
    if kind == "sidecar":
        row = json.loads(sidecar.read_text())
        put(row, *SIDECARS[trick])
        seal(sidecar, row)
    path = {"manifest": folder / MANIFEST, "sidecar": sidecar, "text": folder / MANIFEST, "sidecar text": sidecar}
    if kind in ("text", "sidecar text"):
        path[kind].write_bytes(TEXTS[trick])
    if kind == "accounting":
        (folder / ACCOUNTING).write_bytes(LINES[trick])
    return folder


def replace_by(kind: str, what: str, folder: Path) -> Path:
    """Write a data set with one file that is none."""
    seal(folder / MANIFEST, good(folder))
    path = folder / FILES[kind]
    path.unlink()
    STRANGE[what](path)
    return folder


def use_data_set(folder: Path) -> None:
    """Do what info, verify and preview do; the first problem is raised."""
    describe_data(folder)
    problems, _ = verify_data(folder)
    with contextlib.suppress(DataError):  # whatever verify finds, reading ends in a result or a DataError
        read_shards(folder)
    if problems:
        raise DataError(problems[0])


Make, Use = Callable[[Path], Path], Callable[[Path], object]
FILES = {"manifest": MANIFEST, "sidecar": "train-000000.json", "shard": "train-000000.tar", "accounting": ACCOUNTING}
TRICKS: dict[str, tuple[Make, Use, str]] = {  # what makes it, what uses it, and what the refusal must say
    **{f"manifest: {n}": (partial(describe, "manifest", n), use_data_set, MANIFEST) for n in MANIFESTS},
    **{f"manifest of {n}": (partial(describe, "text", n), use_data_set, MANIFEST) for n in TEXTS},
    **{f"sidecar: {n}": (partial(describe, "sidecar", n), use_data_set, "train-000000") for n in SIDECARS},
    **{f"sidecar of {n}": (partial(describe, "sidecar text", n), use_data_set, "train-000000.json") for n in TEXTS},
    **{f"accounting: {n}": (partial(describe, "accounting", n), use_data_set, ACCOUNTING) for n in LINES},
    **{f"{what} as {n}": (partial(replace_by, n, what), use_data_set, FILES[n].partition(".")[0])
       for n in FILES for what in STRANGE},
}  # fmt: skip


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """How each trick ends in a process of little memory."""
    paths = {name: str(make(tmp_path_factory.mktemp("trick"))) for name, (make, _, _) in TRICKS.items()}
    return outcomes_of(Path(__file__).stem, paths)


@pytest.mark.parametrize("name", TRICKS)
def test_a_trick_is_refused_by_name_in_little_memory_and_time(name: str, outcomes: dict[str, dict[str, Any]]) -> None:
    check_refused(outcomes[name], TRICKS[name][2], MEMORY, SECONDS)


def test_a_good_data_set_is_read(tmp_path: Path) -> None:
    seal(tmp_path / MANIFEST, good(tmp_path))
    use_data_set(tmp_path)
    read_shards(tmp_path)
