"""What a mistyped word may have been meant for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drnet.guess import guess, nearest

PRESETS = ("mnist", "mnist-small", "norb", "kth", "kth-small")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("mnits", "mnist"),
        ("KTH", "kth"),
        ("kth_small", "kth-small"),
        ("nrob", "norb"),
        ("imagenet-21k", None),
        ("", None),
    ],
)
def test_the_likest_known_word_is_asked_after_and_nothing_far_away(word: str, meant: str | None) -> None:
    assert guess(word, PRESETS) == ("" if meant is None else f" (did you mean '{meant}'?)")


def test_several_words_come_the_likest_first_and_never_more_than_asked_for() -> None:
    assert nearest("kth-smal", PRESETS, 2) == ["kth-small", "mnist-small"]
    assert nearest("zzz", PRESETS, 3, least=0) != []
    assert nearest("ab", ["AB", "ab", "Ab"], 2) == ["AB", "ab"]
    assert nearest("x", []) == []


@given(st.lists(st.sampled_from("abcdefgh"), min_size=4, max_size=8, unique=True), st.integers(0, 6))
def test_two_letters_that_changed_places_are_understood(letters: list[str], place: int) -> None:
    word = "".join(letters)
    place %= len(word) - 1
    mistyped = word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    assert nearest(mistyped, [word, "0123456789"]) == [word]
