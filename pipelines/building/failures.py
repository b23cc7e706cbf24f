"""Items that failed: how many may, how they are told while a build runs, and what is said of them at its end."""

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction

from drnet.datasets.contract import DataError
from drnet.pipelines.building.jobs import TOLD
from drnet.pipelines.progress import Progress
from drnet.pipelines.shards.manifest import ACCOUNTING
from drnet.pipelines.shards.shard import Fate

_BUDGET = re.compile(r"(?P<count>[0-9]{1,15})|(?P<percent>[0-9]{1,3}(\.[0-9]{1,6})?)%")


@dataclass(frozen=True)
class Budget:
    """How many of a build's items may fail before the build counts as failed.

    Attributes:
        count: a number of items.
        share: a part of all items instead, from 0 to 1.
    """

    count: int = 0
    share: Fraction | None = None

    def allows(self, failed: int, items: int) -> bool:
        """Whether that many failures of that many items are within it."""
        return failed <= (self.count if self.share is None else self.share * items)

    def __bool__(self) -> bool:
        """Whether anything may fail at all."""
        return bool(self.count or self.share)

    def __str__(self) -> str:
        """Return it as `parse_budget` reads it."""
        return str(self.count) if self.share is None else f"{float(self.share * 100):g}%"


def parse_budget(text: str, option: str = "max-failures") -> Budget:
    """Read a budget: a number of items such as `5`, or a part of all such as `2%`; `option` is named in the error.

    Raises:
        DataError: where it is neither.
    """
    match = _BUDGET.fullmatch(text.strip())
    if match is None or (match["percent"] and Fraction(match["percent"]) > 100):
        raise DataError(f"{option} '{text}' is not allowed; give a number of items such as 5, or a part such as 2%")
    return Budget(share=Fraction(match["percent"]) / 100) if match["percent"] else Budget(int(match["count"]))


@dataclass
class Teller:
    """Tells the first failures of a build as they happen, and at its end how many more there were."""

    progress: Progress
    failures: int = 0
    _told: int = field(default=0, init=False)

    def add(self, count: int, first: Iterable[Fate]) -> None:
        """Count a shard's failures, and tell them while they are among the build's first."""
        self.failures += count
        for fate in first:
            if self._told < TOLD:
                self._told += 1
                self.progress.note(f"failed: {said(fate)}")

    def end(self) -> None:
        """Say how many were not told."""
        if more := self.failures - self._told:
            self.progress.note(f"failed: {more} more; {ACCOUNTING} lists them all")


def said(fate: Fate) -> str:
    """Return how an item ended on one line."""
    why = " ".join(fate.why.split())
    return f"{fate.split} item {fate.item!r}: {why[:160]}"


def failures_line(failed: int, items: int, budget: Budget, first: Iterable[Fate], folder: str) -> str:
    """Say on one line that more items failed than may: how many, the first few with their reasons, and the way out."""
    few = "; ".join(said(fate) for fate in list(first)[:3])
    more = f"; and {failed - 3} more" if failed > 3 else ""
    return (
        f"{failed} of {items} items failed, and --max-failures is {budget} ({few}{more}); all that could be built is: "
        f"allow them with --max-failures; after a passing error of reading try `drnet data retry {shlex.quote(folder)}` with "
        "the --source of the build; repaired files are another build, into another --out"
    )
