"""Fields of JSON objects: what passes is of the type and size that was asked for, and what does not is named."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drnet.pipelines.fields import HASH, LARGEST, count, field, harmless, items, objects, short, text

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda deeper: st.lists(deeper) | st.dictionaries(st.text(), deeper),
    max_leaves=8,
)


@given(VALUES, st.sampled_from([(count, int), (text, str), (objects, dict), (items, list)]))
def test_each_value_passes_as_its_own_type_alone(value: Any, reader: tuple[Callable[[Any, str], Any], type]) -> None:
    read, kind = reader
    try:
        assert read({"x": value}, "x") is value
    except ValueError as error:
        told = str(error)
    else:
        assert type(value) is kind
        return
    assert told.startswith("x ")
    assert told.isprintable()
    assert len(told) < 200


@pytest.mark.parametrize("value", [-1, LARGEST + 1, 1.0, 1e308, True, "1", None, [1]])
def test_a_count_is_a_whole_number_of_its_range(value: Any) -> None:
    with pytest.raises(ValueError, match=r"x .* is not a whole number from 0 to 9007199254740991"):
        count({"x": value}, "x")


@pytest.mark.parametrize("value", ["0" * 63, "0" * 65, "A" * 64, "0" * 64 + "\n"])
def test_a_text_matches_its_pattern_as_a_whole(value: str) -> None:
    assert text({"x": "0" * 64}, "x", HASH) == "0" * 64
    with pytest.raises(ValueError, match="is not a text like"):
        text({"x": value}, "x", HASH)


def test_a_missing_field_and_what_is_no_object_are_told() -> None:
    with pytest.raises(ValueError, match="field 'x' is missing"):
        field({"y": 1}, "x")
    for row in ([1], "x", None, 7):
        with pytest.raises(ValueError, match="not a JSON object"):
            field(row, "x")


@pytest.mark.parametrize("value", ["\x1b[2J", "a\x00", "\x9b", "\x7f", {"a": [{"\x07": 1}]}, [["\x08"]]], ids=repr)
def test_what_steers_a_terminal_is_refused_at_any_depth(value: Any) -> None:
    with pytest.raises(ValueError, match="holds control characters"):
        harmless(value, "x")


@pytest.mark.parametrize("value", ["a\tb\n", "Drehwinkel °, 回転", {"a": [1, None, "b"]}])
def test_other_texts_are_harmless(value: Any) -> None:
    assert harmless(value, "x") is value


def test_depth_is_no_obstacle() -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    assert harmless(deep, "x") is deep
    while isinstance(deep, list):  # taken apart layer by layer, as Python would not in one go
        deep = deep.pop()


@given(VALUES)
def test_what_a_message_shows_is_short_and_on_one_line(value: Any) -> None:
    assert short(value).isprintable()
    assert len(short(value)) <= 80


def test_a_number_of_thousands_of_digits_is_shown_shortened() -> None:
    assert len(short(json.loads("9" * 4000))) == 80
