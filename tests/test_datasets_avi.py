"""Frames of an AVI file are counted without decoding, and damage is seen."""

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from drnet.datasets.reading.avi import NoAviError, avi_frames

KEY, FORWARD, BOTH = 0x00, 0x40, 0x80  # the byte after a picture's start code: its upper two bits are the kind


def chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def listed(kind: bytes, *chunks: bytes) -> bytes:
    return chunk(b"LIST", kind + b"".join(chunks))


def picture(kind: int = FORWARD, size: int = 300) -> bytes:
    return b"\0\0\1\xb6" + bytes([kind]) + b"\x5a\x00\x00" * (size // 3)


def avi(frames: list[bytes], codec: bytes = b"DX50", stated: int | None = None, name: bytes = b"00dc") -> bytes:
    """Return an AVI file as its writers make it: header, padding, frames with sound between, index."""
    header = struct.pack("<14I", 40_000, 0, 0, 0, len(frames) if stated is None else stated, *([0] * 9))
    form = struct.pack("<IiiHH4s5I", 40, 160, 120, 1, 24, codec, 0, 0, 0, 0, 0)
    sound = listed(b"strl", chunk(b"strh", b"auds" + bytes(52)))
    stream = struct.pack("<4s4sIHHIIIIIIII8x", b"vids", codec, 0, 0, 0, 0, 1, 25, 0, len(frames), 0, 0, 0)
    video = listed(b"strl", chunk(b"strh", stream), chunk(b"strf", form))
    hdrl = listed(b"hdrl", chunk(b"avih", header), sound, video)
    movi = listed(b"movi", *(chunk(name, frame) + chunk(b"01wb", bytes(6)) for frame in frames))
    return chunk(b"RIFF", b"AVI " + hdrl + chunk(b"JUNK", bytes(100)) + movi + chunk(b"idx1", bytes(16)))


FRAMES = [picture(KEY), *(picture(FORWARD, 100 + 7 * n) for n in range(9))]
WHOLE = avi(FRAMES)


@pytest.mark.parametrize("name", [b"00dc", b"00db"])
@pytest.mark.parametrize("codec", [b"DX50", b"divx", b"MJPG"])
def test_a_whole_file_has_the_frames_that_it_states(name: bytes, codec: bytes) -> None:
    found = avi_frames(avi(FRAMES, codec, name=name))
    assert (found.stated, found.whole, found.sound, found.damage) == (10, 10, 10, "")


def test_bytes_behind_the_file_and_a_header_before_a_frame_are_no_damage() -> None:
    frames = [b"\0\0\1\0\0\0\1\x20" + picture(KEY), *FRAMES[1:]]
    found = avi_frames(avi(frames) + bytes(2042))
    assert (found.whole, found.damage, found.in_order) == (10, "", True)


def test_a_group_of_chunks_is_entered() -> None:
    group = listed(b"rec ", *(chunk(b"00dc", frame) for frame in FRAMES))
    plain = avi([])
    movi = plain.index(b"LIST", plain.index(b"JUNK"))
    assert avi_frames(plain[:movi] + listed(b"movi", group)).whole == 10


@example(cut=0)
@given(cut=st.integers(0, len(WHOLE)))
def test_wherever_a_file_is_cut_its_whole_frames_are_counted(cut: int) -> None:
    ends = [WHOLE.index(frame) + len(frame) for frame in FRAMES]
    data = WHOLE[: len(WHOLE) - cut]
    try:
        found = avi_frames(data)
    except NoAviError:
        assert len(data) <= WHOLE.index(b"movi") + 4
        return
    assert found.stated == 10
    assert found.whole == sum(end <= len(data) for end in ends)
    assert bool(found.damage) == (len(data) < WHOLE.index(b"idx1"))


@given(start=st.integers(WHOLE.index(b"movi") + 4, WHOLE.index(b"idx1") - 16), length=st.integers(16, 2000))
def test_wherever_a_file_is_blank_no_frame_from_there_on_is_counted(start: int, length: int) -> None:
    end = min(start + length, WHOLE.index(b"idx1"))
    found = avi_frames(WHOLE[:start] + bytes(end - start) + WHOLE[end:])
    before = sum(WHOLE.index(frame) + len(frame) <= start for frame in FRAMES)
    touched = [frame for frame in FRAMES if WHOLE.index(frame) < end and WHOLE.index(frame) + len(frame) > start]
    assert found.whole <= before or not touched
    assert found.whole >= before - 1
    assert bool(found.damage) or not touched


def test_a_frame_of_other_content_ends_the_count_and_takes_the_one_before_with_it() -> None:
    for broken in (b"\xff" * 300, b"", b"\0\0\1\xb6\x10"):
        found = avi_frames(avi([*FRAMES[:6], broken, *FRAMES[6:]]))
        assert (found.stated, found.whole) == (11, 5)
        assert "is damaged or empty" in found.damage


def test_a_chunk_of_no_known_kind_ends_the_count() -> None:
    at = WHOLE.index(FRAMES[4]) - 8
    found = avi_frames(WHOLE[:at] + b"\xa7" * 8 + WHOLE[at + 8 :])
    assert (found.whole, found.damage) == (3, f"byte {at} begins no frame")


def test_a_header_that_states_other_numbers_is_told() -> None:
    for stated, sound in ((12, 10), (8, 8)):
        found = avi_frames(avi(FRAMES, stated=stated))
        assert (found.stated, found.whole, found.sound) == (stated, 10, sound)
        assert found.damage == "its stream's header states 10 frames"
        assert not found.is_whole
    assert avi_frames(WHOLE.replace(b"strh", b"xxxx")).damage == "its stream has no header"
    assert avi_frames(WHOLE).is_whole


def test_a_writer_that_was_stopped_leaves_frames_that_count() -> None:
    at = WHOLE.index(b"movi") - 4
    data = WHOLE[:at] + bytes(4) + WHOLE[at + 4 : WHOLE.index(b"idx1")]
    assert (avi_frames(data).whole, avi_frames(data).damage) == (10, "")


def test_only_frames_without_b_pictures_are_known_to_be_in_order() -> None:
    assert avi_frames(WHOLE).in_order
    assert not avi_frames(avi([FRAMES[0], FRAMES[1], picture(BOTH), FRAMES[2]])).in_order
    assert not avi_frames(avi(FRAMES, b"MJPG")).in_order
    assert not avi_frames(avi([b"\0\0\1\0" + bytes(7), *FRAMES])).in_order  # a header without a picture


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is no AVI file"),
        (b"RIFF\0\0\0\0WAVE", "it is no AVI file"),
        (b"RIFF\0\0\0\0AVI ", "its AVI header is damaged"),
        (WHOLE.replace(b"avih", b"xxxx"), "its AVI header is damaged"),
        (WHOLE[: WHOLE.index(b"movi") - 8], "it has no frames"),
    ],
)
def test_what_is_no_avi_file_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(NoAviError, match=f"^{reason}$"):
        avi_frames(data)
