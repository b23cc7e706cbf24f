"""A figure's sheet: rows and columns of frames with the words around them, and its layout as a page."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from drnet.pipelines.figures.page import EDGE, INK, MARK, PALE, SIZE, Line, Page, Picture, Text, width_of, wrapped
from drnet.pipelines.looking.pictures import TILE, Frames

GAP, BREAK = 6, 22  # pixels between columns, and where the columns' meaning changes
SMALL = 11  # pixels, of captions and notes
LEADING = 4  # pixels between lines
MARGIN = 10
LABEL = 170  # pixels: row labels are broken at this width
LEAST = 420  # pixels: room for the title of a narrow sheet


@dataclass(frozen=True)
class Cell:
    """A place in a row.

    Attributes:
        frame: (H, W, C) uint8, or None for an empty place.
        caption: below it.
        given: whether the model was given this frame: it gets a coloured outline.
        words: in place of a frame, why there is none.
    """

    frame: Frames | None = None
    caption: str = ""
    given: bool = False
    words: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a sheet.

    Attributes:
        label: what it shows.
        cells: from left to right.
        section: a heading above it, which begins a group of rows.
        words: across a row that has no cells: why it is empty.
        space: whether a gap precedes it, as a section's.
    """

    label: str
    cells: Sequence[Cell] = ()
    section: str = ""
    words: str = ""
    space: bool = False


@dataclass(frozen=True)
class Span:
    """Words above some columns, from the first to the last."""

    first: int
    last: int
    words: str


@dataclass(frozen=True)
class Sheet:
    """What a figure shows.

    Attributes:
        title: one sentence that says how to read it.
        rows: from top to bottom; at least one frame is in them.
        headings: above the columns, or none.
        spans: above the headings.
        breaks: columns before which the columns' meaning changes: a gap.
        mark: a column before which a line is drawn beside every row: prediction begins.
        notes: below everything, small.
        tile: pixels of the page that a frame is about high; larger ones than twice that are shown smaller, and a picture
            keeps their pixels. 0: about `TILE`, and larger ones as they are.
    """

    title: str
    rows: Sequence[Row]
    headings: Sequence[str] = ()
    spans: Sequence[Span] = ()
    breaks: Sequence[int] = ()
    mark: int | None = None
    notes: Sequence[str] = field(default_factory=tuple)
    tile: int = 0


@dataclass
class _Layout:
    """The page as it grows downwards."""

    sheet: Sheet
    items: list[Text | Picture | Line]
    lefts: list[int]  # of the columns
    cell: tuple[int, int]  # width and height
    factor: float
    y: int = MARGIN

    def lines(self, x: float, words: Sequence[str], size: int, colour: str = INK, centred: bool = False) -> None:
        """Write lines of text below each other and go down."""
        for line in words:
            self.items.append(Text(x, self.y, line, size, colour, "middle" if centred else "start"))
            self.y += size + LEADING


def page_of(sheet: Sheet) -> Page:
    """Lay a sheet out: every text has its room, whatever its length, and the page is as large as it must be."""
    first = next(cell.frame for row in sheet.rows for cell in row.cells if cell.frame is not None)
    zoom = max(1, round(first.shape[0] / sheet.tile)) if sheet.tile else 1
    factor = 1 / zoom if zoom > 1 else max(1, round((sheet.tile or TILE) / first.shape[0]))
    width, height = round(first.shape[1] * factor), round(first.shape[0] * factor)
    labels = [line for row in sheet.rows for line in wrapped(row.label, LABEL)]
    left = MARGIN + int(max(map(width_of, labels), default=0)) + 10
    columns = max(len(row.cells) for row in sheet.rows)
    lefts = [left + c * (width + GAP) + sum(BREAK - GAP for b in sheet.breaks if b <= c) for c in range(columns)]
    total = max(lefts[-1] + width + MARGIN, LEAST)
    layout = _Layout(sheet, [], lefts, (width, height), factor)
    layout.lines(MARGIN, wrapped(sheet.title, total - 2 * MARGIN, 14), 14)
    layout.y += LEADING
    _head(layout)
    for number, row in enumerate(sheet.rows):
        _row(layout, row, first=number == 0)
    layout.y += LEADING
    for note in sheet.notes:
        layout.lines(MARGIN, wrapped(note, total - 2 * MARGIN, SMALL), SMALL, PALE)
    return Page(total, layout.y + MARGIN - LEADING, tuple(layout.items), sheet.title, " ".join(sheet.notes), zoom)


def _head(layout: _Layout) -> None:
    """Write the spans and the headings above the columns."""
    width = layout.cell[0]
    if layout.sheet.spans:
        ends = [(layout.lefts[span.first], layout.lefts[span.last] + width) for span in layout.sheet.spans]
        broken = [
            wrapped(s.words, right - left + GAP) for s, (left, right) in zip(layout.sheet.spans, ends, strict=True)
        ]
        below = layout.y + max(map(len, broken)) * (SIZE + LEADING)
        for (left, right), words in zip(ends, broken, strict=True):
            for number, line in enumerate(reversed(words), 1):
                y = below - number * (SIZE + LEADING)
                layout.items.append(Text((left + right) / 2, y, line, SIZE, MARK, "middle"))
            layout.items.append(Line(left, below, right, below, EDGE))
        layout.y = below + 6
    if layout.sheet.headings:
        names = [wrapped(words, width + GAP - 2, SMALL) for words in layout.sheet.headings]
        deepest = max(map(len, names))
        for left, words in zip(layout.lefts, names, strict=False):
            for number, line in enumerate(words):
                y = layout.y + (number + deepest - len(words)) * (SMALL + LEADING)
                layout.items.append(Text(left + width / 2, y, line, SMALL, INK, "middle"))
        layout.y += deepest * (SMALL + LEADING) + 2


def _row(layout: _Layout, row: Row, first: bool) -> None:
    """Write a row: its section, its label, its frames, their captions."""
    width, height = layout.cell
    layout.y += 0 if first else 14 if row.section else 10 if row.space else 0
    if row.section:
        layout.lines(MARGIN, wrapped(row.section, layout.lefts[-1] + width - MARGIN), SIZE, MARK)
        layout.y += 2
    words = wrapped(row.label, LABEL)
    if row.words:
        height = max(34, len(words) * (SIZE + LEADING))
    if layout.sheet.mark is not None:
        x = layout.lefts[layout.sheet.mark] - BREAK / 2
        layout.items.append(Line(x, layout.y - 1, x, layout.y + height, MARK, 2))
    middle = layout.y + (height - len(words) * (SIZE + LEADING)) / 2
    for number, line in enumerate(words):
        layout.items.append(Text(MARGIN, middle + number * (SIZE + LEADING), line))
    if row.words:
        _across(layout, row.words, height)
    captions = [wrapped(cell.caption, width + GAP - 2, SMALL) if cell.caption else [] for cell in row.cells]
    for left, cell, caption in zip(layout.lefts, row.cells, captions, strict=False):
        _cell(layout, cell, left)
        for number, line in enumerate(caption):
            y = layout.y + height + 3 + number * (SMALL + 3)
            layout.items.append(Text(left + width / 2, y, line, SMALL, PALE, "middle"))
    deepest = max(map(len, captions), default=0)
    layout.y += height + GAP + (deepest * (SMALL + 3) + 4 if deepest else 0)


def _across(layout: _Layout, words: str, height: int) -> None:
    """Write words across a row without frames, between two thin lines."""
    left, right = layout.lefts[0], layout.lefts[-1] + layout.cell[0]
    for y in (layout.y, layout.y + height):
        layout.items.append(Line(left, y, right, y, EDGE))
    layout.items.append(Text((left + right) / 2, layout.y + (height - SIZE) / 2, words, SIZE, PALE, "middle"))


def _cell(layout: _Layout, cell: Cell, left: int) -> None:
    width, height = layout.cell
    if cell.frame is not None:
        outline, thick = (MARK, 2) if cell.given else (EDGE, 1)
        layout.items.append(Picture(left, layout.y, cell.frame, layout.factor, outline, thick))
        return
    lines = wrapped(cell.words, width - 6, SMALL) if cell.words else []
    for number, line in enumerate(lines):
        y = layout.y + (height - len(lines) * (SMALL + 3)) / 2 + number * (SMALL + 3)
        layout.items.append(Text(left + width / 2, y, line, SMALL, PALE, "middle"))


def with_notes(sheet: Sheet, notes: Sequence[str]) -> Sheet:
    """Return a sheet with further notes below it."""
    return replace(sheet, notes=(*sheet.notes, *notes))
