"""Folders of images as clips, from files on disk to a verified build."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from drnet.datasets.contract import DataError, ItemFailed, ItemFiltered, Split
from drnet.datasets.frames import STRAYS, Frames
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.shards.manifest import ACCOUNTING
from drnet.pipelines.source import open_shards
from drnet.pipelines.verify import verify_data

PATTERN = "obj{clip}__{frame}.png"


def paint(clip: int, frame: int, height: int = 16, width: int = 16) -> np.ndarray:
    """An image that tells which it is."""
    image = np.full((height, width, 3), 10 * clip, np.uint8)
    image[:, :, 1] = frame
    return image


def write(root: Path, clip: int, frame: int, name: str | None = None, **shape: int) -> Path:
    path = root / (name or f"obj{clip}__{frame}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(paint(clip, frame, **shape)).save(path)
    return path


@pytest.fixture
def turns(tmp_path: Path) -> Path:
    """Twelve clips of three frames, numbered so that text order is not their order."""
    root = tmp_path / "turns"
    for clip in range(1, 13):
        for frame in (9, 10, 11):
            write(root, clip, frame)
    return root


def made(root: Path, pattern: str = PATTERN, **others: Any) -> Frames:
    return Frames(root, pattern, **{"size": 16, **others})


def all_clips(data: Frames, split: Split) -> list[Any]:
    return [clip for index in range(data.count(split)) for clip in data.clips(split, index)]


def names(data: Frames, split: Split) -> list[str]:
    return [data.item(split, index) for index in range(data.count(split))]


def error_of(call: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


def failure_of(data: Frames) -> str:
    with pytest.raises(ItemFailed) as caught:
        all_clips(data, "train")
    return str(caught.value)


def test_a_clip_has_its_own_frames_in_the_order_of_their_numbers(turns: Path) -> None:
    data = made(turns)
    clips = all_clips(data, "train") + all_clips(data, "test")
    assert sorted(int(clip.labels["name"]) for clip in clips) == list(range(1, 13))
    for clip in clips:
        assert clip.labels["frame"] == [9, 10, 11]
        assert np.array_equal(clip.frames, [paint(int(clip.labels["name"]), frame) for frame in (9, 10, 11)])


def test_clips_are_numbered_in_natural_order_and_no_number_is_in_both_splits(turns: Path) -> None:
    data = made(turns, test_share=0.25)
    numbers = {split: [clip.labels["clip"] for clip in all_clips(data, split)] for split in ("train", "test")}
    assert (len(numbers["train"]), len(numbers["test"])) == (9, 3)
    assert sorted(numbers["train"] + numbers["test"]) == list(range(12))
    for split in ("train", "test"):
        assert numbers[split] == sorted(numbers[split])
        assert names(data, split) == [str(number + 1) for number in numbers[split]]


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 30), share=st.none() | st.floats(0, 0.99), seed=st.integers(0, 9))
def test_the_test_split_has_its_share_and_train_is_never_empty(
    tmp_path_factory: pytest.TempPathFactory, count: int, share: float | None, seed: int
) -> None:
    root = tmp_path_factory.mktemp("clips")
    for clip in range(count):
        (root / f"obj{clip}__1.png").touch()
    data = made(root, test_share=share, seed=seed)
    train, test = names(data, "train"), names(data, "test")
    assert sorted(map(int, train + test)) == list(range(count))
    assert train
    assert abs(len(test) - count * (0.1 if share is None else share)) <= 1
    assert len(test) >= (count > 1 and share != 0)


def test_the_division_depends_on_the_seed_alone(turns: Path) -> None:
    divisions = [names(made(turns, test_share=0.5, seed=seed), "test") for seed in (0, 0, 1, 2)]
    assert divisions[0] == divisions[1]
    assert len({tuple(division) for division in divisions}) > 1


def test_test_clips_may_be_named(turns: Path) -> None:
    data = made(turns, test_clips_matching=("1?", "3"))
    assert names(data, "test") == ["3", "10", "11", "12"]
    assert names(data, "train") == ["1", "2", "4", "5", "6", "7", "8", "9"]
    assert "matches none of the 12 clips, such as '1'" in error_of(
        lambda: made(turns, test_clips_matching=("x",)).count("test")
    )
    assert "matches all" in error_of(lambda: made(turns, test_clips_matching=("*",)).count("test"))


def test_train_and_test_folders_are_the_splits(tmp_path: Path) -> None:
    for split, clips in (("train", (1, 2)), ("test", (2, 3))):
        for clip in clips:
            write(tmp_path, clip, 0 if split == "train" else 1, f"{split}/{clip}/0.png")
    data = made(tmp_path, "{clip}/{frame}.png")
    assert names(data, "train") == ["1", "2"]
    assert names(data, "test") == ["2", "3"]
    assert [clip.labels["clip"] for clip in all_clips(data, "test")] == [2, 3]
    assert np.array_equal(all_clips(data, "test")[0].frames[0], paint(2, 1))
    for other in ({"test_share": 0.1}, {"test_clips_matching": ("1",)}):
        assert "train/ and test/" in error_of(
            lambda other=other: made(tmp_path, "{clip}/{frame}.png", **other).count("test")
        )


def test_a_full_turn_has_evenly_spaced_azimuths(turns: Path) -> None:
    data = made(turns, turn=True)
    assert all_clips(data, "train")[0].labels["azimuth"] == [0, 120, 240]
    assert data.labels["azimuth"].period == 360
    assert any("wraps" in note for note in data.about.notes)
    assert "azimuth" not in made(turns).labels
    assert "azimuth" not in all_clips(made(turns), "train")[0].labels


def test_files_that_do_not_match_are_one_counted_item(turns: Path, tmp_path: Path) -> None:
    for name in ("readme.txt", "obj1__x.png", ".DS_Store"):
        (turns / name).touch()
    data = made(turns, test_share=0)
    assert data.count("train") == 13
    assert data.item("train", 12) == STRAYS
    with pytest.raises(ItemFiltered, match=r"3 files do not match the pattern, such as '\.DS_Store', 'obj1__x\.png'"):
        list(data.clips("train", 12))
    report = build(plan_build(data, "raw", 6), tmp_path / "data")  # the last shard is empty but for that item
    assert report.counts["train"] == {"written": 12, "filtered": 1}
    assert verify_data(tmp_path / "data")[0] == []
    assert len(open_shards(tmp_path / "data", ["train"])) == 12


def test_one_and_two_workers_build_the_same_verified_data_set(turns: Path, tmp_path: Path) -> None:
    (turns / "obj4__10.png").write_bytes(b"broken")
    plan = plan_build(made(turns, turn=True, test_clips_matching=("1*",)), "zstd", 3)
    report = build(plan, tmp_path / "one")
    build(plan, tmp_path / "two", workers=2)
    assert report.counts == {"train": {"written": 7, "failed": 1}, "test": {"written": 4}}
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    assert verify_data(tmp_path / "one")[0] == []
    lines = [json.loads(line) for line in (tmp_path / "one" / ACCOUNTING).read_text().splitlines()]
    (failed,) = [line for line in lines if line["fate"] == "failed"]
    assert failed["item"] == "4"
    assert "obj4__10.png cannot be read" in failed["why"]


def test_frames_of_other_sizes_fail_their_clip(turns: Path) -> None:
    write(turns, 5, 11, height=16, width=20)
    assert (
        failure_of(made(turns, test_share=0)) == "obj5__11.png is 20x16 pixels, obj5__9.png 16x16; a clip has one size"
    )


def test_a_frame_number_that_is_there_twice_fails_its_clip(turns: Path) -> None:
    write(turns, 5, 10, "obj5__010.png")
    expected = "frame 10 is there twice: obj5__010.png and obj5__10.png"
    assert failure_of(made(turns, test_share=0)) == expected
    assert failure_of(made(turns, test_share=0, allow_gaps=True)) == expected


def test_a_missing_frame_number_fails_its_clip_unless_gaps_are_allowed(turns: Path) -> None:
    (turns / "obj7__10.png").unlink()
    write(turns, 7, 12)
    assert "frame 10 is missing, after 9" in failure_of(made(turns, test_share=0))
    clips = all_clips(made(turns, test_share=0, allow_gaps=True), "train")
    assert clips[6].labels["frame"] == [9, 11, 12]


def test_evenly_spaced_numbers_have_no_gaps(tmp_path: Path) -> None:
    for frame in (0, 5, 10, 15):
        write(tmp_path, 1, frame)
    assert all_clips(made(tmp_path), "train")[0].labels["frame"] == [0, 5, 10, 15]


def test_a_frame_number_beyond_what_json_holds_fails_its_clip(tmp_path: Path) -> None:
    for frame in ("1", "20240101120000123456"):
        write(tmp_path, 1, 1, f"obj1__{frame}.png")
    assert "20240101120000123456.png has a frame number of" in failure_of(made(tmp_path))


@pytest.mark.parametrize(("colour", "channels"), [("rgb", 3), ("grey", 1)])
@pytest.mark.parametrize("size", [8, 16, 40])
def test_frames_have_the_size_and_the_colours_asked_for(turns: Path, colour: Any, channels: int, size: int) -> None:
    data = made(turns, colour=colour, size=size)
    clip = all_clips(data, "train")[0]
    assert clip.frames.shape == (3, size, size, channels) == (3, *data.frame_shape())
    assert clip.frames.dtype == np.uint8


def test_wide_images_are_stretched_or_cropped(tmp_path: Path) -> None:
    image = paint(1, 0, 16, 32)
    image[:, :8] = image[:, 24:] = 255
    Image.fromarray(image).save(tmp_path / "obj1__0.png")
    (cropped,) = all_clips(made(tmp_path, crop=True), "train")
    assert np.array_equal(cropped.frames[0], paint(1, 0))
    (stretched,) = all_clips(made(tmp_path), "train")
    assert stretched.frames[0, 8].tolist()[0] == stretched.frames[0, 8].tolist()[-1] == [255, 255, 255]


def test_the_build_changes_with_a_pixel_and_not_with_the_place(turns: Path, tmp_path: Path) -> None:
    first = plan_build(made(turns)).build
    moved = turns.rename(tmp_path / "moved")
    assert plan_build(made(moved)).build == first
    write(moved, 3, 10, height=17, width=17)
    assert plan_build(made(moved)).build != first


def test_sources_are_the_images_in_use(turns: Path) -> None:
    (turns / "readme.txt").touch()
    rows = made(turns).sources()
    assert len(rows) == 36
    assert rows[0].name == "obj10__10.png"
    assert all("/" not in row.name for row in rows)


def test_a_new_data_set_looks_at_the_folder_anew(turns: Path) -> None:
    assert made(turns, test_share=0).count("train") == 12
    write(turns, 13, 9)
    assert made(turns, test_share=0).count("train") == 13


def test_it_travels_to_another_process(turns: Path) -> None:
    data = made(turns, turn=True, colour="grey")
    again = pickle.loads(pickle.dumps(data))  # noqa: S301 - what a worker process receives
    assert again.parameters() == data.parameters()
    assert again.labels == data.labels
    assert np.array_equal(next(again.clips("test", 0)).frames, next(data.clips("test", 0)).frames)


def test_a_clip_whose_name_is_no_text_is_built(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    try:
        write(tmp_path / "in", 1, 1, f"{name}/1.png")
    except OSError:
        pytest.skip("this file system has text names only")
    report = build(plan_build(made(tmp_path / "in", "{clip}/{frame}.png")), tmp_path / "data")
    assert report.counts["train"] == {"written": 1}
    assert verify_data(tmp_path / "data")[0] == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 4}, "size 4"),
        ({"size": 1000}, "size 1000"),
        ({"colour": "blue"}, "colour 'blue'"),
        ({"test_share": 1.0}, "test-share 1.0"),
        ({"test_share": -0.1}, "test-share -0.1"),
        ({"test_share": float("nan")}, "test-share nan"),
        ({"test_share": 0.1, "test_clips_matching": ("a",)}, "test-share and test-clips-matching"),
        ({"turn": True, "allow_gaps": True}, "turn and allow-gaps"),
        ({"seed": -1}, "seed -1"),
        ({"pattern": "{clip}.png"}, "pattern '{clip}.png'"),
    ],
)
def test_values_that_are_not_allowed_are_refused(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    assert said in error_of(lambda: Frames(tmp_path, **options))


def test_an_item_that_is_not_there_is_no_clip(turns: Path) -> None:
    with pytest.raises(IndexError):
        made(turns).item("test", 1)
