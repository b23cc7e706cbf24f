"""What an experiment found: pictures, tables, and numbers beside the paper's, as JSON in its folder."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from drnet.datasets.contract import DataError
from drnet.pipelines.figures.figure import Figure, write_figure
from drnet.pipelines.files import pretty_json, read_json, write_whole
from drnet.pipelines.reproduction.scales import Scale

RESULT, RESULT_FORMAT = "result.json", 1
NOT_YET = "not implemented yet"
NO_NUMBER = "no number"

Rule = Literal["near", "least", "none"]


@dataclass(frozen=True)
class Claim:
    """A number of the paper that ours is put beside.

    Attributes:
        name: what it is of.
        paper: its value; a text where the paper has something else than a number.
        rule: `near`: pass within the tolerance; `least`: pass from the value less the tolerance on; `none`: no judgement.
        tolerance: in the number's own unit.
        digits: behind the decimal point.
        missing: whether it is of a method that this project has not.
        why: a reason not to judge it, however much is trained.
    """

    name: str
    paper: float | str
    rule: Rule = "none"
    tolerance: float = 0.0
    digits: int = 1
    missing: bool = False
    why: str = ""

    def holds(self, ours: float) -> bool:
        """Return whether our number passes."""
        assert not isinstance(self.paper, str), "only numbers are judged"
        low = self.paper - self.tolerance
        return ours >= low if self.rule == "least" else low <= ours <= self.paper + self.tolerance

    def told(self) -> str:
        """Return the rule in words."""
        if self.rule == "none" or isinstance(self.paper, str):
            return ""
        return f"at least {self.paper - self.tolerance:g}" if self.rule == "least" else f"within {self.tolerance:g}"


@dataclass
class Made:
    """Collects what an experiment makes.

    Attributes:
        folder: of the experiment.
        claims: the paper's numbers, by name.
        unjudged: why nothing is judged, or empty.
    """

    folder: Path
    claims: Mapping[str, Claim]
    unjudged: str
    pictures: list[dict[str, Any]] = field(default_factory=list)
    tables: list[dict[str, Any]] = field(default_factory=list)
    numbers: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def figure(self, name: str, figure: Figure, caption: str, fps: float = 10) -> dict[str, Any]:
        """Write a figure or a movie; returns the numbers that it shows."""
        write_figure(self.folder / name, figure, fps)
        self.picture(name, caption, figure.numbers)
        return figure.numbers

    def picture(self, name: str, caption: str, numbers: Mapping[str, Any] | None = None) -> None:
        """Tell of a picture or movie that was written, and of what it shows."""
        self.pictures.append({"file": name, "caption": caption} | ({"numbers": dict(numbers)} if numbers else {}))

    def table(
        self,
        title: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        legend: Mapping[str, str] | None = None,
    ) -> None:
        """Tell of a table of texts; `legend`: what its rows or columns are, by their names."""
        body = {"title": title, "columns": list(columns), "rows": [list(row) for row in rows]}
        self.tables.append(body | {"legend": dict(legend or {})})

    def note(self, line: str) -> None:
        """Tell a reader something, once."""
        if line not in self.notes:
            self.notes.append(line)

    def number(self, name: str, ours: float | None, digits: int = 1) -> None:
        """Put a number beside the paper's claim of its name, where there is one."""
        claim = self.claims.get(name) or Claim(name, NO_NUMBER, digits=digits)
        ours = None if ours is None or not math.isfinite(ours) else float(ours)
        self.numbers.append(
            {
                "name": name,
                "paper": claim.paper,
                "ours": ours,
                "rule": claim.told(),
                "verdict": self._verdict(claim, ours),
                "digits": claim.digits,
            }
        )

    def end(self) -> None:
        """Tell of the claims that no number was put beside."""
        there = {row["name"] for row in self.numbers}
        for name, claim in self.claims.items():
            if name not in there:
                self.number(name, None)
                if claim.missing:
                    self.numbers[-1]["verdict"] = NOT_YET

    def _verdict(self, claim: Claim, ours: float | None) -> str:
        if claim.missing:
            return NOT_YET
        if ours is None:
            return "could not be measured"
        if claim.rule == "none":
            return f"not judged: {claim.why}" if claim.why else "nothing to judge"
        if self.unjudged:
            return f"not judged{self.unjudged}"
        return "pass" if claim.holds(ours) else "miss"


def line_of(number: Mapping[str, Any]) -> str:
    """Return a number as a line: `content, beta 0.1: paper: 93.3 / ours: 41.2 / not judged at tiny`."""
    paper, ours = number["paper"], number["ours"]
    shown = f"{paper:.{number['digits']}f}" if isinstance(paper, float) else paper
    own = "-" if ours is None else f"{ours:.{number['digits']}f}"
    rule = f" ({number['rule']})" if number["verdict"] in ("pass", "miss") else ""
    return f"{number['name']}: paper: {shown} / ours: {own} / {number['verdict']}{rule}"


def why_unjudged(scale: Scale, data: Mapping[str, Any]) -> str:
    """Return why numbers are not judged, as what follows `not judged`; empty where they are."""
    if not scale.judged:
        return f" at {scale.name}"
    if data["stands_for"]:
        return f": {data['name']} stands for {data['stands_for']}"
    return "" if data["whole"] else f": only {data['what']}"


def write_result(folder: Path, found: Mapping[str, Any]) -> None:
    """Write an experiment's result."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / RESULT, pretty_json({"format": RESULT_FORMAT, **found}))


def read_result(folder: Path) -> dict[str, Any] | None:
    """Return an experiment's result, or None where there is none that this version reads."""
    path = folder / RESULT
    if not path.exists():
        return None
    try:
        found = read_json(path, "an experiment's result")
    except DataError:
        return None
    return found if isinstance(found, dict) and found.get("format") == RESULT_FORMAT else None
