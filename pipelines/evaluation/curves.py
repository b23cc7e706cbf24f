"""The curves of an evaluation as a picture: PSNR and SSIM over the steps, and where digits are, each with its interval."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from drnet.pipelines.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = {
    "predicted": "predicted",
    "true_pose": "given the true pose",
    "copy_last": "copy of the last frame",
    "truth": "true drawing",
    "middle": "middle of the frame (chance)",
    "other_clip": "place of another clip (chance)",
}
COLOURS = {"predicted": "#0b62a4", "true_pose": "#3a9d5d", "copy_last": "#c2541b", "truth": "#888888"}
COLOURS |= {"middle": "#bbbbbb", "other_clip": "#a58fc0"}
UNITS = {"psnr": "PSNR, dB", "ssim": "SSIM", "lpips": "LPIPS"}
LONG, FAR = 150, 20  # steps: beyond, the first ones would not be seen on an even axis; and where only some are drawn


def save_metric_curves(path: Path, report: Mapping[str, Any]) -> None:
    """Draw the curves of a report that has `frames`, and of its `position` where it has one.

    Args:
        path: a PNG.
        report: from `evaluate`.
    """
    from matplotlib.figure import Figure  # slow to import, and only needed here

    frames, position = report["frames"], report.get("position", {})
    placed = "errors" in position
    drawn = {name: unit for name, unit in UNITS.items() if name in frames}
    figure = Figure(figsize=(5.2 * (len(drawn) + placed), 3.9), layout="constrained")
    axes = figure.subplots(1, len(drawn) + placed)
    for one, (metric, unit) in zip(axes, drawn.items(), strict=False):
        for row, curve in frames[metric].items():
            _line(one, row, frames["steps"], curve)
        _dress(one, unit, frames["steps"][-1])
        if "repeats_every" in frames and metric != "lpips":  # there a copy falls to 0, where the axis begins anyway
            _leave_out_returns(one, frames[metric])
    if placed:
        for row, found in position["errors"].items():
            _line(axes[-1], row, position["steps"], found["error"], marker="o")
        _dress(axes[-1], f"error of a digit's position, pixels of {position['frame']}", position["steps"][-1], far=FAR)
        axes[-1].set_ylim(bottom=min(0, axes[-1].get_ylim()[0]))
    handles, labels = axes[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    figure.suptitle(_title(report), fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_whole(path, buffer.getvalue())


def _line(axes: "Axes", row: str, steps: list[int], curve: Mapping[str, list[float | None]], marker: str = "") -> None:
    mean, low, high = (np.array(curve[name], float) for name in ("mean", "low", "high"))
    style = ":" if marker else "-"  # nothing was measured between markers
    marker = marker or ("o" if len(steps) == 1 else "")
    axes.plot(steps, mean, style, color=COLOURS[row], label=NAMES[row], linewidth=1.5, marker=marker, markersize=4)
    if style == ":":
        axes.errorbar(steps, mean, (mean - low, high - mean), color=COLOURS[row], fmt="none", capsize=3, linewidth=1)
        return
    axes.fill_between(steps, low, high, color=COLOURS[row], alpha=0.18, linewidth=0)


def _leave_out_returns(axes: "Axes", curves: Mapping[str, Mapping[str, list[float | None]]]) -> None:
    """End the axis a little above the other rows: where a scene repeats itself, a copy is far above for some steps."""
    others = [value or 0.0 for row, curve in curves.items() if row != "copy_last" for value in curve["mean"]]
    copied = [value or 0.0 for value in curves["copy_last"]["mean"]]
    low, high = axes.get_ylim()
    top = max([*others, float(np.quantile(copied, 0.8))])
    axes.set_ylim(low, min(high, top + 0.15 * (top - low)))


def _dress(axes: "Axes", unit: str, last: int, far: int = LONG) -> None:
    axes.set(xlabel="step after the last observed frame", ylabel=unit)
    if last > far:
        axes.set_xscale("log")
        ticks = [step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000) if step <= last]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _title(report: Mapping[str, Any]) -> str:
    frames, protocol, data = report["frames"], report["protocol"], report["data"]
    clips = frames["clips_at_step"]
    count = f"{frames['windows']} windows of {frames['clips']} clips"
    if clips[-1] < clips[0]:
        count += f", of {clips[-1]} at the last step"
    what = (
        f"{data['data_set'] or 'clips'}, held out, protocol {protocol['name']}: {protocol['observe']} frames observed"
    )
    return f"{what}; {count}; shaded: 95% interval over clips"
