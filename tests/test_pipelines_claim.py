"""A folder belongs to one build: nothing of another one, and nothing of anybody else's, is ever overwritten."""

import errno
import fcntl
import os
import signal
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from drnet.datasets.contract import DataError
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.build import BuildPlan, build, plan_build
from drnet.pipelines.claim import LOCK, locked, refuse_others
from drnet.pipelines.shards.manifest import ACCOUNTING, CARD, MANIFEST, PICTURE


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


def test_a_card_and_its_picture_may_lie_in_a_finished_build(tmp_path: Path) -> None:
    plan = built(tmp_path)
    for name in (CARD, PICTURE):
        (tmp_path / name).write_bytes(b"shown")
    before = tree(tmp_path)
    assert build(plan, tmp_path).written == 0
    assert tree(tmp_path) == before


def test_a_card_alone_is_somebody_elses(tmp_path: Path) -> None:
    (tmp_path / CARD).write_bytes(b"of something else")
    refused(tmp_path, plan_build(digits(), "raw", 4), "holds other files .README.md.")


def test_a_folder_with_very_many_shards_is_looked_at_quickly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = built(tmp_path)
    (tmp_path / MANIFEST).unlink()
    monkeypatch.setattr("drnet.pipelines.claim.read_sidecar", None)  # of this build, none is read on
    refuse_others(tmp_path, plan.build, plan.names, {})


@pytest.mark.parametrize("code", [errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP])
@pytest.mark.parametrize("files_too", [False, True])
def test_where_folders_cannot_be_locked_a_file_is_or_nothing(
    code: int, files_too: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock

    def flock(file: Any, how: int) -> None:
        number = file if isinstance(file, int) else file.fileno()
        if files_too or stat.S_ISDIR(os.fstat(number).st_mode):
            raise OSError(code, os.strerror(code))
        real(file, how)

    whole = tmp_path / "whole"
    built(whole)
    monkeypatch.setattr("fcntl.flock", flock)
    out = tmp_path / "out"
    out.mkdir()
    (out / LOCK).touch()  # left by a killed build
    built(out)
    assert tree(out) == tree(whole)
    with locked(out):
        assert (out / LOCK).exists()
        if not files_too:
            with pytest.raises(DataError, match="another process is building into it"), locked(out):
                pass
    assert not (out / LOCK).exists()


def test_another_error_of_locking_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(file: Any, how: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(OSError, match="Input/output error"), locked(tmp_path):
        pass


def test_a_forked_child_that_lives_on_does_not_hold_the_folder(tmp_path: Path) -> None:
    ready, go = os.pipe()
    parent = os.fork()
    if not parent:  # builds, and is killed while its own child lives
        with locked(tmp_path):
            if not os.fork():
                os.write(go, str(os.getpid()).encode())
                time.sleep(60)
                os._exit(0)
            time.sleep(60)
        os._exit(0)
    child = int(os.read(ready, 20))
    try:
        with pytest.raises(DataError, match="another process"), locked(tmp_path):
            pass
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        os.kill(child, 0)
        with locked(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(ready)
        os.close(go)
