"""Pictures for people: every tile in its place, and files that other programs open."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drnet.pipelines.looking.pictures import (
    GAP,
    TILE,
    enlarge,
    save_curves,
    save_gif,
    save_png,
    swap_sheet,
    tile,
    to_rgb,
    unit_to_uint8,
    with_margins,
)


def plain(value: int, channels: int = 3) -> np.ndarray:
    return np.full((4, 6, channels), value, np.uint8)


def test_tiles_lie_in_rows_and_columns_with_gaps() -> None:
    sheet = tile([[plain(10), plain(20)], [None, plain(40)]])
    assert sheet.shape == (2 * (4 + GAP) + GAP, 2 * (6 + GAP) + GAP, 3)
    assert (sheet[GAP : GAP + 4, GAP : GAP + 6] == 10).all()
    assert (sheet[GAP : GAP + 4, 2 * GAP + 6 : 2 * GAP + 12] == 20).all()
    assert (sheet[2 * GAP + 4 :, : 2 * GAP + 6] == 255).all()  # None leaves a place empty
    assert (sheet[2 * GAP + 4 : 2 * GAP + 8, 2 * GAP + 6 : 2 * GAP + 12] == 40).all()
    assert (sheet[:GAP] == 255).all()


def test_grey_frames_get_three_channels_and_colours_stay() -> None:
    assert to_rgb(plain(7, 1)).shape == (4, 6, 3)
    coloured = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), np.uint8)
    assert np.array_equal(to_rgb(coloured), coloured)
    assert (tile([[plain(7, 1)]])[GAP:-GAP, GAP:-GAP] == 7).all()


def test_enlarging_repeats_pixels() -> None:
    frame = np.arange(32 * 32 * 3, dtype=np.uint32).astype(np.uint8).reshape(32, 32, 3)
    large = enlarge(frame)
    assert large.shape == (96, 96, 3)
    assert np.array_equal(large[::3, ::3], frame)
    assert np.array_equal(large[2::3, 2::3], frame)
    assert enlarge(large).shape == large.shape


def test_margins_add_text_and_leave_the_sheet_as_it_is() -> None:
    sheet = tile([[plain(100)] * 40] * 6)
    page = with_margins(sheet, "a title", ["first", "second\nline", "third"])
    left, top = page.shape[1] - sheet.shape[1], page.shape[0] - sheet.shape[0]
    assert left > 0
    assert top > 0
    assert np.array_equal(page[top:, left:], sheet)
    assert (page[:top] < 128).any()
    assert (page[top:, :left] < 128).any()
    assert np.array_equal(with_margins(sheet), sheet)


def test_a_title_longer_than_the_sheet_is_not_cut() -> None:
    page = with_margins(tile([[plain(0)]]), "a title that is much longer than the picture below it")
    assert page.shape[1] > 200
    assert (page[:, -4:] == 255).all()


def test_a_png_opens_with_the_same_pixels(tmp_path: Path) -> None:
    sheet = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    save_png(tmp_path / "deep" / "a.png", sheet)
    with Image.open(tmp_path / "deep" / "a.png") as image:
        assert np.array_equal(np.asarray(image), sheet)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.png"]


def test_a_gif_has_every_frame_and_repeats(tmp_path: Path) -> None:
    sheets = [np.full((8, 8, 3), value, np.uint8) for value in (0, 120, 240)]
    save_gif(tmp_path / "a.gif", sheets, fps=5)
    with Image.open(tmp_path / "a.gif") as image:
        assert (image.n_frames, image.info["loop"], image.info["duration"]) == (3, 0, 200)
        for number, value in enumerate((0, 120, 240)):
            image.seek(number)
            assert np.abs(np.asarray(image.convert("RGB")).astype(int) - value).max() < 12


@pytest.mark.parametrize("with_truth", [True, False])
def test_a_swap_grid_has_contents_left_poses_above_and_the_truth_below(with_truth: bool) -> None:
    content, pose = [plain(10), plain(20)], [plain(30), plain(40), plain(50)]
    swapped = np.stack([np.stack([plain(100 + 10 * row + column) for column in range(3)]) for row in range(2)])
    truth = [[plain(200 + 10 * row + column) for column in range(3)] for row in range(2)]
    page = swap_sheet(content, pose, swapped, truth if with_truth else None)
    rows = [[None, 30, 40, 50], [10, 100, 101, 102], [20, 110, 111, 112]]
    if with_truth:
        rows.insert(2, [None, 200, 201, 202])
        rows.append([None, 210, 211, 212])
    high, wide = TILE, TILE // 4 * 6  # frames of 4x6 are enlarged
    height, width = len(rows) * (high + GAP) + GAP, 4 * (wide + GAP) + GAP
    left = int(np.flatnonzero((page[-height + GAP + 1] == 30).all(1))[0]) - (2 * GAP + wide)
    sheet = page[-height:, left : left + width]
    for r, row in enumerate(rows):
        for c, value in enumerate(row):
            cell = sheet[GAP + r * (high + GAP) :, GAP + c * (wide + GAP) :][:high, :wide]
            assert (cell == (255 if value is None else value)).all()


def test_curves_are_drawn(tmp_path: Path) -> None:
    save_curves(tmp_path / "c.png", {"a": ([1, 2, 3], [0.1, 0.01, 0.2]), "b": ([1, 2], [3, 4])}, "title", "loss")
    save_curves(tmp_path / "d.png", {"a": ([1, 2, 3], [-1.0, 0.0, 2.0])}, "title", "loss")
    for name in ("c.png", "d.png"):
        with Image.open(tmp_path / name) as image:
            assert image.size == (660, 352)
            assert len(image.convert("RGB").getcolors(1 << 20) or []) > 20


def test_floats_become_bytes_by_rounding() -> None:
    values = np.array([-0.5, 0, 0.4 / 255, 0.6 / 255, 0.5, 1, 1.5], np.float32)
    assert unit_to_uint8(values).tolist() == [0, 0, 0, 1, 128, 255, 255]
