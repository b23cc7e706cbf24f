"""A folder of videos: which files, which split, which clips; every file is accounted for."""

import json
import os
import pickle
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from drnet.datasets.catalogue import restore
from drnet.datasets.contract import Clip, DataError, DataSet, ItemFiltered, LeftOut, Limited
from drnet.datasets.reading.ffmpeg_binary import ffmpeg_path
from drnet.datasets.videos import Videos, brightness, change, windows
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.verify import verify_data

Bytes = NDArray[np.uint8]


def record(path: Path, frames: Bytes) -> Path:
    """Write (T, H, W, 3) frames as a video without loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = f"{frames.shape[2]}x{frames.shape[1]}"
    words = [ffmpeg_path(), "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", "25", "-i", "-"]
    words += ["-c:v", "png", "-pix_fmt", "rgb24"]
    words += ["-f", "mov"] if path.suffix.lower() in (".mp4", ".m4v", ".mov") else ["-f", "matroska"]
    subprocess.run([*words, str(path)], input=frames.tobytes(), check=True)
    return path


def noise(count: int, seed: int, side: int = 16) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos of 20 to 27 frames in nested folders, and what is no video; read only."""
    root = tmp_path_factory.mktemp("videos")
    for n, name in enumerate(("b.mov", "a.mkv", "deep/er/c.MP4", "deep/d.webm", "e.m4v", "f.mkv", "g.avi", "h.mpg")):
        record(root / name, noise(20 + n, n))
    for other in (".hidden.mp4", "notes.txt", "deep/picture.png", ".folder/x.mp4"):
        (root / other).parent.mkdir(exist_ok=True)
        (root / other).write_bytes(b"not a video")
    return root


SORTED = ["a.mkv", "b.mov", "deep/d.webm", "deep/er/c.MP4", "e.m4v", "f.mkv", "g.avi", "h.mpg"]


def items(data: DataSet, split: Any) -> list[str]:
    return [data.item(split, index) for index in range(data.count(split))]


def kept(data: DataSet, split: Any, index: int = 0) -> list[Clip]:
    return [clip for clip in data.clips(split, index) if isinstance(clip, Clip)]


@given(st.integers(0, 200), st.integers(1, 40), st.integers(1, 60))
def test_windows_are_all_that_fit_and_the_tail_is_what_no_clip_has(frames: int, length: int, stride: int) -> None:
    starts, tail = windows(frames, length, stride)
    assert list(starts) == [at for at in range(0, frames, stride) if at + length <= frames]
    seen = {frame for at in starts for frame in range(at, at + length)}
    following = len(starts) * stride
    assert tail == len([frame for frame in range(following, frames) if frame not in seen])
    if stride <= length:
        assert len(seen) + tail == frames


def test_clips_are_the_pictures_in_order_with_their_times(folder: Path) -> None:
    data = Videos(folder, size=16, clip_length=5, stride=3, test_share=0)
    clips = kept(data, "train", 1)
    frames = noise(20, 0)
    assert len(clips) == 6
    for n, clip in enumerate(clips):
        np.testing.assert_array_equal(clip.frames, frames[3 * n : 3 * n + 5])
        assert clip.labels == {"file": 1, "time": [round((3 * n + k) / 25, 6) for k in range(5)], "name": "b.mov"}
        assert clip.key == f"train-000001-{n:08d}"


def test_a_source_is_its_videos_with_those_of_its_folders_in_the_order_of_their_names(folder: Path) -> None:
    data = Videos(folder, test_share=0)
    assert items(data, "train") == SORTED
    assert data.count("test") == 0
    assert [row.name for row in data.sources()] == SORTED


@pytest.mark.parametrize(("share", "tests"), [(0.0, 0), (0.01, 1), (0.1, 1), (0.25, 2), (0.5, 4), (0.99, 7)])
def test_a_share_of_the_files_is_the_test_split(folder: Path, share: float, tests: int) -> None:
    data = Videos(folder, test_share=share)
    assert data.count("test") == tests
    assert sorted(items(data, "train") + items(data, "test")) == SORTED
    assert items(data, "train") == sorted(items(data, "train"))


def test_the_seed_picks_the_test_files(folder: Path) -> None:
    picked = [tuple(items(Videos(folder, test_share=0.25, seed=seed), "test")) for seed in range(12)]
    assert picked[0] == tuple(items(Videos(folder, test_share=0.25), "test"))
    assert len(set(picked)) > 3


def test_patterns_name_the_test_files(folder: Path) -> None:
    assert items(Videos(folder, test_files=("deep/*",)), "test") == ["deep/d.webm", "deep/er/c.MP4"]
    assert items(Videos(folder, test_files=("?.mov", "*.MP4")), "test") == ["b.mov", "deep/er/c.MP4"]
    with pytest.raises(DataError, match=r"names no video; the first is 'a\.mkv'"):
        Videos(folder, test_files=("a.mkv", "*.flv")).count("train")
    with pytest.raises(DataError, match="names every video"):
        Videos(folder, test_files=("*",)).count("train")


def test_folders_train_and_test_are_the_splits(tmp_path: Path) -> None:
    for n, name in enumerate(("train/a.mkv", "train/sub/b.mkv", "test/a.mkv")):
        record(tmp_path / name, noise(3, n))
    (tmp_path / "readme.txt").touch()
    data = Videos(tmp_path)
    assert (items(data, "train"), items(data, "test")) == (["train/a.mkv", "train/sub/b.mkv"], ["test/a.mkv"])
    with pytest.raises(DataError, match="not allowed beside folders train and test"):
        Videos(tmp_path, test_files=("*a.mkv",)).count("train")
    record(tmp_path / "other/c.mkv", noise(3, 9))
    assert Videos(tmp_path).count("test") == 1  # now it is a share
    assert Videos(tmp_path).count("train") == 3


def test_one_file_is_train(tmp_path: Path) -> None:
    record(tmp_path / "a.mkv", noise(3, 0))
    assert items(Videos(tmp_path), "train") == ["a.mkv"]
    assert Videos(tmp_path).count("test") == 0


def test_a_copy_is_left_out_and_never_lies_in_two_splits(tmp_path: Path) -> None:
    record(tmp_path / "train/b.mkv", noise(4, 0))
    record(tmp_path / "test/z.mkv", noise(4, 1))
    for copy in ("test/a.mkv", "train/c.mkv"):
        shutil.copy(tmp_path / "train/b.mkv", tmp_path / copy)
    data = Videos(tmp_path, size=16, clip_length=4)
    for split, index in (("test", 0), ("train", 1)):
        with pytest.raises(ItemFiltered, match=r"^a copy of train/b.mkv$"):
            kept(data, split, index)
    assert len(kept(data, "train", 0)) == len(kept(data, "test", 1)) == 1


def test_a_new_data_set_looks_at_the_folder_anew(tmp_path: Path) -> None:
    record(tmp_path / "a.mkv", noise(3, 0))
    first = Videos(tmp_path).parameters()
    record(tmp_path / "b.mkv", noise(3, 1))
    data = Videos(tmp_path)
    assert data.count("train") + data.count("test") == 2
    assert data.parameters()["files"] != first["files"]


def test_the_build_depends_on_names_and_splits_not_on_the_place(tmp_path: Path, folder: Path) -> None:
    plan = plan_build(Videos(folder))
    shutil.copytree(folder, tmp_path / "moved")
    assert plan_build(Videos(tmp_path / "moved")).build == plan.build
    (tmp_path / "moved/h.mpg").rename(tmp_path / "moved/0.mpg")  # the same files, but each has another place
    assert plan_build(Videos(tmp_path / "moved")).build != plan.build
    assert str(tmp_path) not in json.dumps(Videos(tmp_path / "moved").parameters())


def still_and_moving() -> Bytes:
    """Return four stretches of 10 frames: moving, still, black, moving."""
    frames = noise(40, 5)
    frames[10:20] = frames[10]
    frames[20:30] //= 64
    return frames


def test_still_and_black_clips_are_left_out_and_counted(tmp_path: Path) -> None:
    record(tmp_path / "a.mkv", still_and_moving())
    data = Videos(tmp_path, size=16, clip_length=10, skip_still=0.5, skip_black=4)
    found = list(data.clips("train", 0))
    assert [clip.why if isinstance(clip, LeftOut) else clip.key[-8:] for clip in found] == [
        "00000000",
        "still",
        "black",
        "00000003",
    ]
    assert len(kept(Videos(tmp_path, size=16, clip_length=10), "train")) == 4


def test_brightness_and_change_are_in_grey_levels() -> None:
    frames = np.full((4, 2, 2, 3), 10, np.uint8)
    assert (brightness(frames), change(frames)) == (10, 0)
    frames[2] = 250  # up by 240 and down by 240 in three steps
    assert (brightness(frames), change(frames)) == (250, 160)
    assert change(frames[:1]) == 0


@pytest.mark.parametrize(
    ("frames", "length", "stride", "found"),
    [(20, 20, None, [1, 0]), (21, 20, None, [1, 1]), (25, 10, 5, [4, 0]), (27, 10, 5, [4, 1]), (25, 10, 15, [2, 0])],
)
def test_a_tail_is_counted_once(tmp_path: Path, frames: int, length: int, stride: int | None, found: list[int]) -> None:
    record(tmp_path / "a.mkv", noise(frames, 0))
    clips = list(Videos(tmp_path, size=16, clip_length=length, stride=stride).clips("train", 0))
    tails = [clip for clip in clips if clip == LeftOut("shorter than a clip")]
    assert [len(clips) - len(tails), len(tails)] == found


def test_a_video_shorter_than_a_clip_is_filtered(tmp_path: Path) -> None:
    record(tmp_path / "a.mkv", noise(12, 0))
    with pytest.raises(ItemFiltered, match=r"^12 frames, shorter than a clip of 13$"):
        kept(Videos(tmp_path, clip_length=13), "train")


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder with sound, damaged, short, copied, still and strangely named files."""
    root = tmp_path / "mixed"
    whole = record(root / "a.mov", noise(25, 0, 32)).read_bytes()
    (root / "cut.mov").write_bytes(whole[: len(whole) // 2])
    (root / "garbage.mp4").write_bytes(noise(9, 1).tobytes())
    (root / "empty.avi").touch()
    (root / "lost.mkv").symlink_to(root / "nothing")
    record(root / "short.mkv", noise(4, 2))
    record(root / "still.mkv", np.full((20, 16, 16, 3), 90, np.uint8))
    (root / "z-copy.mov").write_bytes(whole)
    record(root / os.fsdecode("-ü'\n%d \udcff.mkv".encode("utf-8", "surrogateescape")), noise(13, 3))
    return root


def test_a_build_keeps_the_sound_and_accounts_for_the_rest(mixed: Path, tmp_path: Path) -> None:
    data = Videos(mixed, size=16, clip_length=5, skip_still=1.0, test_share=0)
    report = build(plan_build(data, "raw", 2), tmp_path / "out")
    assert report.counts == {"train": {"failed": 4, "filtered": 3, "written": 2}, "test": {}}
    rows = [json.loads(line) for line in (tmp_path / "out/accounting.jsonl").read_text().splitlines()]
    ends = {row["item"]: (row["fate"], row["clips"], row.get("why", "")) for row in rows}
    assert ends["a.mov"] == ("written", 5, "")
    assert ends["-ü'\n%d \\xff.mkv"] == ("written", 2, "")
    assert ends["empty.avi"] == ("failed", 0, "it is empty")
    assert ends["garbage.mp4"][:2] == ("failed", 0)
    assert ends["lost.mkv"][2] == "it cannot be read (No such file or directory)"
    assert ends["cut.mov"][:2] == ("failed", 0)
    assert ends["cut.mov"][2].startswith("ffmpeg: ")
    assert ends["short.mkv"] == ("filtered", 0, "4 frames, shorter than a clip of 5")
    assert ends["still.mkv"] == ("filtered", 0, "no clip is left")
    assert ends["z-copy.mov"] == ("filtered", 0, "a copy of a.mov")
    left_out = {row["item"]: row["left_out"] for row in rows if "left_out" in row}
    assert left_out == {"-ü'\n%d \\xff.mkv": {"shorter than a clip": 1}, "still.mkv": {"still": 4}}
    assert sum(row.clips for row in report.manifest.splits["train"]) == 7
    assert len(rows) == 9 == len(items(data, "train"))
    assert str(tmp_path) not in (tmp_path / "out/manifest.json").read_text() + json.dumps(rows)
    assert verify_data(tmp_path / "out")[0] == []


def test_two_processes_write_the_same_bytes_as_one(folder: Path, tmp_path: Path) -> None:
    data = Videos(folder, size=16, fps=10, clip_length=4, stride=2, test_share=0.25)
    for workers in (1, 2):
        build(plan_build(data, "zstd", 3), tmp_path / str(workers), workers)
    files = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert Counter(name.partition("-")[0] for name in files)["train"] == 4
    for name in files:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    assert verify_data(tmp_path / "2")[0] == []


def test_a_data_set_travels_small_and_is_made_again_from_its_parameters(folder: Path) -> None:
    data = Videos(folder, size=16, fps=12.5, crop="8x8+4+2", grey=True, clip_length=3, test_files=("b*",), skip_black=1)
    assert isinstance(data, DataSet)
    sent = pickle.dumps(data)
    assert len(sent) < 1000
    for again in (pickle.loads(sent), restore("videos", data.parameters(), source=folder)):  # noqa: S301 - our own
        assert again.parameters() == data.parameters()
        assert kept(again, "test")[0].frames.tobytes() == kept(data, "test")[0].frames.tobytes()
    assert kept(data, "test")[0].frames.shape == (3, *data.frame_shape()) == (3, 16, 16, 1)
    assert items(Limited(data, 2), "train") == ["a.mkv", "deep/d.webm"]


def test_every_setting_changes_the_build(folder: Path) -> None:
    others: list[dict[str, Any]] = [
        {},
        {"size": 32},
        {"fps": 5},
        {"crop": "square"},
        {"crop": "8x8+0+0"},
        {"grey": True},
        {"clip_length": 19},
        {"stride": 19},
        {"skip_still": 1},
        {"skip_black": 1},
        {"test_share": 0.2},
        {"test_files": ("a*",)},
        {"seed": 1},
    ]
    assert len({plan_build(Videos(folder, **other)).build for other in others}) == len(others)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"size": 7}, "size 7 is not allowed; choose a number from 8 to 1024"),
        ({"fps": 0}, "fps 0 is not allowed; choose a number from 0.001 to 240, or none"),
        ({"fps": float("nan")}, "fps nan is not allowed"),
        ({"crop": "centre"}, "crop 'centre' is not allowed; choose 'square' or WIDTHxHEIGHT.LEFT.TOP"),
        ({"crop": "0x5+0+0"}, "crop '0x5.0.0' is not allowed"),
        ({"clip_length": 0}, "clip-length 0 is not allowed"),
        ({"stride": 0}, "stride 0 is not allowed"),
        ({"test_share": 1.0}, "test-share 1.0 is not allowed; choose a number from 0 to below 1"),
        ({"skip_still": -1.0}, "skip-still -1.0 is not allowed"),
        ({"skip_black": 256.0}, "skip-black 256.0 is not allowed"),
        ({"seed": -1}, "seed -1 is not allowed"),
    ],
)
def test_a_wrong_value_is_told_in_one_line(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError, match=told) as error:
        Videos("nowhere", **wrong)
    assert "\n" not in str(error.value)


def test_a_source_without_videos_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no video in .*; it must hold files with the endings \.avi, "):
        Videos(tmp_path).sources()
    with pytest.raises(DataError, match=r"is no folder that can be read \(No such file or directory\)"):
        Videos(tmp_path / "missing").sources()
    record(tmp_path / "a.mkv", noise(3, 0))
    with pytest.raises(DataError, match=r"is no folder that can be read \(Not a directory\)"):
        Videos(tmp_path / "a.mkv").sources()
