"""00sequences.txt: the list of the KTH actions, with every irregularity that the published file has."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drnet.datasets.contract import DataError
from drnet.datasets.reading.kth_sequences import ACTIONS, parse_sequences

HEAD = """
This database contains sequences of six classes of actions performed by
25 subjects in four different conditions (see below).

Training:   person11, 12, 13, 14, 15, 16, 17, 18
Test:       person22, 02, 03, 05, 06, 07, 08, 09, 10\x20


"""
LIST = """person01_boxing_d1\t\tframes\t1-95, 96-185, 186-245, 246-360
person01_handclapping_d1\tframes\t1-102, 103-182, 183-260, 261-378

person10_jogging_d1    \t\tframes\t1-58, 82-138, 148-200, 235-284
person07_jogging_d4\t\tframes\t1-64, 270-332, 194-264, 490-570
person11_boxing_d4\t\tframes\t1-106, 107-194, 195-250
person13_handclapping_d3\t*missing*
person15_handclapping_d2    \tframes\t1-85, 86-155, 156-228, 228-285
person16_handwaving_d4\t\tframes\t1-104, 105-206, 207-311, 212-456
"""


def published(text: str) -> str:
    """As the file is: lines end with carriage return and line feed."""
    return text.replace("\n", "\r\n")


def test_the_published_file_is_read_with_all_its_irregularities() -> None:
    videos = {video.name: video for video in parse_sequences(published(HEAD + LIST))}
    assert len(videos) == 8
    first = videos["person01_boxing_d1"]
    assert (first.person, ACTIONS[first.action], first.scenario) == (1, "boxing", 1)
    assert first.ranges == ((1, 95), (96, 185), (186, 245), (246, 360))
    assert videos["person10_jogging_d1"].ranges[3] == (235, 284)
    assert len(videos["person11_boxing_d4"].ranges) == 3
    assert videos["person13_handclapping_d3"].ranges == ()


def test_ranges_that_touch_overlap_or_stand_out_of_order_are_taken_as_they_stand() -> None:
    videos = {video.name: video for video in parse_sequences(published(HEAD + LIST))}
    assert videos["person15_handclapping_d2"].ranges[2:] == ((156, 228), (228, 285))
    assert videos["person16_handwaving_d4"].ranges[2:] == ((207, 311), (212, 456))
    assert videos["person07_jogging_d4"].ranges[1:3] == ((270, 332), (194, 264))
    assert videos["person07_jogging_d4"].last == 570


def test_both_ends_of_a_range_belong_to_it_and_shared_frames_count_twice() -> None:
    videos = {video.name: video for video in parse_sequences(LIST)}
    assert videos["person01_boxing_d1"].frames == 360
    assert videos["person15_handclapping_d2"].frames == 286
    assert videos["person13_handclapping_d3"].frames == videos["person13_handclapping_d3"].last == 0


def test_videos_are_sorted_by_name_and_all_600_have_numbers_of_their_own() -> None:
    names = [f"person{p:02d}_{a}_d{d}" for p in range(25, 0, -1) for a in ACTIONS for d in range(1, 5)]
    videos = parse_sequences("\n".join(f"{name} frames 1-2" for name in names))
    assert [video.name for video in videos] == sorted(names)
    assert [video.number for video in videos] == list(range(600))


@given(
    ranges=st.lists(st.tuples(st.integers(1, 999_000), st.integers(0, 900)), min_size=1, max_size=5),
    gaps=st.lists(st.text(" \t", min_size=1, max_size=4), min_size=3, max_size=3),
    end=st.sampled_from(["\n", "\r\n", ""]),
)
def test_any_ranges_with_any_blanks_between_come_back(ranges: list[tuple[int, int]], gaps: list[str], end: str) -> None:
    wanted = tuple((first, first + more) for first, more in ranges)
    text = f",{gaps[2]}".join(f"{first}-{last}" for first, last in wanted)
    (video,) = parse_sequences(f"person25_walking_d4{gaps[0]}frames{gaps[1]}{text}{end}")
    assert video.ranges == wanted


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("person01_boxing_d1 frames 95-1", "range 95-1 has no frames"),
        ("person01_boxing_d1 frames 0-5", "range 0-5 has no frames"),
        ("person01_boxing_d1 frames 1-5, 7", "'7' is no range"),
        ("person01_boxing_d1 frames", "no video with its ranges"),
        ("person01_dancing_d1 frames 1-5", "no video with its ranges"),
        ("person26_boxing_d1 frames 1-5", "persons are 1 to 25"),
        ("person02_boxing_d1 frames 1-5", "the video was there before"),
        ("and so on", "no video with its ranges"),
    ],
)
def test_a_line_that_is_not_understood_is_named_with_the_way_out(line: str, reason: str) -> None:
    text = published(f"{HEAD}person02_boxing_d1\tframes\t1-9\n{line}\n")
    number = HEAD.count("\n") + 2
    wanted = re.escape(f"list.txt, line {number}: {line!r} is not understood ({reason}); lines are like ")
    with pytest.raises(DataError, match=f"^{wanted}.*: take the file as it was published$"):
        parse_sequences(text, "list.txt")


def test_a_file_without_a_list_is_refused() -> None:
    with pytest.raises(DataError, match=r"^00sequences\.txt: it lists no video; take the file as it was published$"):
        parse_sequences(published(HEAD))
