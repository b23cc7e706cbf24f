"""Image files as frames: every kind of file is made by code, and comes out as the pixels it shows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from drnet.datasets.contract import ItemFailed
from drnet.datasets.reading.image_files import read_image, square

RAMP = (np.arange(6 * 8).reshape(6, 8) * 5).astype(np.uint8)
PAINTED = np.stack([RAMP, 255 - RAMP, RAMP // 2], axis=-1)


def saved(tmp_path: Path, image: Image.Image, name: str = "a.png", **options: Any) -> Path:
    image.save(tmp_path / name, **options)
    return tmp_path / name


def reason(path: Path) -> str:
    with pytest.raises(ItemFailed) as caught:
        read_image(path, "rgb")
    text = str(caught.value)
    assert text.startswith(path.name)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.ppm", "a.webp", "a.jp2"])
def test_lossless_formats_keep_every_pixel(tmp_path: Path, name: str) -> None:
    options = {"lossless": True} if name == "a.webp" else {"irreversible": False} if name == "a.jp2" else {}
    path = saved(tmp_path, Image.fromarray(PAINTED), name, **options)
    assert np.array_equal(read_image(path, "rgb"), PAINTED)


def test_jpeg_is_close(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(PAINTED), "a.jpg", quality=98, subsampling=0)
    assert np.abs(read_image(path, "rgb").astype(int) - PAINTED).max() <= 6


def test_grey_becomes_three_equal_channels_or_one(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(RAMP))
    assert np.array_equal(read_image(path, "grey"), RAMP[..., None])
    assert np.array_equal(read_image(path, "rgb"), np.repeat(RAMP[..., None], 3, axis=2))


def test_grey_of_colours_is_their_luma(tmp_path: Path) -> None:
    luma = PAINTED @ np.array([0.299, 0.587, 0.114])
    grey = read_image(saved(tmp_path, Image.fromarray(PAINTED)), "grey")
    assert np.abs(grey[..., 0] - luma).max() <= 1


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
@pytest.mark.parametrize("colour", ["rgb", "grey"])
def test_sixteen_bits_become_eight(tmp_path: Path, name: str, colour: Any) -> None:
    values = np.array([[0, 128, 129, 257], [32768, 65407, 65406, 65535]], np.uint16)
    pixels = read_image(saved(tmp_path, Image.fromarray(values), name), colour)
    assert pixels[..., 0].tolist() == [[0, 0, 1, 1], [128, 255, 254, 255]]
    assert pixels.shape == (2, 4, 3 if colour == "rgb" else 1)


def test_black_and_white_is_0_and_255(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(RAMP > 100))
    assert np.array_equal(read_image(path, "grey")[..., 0], (RAMP > 100) * 255)


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    for name in ("a.png", "a.gif"):
        assert read_image(saved(tmp_path, image, name), "rgb").tolist() == [[[10, 20, 30], [200, 100, 50]]]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_is_white(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (3, 1))
    for x, alpha in enumerate((0, 255, 51)):
        image.putpixel((x, 0), (0, 0, 0, alpha) if mode == "RGBA" else (0, alpha))
    for colour in ("rgb", "grey"):
        assert read_image(saved(tmp_path, image), colour)[0, :, 0].tolist() == [255, 0, 204]


def test_a_transparent_colour_of_a_palette_is_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    pixels = read_image(saved(tmp_path, image, transparency=0), "rgb")
    assert pixels.tolist() == [[[255, 255, 255], [200, 100, 50]]]


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.new("CMYK", (2, 2), (255, 0, 0, 0)), "a.tiff")
    assert read_image(path, "rgb")[0, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_the_orientation_noted_by_a_camera_is_applied(tmp_path: Path, orientation: int, turns: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, Image.fromarray(PAINTED), exif=exif)
    assert np.array_equal(read_image(path, "rgb"), np.rot90(PAINTED, turns))


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)))
    content = path.read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "flipped.png").write_bytes(content[:30] + b"\xff\xff" + content[32:])
    assert "truncated" in reason(tmp_path / "cut.png")
    assert "not an image of a known format" in reason(tmp_path / "text.png")
    assert "not an image of a known format" in reason(tmp_path / "empty.png")
    reason(tmp_path / "flipped.png")
    assert "No such file" in reason(tmp_path / "none.png")


def test_a_format_that_starts_a_program_is_not_opened(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(PAINTED), "a.eps")
    assert "not an image of a known format" in reason(path.rename(tmp_path / "a.png"))


def test_several_pictures_in_a_file_are_refused(tmp_path: Path) -> None:
    pages = [Image.fromarray(PAINTED), Image.fromarray(255 - PAINTED)]
    for name in ("a.gif", "a.tiff", "a.png", "a.webp"):
        assert "holds 2 pictures" in reason(saved(tmp_path, pages[0], name, save_all=True, append_images=pages[1:]))


def test_the_first_picture_of_a_camera_file_is_taken(tmp_path: Path) -> None:
    bright, dark = (Image.new("RGB", (16, 16), (value,) * 3) for value in (200, 20))
    path = saved(tmp_path, bright, "a.mpo", save_all=True, append_images=[dark]).rename(tmp_path / "a.jpg")
    assert np.abs(read_image(path, "grey").astype(int) - 200).max() <= 2


@pytest.mark.parametrize("most", [47, 20])  # above it Pillow warns, above twice it Pillow raises
def test_too_many_pixels_are_refused(tmp_path: Path, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, Image.fromarray(RAMP))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 48)
    read_image(path, "rgb")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    assert "pixels" in reason(path)


def test_values_that_are_no_brightness_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(RAMP.astype(np.float32)), "a.tiff")
    assert "floating point" in reason(path)
    path = saved(tmp_path, Image.fromarray(RAMP.astype(np.int32) * 1000), "b.tiff")
    assert "0 to 235000" in reason(path)


@pytest.mark.parametrize(("shape", "top", "left"), [((6, 10), 0, 2), ((10, 6), 2, 0), ((7, 10), 0, 1), ((6, 6), 0, 0)])
def test_cropping_keeps_the_middle_square(shape: tuple[int, int], top: int, left: int) -> None:
    image = np.arange(3 * shape[0] * shape[1]).astype(np.uint8).reshape(*shape, 3)
    side = min(shape)
    assert np.array_equal(square(image, side, crop=True), image[top : top + side, left : left + side])


def test_without_cropping_an_image_is_stretched() -> None:
    image = np.zeros((4, 8, 1), np.uint8)
    image[:, 6:] = 200  # the middle square does not see it
    assert square(image, 4, crop=False)[:, -1].min() > 100
    assert square(image, 4, crop=True).max() == 0
