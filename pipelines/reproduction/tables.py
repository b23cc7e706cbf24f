"""The parts of an evaluation (`metrics.json`) as tables of a report."""

from collections.abc import Mapping, Sequence
from typing import Any

from drnet.pipelines.evaluation.curves import NAMES
from drnet.pipelines.reproduction.result import NOT_YET, Made

SHOWN = (1, 5, 10, 20, 50, 100, 500)
PLACES = (10, 95, 500)  # steps at which the position of digits is told


def with_interval(found: Mapping[str, float | None], digits: int) -> str:
    """Return a mean and its 95% interval."""
    if found["mean"] is None:
        return "-"
    mean = f"{found['mean']:.{digits}f}"
    return mean if found["low"] is None else f"{mean} [{found['low']:.{digits}f}, {found['high']:.{digits}f}]"


def computed(report: Mapping[str, Any], section: str, made: Made) -> dict[str, Any] | None:
    """Return a section of an evaluation; where it could not be computed, note why and return None."""
    found = report.get(section)
    if found is None:
        return None
    if "not_computed" in found:
        made.notes.append(f"{section}: not computed: {found['not_computed']}")
        return None
    return dict(found)


def frame_tables(
    made: Made, reports: Mapping[str, Mapping[str, Any]], missing: Sequence[str] = (), others: Sequence[str] = ()
) -> None:
    """Tell PSNR and SSIM of the predictions of some models, the copied last frame below them.

    Args:
        made: to add to.
        reports: evaluations by the models' names, on the same clips; the first one's other rows are shown too.
        missing: methods whose rows are left empty.
        others: further rows of the first report.
    """
    found = {name: part for name, report in reports.items() if (part := computed(report, "frames", made))}
    if not found:
        return
    first = next(iter(found.values()))
    steps = [step for step in SHOWN if step <= first["steps"][-1]]
    for metric, unit, digits in (("psnr", "PSNR, dB", 2), ("ssim", "SSIM", 4)):
        rows = [_frame_row(name, part, "predicted", metric, steps, digits) for name, part in found.items()]
        rows += [[name, *[NOT_YET], *[""] * len(steps)][: len(steps) + 1 + len(first["means"])] for name in missing]
        rows += [
            _frame_row(NAMES[row], first, row, metric, steps, digits)
            for row in (*others, "copy_last")
            if row in first[metric]
        ]
        means = [f"mean of 1-{mean['steps'][1]} [95%]" for mean in first["means"]]
        title = f"{unit}: {first['windows']} windows of {first['clips']} held-out clips, {first['settings']['implementation']}"
        width = 1 + len(steps) + len(means)
        padded = [[*row, *[""] * (width - len(row))] for row in rows]
        made.table(title, [unit, *(f"step {step}" for step in steps), *means], padded)


def _frame_row(
    name: str, part: Mapping[str, Any], row: str, metric: str, steps: Sequence[int], digits: int
) -> list[str]:
    if row not in part[metric]:
        return [name, "not computed"]
    curve = part[metric][row]["mean"]
    cells = ["-" if curve[step - 1] is None else f"{curve[step - 1]:.{digits}f}" for step in steps]
    return [name, *cells, *(with_interval(mean[metric][row], digits) for mean in part["means"])]


def swap_table(made: Made, report: Mapping[str, Any]) -> None:
    """Tell how near swapped frames are to their truth."""
    found = computed(report, "swap", made)
    if found is None:
        return
    rows = [
        [row.replace("_", " "), with_interval(found["psnr"][row], 2), with_interval(found["ssim"][row], 4)]
        for row in found["rows"]
    ]
    made.table(f"{found['pairs']} swaps of held-out clips against their truth", ["swap", "PSNR, dB", "SSIM"], rows)
    made.number("swapped frames, PSNR in dB", found["psnr"]["other_pose"]["mean"], 2)


def position_table(made: Made, report: Mapping[str, Any]) -> None:
    """Tell how far digits are from their true places."""
    found = computed(report, "position", made)
    if found is None:
        return
    rows = []
    for row, errors in found["errors"].items():
        means = errors["error"]
        cells = [
            with_interval({"mean": m, "low": low, "high": high}, 2)
            for m, low, high in zip(means["mean"], means["low"], means["high"], strict=True)
        ]
        lost = [f" ({share:.0%} not found)" if share else "" for share in errors["not_found"]]
        rows.append([NAMES.get(row, row), *(cell + gone for cell, gone in zip(cells, lost, strict=True))])
    title = f"position error in pixels of {found['frame']}, {found['digits']} digits"
    made.table(title, ["", *(f"step {step}" for step in found["steps"])], rows)
    predicted = found["errors"].get("predicted")
    for step, mean in zip(found["steps"], predicted["error"]["mean"] if predicted else (), strict=False):
        if step in PLACES:
            made.number(f"position error at step {step}, pixels of {found['frame']}", mean, 2)
