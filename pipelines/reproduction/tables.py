"""The parts of an evaluation (`metrics.json`) as tables of a report."""

from collections.abc import Mapping, Sequence
from typing import Any

from drnet.pipelines.evaluation import disentanglement, judge
from drnet.pipelines.evaluation.curves import NAMES
from drnet.pipelines.evaluation.disentanglement import factor_rows
from drnet.pipelines.evaluation.frames import shown_steps
from drnet.pipelines.evaluation.judge import identity_rows
from drnet.pipelines.reproduction.result import NOT_YET, Made

LEAKAGE = "how well the wrong vector tells a factor: 0 as by chance, 1 as well as the better vector"
ONE_CODE = "content and pose as one code, one factor in one number: DrNet never asks that of itself"
PLACES = (10, 95, 500)  # steps at which the position of digits is told


def with_interval(found: Mapping[str, float | None], digits: int) -> str:
    """Return a mean and its 95% interval."""
    if found["mean"] is None:
        return "-"
    mean = f"{found['mean']:.{digits}f}"
    return mean if found["low"] is None else f"{mean} [{found['low']:.{digits}f}, {found['high']:.{digits}f}]"


def computed(report: Mapping[str, Any], section: str, made: Made) -> dict[str, Any] | None:
    """Return a section of an evaluation, and note what it says of itself; None where it could not be computed.

    What is noted: in what data and settings differ from the protocol, and the section's own notes, each once.
    """
    found = report.get(section)
    if found is None:
        return None
    if "not_computed" in found:
        made.note(f"{section}: not computed: {found['not_computed']}")
        return None
    protocol = report["protocol"]
    for line in protocol["differences"]:
        made.note(f"differs from protocol {protocol['name']}: {line}")
    for line in found.get("notes", ()):
        made.note(line)
    if found.get("too_short"):
        made.note(f"{found['too_short']} clips are too short for protocol {protocol['name']} and left out")
    for name, part in found.items():
        if isinstance(part, Mapping) and "not_computed" in part:
            made.note(f"{section}, {name}: not computed: {part['not_computed']}")
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
    steps = shown_steps(first["steps"])
    counts = ["clips", *(str(first["clips_at_step"][step - 1]) for step in steps)]
    legend = {NAMES[row]: first["rows"][row] for row in (*others, "copy_last") if row in first["rows"]}
    for metric, unit, digits in (("psnr", "PSNR, dB", 2), ("ssim", "SSIM", 4)):
        rows = [_frame_row(name, part, "predicted", metric, steps, digits) for name, part in found.items()]
        rows += [[name, NOT_YET] for name in missing]
        rows += [
            _frame_row(NAMES[row], first, row, metric, steps, digits)
            for row in (*others, "copy_last")
            if row in first[metric]
        ]
        means = [f"mean of 1-{mean['steps'][1]} [95%]" for mean in first["means"]]
        title = f"{unit}: {first['windows']} windows of {first['clips']} held-out clips, {first['settings']['implementation']}"
        width = 1 + len(steps) + len(means)
        padded = [[*row, *[""] * (width - len(row))] for row in (*rows, counts)]
        columns = [unit, *(f"step {step}" for step in steps), *means]
        made.table(title, columns, padded, legend | {"clips": "that are as long as this step, and scored at it"})


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
    legend = {row.replace("_", " "): words for row, words in found["rows"].items()}
    title = f"{found['pairs']} swaps of held-out clips against their truth [95%]"
    made.table(title, ["swap", "PSNR, dB", "SSIM"], rows, legend)
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
    title = f"position error in pixels of {found['frame']}, {found['digits']} digits [95%]"
    legend = {NAMES.get(row, row): words for row, words in found["rows"].items()}
    made.table(title, ["", *(f"step {step}" for step in found["steps"])], rows, legend)
    predicted = found["errors"].get("predicted")
    for step, mean in zip(found["steps"], predicted["error"]["mean"] if predicted else (), strict=False):
        if step in PLACES:
            made.number(f"position error at step {step}, pixels of {found['frame']}", mean, 2)


def identity_table(made: Made, report: Mapping[str, Any]) -> None:
    """Tell in how many swapped and predicted frames a judge still reads what the content's clip shows."""
    found = computed(report, "identity", made)
    if found is None:
        return
    if "not_computed" in found.get("rollout", {}):
        del found["rollout"]
    legend = {
        "same": "share of the frames in which the judge, which learned on true training frames, reads all of it rightly",
        "the judge on true frames": "the same of true frames: what can be reached",
        "chance": "share read as what another clip shows",
    }
    made.table("what a frame shows, as an independent judge reads it", judge.COLUMNS, identity_rows(found), legend)
    made.number("swapped frames read rightly by a judge, percent", 100 * found["swap"]["same"])


def disentanglement_table(made: Made, report: Mapping[str, Any]) -> None:
    """Tell what content and pose tell of each factor, and the scores of disentanglement."""
    found = computed(report, "disentanglement", made)
    if found is None:
        return
    columns = disentanglement.COLUMNS
    legend = {"score": "of the four columns content and pose, by probes on held-out clips", "leakage": LEAKAGE}
    made.table("what content and pose tell of each factor", columns, factor_rows(found), legend)
    leakage, dci = found["leakage"], found["dci"]
    scores = {
        "leakage of content in pose": leakage["content_in_pose"],
        "leakage of pose in content": leakage["pose_in_content"],
        **{f"DCI {name}": dci[name] for name in ("disentanglement", "completeness", "informativeness")},
        **{f"DCI {name} of the two vectors": value for name, value in dci["blocks"].items()},
        "MIG": found["mig"],
    }
    rows = [[name, "-" if value is None else f"{value:.3f}"] for name, value in scores.items()]
    made.table("scores of disentanglement", ["score", "mean over factors"], rows, {"DCI, MIG": ONE_CODE})
    for name in ("leakage of content in pose", "leakage of pose in content"):
        made.number(name, scores[name], 3)
    if found["not_told"]:
        made.note(f"told by neither vector, and in no leakage, DCI and MIG: {', '.join(found['not_told'])}")
    for name, reason in found["left_out"].items():
        made.note(f"{name}: {reason}")
