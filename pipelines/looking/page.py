"""A result as one page: HTML of headings, texts, pictures and tables, without scripts and without anything from elsewhere."""

import re
from collections.abc import Sequence
from html import escape

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd; }
img, video { max-width: 100%; height: auto; } video { max-height: 90vh; }
figure, div.table { width: max-content; min-width: 100%; max-width: calc(100vw - 4rem); transform: translateX(-50%); }
figure, div.table { margin: 0 0 1.2rem 50%; overflow-x: auto; } figcaption { max-width: 58rem; }
figcaption { color: #555; font-size: .9rem; }
table { border-collapse: collapse; font-size: .88rem; } td, th { padding: .25rem .7rem; border-bottom: 1px solid #e4e4e4; }
td { text-align: right; font-variant-numeric: tabular-nums; } td:first-child, th:first-child { text-align: left; }
td.whole { text-align: center; color: #555; }
pre { background: #f5f5f3; padding: .8rem; overflow-x: auto; font-size: .88rem; }
.small { color: #555; font-size: .8rem; overflow-wrap: anywhere; }
.numbers { display: flex; gap: 2rem; flex-wrap: wrap; } .numbers b { display: block; font-size: 1.6rem; }
"""
INTERVAL = re.compile(r"\[[^\]]*\]|\([^)]*\)")


def heading(text: str, name: str = "") -> str:
    """A section's title; links reach it by its name."""
    return f'<h2 id="{escape(name)}">{escape(text)}</h2>' if name else f"<h2>{escape(text)}</h2>"


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def picture(source: str, caption: str) -> str:
    """A picture beside the page that is a link to its file, with a caption that also describes it."""
    shown = f'<a href="{escape(source)}"><img src="{escape(source)}" alt="{escape(caption)}"></a>'
    return f"<figure>{shown}<figcaption>{escape(caption)}</figcaption></figure>"


def movie(source: str, caption: str) -> str:
    """A movie beside the page, with a caption."""
    shown = f'<video src="{escape(source)}" controls loop muted playsinline preload="metadata"></video>'
    return f"<figure>{shown}<figcaption>{escape(caption)}</figcaption></figure>"


def small(text: str) -> str:
    """A paragraph of what only some readers look for."""
    return f'<p class="small">{escape(text)}</p>'


def contents(entries: Sequence[tuple[str, str, str]]) -> str:
    """A list of links to sections: name, title, and what is said of each."""
    rows = (f'<li><a href="#{escape(name)}">{escape(title)}</a> {escape(told)}</li>' for name, title, told in entries)
    return f"<ul>{''.join(rows)}</ul>"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first column is text. A row of one text besides its name has it across all columns."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{_cells(row, len(columns))}</tr>" for row in rows)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cells(row: Sequence[str], columns: int) -> str:
    if columns > 2 and len(row) > 1 and row[1] and not any(row[2:]):
        return f'<td>{escape(row[0])}</td><td class="whole" colspan="{columns - 1}">{escape(row[1])}</td>'
    return "".join(f"<td>{INTERVAL.sub(_unbroken, escape(cell))}</td>" for cell in row)


def _unbroken(interval: re.Match[str]) -> str:
    return interval[0].replace(" ", "&nbsp;")


def numbers(values: Sequence[tuple[str, str]]) -> str:
    """Large numbers side by side, each with what it is."""
    return '<div class="numbers">' + "".join(f"<div><b>{escape(n)}</b>{escape(t)}</div>" for n, t in values) + "</div>"


def commands(lines: Sequence[str]) -> str:
    """Commands to copy."""
    return f"<pre>{escape(chr(10).join(lines))}</pre>"


def page(title: str, parts: Sequence[str]) -> bytes:
    """Return a whole page."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    body = "\n".join(parts)
    text = f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n'
    return (text + f"<body><h1>{escape(title)}</h1>\n{body}\n</body></html>\n").encode()
