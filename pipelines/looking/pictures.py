"""Pictures for people: contact sheets, swap grids, animations, curves. Frames are uint8 (..., H, W, C)."""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import GifImagePlugin, Image, ImageDraw, ImageFont

from drnet.pipelines.files import whole_file, write_whole

Frames = NDArray[np.uint8]
PAPER = 255  # background
GAP = 2  # pixels between tiles
TILE = 96  # pixels: smaller frames are enlarged to about this


def to_rgb(frames: Frames) -> Frames:
    """Return frames with three channels."""
    return np.repeat(frames, 3, axis=-1) if frames.shape[-1] == 1 else frames


def enlarge(frames: Frames) -> Frames:
    """Repeat pixels in both directions until a frame (..., H, W, C) is about `TILE` high; larger ones stay."""
    factor = max(1, round(TILE / frames.shape[-3]))
    return frames.repeat(factor, axis=-3).repeat(factor, axis=-2)


def tile(rows: Sequence[Sequence[Frames | None]], gap: int = GAP) -> Frames:
    """Lay frames (H, W, C) of one size out in rows; None leaves a place empty."""
    first = next(cell for row in rows for cell in row if cell is not None)
    height, width = first.shape[:2]
    columns = max(len(row) for row in rows)
    sheet = np.full((len(rows) * (height + gap) + gap, columns * (width + gap) + gap, 3), PAPER, np.uint8)
    for r, row in enumerate(rows):
        for c, cell in enumerate(row):
            if cell is not None:
                top, left = gap + r * (height + gap), gap + c * (width + gap)
                sheet[top : top + height, left : left + width] = to_rgb(cell)
    return sheet


def with_margins(sheet: Frames, top: str = "", left: Sequence[str] = (), size: int = 11) -> Frames:
    """Write a title above a sheet and one text beside each of its evenly spaced rows."""
    font = ImageFont.load_default(size)
    longest = max((font.getlength(text) for line in left for text in line.split("\n")), default=0)
    margin = int(longest) + 8 if left else 0
    head = size + 8 if top else 0
    width = max(sheet.shape[1] + margin, int(font.getlength(top)) + 8)
    page = Image.new("RGB", (width, sheet.shape[0] + head), (PAPER,) * 3)
    page.paste(Image.fromarray(sheet), (margin, head))
    draw = ImageDraw.Draw(page)
    draw.text((4, 3), top, fill=(0, 0, 0), font=font)
    pitch = sheet.shape[0] / max(1, len(left))
    for number, text in enumerate(left):
        height = (size + 3) * (text.count("\n") + 1)
        draw.multiline_text((4, head + (number + 0.5) * pitch - height / 2), text, fill=(0, 0, 0), font=font, spacing=3)
    return np.asarray(page)


def save_png(path: Path, sheet: Frames) -> None:
    """Write a picture (H, W, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "PNG", optimize=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, buffer.getvalue())


def save_gif(path: Path, sheets: Iterable[Frames], fps: float = 10) -> None:
    """Write an animation of pictures (H, W, 3) of one size that repeats for ever, each as it comes.

    Of every picture only the part that differs from the one before is written, and only these two are held.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        before: Frames | None = None
        for sheet in sheets:
            rows, columns = (slice(0, side) for side in sheet.shape[:2]) if before is None else _changed(before, sheet)
            part = Image.fromarray(np.ascontiguousarray(sheet[rows, columns]))
            part = part.quantize(128, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
            if before is None:
                file.writelines(GifImagePlugin.getheader(part.copy(), info={"loop": 0})[0])
            offset = (columns.start, rows.start)
            shown = {"duration": round(1000 / fps), "disposal": 1, "include_color_table": True}
            file.writelines(GifImagePlugin.getdata(part, offset, **shown))
            before = sheet
        file.write(b";")  # the end of a GIF


def _changed(before: Frames, now: Frames) -> tuple[slice, slice]:
    """Return the rows and columns of the smallest part that holds all differences; one pixel where there is none."""
    differs = (before != now).any(-1)
    found = [np.flatnonzero(differs.any(axis)) for axis in (1, 0)]
    rows, columns = (slice(int(at[0]), int(at[-1]) + 1) if len(at) else slice(0, 1) for at in found)
    return rows, columns


def swap_sheet(
    content: Sequence[Frames],
    pose: Sequence[Frames],
    swapped: NDArray[np.uint8],
    truth: Sequence[Sequence[Frames]] | None = None,
) -> Frames:
    """Lay a swap grid out: poses along the top, contents down the left, under each row the truth where it is known.

    Args:
        content: R frames; pose: K frames.
        swapped: (R, K, H, W, C) uint8.
        truth: R rows of K frames, or None.
    """
    rows: list[list[Frames | None]] = [[None, *pose]]
    names = ["pose from"]
    for number, frame in enumerate(content):
        rows.append([frame, *swapped[number]])
        names.append("swapped")
        if truth is not None:
            rows.append([None, *truth[number]])
            names.append("truth")
    rows = [[None if cell is None else enlarge(cell) for cell in row] for row in rows]
    return with_margins(tile(rows), "content from the first column, pose from the top row", names)


def save_curves(
    path: Path,
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str,
    unit: str,
    over: str = "step",
) -> None:
    """Draw named curves (x, y): over training steps logarithmic in y where all values are positive, else even."""
    from matplotlib.figure import Figure  # slow to import, and only needed here

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    for name, (x, y) in series.items():
        axes.plot(x, y, label=name, linewidth=1.2)
    if over == "step" and all(value > 0 for _, y in series.values() for value in y):
        axes.set_yscale("log")
    axes.set(xlabel=over, ylabel=unit, title=title)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_whole(path, buffer.getvalue())


def unit_to_uint8(frames: NDArray[np.float32]) -> Frames:
    """Frames in [0, 1] to uint8, rounded."""
    return np.clip(np.rint(frames * 255), 0, 255).astype(np.uint8)
