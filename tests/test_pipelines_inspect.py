"""Looking at data sets: the numbers are those of the shards, the pictures those of the clips."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from drnet.datasets.contract import DataError, Label
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.looking.inspect import caption, describe_data, describe_label, preview_data
from drnet.pipelines.source import open_shards

TYPES = {
    "index": Label("number", unit="id"),
    "speed": Label("number", unit="pixel per frame"),
    "x": Label("number", varying=True, unit="pixel"),
    "angle": Label("number", varying=True, unit="degree", period=360),
    "style": Label("category", names=("dining", "stool")),
}
LABELS: dict[str, Any] = {"index": 712, "speed": -2, "x": [1, 2], "angle": [0.0, 12.3456], "style": 1, "more": "x"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "digits"
    build(plan_build(BouncingDigits("optdigits", clips=5, frames=7, size=32), "zstd", 2), out)
    return out


def test_a_caption_tells_categories_first_and_never_names(folder: Path) -> None:
    assert caption(LABELS, TYPES, None) == ["style stool", "speed -2"]
    assert caption(LABELS, TYPES, 1) == ["style stool", "x 2", "angle 12.35°", "speed -2"]
    labels = open_shards(folder).labels(0)
    lines = caption(labels, open_shards(folder).label_types, None)
    assert [line.split()[0] for line in lines] == ["digit_red", "digit_green", "front", "vx_red"]
    assert lines[2] == f"front {('red', 'green')[labels['front']]}"


def test_a_caption_without_types_is_empty() -> None:
    assert caption(LABELS, {}, 0) == []


def test_labels_are_described_in_a_few_words() -> None:
    assert {name: describe_label(label) for name, label in TYPES.items()} == {
        "index": "static number that only names (id)",
        "speed": "static number in pixel per frame",
        "x": "varying number in pixel",
        "angle": "varying number in degree, period 360",
        "style": "static category of 2",
    }


def test_a_description_counts_what_the_shards_hold(folder: Path) -> None:
    found = describe_data(folder)
    train = found["splits"]["train"]
    assert (train["clips"], train["frames"], train["shards"], train["items"]) == (5, 35, 3, {"written": 5})
    assert train["bytes"] == sum(path.stat().st_size for path in folder.glob("train-*.tar"))
    assert found["frame_shape"] == [32, 32, 3]
    assert found["parameters"]["frames"] == 7
    assert found["sources"] == ["optdigits"]


def test_a_contact_sheet_shows_the_frames_of_each_clip_in_time(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "sheet.PNG"
    preview_data(folder, out, clips=2, first=3)
    page = np.asarray(Image.open(out).convert("RGB"))
    frames = [open_shards(folder).frames(number) for number in (3, 4)]
    pitch = 96 + 2
    left, top = page.shape[1] - 7 * pitch, page.shape[0] - 2 * pitch
    for row, video in enumerate(frames):
        for time, frame in enumerate(video):
            y, x = top + row * pitch, left + time * pitch
            assert np.array_equal(page[y : y + 96 : 3, x : x + 96 : 3], frame), (row, time)


def test_an_animation_has_a_picture_for_each_frame(folder: Path, tmp_path: Path) -> None:
    preview_data(folder, tmp_path / "x.mp4", clips=5)
    (tmp_path / "x.mp4").unlink()
    preview_data(folder, tmp_path / "x.gif", clips=5)
    with Image.open(tmp_path / "x.gif") as animation:
        assert animation.n_frames == 7
        assert animation.info["loop"] == 0
        assert animation.size[0] >= 3 * 96
    assert [path.name for path in tmp_path.iterdir()] == ["x.gif"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": "x.jpg"}, "x.jpg: .jpg is not supported; use .png"),
        ({"out": "x"}, "no ending is not supported"),
        ({"first": 5}, "clip 5 is not there: split train has 5 clips"),
        ({"first": -1}, "clip -1 is not there"),
        ({"split": "val"}, "no clips in split val"),
    ],
    ids=str,
)
def test_what_cannot_be_drawn_is_told(folder: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        preview_data(folder, tmp_path / options.pop("out", "x.png"), **options)
    assert not list(tmp_path.iterdir())
