"""ffmpeg's words, taken in any pieces: times, refusals, and one complaint out of many."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drnet.datasets.reading.video_log import LINE, Complaints, Lines, Refused, Times


def pictures(*microseconds: int | str) -> bytes:
    """Return what the filter prints of pictures at these times."""
    rows = (f"frame:{n:<4d} pts:{time!s:<7} pts_time:0\ndrnet=1\n" for n, time in enumerate(microseconds))
    return "".join(rows).encode()


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8))
def test_lines_do_not_depend_on_the_pieces_they_come_in(data: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(data)]
    lines = Lines()
    found = [line for a, b in pairwise(places) for line in (lines.take(data[a:b]) if a < b else [])]
    expected = data.split(b"\n")
    assert found + lines.take(b"") == (expected if expected[-1] else expected[:-1])


def test_a_line_without_end_takes_no_more_memory() -> None:
    lines = Lines()
    taken = [lines.take(b"x" * 1000) for _ in range(100)]
    whole = [len(line) for some in taken for line in some]
    assert sum(whole) == 100_000 - len(b"".join(lines.take(b"")))
    assert max(whole) <= LINE + 1000


@given(st.lists(st.integers(0, 60_000_000), min_size=1, max_size=50), st.integers(1, 40))
def test_times_are_kept_in_seconds(steps: list[int], piece: int) -> None:
    moments = [sum(steps[:n]) for n in range(len(steps))]
    data = pictures(*moments)
    kept, last = Times(keep=True), Times(keep=False)
    for at in range(0, len(data), piece):
        kept.take(data[at : at + piece])
        last.take(data[at : at + piece])
    assert list(kept.seconds) == [moment / 1e6 for moment in moments]
    assert list(last.seconds) == [moments[-1] / 1e6]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (pictures(0, 60_000_001), "jump from 0 to 60 seconds"),
        (pictures(0, 40_000, 20_000), "run backwards after 0.04 seconds"),
        (pictures(0, "NOPTS"), "has no time"),
        (pictures(0, 40_000) + pictures(0), "size or format of its pictures changes"),
        (pictures(*range(0, 173_000_000_000, 60_000_000)), "files of 48 hours are the longest"),
    ],
)
def test_times_that_no_video_has_are_refused(data: bytes, why: str) -> None:
    with pytest.raises(Refused, match=why):
        Times(keep=True).take(data)


def heard(*lines: str) -> str:
    complaints = Complaints()
    complaints.take("".join(f"{line}\n" for line in lines).encode())
    complaints.take(b"")
    return complaints.worst()


def test_warnings_are_no_damage_but_those_of_corruption_are() -> None:
    assert heard("[swscaler @ 0x55d0] [warning] deprecated pixel format used", "[info] all is well", "") == ""
    found = heard("[in#0/avi @ 0x55d0] [warning] corrupt input packet in stream 0")
    assert found == "ffmpeg: corrupt input packet in stream 0"
    assert heard("[vist#0:0/h264 @ 0x1] [dec:h264 @ 0x2] [warning] corrupt decoded frame")


@given(st.permutations(["[in#0/mkv @ 0x9] [error] ended early", "[h264 @ 0x5] [error] first", "[aac @ 0x1] [error] a"]))
def test_the_complaint_does_not_depend_on_who_spoke_first(lines: list[str]) -> None:
    assert heard(*lines) == "ffmpeg: ended early"


def test_a_speakers_first_complaint_counts() -> None:
    assert heard("[h264 @ 0x5] [error] first", "[h264 @ 0x6] [error] second") == "ffmpeg: first"
    assert heard("[error] no speaker") == "ffmpeg: no speaker"


def test_a_reason_counts_more_than_that_there_was_one() -> None:
    vague = "[in#0 @ 0x5] [error] Error opening input: Invalid data found when processing input"
    assert heard("[mov,mp4 @ 0x7] [error] moov atom not found", vague) == "ffmpeg: moov atom not found"
    assert heard(vague) == "ffmpeg: Error opening input: Invalid data found when processing input"


def test_a_complaint_is_one_short_line() -> None:
    found = heard(f"[x @ 0x5] [error] a\tb\x1b[31m\r{'c' * 500}")
    assert found.isprintable()
    assert len(found) == 160
    assert found.endswith("...")
