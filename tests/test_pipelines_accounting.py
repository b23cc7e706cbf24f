"""The accounting: every source item of every shard has its line, also where all hashes and sums were made right again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from drnet.datasets.contract import SPLITS
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.files import canonical_json, pretty_json, sha256_of
from drnet.pipelines.shards.accounting import Accounts, fates_of
from drnet.pipelines.shards.manifest import ACCOUNTING, MANIFEST, read_manifest
from drnet.pipelines.shards.shard import Fate, Sample, Sidecar, read_sidecar
from drnet.pipelines.verify import verify_data


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three train shards and a test shard of two items of one clip each."""
    folder = tmp_path_factory.mktemp("built") / "data"
    build(plan_build(BouncingDigits("optdigits", clips=6, test_clips=2, frames=3, size=16), "zstd", 2), folder)
    return folder


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "data"))


def expected(folder: Path) -> Accounts:
    accounts = Accounts()
    for row in (row for part in read_manifest(folder).splits.values() for row in part):
        accounts.expect(row.name, read_sidecar(folder / row.name))
    return accounts


def test_the_accounting_of_a_build_has_no_problems(folder: Path) -> None:
    assert list(expected(folder).problems(folder / ACCOUNTING, read_manifest(folder))) == []


def test_a_sidecar_tells_how_its_items_ended() -> None:
    samples = [Sample(f"k{n}", item, 1, (512, 1), (1536, 1), "0" * 8) for n, item in enumerate("aab")]
    told = Fate("train", "b", "failed", 7, "cut"), Fate("train", "c", "filtered", 0, "still")
    sidecar = Sidecar("b", "x.tar", "train", "raw", "0", 1, "0", tuple(samples), told)
    assert sorted((f.item, f.fate, f.clips, f.why) for f in fates_of(sidecar)) == [
        ("a", "written", 2, ""),
        ("b", "failed", 1, "cut"),  # as many clips as there are, whatever the sidecar says
        ("c", "filtered", 0, "still"),
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[:-1],
        lambda lines: [*lines, lines[-1]],
        lambda lines: [lines[0].replace(b'train 0"', b'train 9"').replace(b"-00000000", b"-00000009"), *lines[1:]],
        lambda lines: [lines[0].replace(b'"clips": 1', b'"clips": 2'), lines[1].replace(b": 1", b": 0"), *lines[2:]],
        lambda lines: [lines[0].replace(b'"written"', b'"failed"'), *lines[1:]],
        lambda lines: [lines[0].replace(b"}", b', "left_out": {"still": 3}}'), *lines[1:]],
        lambda lines: [lines[0], lines[0], *lines[2:]],
        lambda lines: [*lines[6:], *lines[:6]],
    ],
    ids=["short", "long", "other item", "moved clip", "other fate", "left out", "twice", "order"],
)
def test_an_accounting_that_is_not_the_shards_is_found(
    folder: Path, change: Callable[[list[bytes]], list[bytes]]
) -> None:
    path = folder / ACCOUNTING
    before = path.read_bytes().splitlines(keepends=True)
    after = b"".join(change(before))
    assert after != b"".join(before)
    path.write_bytes(after)
    sums: dict[str, dict[str, int]] = {split: {} for split in SPLITS}
    for row in map(json.loads, after.splitlines()):
        sums[row["split"]][row["fate"]] = sums[row["split"]].get(row["fate"], 0) + 1
    body = json.loads((folder / MANIFEST).read_text()) | {"accounting": sums, "accounting_sha256": sha256_of(after)}
    body.pop("checksum")
    (folder / MANIFEST).write_bytes(pretty_json(body | {"checksum": sha256_of(canonical_json(body))}))
    found, _ = verify_data(folder, full=False)
    assert found
    assert all(line.startswith(f"{path}: ") and line.endswith("; run the build again") for line in found)


def test_the_shard_whose_items_are_not_accounted_for_is_named(folder: Path) -> None:
    path = folder / ACCOUNTING
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], lines[3], lines[3], *lines[4:]]))
    found = list(expected(folder).problems(path, read_manifest(folder)))
    assert "its lines are not those of the items of train-000001.tar" in found
    assert not any("train-000000" in line or "train-000002" in line for line in found)


def test_a_shard_that_cannot_be_read_is_no_reason_to_doubt_the_lines(folder: Path) -> None:
    (folder / "train-000001.json").unlink()
    found, _ = verify_data(folder, full=False)
    assert not any(ACCOUNTING in line for line in found)
