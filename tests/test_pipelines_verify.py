"""Verify: what it says of a good build, how it tells problems, and that the build command puts them right.

What it finds is in `test_corruption.py` and `test_forgery.py`.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from drnet.datasets.contract import DataError
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.shards.manifest import ACCOUNTING, MANIFEST, read_manifest
from drnet.pipelines.verify import verify_data

DATA = BouncingDigits("optdigits", clips=6, test_clips=2, frames=3, size=16)
SHARD = "train-000001.tar"


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("builds")
    for codec in ("raw", "zstd"):
        build(plan_build(DATA, codec, 2), folder / codec)
    return {codec: folder / codec for codec in ("raw", "zstd")}


@pytest.fixture(params=["raw", "zstd"])
def folder(request: pytest.FixtureRequest, builds: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(builds[request.param], tmp_path / request.param))


def flip(path: Path, at: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


@pytest.mark.parametrize("full", [True, False])
def test_a_fresh_build_has_no_problems(folder: Path, full: bool) -> None:
    assert verify_data(folder, full) == ([], {"shards": 4, "clips": 8})


def test_all_problems_are_told_and_not_only_the_first(folder: Path) -> None:
    for name in ("train-000000.tar", "train-000002.tar"):
        flip(folder / name, 600)
    (folder / SHARD).unlink()
    found, _ = verify_data(folder)
    assert {Path(line.split(": ")[0]).name for line in found} == {"train-000000.tar", SHARD, "train-000002.tar"}


def test_two_damaged_clips_of_a_shard_are_both_told(builds: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(builds["raw"], tmp_path / "copy"))
    flip(folder / SHARD, 512 + 128 + 5)
    flip(folder / SHARD, (folder / SHARD).stat().st_size - 1024 - 100)
    found, checked = verify_data(folder)
    assert [line.partition(".tar: ")[2].partition(";")[0] for line in found] == [
        "its SHA-256 differs from the manifest's",
        "clip train-00000003: what follows train-00000003.json is damaged",
        "clip train-00000002: frame 1 is damaged (CRC-32 differs)",
    ]
    assert checked == {"shards": 4, "clips": 8}


def test_a_fast_check_decodes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("drnet.pipelines.shards.reading.Shard.clip", never)
    flip(folder / SHARD, 600)
    assert len(verify_data(folder, full=False)[0]) == 1


def test_the_build_command_puts_right_what_verify_finds(folder: Path) -> None:
    codec: Any = folder.name
    flip(folder / SHARD, 600)
    (folder / "train-000002.json").unlink()
    flip(folder / ACCOUNTING, 10)
    assert verify_data(folder)[0]
    build(plan_build(DATA, codec, 2), folder)
    assert verify_data(folder)[0] == []


def test_without_a_manifest_there_is_nothing_to_verify(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="manifest"):
        verify_data(tmp_path)


@pytest.mark.parametrize(
    "other", [{"parameters": {"seed": 9}}, {"sources": ()}, {"clips_per_shard": 3}, {"about": {"version": 99}}]
)
def test_settings_that_the_build_id_is_not_of_are_told(folder: Path, other: dict[str, Any]) -> None:
    whole = read_manifest(folder)
    if "about" in other:
        other = {"about": {**whole.about, **other["about"]}}
    (folder / MANIFEST).write_bytes(replace(whole, **other).to_bytes())
    found, _ = verify_data(folder)
    assert found == [
        f"{folder / MANIFEST}: its build id is not the one of its settings and sources; run the build again"
    ]
