"""Numbered files: patterns are literal, order is natural, and every file is either listed or counted."""

import os
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drnet.datasets.contract import DataError
from drnet.datasets.reading.numbered_files import Pattern, image_paths, look, natural

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0/{}"), max_size=4)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize(
    ("pattern", "name", "found"),
    [
        ("obj{clip}__{frame}.png", "obj12__07.png", ("12", "07")),
        ("obj{clip}__{frame}.png", "obj1__2__3.png", ("1__2", "3")),
        ("obj{clip}__{frame}.png", "Xobj1__3.png", None),
        ("obj{clip}__{frame}.png", "obj1__3.pngX", None),
        ("obj{clip}__{frame}.png", "obj1__3xpng", None),
        ("obj{clip}__{frame}.png", "obj__3.png", None),
        ("obj{clip}__{frame}.png", "obj1__.png", None),
        ("obj{clip}__{frame}.png", "obj1__-3.png", None),
        ("obj{clip}__{frame}.png", "obj1__٣.png", None),
        ("obj{clip}__{frame}.png", "a/obj1__3.png", None),
        ("{clip}/{frame}.jpg", "a/b/3.jpg", ("a/b", "3")),
        ("{clip}/{frame}.jpg", "3.jpg", None),
        ("{clip}{frame}.png", "cat012.png", ("cat", "012")),
        ("{clip}{frame}.png", "cat1_012.png", ("cat1_", "012")),
        ("{frame}{clip}", "012cat", ("cat", "012")),
        ("v2{frame}/{clip}.png", "v23/a.png", ("a", "3")),
        ("a.b*[c]{clip}({frame})", "a.b*[c]x(1)", ("x", "1")),
        ("a.b*[c]{clip}({frame})", "aXbb[c]x(1)", None),
    ],
)
def test_a_pattern_is_literal_but_for_its_two_fields(pattern: str, name: str, found: tuple[str, str] | None) -> None:
    assert Pattern(pattern).match(name) == found


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "a.png",
        "{clip}.png",
        "{frame}.png",
        "{clip}{clip}{frame}",
        "{clip}/{frame}/{x}",
        "{clip}{frame}{",
        "{}{clip}{frame}",
    ],
)
def test_a_pattern_without_its_two_fields_is_refused(pattern: str) -> None:
    with pytest.raises(DataError, match="once each") as caught:
        Pattern(pattern)
    assert f"'{pattern}'" in str(caught.value)


@pytest.mark.parametrize("pattern", ["/data/{clip}/{frame}.png", "../{clip}/{frame}.png", "./{clip}/{frame}.png"])
def test_a_pattern_that_leaves_the_source_is_refused(pattern: str) -> None:
    with pytest.raises(DataError, match="a path below the source"):
        Pattern(pattern)


@given(
    start=TEXT,
    middle=TEXT,
    end=TEXT,
    clip=NAMES,
    frame=st.from_regex(r"[0-9]{1,6}", fullmatch=True),
    first=st.booleans(),
)
def test_what_matches_is_named_again(start: str, middle: str, end: str, clip: str, frame: str, first: bool) -> None:
    fields = ("{clip}", "{frame}") if first else ("{frame}", "{clip}")
    pattern = Pattern(f"{start}{fields[0]}_{middle}{fields[1]}_{end}".lstrip("./") or "{clip}{frame}")
    name = pattern.name(clip, frame)
    found = pattern.match(name)
    assert found is not None
    assert pattern.name(*found) == name


def test_the_order_is_natural() -> None:
    names = ["a10", "a9", "a", "b1", "10", "9", "a9b10", "a9b9", "010", ""]
    assert sorted(names, key=natural) == ["", "9", "010", "10", "a", "a9", "a9b9", "a9b10", "a10", "b1"]


@given(st.lists(NAMES), st.randoms())
def test_any_names_have_one_order(names: list[str], random: Random) -> None:
    mixed = random.sample(names, len(names))
    assert sorted(mixed, key=natural) == sorted(names, key=natural)


def test_clips_and_frames_are_in_natural_order(tmp_path: Path) -> None:
    touch(tmp_path, *(f"obj{clip}__{frame}.png" for clip in (10, 9, 1) for frame in (11, 2, 100)))
    (listing,) = look(tmp_path, Pattern("obj{clip}__{frame}.png"))
    assert listing.names == ("1", "9", "10")
    assert [listing.frames(number) for number in range(3)] == [["2", "11", "100"]] * 3
    paths = list(image_paths([listing], Pattern("obj{clip}__{frame}.png")))
    assert paths[:4] == ["obj1__2.png", "obj1__11.png", "obj1__100.png", "obj9__2.png"]


def test_every_file_is_listed_or_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "a/2.png", "a/deep/3.png", "readme.txt", ".hidden", "a/notes.txt", "x/y.png")
    (listing,) = look(tmp_path, Pattern("{clip}/{frame}.png"))
    assert listing.names == ("a", "a/deep")
    assert listing.strays == 4
    assert listing.examples == (".hidden", "a/notes.txt", "readme.txt")


def test_links_to_folders_are_counted_and_not_followed(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a/1.png")
    touch(tmp_path / "out", "2.png")
    (tmp_path / "in" / "b").symlink_to(tmp_path / "out")
    (tmp_path / "in" / "a" / "round").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "a" / "3.png").symlink_to(tmp_path / "out" / "2.png")
    (tmp_path / "in" / "a" / "4.png").symlink_to(tmp_path / "nowhere")
    (listing,) = look(tmp_path / "in", Pattern("{clip}/{frame}.png"))
    assert listing.frames(0) == ["1", "3"]
    assert listing.strays == 3
    assert listing.examples == ("a/4.png/", "a/round/", "b/")


def test_train_and_test_folders_are_listed_apart(tmp_path: Path) -> None:
    touch(tmp_path, "train/a1.png", "train/b1.png", "test/a1.png", "test/notes", "readme.txt")
    train, test = look(tmp_path, Pattern("{clip}{frame}.png"))
    assert (train.folder, train.names, train.strays, train.examples) == ("train", ("a", "b"), 1, ("readme.txt",))
    assert (test.folder, test.names, test.strays, test.examples) == ("test", ("a",), 1, ("notes",))
    paths = list(image_paths([train, test], Pattern("{clip}{frame}.png")))
    assert paths == ["train/a1.png", "train/b1.png", "test/a1.png"]


def test_with_a_third_folder_train_is_a_folder_like_any(tmp_path: Path) -> None:
    touch(tmp_path, "train/1.png", "test/1.png", "other/1.png")
    (listing,) = look(tmp_path, Pattern("{clip}/{frame}.png"))
    assert listing.names == ("other", "test", "train")


def test_a_pattern_that_matches_nothing_is_refused_with_an_example(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a.jpg")
    with pytest.raises(DataError, match=r"matches none of the 2 files in .*, such as 'a\.jpg'"):
        look(tmp_path, Pattern("{clip}/{frame}.png"))


@pytest.mark.parametrize("name", ["none", "file"])
def test_a_source_that_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "file")
    with pytest.raises(DataError, match=f"source .*{name}' cannot be read"):
        look(tmp_path / name, Pattern("{clip}/{frame}.png"))


def test_a_name_that_is_no_text_is_listed(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9/1.png")
    try:
        touch(tmp_path, name)
    except OSError:
        pytest.skip("this file system has text names only")
    (listing,) = look(tmp_path, Pattern("{clip}/{frame}.png"))
    assert list(image_paths([listing], Pattern("{clip}/{frame}.png"))) == [name]
