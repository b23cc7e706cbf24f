"""Manifests and sidecars: what they promise, as JSON Schemas, against real builds; and what is refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from drnet.datasets.contract import DataError
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.files import canonical_json, pretty_json, sha256_of
from drnet.pipelines.shards.codec import Codec
from drnet.pipelines.shards.manifest import MANIFEST, order_key, read_manifest

SCHEMAS = Path(__file__).parent.parent / "pipelines" / "shards"


@pytest.fixture(scope="module", params=["raw", "zstd"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / request.param
    build(plan_build(BouncingDigits("optdigits", clips=10, frames=4, size=16), request.param, 4), out)
    return out


def validator(name: str) -> jsonschema.Draft202012Validator:
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from objects(part)


def test_a_manifest_satisfies_its_schema(folder: Path) -> None:
    validator("manifest").validate(json.loads((folder / MANIFEST).read_text()))


def test_every_sidecar_satisfies_its_schema(folder: Path) -> None:
    sidecars = sorted(folder.glob("t*.json"))
    assert len(sidecars) == 4
    for path in sidecars:
        validator("sidecar").validate(json.loads(path.read_text()))


@pytest.mark.parametrize("name", ["manifest", "sidecar"])
def test_the_schemas_describe_every_field_and_allow_no_other(folder: Path, name: str) -> None:
    path = folder / (MANIFEST if name == "manifest" else "train-000000.json")
    whole = json.loads(path.read_text())
    check = validator(name)
    for key in whole:
        assert not check.is_valid({k: v for k, v in whole.items() if k != key}), key
    assert not check.is_valid(whole | {"more": 1})
    assert not check.is_valid(whole | {"format": 2})


@pytest.mark.parametrize("codec", ["raw", "zstd"])
def test_sums_are_those_of_the_shards(codec: Codec, tmp_path: Path) -> None:
    build(plan_build(BouncingDigits("optdigits", clips=10, frames=4, size=16), codec, 4), tmp_path)
    body = json.loads((tmp_path / MANIFEST).read_text())
    for split, clips in {"train": 10, "test": 1}.items():
        part = body["splits"][split]
        assert part["clips"] == clips == sum(row["clips"] for row in part["shards"])
        assert part["frames"] == 4 * clips == sum(row["frames"] for row in part["shards"])
        assert body["accounting"][split] == {"written": clips}
    for row in (row for part in body["splits"].values() for row in part["shards"]):
        tar = (tmp_path / row["name"]).read_bytes()
        assert (row["sha256"], row["bytes"]) == (sha256_of(tar), len(tar))


def test_a_manifest_names_no_path_of_this_machine(folder: Path) -> None:
    text = (folder / MANIFEST).read_text()
    assert str(folder) not in text
    assert str(Path.home()) not in text
    assert not any(isinstance(value, str) and value.startswith("/") for o in objects(json.loads(text)) for value in o)


def test_a_manifest_is_read_as_it_was_written(folder: Path) -> None:
    assert read_manifest(folder).to_bytes() == (folder / MANIFEST).read_bytes()


def test_a_folder_without_one_is_told_from_an_unfinished_build(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a data set built by drnet"):
        read_manifest(tmp_path)
    (tmp_path / "train-000000.tar").write_bytes(b"")
    with pytest.raises(DataError, match="not complete; run the same build command again"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("version", [2, 0, "1", None])
def test_another_format_version_is_refused_in_one_line(folder: Path, tmp_path: Path, version: object) -> None:
    body = json.loads((folder / MANIFEST).read_text()) | {"format": version}
    body["checksum"] = sha256_of(canonical_json({k: v for k, v in body.items() if k != "checksum"}))
    (tmp_path / MANIFEST).write_bytes(pretty_json(body))
    with pytest.raises(DataError, match=f"format {version!r} is not known; this version of drnet reads format 1"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", "null", "[" * 5000, '{"format": 1}', '"\ud800"', "\x00"], ids=repr
)
def test_what_is_no_manifest_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(DataError) as error:
        read_manifest(tmp_path)
    assert "\n" not in str(error.value)
    assert str(tmp_path / MANIFEST) in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {"codec": "jpeg"},
        {"splits": {"train": {"shards": [{"name": "../x.tar", "sha256": "", "bytes": 1, "clips": 1, "frames": 1}]}}},
        {"splits": {"train": {"shards": [{"name": "x.tar", "sha256": "", "bytes": -1, "clips": 1, "frames": 1}]}}},
        {"splits": []},
        {"frame_shape": [1, 2]},
        {"labels": {"a": {}}},
    ],
    ids=str,
)
def test_a_manifest_that_makes_no_sense_is_refused(folder: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    body = json.loads((folder / MANIFEST).read_text()) | change
    body["checksum"] = sha256_of(canonical_json({k: v for k, v in body.items() if k != "checksum"}))
    (tmp_path / MANIFEST).write_bytes(pretty_json(body))
    with pytest.raises(DataError, match="damaged"):
        read_manifest(tmp_path)


def test_the_order_key_depends_on_names_and_hashes_alone() -> None:
    rows = [(f"train-{n:06d}.tar", f"{n:064x}") for n in range(9)]
    key = order_key(rows)
    assert key == order_key(reversed(rows))
    assert key == "f863bc4d7b01c2c8e9e14dbb32c8cbebb982e4b813a3ee2c31351d19fbc2d511"
    assert len({key, order_key(rows[:-1]), order_key([*rows[:-1], (rows[-1][0], "f" * 64)])}) == 3


def test_the_order_key_is_the_same_for_any_place_and_time_of_building(tmp_path: Path) -> None:
    keys = set()
    for name in ("one", "two/deep"):
        report = build(plan_build(BouncingDigits("optdigits", clips=6, frames=3, size=16), "zstd", 2), tmp_path / name)
        rows = report.manifest.splits["train"]
        keys.add(order_key((row.name, row.sha256) for row in rows))
    assert len(keys) == 1
