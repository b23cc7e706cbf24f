"""Sheets and pages: every word has its room, and an SVG is well-formed and shows what the picture shows."""

import base64
import io
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from drnet.datasets.contract import DataError
from drnet.pipelines.figures.figure import Figure, is_movie, of_one_size, write_figure
from drnet.pipelines.figures.page import Page, Picture, Text, to_picture, to_svg, width_of, wrapped
from drnet.pipelines.figures.sheet import Cell, Row, Sheet, Span, page_of
from drnet.pipelines.looking.pictures import Frames

SVG = "{http://www.w3.org/2000/svg}"


def frame(value: int, size: int = 32, channels: int = 3) -> Frames:
    return np.full((size, size, channels), value, np.uint8)


def sheet_of(cell: Frames, words: str = "row") -> Sheet:
    rows = [Row(words, [Cell(cell, words, given=True), Cell(words=words)], words), Row(words, words="nothing here")]
    return Sheet(words, rows, [words, words], [Span(0, 0, words)], [1], 1, [words])


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80), st.integers(40, 300))
def test_wrapping_keeps_every_letter_and_the_width(words: str, width: int) -> None:
    lines = wrapped(words, width)
    assert "".join(lines).replace(" ", "") == words.replace("\n", "").replace(" ", "")
    assert all(width_of(line) <= width or len(line) == 1 for line in lines)


@settings(max_examples=30, deadline=None)
@given(st.text(min_size=1, max_size=60))
def test_an_svg_is_well_formed_whatever_the_words_are(words: str) -> None:
    root = ElementTree.fromstring(to_svg(page_of(sheet_of(frame(9), words))))
    assert {element.tag for element in root} <= {
        SVG + tag for tag in ("title", "desc", "rect", "text", "line", "image")
    }


def test_words_with_markup_stay_words() -> None:
    words = '</text><script>alert("1")</script>&amp;'
    root = ElementTree.fromstring(to_svg(page_of(sheet_of(frame(9), words))))
    assert root.find(SVG + "title").text == words  # type: ignore[union-attr]
    assert not list(root.iter(SVG + "script"))


@pytest.mark.parametrize(("size", "channels"), [(32, 1), (32, 3), (64, 1), (128, 3)])
def test_an_svg_holds_each_frame_with_its_own_pixels(size: int, channels: int) -> None:
    cell = np.random.default_rng(size).integers(0, 256, (size, size, channels), np.uint8)
    images = list(ElementTree.fromstring(to_svg(page_of(sheet_of(cell)))).iter(SVG + "image"))
    assert len(images) == 1
    data = base64.b64decode(images[0].attrib["href"].removeprefix("data:image/png;base64,"))
    found = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(found.reshape(size, size, channels), cell)


@pytest.mark.parametrize(("size", "channels", "factor"), [(32, 1, 3), (64, 3, 2), (96, 3, 1), (128, 1, 1)])
def test_a_picture_shows_each_frame_enlarged_by_whole_pixels(size: int, channels: int, factor: int) -> None:
    cell = np.random.default_rng(size).integers(0, 256, (size, size, channels), np.uint8)
    page = page_of(sheet_of(cell))
    place = next(item for item in page.items if isinstance(item, Picture))
    shown = to_picture(page)[place.y : place.y + size * factor, place.x : place.x + size * factor]
    np.testing.assert_array_equal(shown[::factor, ::factor], np.broadcast_to(cell, (size, size, 3)))


def test_nothing_lies_outside_the_page() -> None:
    for words in ("a", "a long sentence of many words that must be broken " * 3, "keywithoutanyspace" * 6):
        page = page_of(sheet_of(frame(9), words))
        for item in page.items:
            if isinstance(item, Text):
                shift = {"start": 0.0, "middle": 0.5, "end": 1.0}[item.anchor]
                left = item.x - shift * width_of(item.words, item.size)
                assert left >= 0
                assert left + width_of(item.words, item.size) <= page.width
                assert 0 <= item.y <= page.height - item.size


def test_captions_below_each_other_do_not_touch_the_next_row() -> None:
    rows = [Row("one", [Cell(frame(9), "first line\nsecond line")]), Row("two", [Cell(frame(9))])]
    page = page_of(Sheet("title", rows))
    pictures = [item for item in page.items if isinstance(item, Picture)]
    caption = next(item for item in page.items if isinstance(item, Text) and item.words == "second line")
    assert pictures[0].y + pictures[0].height < caption.y < caption.y + caption.size <= pictures[1].y


def test_a_given_frame_has_another_outline_than_a_generated_one() -> None:
    page = page_of(Sheet("title", [Row("", [Cell(frame(9), given=True), Cell(frame(9))])]))
    given, made = (item.outline for item in page.items if isinstance(item, Picture))
    assert given != made


def test_a_file_is_what_its_ending_says(tmp_path: Path) -> None:
    sheets = [sheet_of(frame(value)) for value in (0, 250)]
    for name, head in {"a.png": b"\x89PNG", "a.svg": b"<svg ", "a.gif": b"GIF8", "a.mp4": b"\0\0\0"}.items():
        path = tmp_path / "new" / name
        write_figure(path, Figure(iter(sheets)))
        assert path.read_bytes().startswith(head)
    with Image.open(tmp_path / "new" / "a.gif") as image:
        assert image.n_frames == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "movies"), [("a.jpg", True), ("a", True), ("a.gif", False), ("folder.png", True)])
def test_another_ending_is_refused_before_any_work(name: str, movies: bool, tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(DataError, match=r"is not allowed here; name a file that ends in \.png, \.svg"):
        is_movie(tmp_path / name, movies)


def test_the_pictures_of_a_movie_have_the_size_of_the_first() -> None:
    found = list(of_one_size(frame(7, size) for size in (5, 3, 8)))
    assert [picture.shape for picture in found] == [(5, 5, 3)] * 3
    assert found[1][4, 4, 0] == 255
    assert (found[2] == 7).all()


def test_a_movie_is_never_held_whole(tmp_path: Path) -> None:
    made: list[NDArray[np.uint8]] = []

    def pictures() -> object:
        for value in range(3):
            made.append(frame(value))
            yield made[-1]

    stream = of_one_size(pictures())  # type: ignore[arg-type]
    next(stream)
    assert len(made) == 1


def test_a_page_without_notes_has_an_empty_description() -> None:
    page = Page(10, 10, (Text(0, 0, "x"),), "title")
    assert b"<desc></desc>" in to_svg(page)
