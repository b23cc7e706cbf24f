"""Checks that the settings of every model and training share; each error is one line with what is allowed."""

from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

from drnet.guess import guess


def check_least(settings: Any, least: Mapping[str, int]) -> None:
    """Raise ValueError for the first of some settings that lies below its least value."""
    for name, smallest in least.items():
        if getattr(settings, name) < smallest:
            raise ValueError(f"{name} {getattr(settings, name)} is not allowed; it must be at least {smallest}")


def check_choices(settings: Any) -> None:
    """Raise ValueError for the first setting that is none of the values its type, a `Literal`, names."""
    for name, kind in get_type_hints(type(settings)).items():
        value, allowed = getattr(settings, name), get_args(kind)
        if allowed and value not in allowed:
            meant = guess(str(value), allowed)
            raise ValueError(f"{name} {value!r} is not allowed{meant}; supported are {', '.join(allowed)}")
