"""The Inception Score as a picture: curves over the offset (Fig. 9)."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drnet.pipelines.evaluation.inception import OTHERS, SAME, TRUE
from drnet.pipelines.files import write_whole

SHIFT = 0.8  # frames, so that bars stand beside each other


def save_scores(path: Path, found: Mapping[str, Any]) -> None:
    """Draw the result of `inception` as curves over the offset, with standard errors over clips (Fig. 9).

    Full lines are of the same windows; a dashed one is of all windows that were predicted, also beyond their clips' ends.
    Under each offset stands how many windows the full lines and, behind a stroke, the dashed one are of.
    """
    from matplotlib.figure import Figure  # slow to import, and only needed here

    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    offsets, rows = found["offsets"], {name: row for name, row in found["rows"].items() if not isinstance(row, str)}
    for method, row in rows.items():
        there = [(at, one) for at, one in zip(offsets, row, strict=True) if one["windows"] > 1]
        whole = method != TRUE and not method.endswith(SAME)
        axes.errorbar(
            [at + SHIFT * whole for at, _ in there],
            [one["score"] for _, one in there],
            [one["error"] or 0.0 for _, one in there],
            label=f"{method}, all windows" if whole else method,
            color="black" if method == TRUE else "C1" if whole else "C0",
            linestyle="--" if whole else "-",
            marker="o",
            markersize=4,
            capsize=3,
        )
    counts = [[str(row[place]["windows"]) for row in rows.values()] for place in range(len(offsets))]
    axes.set_xticks(offsets, [f"{at}\n{'/'.join(dict.fromkeys(of))}" for at, of in zip(offsets, counts, strict=True)])
    axes.set(xlabel="offset, frames; below it: windows", ylabel=f"Inception Score of {found['window']} frames")
    missing = [name for name in OTHERS if isinstance(found["rows"].get(name), str)]
    axes.set_title(f"bars: standard error over clips; not implemented yet: {', '.join(missing)}", fontsize=9)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, buffer.getvalue())
