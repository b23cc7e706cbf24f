"""Where the KTH videos are: files and archives; what lies in them does not matter here."""

import os
import zipfile
from pathlib import Path

import pytest

from drnet.datasets.contract import DataError, ItemFailed
from drnet.datasets.reading.kth_library import LARGEST, Place, open_library

NAMES = ("person01_boxing_d1", "person17_walking_d1")


def source(folder: Path, *names: str) -> Path:
    """A folder with the list and some files under the videos' names."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "00sequences.txt").write_text("".join(f"{name}\tframes\t1-9\n" for name in NAMES))
    for name in names:
        (folder / f"{name}_uncomp.avi").write_bytes(name.encode())
    return folder


def archive(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in names:
            file.writestr(f"{name}_uncomp.avi", name)
    return path


def test_videos_are_found_in_any_folder_and_archive_and_nothing_else_is(tmp_path: Path) -> None:
    source(tmp_path)
    archive(source(tmp_path / "deep" / "er") / "boxing.zip", "down/" + NAMES[0], "person01_sleeping_d1", "../x")
    (tmp_path / "deep" / f"{NAMES[1]}_uncomp.avi").write_bytes(b"here")
    (tmp_path / "deep" / f"my_{NAMES[1]}_uncomp.avi").write_bytes(b"not this")
    library = open_library(tmp_path)
    assert set(library.places) == set(NAMES)
    assert library.places[NAMES[0]].read() == b"down/person01_boxing_d1"
    assert library.places[NAMES[1]].read() == b"here"


def test_a_file_wins_over_the_archive_that_it_was_unpacked_from(tmp_path: Path) -> None:
    archive(source(tmp_path, NAMES[0]) / "boxing.zip", NAMES[0])
    assert open_library(tmp_path).places == {NAMES[0]: Place(tmp_path / f"{NAMES[0]}_uncomp.avi")}


@pytest.mark.parametrize("packed", [False, True])
def test_a_video_that_is_there_twice_is_refused(packed: bool, tmp_path: Path) -> None:
    for folder in (source(tmp_path / "a"), source(tmp_path / "b")):
        if packed:
            archive(folder / "boxing.zip", NAMES[0])
        else:
            source(folder, NAMES[0])
    with pytest.raises(DataError, match=rf"^video {NAMES[0]} is there twice, .*/a/.* and .*/b/.*; keep one$"):
        open_library(tmp_path)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = archive(source(tmp_path, NAMES[0]) / "walking.zip", NAMES[1])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"walking\.zip is no whole archive \(.*\); delete it and download it again$"):
        open_library(tmp_path)


def test_a_video_that_is_too_large_is_never_read_whole(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "boxing.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(f"{NAMES[0]}_uncomp.avi", bytes(LARGEST + 2))
    with pytest.raises(ItemFailed, match=r"^it has more than 67,108,864 bytes, which no video of this data set has$"):
        Place(tmp_path / "boxing.zip", f"{NAMES[0]}_uncomp.avi").read()


def test_a_file_that_has_gone_fails_with_the_reason(tmp_path: Path) -> None:
    library = open_library(source(tmp_path, *NAMES))
    (tmp_path / f"{NAMES[0]}_uncomp.avi").unlink()
    with pytest.raises(ItemFailed, match=rf"^it cannot be read from {NAMES[0]}_uncomp\.avi \(No such file"):
        library.places[NAMES[0]].read()


def test_content_is_hashed_again_where_a_file_has_changed(tmp_path: Path) -> None:
    library = open_library(source(tmp_path, *NAMES))
    before = library.source_files()
    assert library.source_files() == before
    (tmp_path / f"{NAMES[0]}_uncomp.avi").write_bytes(b"other")
    after = library.source_files()
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]


def test_what_is_no_file_is_no_video_whatever_its_name(tmp_path: Path) -> None:
    folder = source(tmp_path, NAMES[0])
    os.mkfifo(folder / f"{NAMES[1]}_uncomp.avi")
    assert open_library(folder).missing == [NAMES[1]]
