"""Files that are whole or not there, and what is cleared away of those that are not."""

import errno
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from drnet.pipelines.files import ABANDONED, remove_temporaries, whole_file, write_whole

NAMES = frozenset({"a.tar"})
HOLD = """
import sys, time
from pathlib import Path
from drnet.pipelines.files import whole_file
with whole_file(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("open", flush=True)
    time.sleep(60)
"""


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with whole_file(path) as file:
        file.write(b"half")
        assert not path.exists()
    assert path.read_bytes() == b"half"
    assert left(tmp_path) == ["a.tar"]


def test_two_writers_of_one_file_have_a_temporary_file_each(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with whole_file(path) as first, whole_file(path) as second:
        first.write(b"one")
        second.write(b"two")
        assert len(left(tmp_path)) == 2
    assert path.read_bytes() == b"one"  # the last to end
    assert left(tmp_path) == ["a.tar"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_an_error_of_writing_names_the_file_and_leaves_none(number: int, tmp_path: Path) -> None:
    with pytest.raises(OSError) as error, whole_file(tmp_path / "a.tar"):
        raise OSError(number, os.strerror(number))
    assert error.value.filename == str(tmp_path / "a.tar")
    assert not left(tmp_path)


def test_a_folder_that_is_not_there_is_told_by_the_files_own_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        write_whole(tmp_path / "no" / "a.tar", b"")
    assert error.value.filename == str(tmp_path / "no" / "a.tar")


def test_a_living_writers_file_stays_and_a_killed_ones_goes(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "a.tar")], stdout=subprocess.PIPE, text=True
    ) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "open\n"
            assert remove_temporaries(tmp_path, NAMES) == 0
            assert len(left(tmp_path)) == 1
        finally:
            writer.kill()
    assert len(left(tmp_path)) == 1
    assert remove_temporaries(tmp_path, NAMES) == 1
    assert not left(tmp_path)


def test_a_file_that_is_cleared_away_before_its_lock_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real, calls = tmp_path / "a.tar", fcntl.flock, []

    def late(file: object, how: int) -> None:
        calls.append(how)
        if len(calls) == 1:
            (temporary,) = tmp_path.iterdir()
            temporary.unlink()
        real(file, how)  # type: ignore[arg-type]

    monkeypatch.setattr("fcntl.flock", late)
    write_whole(path, b"whole")
    assert path.read_bytes() == b"whole"
    assert len(calls) == 2


def test_without_locks_a_fresh_file_stays_and_an_old_one_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(file: object, how: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr("fcntl.flock", none)
    write_whole(tmp_path / "b", b"written all the same")
    stale = tmp_path / ".a.tar.12ab.tmp"
    stale.write_bytes(b"half")
    assert remove_temporaries(tmp_path, NAMES) == 0
    old = time.time() - ABANDONED - 1
    os.utime(stale, (old, old))
    assert remove_temporaries(tmp_path, NAMES) == 1
    assert left(tmp_path) == ["b"]
