"""What lies in the folder already is checked, used and kept; no address here answers, so nothing can be downloaded."""

import errno
import gzip
import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from drnet.datasets.contract import DataError, SourceFile
from drnet.datasets.fetching import genuine, originals
from drnet.datasets.fetching.download import Patience
from drnet.datasets.fetching.fetch import Fetched, fetch, missing
from drnet.datasets.fetching.originals import Original, Originals, Videos

CLOSED = "http://127.0.0.1:9/"  # the discard port: refused at once
CONTENT = random.Random(0).randbytes(200_000)
PACKED = gzip.compress(CONTENT, mtime=0)
PLAIN = Original("file.bin", (CLOSED,), len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
GZIPPED = Original(
    "file.mat.gz",
    (CLOSED,),
    len(PACKED),
    hashlib.sha256(PACKED).hexdigest(),
    SourceFile("file.mat", len(CONTENT), PLAIN.sha256),
)
ARCHIVE = Original("walking.zip", (CLOSED,), 300_000, videos=Videos("", 2, 20, "0" * 40))


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def get(folder: Path, *files: Original) -> list[Fetched]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(originals, "ORIGINALS", {"fake": Originals("Fake", "page", "licence", "cite", files)})
        return fetch("fake", folder, patience=Patience(pause=0))


def error_of(call: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_that_is_there_is_not_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(CONTENT)
    assert get(tmp_path, PLAIN) == [Fetched(tmp_path / "file.bin", len(CONTENT), "", ())]
    assert names(tmp_path) == ["file.bin"]


def test_without_a_mirror_that_answers_one_line_names_each_and_the_way_out(tmp_path: Path) -> None:
    text = error_of(lambda: get(tmp_path / "new", replace(PLAIN, urls=(CLOSED, f"{CLOSED}b", "ftp://127.0.0.1/c"))))
    assert f"({CLOSED}: no connection; {CLOSED}b: no connection; ftp://127.0.0.1/c: no http or https address)" in text
    assert f"download it by hand into '{tmp_path / 'new'}'" in text
    assert names(tmp_path / "new") == []


OTHER = bytes([CONTENT[0] ^ 1]) + CONTENT[1:]


@pytest.mark.parametrize(("content", "expected"), [(b"mine", "has 4 bytes; expected 200,000"), (OTHER, "the SHA-256")])
def test_a_wrong_file_under_the_name_is_reported_and_kept(tmp_path: Path, content: bytes, expected: str) -> None:
    for file in (PLAIN, GZIPPED):
        final = tmp_path / file.name
        final.write_bytes(content)
        text = error_of(lambda file=file: get(tmp_path, file))  # type: ignore[misc]
        assert f"'{final}' " in text
        assert expected in text
        assert "move it away" in text
        assert final.read_bytes() == content


def test_a_wrong_file_is_reported_before_anything_is_downloaded(tmp_path: Path) -> None:
    (tmp_path / "file.mat").write_bytes(b"wrong")
    assert "file.mat' has 5 bytes" in error_of(lambda: get(tmp_path, PLAIN, GZIPPED))


def test_a_folder_under_the_name_and_a_file_in_place_of_the_folder_are_reported(tmp_path: Path) -> None:
    (tmp_path / "file.bin").mkdir()
    assert "is no file" in error_of(lambda: get(tmp_path, PLAIN))
    (tmp_path / "taken").write_text("")
    assert "cannot be used" in error_of(lambda: get(tmp_path / "taken", PLAIN))


def test_a_gzip_file_that_has_arrived_is_unpacked_without_asking_again(tmp_path: Path) -> None:
    (tmp_path / "file.mat.gz.part").write_bytes(PACKED)
    (tmp_path / "file.mat.part").write_bytes(b"half unpacked by a killed process")
    get(tmp_path, GZIPPED)
    assert (tmp_path / "file.mat").read_bytes() == CONTENT
    assert names(tmp_path) == ["file.mat"]


def test_a_gzip_file_put_there_by_hand_is_used_and_kept(tmp_path: Path) -> None:
    (tmp_path / "file.mat.gz").write_bytes(PACKED[:-1])
    assert "file.mat.gz' has 200," in error_of(lambda: get(tmp_path, GZIPPED))
    (tmp_path / "file.mat.gz").write_bytes(PACKED)
    assert get(tmp_path, GZIPPED)[0].notes == ("unpacked from file.mat.gz",)
    assert names(tmp_path) == ["file.mat", "file.mat.gz"]


def test_a_gzip_file_that_unpacks_to_more_than_it_should_is_stopped_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked: list[int] = []
    check = genuine.check_same
    monkeypatch.setattr(
        "drnet.datasets.fetching.fetch.check_same",
        lambda path, pin: (unpacked.append(path.stat().st_size), check(path, pin)),
    )
    assert GZIPPED.unpacked is not None
    (tmp_path / "file.mat.gz").write_bytes(PACKED)
    wrong = replace(GZIPPED, unpacked=replace(GZIPPED.unpacked, size=1000))
    assert "does not unpack to the original file.mat" in error_of(lambda: get(tmp_path, wrong))
    assert unpacked == [1001]
    assert names(tmp_path) == ["file.mat.gz"]


@pytest.fixture
def walking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive put into the folder by hand; what is in it is another test's matter."""
    monkeypatch.setattr(genuine, "_check_videos", lambda path, videos: 20)
    path = tmp_path / "walking.zip"
    path.write_bytes(CONTENT)
    return path


def test_the_first_hash_of_an_archive_that_nobody_has_pinned_is_recorded_and_told(walking: Path) -> None:
    (found,) = get(walking.parent, ARCHIVE)
    sha1 = hashlib.sha1(CONTENT).hexdigest()
    assert found.notes == (
        f"2 videos, 20 frames; SHA-256 {PLAIN.sha256}",
        f"its SHA-1 is {sha1}; others have recorded {'0' * 40}",
        "recorded in walking.zip.json",
    )
    record = {"size": 200_000, "sha256": PLAIN.sha256, "sha1": sha1, "videos": 2, "frames": 20}
    assert json.loads((walking.parent / "walking.zip.json").read_text()) == record
    assert get(walking.parent, ARCHIVE)[0].notes == found.notes[:-1]
    assert names(walking.parent) == ["walking.zip", "walking.zip.json"]


def test_an_archive_that_has_changed_since_is_reported_and_kept(walking: Path) -> None:
    get(walking.parent, ARCHIVE)
    walking.write_bytes(OTHER)
    assert "walking.zip.json, written when it was first seen, has another" in error_of(
        lambda: get(walking.parent, ARCHIVE)
    )
    assert walking.read_bytes() == OTHER


def test_missing_files_are_listed_without_a_look_inside(tmp_path: Path) -> None:
    (tmp_path / "walking.zip").write_bytes(b"")
    assert [file.name for file in missing("kth", tmp_path)][-1] == "running.zip"
    assert len(missing("kth", tmp_path)) == 6
    assert "there are mnist, norb, kth" in error_of(lambda: missing("coil", tmp_path))


def test_facts_that_cannot_be_recorded_leave_no_file(walking: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, target: Path) -> Path:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "replace", full)
    assert get(walking.parent, ARCHIVE)[0].notes[-1] == "not recorded: Read-only file system"
    assert names(walking.parent) == ["walking.zip"]
