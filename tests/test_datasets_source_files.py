"""Rows of raw files: one each where they are few, one for all where they are many."""

import hashlib
import os
from pathlib import Path

import pytest

from drnet.datasets.contract import DataError, SourceFile
from drnet.datasets.reading import source_files as module
from drnet.datasets.reading.source_files import LISTED, copies, printable, source_files


def write(root: Path, names: list[str]) -> list[Path]:
    paths = [root / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())
    return paths


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_few_files_have_a_row_each_sorted_by_name(tmp_path: Path) -> None:
    paths = write(tmp_path, ["b/10", "b/9", "a", "Z"])
    rows = source_files(tmp_path, paths)
    assert [row.name for row in rows] == ["Z", "a", "b/10", "b/9"]
    assert rows[2] == SourceFile("b/10", 2, sha256(b"10"))


def test_no_files_have_no_rows(tmp_path: Path) -> None:
    assert source_files(tmp_path, []) == []


def test_paths_below_the_root_and_relative_ones_are_the_same(tmp_path: Path) -> None:
    paths = write(tmp_path, ["a/1", "a/2"])
    assert source_files(tmp_path, paths) == source_files(tmp_path, ["a/2", "a/1"])


def test_many_files_have_one_row_that_sha256sum_can_check(tmp_path: Path) -> None:
    names = [f"{n % 3}/{n}" for n in range(LISTED + 1)]
    (row,) = source_files(tmp_path, write(tmp_path, names))
    lines = [f"{sha256(name.split('/')[1].encode())}  {name}\n" for name in sorted(names)]
    assert row == SourceFile(
        f"{LISTED + 1} files", sum(len(n.split("/")[1]) for n in names), sha256("".join(lines).encode())
    )
    assert len(source_files(tmp_path, names[:-1])) == LISTED


def test_the_one_row_changes_with_a_content_and_with_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LISTED", 2)
    paths = write(tmp_path, ["1", "2", "3"])
    seen = [source_files(tmp_path, paths)[0].sha256]
    paths[1].write_bytes(b"x")
    seen.append(source_files(tmp_path, paths)[0].sha256)
    paths[1].rename(tmp_path / "4")
    seen.append(source_files(tmp_path, [paths[0], paths[2], tmp_path / "4"])[0].sha256)
    assert len(set(seen)) == 3


def test_files_that_have_not_changed_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write(tmp_path, ["1", "2"])
    rows = source_files(tmp_path, paths)
    monkeypatch.setattr(module, "sha256_file", lambda path: pytest.fail(f"{path} is read again"))
    assert source_files(tmp_path, paths) == rows


def test_a_file_of_new_content_but_old_size_and_time_is_read_again(tmp_path: Path) -> None:
    (path,) = write(tmp_path, ["1"])
    state = path.stat()
    before = source_files(tmp_path, [path])
    path.write_bytes(b"2")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert source_files(tmp_path, [path]) != before


def test_what_is_remembered_is_bounded(tmp_path: Path) -> None:
    for path in write(tmp_path, [str(n) for n in range(3 * module.REMEMBERED)]):
        source_files(tmp_path, [path])
    assert len(module._known) <= module.REMEMBERED


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.png.* cannot be read \(No such file"):
        source_files(tmp_path, [tmp_path / "nothing.png"])


@pytest.mark.parametrize("path", ["/etc/hosts", "../beside", "a/../../b"])
def test_a_file_outside_the_root_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(DataError, match="is not below the source folder"):
        source_files(tmp_path / "root", [path])


def test_a_name_that_is_no_text_is_written_out(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    try:
        (tmp_path / name).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system has text names only")
    assert source_files(tmp_path, [tmp_path / name])[0].name == "caf\\xe9.png"


def test_copies_are_told_with_the_first_file_of_their_bytes(tmp_path: Path) -> None:
    names = ["a", "b", "c", "d", "empty", "blank", "gone"]
    for name, blob in zip(names, (b"one", b"two", b"one", b"one", b"", b""), strict=False):
        (tmp_path / name).write_bytes(blob)
    assert copies(tmp_path, names) == {2: 0, 3: 0}
    assert copies(tmp_path, names, [3, 2, 1, 0]) == {2: 3, 0: 3}


def test_names_become_text_and_text_stays_as_it_is() -> None:
    assert printable("ä/ok") == "ä/ok"
    assert printable(os.fsdecode(b"a\xff")) == printable(b"a\xff") == r"a\xff"
