"""Take checked values from the objects of a JSON file: what is missing, of another type or absurd is named and refused.

A JSON file may come from a stranger. What passes here can be used without another thought: numbers are whole and fit 64
bits, texts hold nothing that would steer a terminal.
"""

import re
from typing import Any

LARGEST = (1 << 53) - 1  # what every JSON reader takes for a whole number
HASH = re.compile(r"[0-9a-f]{64}")
_STEERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # but tab and line end; halves print nowhere


def field(row: Any, name: str) -> Any:
    """Return a field of a JSON object. Raises ValueError where there is none."""
    if type(row) is not dict:
        raise ValueError(f"not a JSON object: {short(row)}")
    if name not in row:
        raise ValueError(f"field {name!r} is missing")
    return row[name]


def count(row: Any, name: str, least: int = 0, most: int = LARGEST) -> int:
    """Return a whole number of [least, most]. Raises ValueError where it is something else."""
    value = field(row, name)
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{name} {short(value)} is not a whole number from {least} to {most}")
    return value


def text(row: Any, name: str, pattern: re.Pattern[str] | None = None) -> str:
    """Return a text that matches a pattern, or has no control characters. Raises ValueError where it is something else."""
    value = field(row, name)
    if type(value) is not str or (pattern and not pattern.fullmatch(value)):
        raise ValueError(f"{name} {short(value)} is not {f'a text like {pattern.pattern}' if pattern else 'a text'}")
    if not pattern and _STEERS.search(value):
        raise ValueError(f"{name} {short(value)} holds control characters")
    return value


def objects(row: Any, name: str) -> dict[str, Any]:
    """Return a JSON object. Raises ValueError where it is something else."""
    value = field(row, name)
    if not isinstance(value, dict):
        raise ValueError(f"{name} {short(value)} is not a JSON object")
    return value


def items(row: Any, name: str) -> list[Any]:
    """Return a JSON list. Raises ValueError where it is something else."""
    value = field(row, name)
    if not isinstance(value, list):
        raise ValueError(f"{name} {short(value)} is not a list")
    return value


def harmless(value: Any, name: str) -> Any:
    """Return a JSON value of any kind. Raises ValueError where a text in it would steer a terminal that shows it."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str) and _STEERS.search(part):
            raise ValueError(f"{name} {short(part)} holds control characters")
        waiting += [*part, *part.values()] if isinstance(part, dict) else part if isinstance(part, list) else ()
    return value


def short(value: Any) -> str:
    """Return a value as a message shows it: on one line, without what steers a terminal, and never long."""
    if isinstance(value, list | dict):
        return f"(a {type(value).__name__} of {len(value)})"
    shown = ascii(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
