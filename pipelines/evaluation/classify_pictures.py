"""A classification as tables of text and as pictures: the confusion matrix, and accuracy over training groups (Fig. 8)."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from drnet.pipelines.evaluation.classify_result import CLASSIFIERS, FEW, Result, spread_of
from drnet.pipelines.files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WRITTEN = 20  # classes up to which every cell of a picture bears its figure
MARKS = "osD^vP*X"
POINTS = ("training groups", "network", "logistic regression", "network on held-out training groups", "training rows")


def point_rows(result: Result) -> list[list[str]]:
    """Return the accuracies as rows of text under the columns `POINTS`: means in percent, each with what `spread_text` says."""
    rows = []
    for point in result.points:
        held = np.mean([run.validation for run in point.runs])
        spread = sorted({run.rows for run in point.runs})
        count = f"{spread[0]:,}" if len(spread) == 1 else f"{spread[0]:,} to {spread[-1]:,}"
        rows.append([str(point.groups), *(point.accuracy(n).text() for n in CLASSIFIERS), f"{100 * held:.1f}%", count])
    return rows


def shown_classes(result: Result) -> list[int]:
    """Return the classes that occur, in training or test rows."""
    pairs = zip(result.train_classes, result.test_classes, strict=True)
    return [number for number, (train, test) in enumerate(pairs) if train or test]


def confusion_rows(result: Result, classifier: str = "network") -> tuple[list[str], list[list[str]]]:
    """Return columns and rows of a confusion matrix as text: share of the true class's rows, and the count.

    A row is a true class, a column what was told; counts are sums over the runs.
    """
    shown = shown_classes(result)
    counts = result.confusion(classifier)[np.ix_(shown, shown)]
    shares = shares_of(counts)
    names = [result.names[number] for number in shown]
    rows = []
    for name, own, share in zip(names, counts, shares, strict=True):
        cells = [f"{100 * s:.0f}% ({c:,})" if own.sum() else "-" for s, c in zip(share, own, strict=True)]
        rows.append([name, *cells, f"{own.sum():,}"])
    return [f"true {result.label}", *(f"told {name}" for name in names), "rows"], rows


def shares_of(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return each row of counts (K, K) divided by its sum; rows of nothing are 0."""
    return counts / np.maximum(1, counts.sum(1, keepdims=True))


def group_name(result: Result) -> str:
    """Return what a group is, for a sentence."""
    return str(result.settings["group"])


def spread_text(result: Result, drawn: bool = False) -> str:
    """Return over what an accuracy is a mean, and what stands beside it: its interval or, where they are few, the values."""
    draws, seeds, persons = (result.settings[name] for name in ("draws", "seeds", "persons"))
    if not persons or draws == 1:
        return spread_of(seeds, "seed", drawn)
    told = spread_of(draws, "draw", drawn)
    return told.replace("draws", f"draws of {seeds} seeds") if seeds > 1 else told


def save_confusion(path: Path, result: Result, title: str, classifier: str = "network") -> None:
    """Draw a confusion matrix: shares of each true class as shades, with percentages where there is room for them."""
    from matplotlib.figure import Figure  # slow to import, and only needed here

    shown = shown_classes(result)
    shares = shares_of(result.confusion(classifier)[np.ix_(shown, shown)])
    names = [result.names[number] for number in shown]
    side = min(14.0, 2.2 + 0.5 * len(shown))
    figure = Figure(figsize=(side + 0.9, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    slanted = max(len(name) for name in names) > 3
    size = 8 if len(shown) <= WRITTEN else max(3, 160 / len(shown))
    axes.set_xticks(range(len(shown)), names, rotation=45 if slanted else 0, ha="right" if slanted else "center")
    axes.set_yticks(range(len(shown)), names)
    axes.tick_params(labelsize=size, length=0)
    axes.set(xlabel=f"told {result.label}", ylabel=f"true {result.label}")
    axes.set_title(title, fontsize=8)
    for (row, column), share in np.ndenumerate(shares):
        if len(shown) <= WRITTEN and share >= 0.005:
            colour = "white" if share > 0.45 else "black"
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=colour)
    for row in np.flatnonzero(shares.sum(1) == 0).tolist():
        axes.text(
            (len(shown) - 1) / 2, row, "no test rows", ha="center", va="center", fontsize=min(7, size), color="grey"
        )
    bar = figure.colorbar(image, ax=axes, shrink=0.8, ticks=[0, 0.5, 1])
    bar.ax.set_yticklabels(["0%", "50%", "100%"], fontsize=7)
    _save(path, figure)


def save_curve(
    path: Path,
    results: Mapping[str, Result],
    classifier: str = "network",
    references: Mapping[str, float] | None = None,
) -> None:
    """Draw accuracy over the number of training groups, with what `spread_text` says, one curve for each named result (Fig. 8).

    Args:
        path: of the PNG.
        results: by the name in the legend, of one label and one kind of group.
        classifier: `network` or `logistic`.
        references: accuracies of others in percent, by name, as horizontal lines.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    first = next(iter(results.values()))
    for number, (name, result) in enumerate(results.items()):
        found = [point.accuracy(classifier) for point in result.points]
        mean = 100 * np.array([one.mean for one in found])
        low = 100 * np.array([one.mean if one.low is None else one.low for one in found])
        high = 100 * np.array([one.mean if one.high is None else one.high for one in found])
        shift = 0.008 * (
            number - (len(results) - 1) / 2
        )  # of the width, so that equal points are seen beside each other
        counts = np.array([point.groups for point in result.points])
        x, colour = counts + shift * max(1, np.ptp(counts)), f"C{number % 10}"
        mark = MARKS[number % len(MARKS)]
        axes.errorbar(
            x, mean, (mean - low, high - mean), label=name, color=colour, marker=mark, capsize=3, linewidth=1.3
        )
        for at, one in zip(x, found, strict=True):
            if 1 < len(one.values) < FEW:
                values = 100 * np.array(one.values)
                axes.plot(np.full(len(values), at), values, mark, color=colour, markersize=4, fillstyle="none")
    for number, (name, value) in enumerate((references or {}).items()):
        axes.axhline(value, color="black", linestyle=("--", "-.", ":")[number % 3], linewidth=1)
        axes.annotate(f"{name} {value:g}%", (0.01, value), xycoords=("axes fraction", "data"), va="bottom", fontsize=7)
    always = f"always {first.commonest}, the most frequent in training"
    axes.axhline(100 * first.chance, color="grey", linestyle=":", linewidth=1, label=always)
    axes.set(xlabel=f"{group_name(first)}s in the training set", ylabel="accuracy on test rows (%)", ylim=(0, 101))
    axes.set_title(f"{first.label} from {first.settings['features']}; {spread_text(first, drawn=True)}", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    figure.legend(fontsize=8, loc="outside lower center", ncols=2, frameon=False)
    _save(path, figure)


def _save(path: Path, figure: "Figure") -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, buffer.getvalue())
