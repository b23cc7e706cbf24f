"""Words that a mistyped one may have been meant for, in the messages about values that are not known."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, known: Iterable[str], count: int = 1, least: float = 0.6) -> list[str]:
    """Return the known words that are most like one, the likest first; large and small letters are alike.

    Args:
        word: that is not known.
        known: words that are.
        count: how many to return at most.
        least: likeness from 0 to 1 that they must have.
    """
    by_fold: dict[str, list[str]] = {}
    for one in known:
        by_fold.setdefault(one.casefold(), []).append(one)
    found = get_close_matches(word.casefold(), by_fold, count, least)
    return [one for fold in found for one in by_fold[fold]][:count]


def guess(word: str, known: Iterable[str]) -> str:
    """Return the question after what was meant, to stand behind a word that is not known, or an empty text."""
    return "".join(f" (did you mean '{one}'?)" for one in nearest(word, known))
