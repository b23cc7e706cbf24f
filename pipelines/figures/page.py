"""A page of frames, texts and lines, placed in pixels: drawn as a picture, or written as SVG.

Both show the same page. In an SVG every frame is a PNG of its own pixels, and every text is text.
"""

import base64
import io
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Literal
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from drnet.pipelines.looking.pictures import PAPER, Frames, to_rgb

INK, PALE, EDGE, MARK = "#111111", "#666666", "#d0d0d0", "#1f6fb4"
SIZE = 12  # pixels, of plain text
Anchor = Literal["start", "middle", "end"]
SHIFT = {"start": 0.0, "middle": 0.5, "end": 1.0}


@dataclass(frozen=True)
class Text:
    """One line of text; `y` is its top, `x` where its anchor is."""

    x: float
    y: float
    words: str
    size: int = SIZE
    colour: str = INK
    anchor: Anchor = "start"


@dataclass(frozen=True)
class Picture:
    """A frame (H, W, C) uint8 shown `factor` times as large, inside an outline."""

    x: int
    y: int
    frame: Frames
    factor: float
    outline: str = EDGE
    thick: int = 1

    @property
    def width(self) -> int:
        """Pixels that it takes on the page, without its outline."""
        return round(self.frame.shape[1] * self.factor)

    @property
    def height(self) -> int:
        """Pixels that it takes on the page, without its outline."""
        return round(self.frame.shape[0] * self.factor)


@dataclass(frozen=True)
class Line:
    """A straight line."""

    x1: float
    y1: float
    x2: float
    y2: float
    colour: str = PALE
    thick: int = 1


@dataclass(frozen=True)
class Page:
    """What is drawn where; the title and the description are for those who cannot see it.

    A picture of it has `zoom` of its own pixels for each of the page's, so that frames which the page shows smaller keep
    all of theirs, and texts are as large beside them as the page has them.
    """

    width: int
    height: int
    items: tuple[Text | Picture | Line, ...]
    title: str
    description: str = ""
    zoom: int = 1


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font that pictures are written in."""
    return ImageFont.load_default(size)


def shown(words: str) -> str:
    """Return a text without what no page can hold: control characters, and halves of characters."""
    return "".join("?" if unicodedata.category(letter) in ("Cc", "Cs", "Co", "Cn") else letter for letter in words)


def width_of(words: str, size: int = SIZE) -> float:
    """Return how many pixels wide a line of text is."""
    return font(size).getlength(shown(words))


def wrapped(words: str, width: float, size: int = SIZE) -> list[str]:
    """Break a text into lines of at most a width in pixels, between words where that is possible."""
    lines: list[str] = []
    for paragraph in words.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}" if line else word
            if line and width_of(longer, size) > width:
                lines.append(line)
                longer = word
            *cut, line = _cut(longer, width, size)
            lines += cut
        lines.append(line)
    return lines


def _cut(word: str, width: float, size: int) -> list[str]:
    """Cut a word that is too long alone, behind a sign if there is one near."""
    parts = []
    while width_of(word, size) > width and len(word) > 1:
        fits = next(
            length for length in range(len(word) - 1, 0, -1) if length == 1 or width_of(word[:length], size) <= width
        )
        sign = max(word.rfind(sign, 0, fits) for sign in "_-/.:") + 1
        end = sign if sign > fits // 3 else fits
        parts.append(word[:end])
        word = word[end:]
    return [*parts, word]


def to_picture(page: Page) -> Frames:
    """Draw a page as a picture (H, W, 3) uint8."""
    z = page.zoom
    image = Image.new("RGB", (z * page.width, z * page.height), (PAPER,) * 3)
    draw = ImageDraw.Draw(image)
    for item in page.items:
        if isinstance(item, Line):
            draw.line((z * item.x1, z * item.y1, z * item.x2, z * item.y2), item.colour, z * item.thick)
        elif isinstance(item, Picture):
            x, y, width, height, t = (z * one for one in (item.x, item.y, item.width, item.height, item.thick))
            draw.rectangle((x - t, y - t, x + width + t - 1, y + height + t - 1), item.outline)
            draw.rectangle((x - z, y - z, x + width + z - 1, y + height + z - 1), item.outline)
            times = max(1, round(item.factor * z))
            large = to_rgb(item.frame).repeat(times, 0).repeat(times, 1)
            image.paste(Image.fromarray(np.ascontiguousarray(large)), (x, y))
        else:
            size = z * item.size
            left = z * item.x - SHIFT[item.anchor] * width_of(item.words, size)
            draw.text((left, z * item.y), shown(item.words), item.colour, font(size))
    return np.asarray(image)


def to_svg(page: Page) -> bytes:
    """Write a page as SVG: well-formed XML whatever the texts hold, with nothing from elsewhere and no scripts."""
    size = f'width="{page.width}" height="{page.height}" viewBox="0 0 {page.width} {page.height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" font-family="Helvetica, Arial, sans-serif">',
        f"<title>{escape(shown(page.title))}</title>",
        f"<desc>{escape(shown(page.description))}</desc>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        *(_element(item) for item in page.items),
        "</svg>",
    ]
    return ("\n".join(lines) + "\n").encode()


def _element(item: Text | Picture | Line) -> str:
    if isinstance(item, Line):
        ends = f'x1="{item.x1:g}" y1="{item.y1:g}" x2="{item.x2:g}" y2="{item.y2:g}"'
        return f'<line {ends} stroke="{item.colour}" stroke-width="{item.thick}"/>'
    if isinstance(item, Picture):
        t = item.thick
        place = f'x="{item.x - t / 2:g}" y="{item.y - t / 2:g}" width="{item.width + t}" height="{item.height + t}"'
        where = f'x="{item.x}" y="{item.y}" width="{item.width}" height="{item.height}"'
        source = "data:image/png;base64," + base64.b64encode(_png(item.frame)).decode()
        return (
            f'<rect {place} fill="none" stroke="{item.outline}" stroke-width="{t}"/>'
            f'<image {where} preserveAspectRatio="none" style="image-rendering:pixelated" href="{source}"/>'
        )
    length = width_of(item.words, item.size)  # so that another font takes no more room than this page has for it
    fit = f'textLength="{length:.1f}" lengthAdjust="spacingAndGlyphs"' if length else ""
    look = f'font-size="{item.size}" fill={quoteattr(item.colour)} text-anchor="{item.anchor}"'
    baseline = item.y + 0.95 * item.size
    return f'<text x="{item.x:g}" y="{baseline:g}" {look} {fit}>{escape(shown(item.words))}</text>'


def _png(frame: Frames) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(frame[..., 0] if frame.shape[-1] == 1 else frame)).save(
        buffer, "PNG", optimize=True
    )
    return buffer.getvalue()
