"""An image file as one frame: any of the usual formats, upright, without transparency, 8 bits, square.

* The orientation that a camera has noted (EXIF) is applied.
* 16-bit grey becomes 8-bit grey: each value divided by 257 and rounded. Pillow itself keeps the upper byte of 16-bit
  colour. Grey stored in 32-bit integers must lie in the range of 16 bits; floating point is refused.
* What is transparent shows white behind it. Palettes are looked up; CMYK becomes RGB.
* Grey made from colour is the luma of ITU-R BT.601, as Pillow computes it.
* A file with several pictures (an animation, a TIFF of pages) is refused; of the multi-picture files of cameras and
  phones (MPO), whose others are previews or other views, the first is taken.
"""

import functools
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from drnet.datasets.contract import ItemFailed
from drnet.datasets.scale import scale

Colour = Literal["rgb", "grey"]
Bytes = NDArray[np.uint8]

FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")  # none that starts a program
SIXTEEN = 257  # 65535 / 255


def read_image(path: Path, colour: Colour) -> Bytes:
    """Read an image file at its own size.

    Args:
        path: the file.
        colour: `rgb` for three channels, `grey` for one.

    Returns:
        (H, W, C) uint8.

    Raises:
        ItemFailed: with the file's name, where it cannot be read or is not an image as above.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks about odd files that it can read
            with Image.open(path, formats=_formats()) as image:
                _refuse_huge(image)
                pictures = getattr(image, "n_frames", 1)
                if pictures > 1 and image.format != "MPO":
                    raise ValueError(f"it holds {pictures} pictures")
                return _plain(image, colour)
    except Exception as error:  # what a decoder may raise on a broken file is no closed list
        raise ItemFailed(f"{path.name} cannot be read: {_reason(error)}") from None


@functools.cache
def _formats() -> tuple[str, ...]:
    """Return the formats that this Pillow was built with; until `init` it knows only the commonest."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _refuse_huge(image: Image.Image) -> None:
    """Refuse what Pillow only warns of: a small file may unpack to more than the memory holds."""
    most, pixels = Image.MAX_IMAGE_PIXELS, image.width * image.height
    if most is not None and pixels > most:
        raise ValueError(f"it has {pixels:,} pixels; at most {most:,} are read")


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is not an image of a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _plain(image: Image.Image, colour: Colour) -> Bytes:
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("its pixels are floating point numbers")
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = _eight_bits(np.asarray(image))[..., None]
        return np.repeat(grey, 3, axis=2) if colour == "rgb" else grey
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    if colour == "rgb":
        return np.asarray(image.convert("RGB"))
    straight = image.mode in ("1", "L", "RGB", "RGBA")
    return np.asarray((image if straight else image.convert("RGB")).convert("L"))[..., None]


def _eight_bits(values: NDArray[np.generic]) -> Bytes:
    wide = values.astype(np.int32)
    if wide.size and not 0 <= wide.min() <= wide.max() <= 65_535:
        raise ValueError(f"its values are {wide.min()} to {wide.max()}; 16 bits go from 0 to 65535")
    return ((wide + SIXTEEN // 2) // SIXTEEN).astype(np.uint8)


def square(image: Bytes, size: int, crop: bool) -> Bytes:
    """Resize an image to a square.

    Args:
        image: (H, W, C) uint8.
        size: new height and width in pixels.
        crop: cut the middle square out first; else the image is stretched.

    Returns:
        (size, size, C) uint8.
    """
    if crop:
        height, width = image.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        image = image[top : top + side, left : left + side]
    return scale(image[None], size, size)[0]
