"""Archives of videos: made by code under their true names, right ones told from damaged and foreign ones."""

import hashlib
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from drnet.datasets.fetching import genuine
from drnet.datasets.fetching.genuine import NotGenuine, check_recorded, check_served, notes_of, read_record, record_of
from drnet.datasets.fetching.originals import ORIGINALS, Original, Videos

PATTERN = ORIGINALS["kth"].file("boxing.zip").videos
NAMES = [f"person{person:02}_boxing_d{scenario}_uncomp.avi" for person in (1, 2) for scenario in (1, 2, 3, 4)]
FRAMES = 10


def video(number: int, frames: int = FRAMES) -> bytes:
    head = struct.pack("<4sI4s4sI4s4sII12xI", b"RIFF", 0, b"AVI ", b"LIST", 0, b"hdrl", b"avih", 56, 40_000, frames)
    return head + bytes([number]) * 5000


def archive(path: Path, names: Sequence[str] = NAMES, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for number, name in enumerate(names):
            file.writestr(name, video(number))
    return path


@pytest.fixture
def boxing() -> Original:
    assert PATTERN is not None
    return Original("boxing.zip", (), 50_000, videos=Videos(PATTERN.pattern, 8, 8 * FRAMES, "0" * 40))


def test_a_whole_archive_is_accepted_with_its_facts(tmp_path: Path, boxing: Original) -> None:
    path = archive(tmp_path / "boxing.zip", [f"boxing/{name}" for name in NAMES])
    facts = check_served(path, boxing)
    data = path.read_bytes()
    assert facts == {
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "sha1": hashlib.sha1(data).hexdigest(),
        "videos": 8,
        "frames": 80,
    }


def flip(data: bytes) -> bytes:
    at = data.index(bytes([3]) * 100) + 50
    return data[:at] + b"\xff" + data[at + 1 :]


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a byte of a video changed": (
        flip,
        "is no whole ZIP archive (Bad CRC-32 for file 'person01_boxing_d4_uncomp.avi')",
    ),
    "cut": (lambda data: data[:-100], "is no whole ZIP archive"),
    "a web page": (lambda data: b"<html>" + bytes(1000), "is no whole ZIP archive"),
    "nothing": (lambda data: b"", "is no whole ZIP archive"),
    "its head gone": (lambda data: bytes(3000) + data[3000:], "is no whole ZIP archive"),
    "much longer": (lambda data: data + bytes(100_000), "has 141,"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_archive_is_refused(tmp_path: Path, boxing: Original, damage: str) -> None:
    spoil, expected = DAMAGE[damage]
    path = archive(tmp_path / "boxing.zip", method=zipfile.ZIP_STORED)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(NotGenuine) as caught:
        check_served(path, boxing)
    assert str(caught.value).startswith(expected)


FOREIGN: dict[str, tuple[Sequence[str], str]] = {
    "a video is missing": (NAMES[1:], "holds 7 videos; expected 8"),
    "a video too many": ([*NAMES, "person03_boxing_d1_uncomp.avi"], "holds 9 videos; expected 8"),
    "a video twice, in two folders": ([*NAMES, f"x/{NAMES[0]}"], "holds 8 videos; expected 8, each once"),
    "another action": ([name.replace("boxing", "running") for name in NAMES], "holds 0 videos; expected 8"),
}


@pytest.mark.parametrize("foreign", FOREIGN)
def test_an_archive_of_other_videos_is_refused(tmp_path: Path, boxing: Original, foreign: str) -> None:
    names, expected = FOREIGN[foreign]
    with pytest.raises(NotGenuine) as caught:
        check_served(archive(tmp_path / "boxing.zip", names), boxing)
    assert str(caught.value).startswith(expected)


def test_a_member_that_only_has_the_name_of_a_video_is_refused(tmp_path: Path, boxing: Original) -> None:
    path = archive(tmp_path / "boxing.zip", NAMES[:-1])
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(NAMES[-1], b"<html>" * 100)
    with pytest.raises(NotGenuine, match=f"holds {NAMES[-1]}, which is no AVI video"):
        check_served(path, boxing)


def test_an_archive_that_would_unpack_to_too_much_is_not_read(
    tmp_path: Path, boxing: Original, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = archive(tmp_path / "boxing.zip")
    monkeypatch.setattr(genuine, "UNPACKED_LIMIT", 40_000)
    with pytest.raises(NotGenuine, match="announces more than 10,000 members or 40,000 bytes of them"):
        check_served(path, boxing)


def test_differences_from_what_others_found_are_told(tmp_path: Path, boxing: Original) -> None:
    assert boxing.videos is not None
    facts = check_served(archive(tmp_path / "boxing.zip"), boxing)
    assert len(notes_of(facts, Videos("", 8, 80, facts["sha1"]))) == 1
    first, frames, sha1 = notes_of(facts, Videos("", 8, 81, "0" * 40))
    assert first == f"8 videos, 80 frames; SHA-256 {facts['sha256']}"
    assert frames == "their headers tell 80 frames; expected 81"
    assert sha1 == f"its SHA-1 is {facts['sha1']}; others have recorded {'0' * 40}"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"size": 1}', '{"size": "1"}'])
def test_a_record_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "boxing.zip"
    assert read_record(path) is None
    record_of(path).write_text(text)
    assert read_record(path) is None


def test_an_archive_that_is_not_the_one_recorded_is_refused(tmp_path: Path, boxing: Original) -> None:
    path = archive(tmp_path / "boxing.zip")
    facts = check_served(path, boxing)
    check_recorded(path, facts)
    archive(path, NAMES[::-1])
    with pytest.raises(NotGenuine, match="json, written when it was first seen, has another"):
        check_recorded(path, facts)
