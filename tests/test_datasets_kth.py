"""KTH actions, from a small source under its true names and in its true formats."""

import functools
import json
import pickle
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from drnet.datasets import kth
from drnet.datasets.contract import Clip, DataError, DataSet, ItemFailed, ItemMissing, Split
from drnet.datasets.kth import Expected, Kth, persons_of, text_of
from drnet.datasets.reading.ffmpeg_binary import ffmpeg_path
from drnet.datasets.reading.kth_frames import read_frames
from drnet.datasets.scale import scale
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.verify import verify_data

LIST = """
Training:   person11, 12, 13

person01_boxing_d1\t\tframes\t1-12, 13-20, 21-30
person01_running_d2    \t\tframes\t3-10, 20-29
person02_handclapping_d3\tframes\t1-10, 10-15, 12-40
person13_handclapping_d3\t*missing*

person16_jogging_d4\t\tframes\t21-34, 1-9
person17_walking_d1\tframes\t1-24
person25_boxing_d2\t\tframes\t1-5, 31-36
"""
LENGTHS = {
    "person01_boxing_d1": 30,
    "person01_running_d2": 29,
    "person02_handclapping_d3": 40,
    "person16_jogging_d4": 34,
    "person17_walking_d1": 24,
    "person25_boxing_d2": 36,
}
TRAIN = ["person01_boxing_d1", "person01_running_d2", "person02_handclapping_d3", "person13_handclapping_d3"]
TRAIN += ["person16_jogging_d4"]


@functools.cache
def video(name: str) -> bytes:
    """A bright bar that moves a pixel with each frame, on a ramp of the video's own; half of it is a touch off grey."""
    count, seed = LENGTHS[name], list(LENGTHS).index(name)
    y, x = np.mgrid[:120, :160]
    frames = np.stack([(x // 2 + (y * seed) % 60 + 120 * (abs(x - 20 - t) < 5)) % 256 for t in range(count)])
    chroma = np.where(np.arange(80) < 40, 128, 127).astype(np.uint8).tobytes() * 120  # two planes of 60 lines
    raw = b"".join((16 + frame * 219 // 255).astype(np.uint8).tobytes() + chroma for frame in frames)
    words = [ffmpeg_path(), "-v", "error", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", "160x120", "-r", "25"]
    words += ["-i", "-", "-c:v", "mpeg4", "-vtag", "DX50", "-q:v", "2", "-g", "10"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.avi"
        subprocess.run([*words, str(path)], input=raw, check=True)
        return path.read_bytes()


def action(name: str) -> str:
    return name.split("_")[1]


def flat(folder: Path, *without: str) -> Path:
    """A source with all videos in one folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "00sequences.txt").write_bytes(LIST.replace("\n", "\r\n").encode())
    for name in LENGTHS:
        if name not in without:
            (folder / f"{name}_uncomp.avi").write_bytes(video(name))
    return folder


def nested(folder: Path) -> Path:
    """A source with a folder for each action, and somebody's other files."""
    flat(folder)
    for path in sorted(folder.glob("*.avi")):
        target = folder / "videos" / action(path.name) / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    (folder / "videos" / "holiday.avi").write_bytes(b"RIFF")
    (folder / "videos" / "._person01_boxing_d1_uncomp.avi").write_bytes(b"junk")
    return folder


def zipped(folder: Path) -> Path:
    """A source with the archives as they are downloaded."""
    flat(folder)
    for path in sorted(folder.glob("*.avi")):
        with zipfile.ZipFile(folder / f"{action(path.name)}.zip", "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(path.name, path.read_bytes())
            if path.name.startswith("person01_boxing"):
                archive.writestr("../../outside.txt", "text")
        path.unlink()
    return folder


SOURCES: dict[str, Callable[[Path], Path]] = {"flat": flat, "nested": nested, "zipped": zipped}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return flat(tmp_path_factory.mktemp("kth") / "source")


def clips_of(data: DataSet, split: Split) -> dict[str, Clip]:
    """All clips of a split; items that are missing are passed over."""
    found: dict[str, Clip] = {}
    for index in range(data.count(split)):
        try:
            found |= {clip.key: clip for clip in data.clips(split, index) if isinstance(clip, Clip)}
        except ItemMissing:
            continue
    return found


def frames_of(name: str) -> NDArray[np.uint8]:
    return read_frames(video(name), np.ones(LENGTHS[name], bool))


def test_each_range_is_a_clip_with_its_frames_and_labels(source: Path) -> None:
    clips = clips_of(Kth(source), "train")
    assert len(clips) == 3 + 2 + 3 + 2
    clip = clips["person01_running_d2-2"]
    assert clip.frames.shape == (10, 128, 128, 1)
    assert clip.labels == {
        "person": 1,
        "action": 4,
        "scenario": 1,
        "video": 17,
        "first_frame": 20,
        "last_frame": 29,
        "name": "person01_running_d2",
        "range": 2,
    }
    assert Kth.labels["action"].names[4] == "running"
    assert Kth.labels["scenario"].names[1].startswith("d2")


@pytest.mark.parametrize("size", [64, 128])
def test_a_clip_is_the_frames_of_its_range_resized_by_the_one_filter(source: Path, size: int) -> None:
    for split in ("train", "test"):
        for clip in clips_of(Kth(source, size=size), split).values():
            first, last = clip.labels["first_frame"], clip.labels["last_frame"]
            native = frames_of(clip.labels["name"])[first - 1 : last]
            assert np.array_equal(clip.frames, scale(native[..., 1:2], size, size)), clip.key


def test_frames_are_stretched_and_not_cropped(source: Path) -> None:
    clip = clips_of(Kth(source), "test")["person17_walking_d1-1"]
    for t in (0, 23):  # the bar is 20 + t pixels from the left, of 160
        bar = clip.frames[t, :20, :, 0].mean(axis=0).argmax()
        assert abs(bar - (20 + t) * 128 / 160) < 5


def test_three_channels_of_a_grey_video_are_alike_and_green_is_the_grey_one(source: Path) -> None:
    grey, rgb = Kth(source, size=64), Kth(source, size=64, colour="rgb")
    assert rgb.frame_shape() == (64, 64, 3)
    for key, clip in clips_of(rgb, "train").items():
        assert np.array_equal(clip.frames[..., 1:2], clips_of(grey, "train")[key].frames)
        assert 0 < np.ptp(clip.frames.astype(int), axis=-1).max() <= 4


def test_ranges_that_overlap_share_frames_and_out_of_order_they_stay(source: Path) -> None:
    clips = clips_of(Kth(source, size=32), "train")
    second, third = clips["person02_handclapping_d3-2"].frames, clips["person02_handclapping_d3-3"].frames
    assert np.array_equal(second[2:], third[:4])  # frames 12 to 15
    assert clips["person16_jogging_d4-1"].labels["first_frame"] == 21
    assert clips["person16_jogging_d4-2"].labels["first_frame"] == 1


def test_what_a_split_has_is_known_without_decoding(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Kth(source)
    monkeypatch.setattr(kth, "read_frames", None)
    assert data.expected("train") == Expected(4, 10, 30 + 18 + 45 + 23)
    assert data.expected("test") == Expected(2, 3, 24 + 11)
    assert [data.item("train", index) for index in range(data.count("train"))] == TRAIN


def test_the_clips_are_as_many_and_as_long_as_expected(source: Path) -> None:
    data = Kth(source, size=32)
    for split in ("train", "test"):
        clips = clips_of(data, split)
        expected = data.expected(split)
        assert (len(clips), sum(len(clip.frames) for clip in clips.values())) == expected[1:]


def test_another_split_keeps_its_persons_apart(source: Path) -> None:
    data = Kth(source, size=32, test_persons="21-25, 2")
    assert {clip.labels["person"] for clip in clips_of(data, "test").values()} == {2, 25}
    assert {clip.labels["person"] for clip in clips_of(data, "train").values()} == {1, 16, 17}


@pytest.mark.parametrize(
    ("text", "persons"), [("17-25", range(17, 26)), ("21,22,25", [21, 22, 25]), (" 3 , 1-2", [1, 2, 3]), ("9", [9])]
)
def test_persons_are_read_and_written(text: str, persons: Any) -> None:
    assert persons_of(text) == frozenset(persons)
    assert persons_of(text_of(persons_of(text))) == frozenset(persons)


def test_the_same_persons_are_the_same_parameter() -> None:
    assert Kth(test_persons="21-25").parameters() == Kth(test_persons="25,21-24,22").parameters()
    assert Kth(**Kth(test_persons="3,1").parameters()).parameters()["test_persons"] == "1,3"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"size": 100}, "size 100 is not allowed; it must be a multiple of 32 from 32 to 256, for example 128"),
        ({"colour": "blue"}, "colour 'blue' is not allowed; it must be 'grey' or 'rgb'"),
        ({"test_persons": "0-3"}, "test-persons '0-3' is not allowed; it must be like 17-25 or 21,22,25, from 1 to 25"),
        ({"test_persons": "5-26"}, "test-persons '5-26' is not allowed"),
        ({"test_persons": "9-7"}, "test-persons '9-7' is not allowed"),
        ({"test_persons": ""}, "test-persons '' is not allowed"),
        ({"test_persons": "1-25"}, "test-persons 1-25 is not allowed; it leaves no person for the train split"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_in_one_line(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(DataError) as caught:
        Kth(**settings)
    assert str(caught.value).startswith(line)


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kth") / "built"
    build(plan_build(Kth(source, size=64), "zstd", 2), folder)
    return folder


def test_a_build_verifies_and_every_video_is_accounted_for(built: Path) -> None:
    problems, checked = verify_data(built)
    assert not problems
    assert checked["clips"] == 13
    fates = [json.loads(line) for line in (built / "accounting.jsonl").read_text().splitlines()]
    assert [fate["item"] for fate in fates if fate["split"] == "train"] == TRAIN
    (missing,) = [fate for fate in fates if fate["fate"] != "written"]
    assert missing["item"] == "person13_handclapping_d3"
    assert missing["why"] == "the data set itself lacks it"
    assert sum(fate["clips"] for fate in fates) == 13


@pytest.mark.parametrize("kind", SOURCES)
def test_folders_and_archives_give_the_same_bytes_with_any_workers(kind: str, built: Path, tmp_path: Path) -> None:
    plan = plan_build(Kth(SOURCES[kind](tmp_path / "source"), size=64), "zstd", 2)
    build(plan, tmp_path / "built", workers=2 if kind == "zipped" else 1)
    names = sorted(path.name for path in built.iterdir())
    assert sorted(path.name for path in (tmp_path / "built").iterdir()) == names
    for name in names:
        assert (tmp_path / "built" / name).read_bytes() == (built / name).read_bytes(), name


def test_both_readers_build_the_same_clips(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = clips_of(Kth(source, size=64), "train")
    monkeypatch.setattr("drnet.datasets.reading.kth_frames.default_reader", lambda: "ffmpeg")
    for key, clip in clips_of(Kth(source, size=64), "train").items():
        assert np.array_equal(clip.frames, wanted[key].frames), key


def test_missing_videos_are_named_up_front_with_the_ways_out(tmp_path: Path) -> None:
    folder = flat(tmp_path, *list(LENGTHS)[:4])
    with pytest.raises(DataError) as caught:
        plan_build(Kth(folder))
    assert str(caught.value) == (
        f"4 of 6 videos are not in {folder} (person01_boxing_d1, person01_running_d2, person02_handclapping_d3, ...); "
        "`drnet data fetch kth` (or --fetch) downloads them, or build without them: --allow-missing"
    )


def test_what_was_missing_is_found_once_it_is_there(tmp_path: Path) -> None:
    data = Kth(flat(tmp_path, "person17_walking_d1"), size=32)
    with pytest.raises(DataError, match=r"^1 of 6 videos are not in .* \(person17_walking_d1\);"):
        data.sources()
    flat(tmp_path)
    assert len(data.sources()) == 7
    assert "person17_walking_d1-1" in clips_of(data, "test")


def test_missing_videos_are_counted_by_name_where_that_is_allowed(tmp_path: Path) -> None:
    folder = flat(tmp_path / "source", "person01_running_d2", "person17_walking_d1")
    data = Kth(folder, size=32, allow_missing=True)
    assert data.missing_items("train") == ["person01_running_d2", "person13_handclapping_d3"]
    report = build(plan_build(data), tmp_path / "built")
    assert report.counts == {"train": {"missing": 2, "written": 3}, "test": {"missing": 1, "written": 1}}
    lines = (tmp_path / "built" / "accounting.jsonl").read_text()
    assert '"person01_running_d2"' in lines
    assert "it is not in the source" in lines


def test_a_source_that_lacks_everything_names_both_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRNET_CACHE", str(tmp_path / "cache"))
    ways = r"; `drnet data fetch kth` \(or --fetch\) downloads them, or name the folder that has them: --source DIR$"
    with pytest.raises(DataError, match="^.*cache/kth: no such folder to take the KTH videos from" + ways):
        Kth().count("train")
    (tmp_path / "cache" / "kth").mkdir(parents=True)
    with pytest.raises(DataError, match=r"00sequences\.txt, the list of the KTH videos, is not there" + ways):
        Kth().count("train")
    flat(tmp_path / "cache" / "kth", *LENGTHS)
    with pytest.raises(DataError, match="none of the KTH videos is there, and none of their archives" + ways):
        Kth(allow_missing=True).count("train")


def test_with_fetch_the_source_is_downloaded_once_and_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Path]] = []

    def fetch(name: str, folder: Path, tell: Any) -> None:
        asked.append((name, folder))
        flat(folder)

    monkeypatch.setattr("drnet.datasets.fetching.fetch.fetch", fetch)
    data = Kth(tmp_path / "new", fetch=True)
    assert data.count("train") == 5
    assert asked == [("kth", tmp_path / "new")]
    monkeypatch.setattr("drnet.datasets.fetching.fetch.fetch", None)
    assert pickle.loads(pickle.dumps(data)).count("test") == 2  # noqa: S301 - as it travels to a worker


def damaged(name: str, tmp_path: Path, data: bytes) -> tuple[list[str], str]:
    """Return the keys of the clips that a damaged video still gives, and what is told of it."""
    folder = flat(tmp_path / "source")
    (folder / f"{name}_uncomp.avi").write_bytes(data)
    source = Kth(folder, size=32)
    sound = clips_of(Kth(flat(tmp_path / "sound"), size=32), "train")
    found: list[Clip] = []
    with pytest.raises(ItemFailed) as caught:
        found.extend(source.clips("train", TRAIN.index(name)))
    assert "\n" not in str(caught.value)
    for clip in found:
        assert np.array_equal(clip.frames, sound[clip.key].frames)
    return [clip.key for clip in found], str(caught.value)


def frame_at(data: bytes, number: int) -> int:
    """Return where the chunk of a frame begins, from 1."""
    at = data.index(b"movi")
    for _ in range(number):
        at = data.index(b"00dc", at + 4)
    return at


def test_a_cut_video_keeps_its_whole_ranges_and_is_reported(tmp_path: Path) -> None:
    data = video("person01_boxing_d1")
    cut = frame_at(data, 25) + 20
    keys, why = damaged("person01_boxing_d1", tmp_path, data[:cut])
    assert keys == ["person01_boxing_d1-1", "person01_boxing_d1-2"]
    assert why.startswith(f"its header states 30 frames and 24 are whole (the file ends after {cut} of ")
    assert why.endswith("; its ranges need 30: 2 of 3 are kept")


def test_a_video_that_is_blank_in_parts_is_reported(tmp_path: Path) -> None:
    data = video("person01_boxing_d1")
    start, end = frame_at(data, 15), frame_at(data, 17)
    keys, why = damaged("person01_boxing_d1", tmp_path, data[:start] + bytes(end - start) + data[end:])
    assert keys == ["person01_boxing_d1-1"]
    assert why.startswith("its header states 30 frames and 13 are whole (byte ")


def test_a_video_that_is_sound_but_shorter_than_its_ranges_is_reported(tmp_path: Path) -> None:
    folder = flat(tmp_path)
    shutil.copy(folder / "person01_boxing_d1_uncomp.avi", folder / "person02_handclapping_d3_uncomp.avi")
    found: list[Clip] = []
    with pytest.raises(ItemFailed) as caught:
        found.extend(Kth(folder).clips("train", 2))
    assert [clip.key[-1] for clip in found] == ["1", "2"]
    assert str(caught.value) == "its header states 30 frames and 30 are whole; its ranges need 40: 2 of 3 are kept"


@pytest.mark.parametrize("data", [b"", b"RIFF", bytes(5000)])
def test_a_file_that_is_no_video_gives_nothing(data: bytes, tmp_path: Path) -> None:
    folder = flat(tmp_path)
    (folder / "person01_boxing_d1_uncomp.avi").write_bytes(data)
    with pytest.raises(ItemFailed, match=r"^it is no AVI file$"):
        list(Kth(folder).clips("train", 0))


def test_a_damaged_member_of_an_archive_fails_alone(tmp_path: Path) -> None:
    folder = zipped(tmp_path / "source")
    data = bytearray((folder / "running.zip").read_bytes())
    data[1000:1100] = bytes(100)
    (folder / "running.zip").write_bytes(data)
    report = build(plan_build(Kth(folder, size=32)), tmp_path / "built")
    assert report.counts["train"] == {"failed": 1, "missing": 1, "written": 3}
    assert "it cannot be read from running.zip" in (tmp_path / "built" / "accounting.jsonl").read_text()


def test_only_the_list_and_the_videos_are_recorded_by_name_and_content(tmp_path: Path) -> None:
    plain, packed = Kth(nested(tmp_path / "a")).sources(), Kth(zipped(tmp_path / "b")).sources()
    assert plain == packed
    assert [file.name for file in plain] == ["00sequences.txt", *(f"{name}_uncomp.avi" for name in LENGTHS)]
    assert plain[1].size == len(video("person01_boxing_d1"))
