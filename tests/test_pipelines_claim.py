"""A folder belongs to one build: nothing of another one, and nothing of anybody else's, is ever overwritten."""

from pathlib import Path
from typing import Any

import pytest

from drnet.datasets.contract import DataError
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.build import BuildPlan, build, plan_build
from drnet.pipelines.claim import locked
from drnet.pipelines.manifest import ACCOUNTING, MANIFEST


def digits(**changes: Any) -> BouncingDigits:
    return BouncingDigits("optdigits", **({"clips": 10, "test_clips": 2, "frames": 3, "size": 16} | changes))


def built(folder: Path) -> BuildPlan:
    plan = plan_build(digits(), "raw", 4)
    build(plan, folder)
    return plan


def tree(folder: Path) -> dict[str, bytes | None]:
    return {path.name: path.read_bytes() if path.is_file() else None for path in folder.iterdir()}


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.iterdir()}


def refused(folder: Path, plan: BuildPlan, message: str) -> None:
    before, times = tree(folder), stamps(folder)
    with pytest.raises(DataError, match=message) as error:
        build(plan, folder)
    assert "\n" not in str(error.value)
    assert (tree(folder), stamps(folder)) == (before, times)


def test_a_folder_with_another_build_is_refused_and_left_alone(tmp_path: Path) -> None:
    built(tmp_path)
    refused(tmp_path, plan_build(digits(seed=8), "raw", 4), "another build .seed 0, not 8.*choose another --out")
    refused(tmp_path, plan_build(digits(), "zstd", 4), "codec 'raw', not 'zstd'")
    refused(tmp_path, plan_build(digits(), "raw", 3), "other sources, version or shard size")


@pytest.mark.parametrize("left", [("train-000000.tar", "train-000000.json"), ("train-000002.json",)])
def test_half_of_another_build_is_refused_and_left_alone(tmp_path: Path, left: tuple[str, ...]) -> None:
    built(tmp_path)
    for path in tmp_path.iterdir():
        if path.name not in left:
            path.unlink()
    refused(tmp_path, plan_build(digits(seed=8), "raw", 4), "part of another build")
    refused(tmp_path, plan_build(digits(clips=2), "raw", 4), "part of another build")


@pytest.mark.parametrize(
    "name",
    ["notes.txt", "train-000000.tar", "train-000000.json", MANIFEST, ACCOUNTING, "my.tmp", ".hidden.tmp", "sub"],
)
def test_files_of_somebody_else_are_never_touched(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b'{"short_name": "somebody\'s"}')
    refused(tmp_path, plan_build(digits(), "raw", 4), "holds other files .*choose an empty or new folder")


def test_a_file_of_somebody_else_in_a_finished_build_is_never_touched(tmp_path: Path) -> None:
    plan = built(tmp_path)
    (tmp_path / "train-000003.tar").write_bytes(b"not of this build")
    refused(tmp_path, plan, "train-000003.tar")


def test_a_manifest_of_another_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    plan = built(tmp_path)
    path = tmp_path / MANIFEST
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    refused(tmp_path, plan, "format 2 is not known")


def test_a_lock_ends_with_its_block_and_leaves_no_file(tmp_path: Path) -> None:
    with locked(tmp_path):
        with pytest.raises(DataError, match="another process is building into it"), locked(tmp_path):
            pass
        assert not list(tmp_path.iterdir())
    with locked(tmp_path):
        pass


def test_an_error_in_a_locked_block_is_its_own(tmp_path: Path) -> None:
    with pytest.raises(BlockingIOError, match="of the block"), locked(tmp_path):
        raise BlockingIOError(11, "of the block")


def test_a_folder_that_looks_like_a_file_of_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".train-000000.tar.7.tmp").mkdir()
    with pytest.raises(DataError, match="holds other files"):
        build(plan_build(digits(), "raw", 4), tmp_path)
