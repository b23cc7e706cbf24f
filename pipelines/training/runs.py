"""Look at many run folders: find them, sum each up, and lay their settings and curves beside each other."""

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray

from drnet.datasets.contract import DataError
from drnet.pipelines.fields import count, harmless, short
from drnet.pipelines.files import JSON_LIMIT, read_json, regular_size, write_whole
from drnet.pipelines.run import CONFIG, METRICS, STATE, RunError, latest_checkpoint, read_config

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DEEPEST = 3  # levels below a folder in which its runs are looked for
RECONSTRUCTION, BASELINE = "loss/reconstruction", "baseline/mean_frame"
HELD_OUT = "held_out/reconstruction"
BASELINES = {HELD_OUT: "held_out/mean_frame"}  # of other frames than those trained on
HASHES = ("data.order_key", "data.build")  # settings that tell a reader only that something differs
Sort = Literal["run", "date", "loss", "lowest", "share", "steps", "speed"]
SMALLEST_FIRST = ("run", "loss", "lowest", "share")  # the others: largest first
Scale = Literal["auto", "log", "linear"]
POINTS = 1500  # of a drawn curve, as many as a picture can show
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # told apart by most eyes
STYLES = ("-", "--", ":", "-.")

Series = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """One metric of a run: its finite values (N,), and the steps (N,) at which they were logged; float64."""

    steps: Series
    values: Series

    @property
    def last(self) -> float:
        """The value logged last."""
        return float(self.values[-1])

    @property
    def lowest(self) -> tuple[float, int]:
        """The smallest value, and the first step that had it."""
        place = int(self.values.argmin())
        return float(self.values[place]), int(self.steps[place])


@dataclass(frozen=True)
class Run:
    """What a run folder says.

    Attributes:
        folder: as it was found.
        config: its settings.
        steps: of its newest checkpoint, 0 where there is none.
        asked: the step that the last training command was to stop at; where the run does not say, its horizon.
        written: seconds since 1970 of its newest checkpoint or line of metrics.
        curves: its metrics by name.
    """

    folder: Path
    config: Mapping[str, Any]
    steps: int
    asked: int
    written: float
    curves: Mapping[str, Curve]

    @property
    def data(self) -> str:
        """The data set and its frames' size."""
        name = self.config["data"].get("data_set") or "foreign shards"
        return f"{name} {self.config['model']['size']}x{self.config['model']['size']}"


@dataclass(frozen=True)
class LeftOut:
    """A folder that is no run, or none that can be read."""

    folder: Path
    reason: str


@dataclass(frozen=True)
class Found:
    """The runs in some folders, and every folder that is none."""

    runs: list[Run]
    left_out: list[LeftOut]


def find_runs(folders: Sequence[Path]) -> Found:
    """Read the runs in some folders, each of them a run or a folder of runs.

    Raises:
        DataError: where one of the folders is missing, or there is no run at all.
    """
    places: dict[Path, Path] = {}
    left_out: dict[Path, LeftOut] = {}
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; `drnet train --shards S --out {folder}/NAME` makes a run there")
        found, strangers = _runs_in(folder, DEEPEST)
        for place in found:
            places.setdefault(place.resolve(), place)
        for stranger in strangers:
            left_out.setdefault(stranger.folder.resolve(), stranger)
    runs = []
    for resolved, place in places.items():
        try:
            runs.append(read_run(place))
        except (ValueError, OSError) as error:
            left_out[resolved] = LeftOut(place, _reason(error))
    if not runs:
        raise DataError("; ".join(f"{out.folder}: {out.reason}" for out in left_out.values()))
    return Found(runs, list(left_out.values()))


def _runs_in(folder: Path, depth: int) -> tuple[list[Path], list[LeftOut]]:
    """Return the folders that look like runs, and the topmost ones without any. Links are followed to runs alone."""
    if any((folder / name).exists() for name in (CONFIG, METRICS, "checkpoints")):
        return [folder], []
    runs: list[Path] = []
    left_out: list[LeftOut] = []
    try:
        inside = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except OSError as error:
        return [], [LeftOut(folder, _reason(error))]
    for path in sorted(inside, key=lambda path: (path.is_symlink(), path.name)) if depth else ():
        found, strangers = _runs_in(path, 0 if path.is_symlink() else depth - 1)
        runs += found
        left_out += strangers
    return runs, left_out if runs else [LeftOut(folder, "no run in it")]


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split()) or type(error).__name__


def read_run(folder: Path) -> Run:
    """Return what a run folder says. Raises ValueError or OSError where it is no run or damaged."""
    config, checkpoint = read_config(folder), latest_checkpoint(folder)
    steps, asked = 0, config["train"]["horizon"]
    times = [(folder / CONFIG).stat().st_mtime]
    if checkpoint is not None:
        state = read_json(checkpoint.folder / STATE, "the checkpoint's state")
        steps, asked = checkpoint.step, count({"asked": asked, **state}, "asked")
        times.append((checkpoint.folder / STATE).stat().st_mtime)
    curves: dict[str, Curve] = {}
    if (folder / METRICS).exists():
        curves = read_curves(folder / METRICS)
        times.append((folder / METRICS).stat().st_mtime)
    return Run(folder, config, steps, asked, max(times), curves)


def read_curves(path: Path) -> dict[str, Curve]:
    """Return the metrics of a `metrics.jsonl`, which another process may be writing: a line without end is not read.

    Raises:
        RunError: naming the first line that is damaged.
    """
    if (size := regular_size(path)) > JSON_LIMIT:
        raise DataError(f"{path}: {size} bytes is too large for metrics; at most {JSON_LIMIT} are read")
    columns: dict[str, tuple[list[int], list[float]]] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            try:
                _add(columns, orjson.loads(line))
            except ValueError as error:
                raise RunError(f"{path}: line {number} is damaged ({' '.join(str(error).split())})") from None
    return {name: Curve(np.array(steps, float), np.array(values)) for name, (steps, values) in columns.items()}


def _add(columns: dict[str, tuple[list[int], list[float]]], row: Any) -> None:
    """Add a line's values to the columns; raises ValueError where one is no number."""
    step = count(row, "step")
    for name, value in row.items():
        if type(value) not in (int, float):
            raise ValueError(f"{short(name)} {short(value)} is not a number")
        if name == "step":
            continue
        if name not in columns:
            columns[harmless(name, "a metric's name")] = ([], [])
        columns[name][0].append(step)
        columns[name][1].append(float(value))


def default_metric(runs: Sequence[Run]) -> str:
    """Return the reconstruction loss that all runs have: of held-out clips where it was logged, else of training."""
    common = (
        set.intersection(*(set(run.curves) for run in runs if run.curves)) if any(run.curves for run in runs) else set()
    )
    return HELD_OUT if HELD_OUT in common else RECONSTRUCTION


@dataclass(frozen=True)
class Row:
    """A run in one line; None where it is not logged.

    Attributes:
        data: the data set and its frames' size.
        steps, asked: of its newest checkpoint, and where training was to stop.
        loss, lowest: the metric's last and smallest value; `lowest_step` is the first step that had it.
        share: the last reconstruction loss as a share of what drawing the mean frame everywhere would give.
        pose, content: the variance of each, near 0 where it has collapsed.
        speed: steps a second, the median of what was logged.
        date: when its newest checkpoint or line of metrics was written, ISO 8601 in UTC.
    """

    run: str
    preset: str
    data: str
    steps: int
    asked: int
    finished: bool
    loss: float | None
    lowest: float | None
    lowest_step: int | None
    share: float | None
    pose: float | None
    content: float | None
    speed: float | None
    date: str


def sum_up(run: Run, metric: str) -> Row:
    """Return a run in one line."""

    def last(name: str) -> float | None:
        return run.curves[name].last if name in run.curves else None

    error = metric if metric.endswith("/reconstruction") else RECONSTRUCTION
    drawn, baseline = last(error), last(BASELINES.get(error, BASELINE))
    lowest, lowest_step = run.curves[metric].lowest if metric in run.curves else (None, None)
    speed = run.curves.get("time/steps_per_second")
    return Row(
        run=str(run.folder),
        preset=str(run.config.get("preset")),
        data=run.data,
        steps=run.steps,
        asked=run.asked,
        finished=run.steps >= run.asked,
        loss=last(metric),
        lowest=lowest,
        lowest_step=lowest_step,
        share=drawn / baseline if drawn is not None and baseline else None,
        pose=last("variance/pose"),
        content=last("variance/content"),
        speed=None if speed is None else float(np.median(speed.values)),
        date=datetime.fromtimestamp(run.written, UTC).isoformat(timespec="seconds"),
    )


def sort_runs(runs: Sequence[Run], metric: str, key: Sort) -> list[Run]:
    """Sort by run, loss, lowest or share from the smallest, by anything else from the largest; unknown ones come last."""
    keys = [getattr(sum_up(run, metric), key) for run in runs]
    known = sorted((n for n, value in enumerate(keys) if value is not None), key=lambda n: keys[n])
    order = known if key in SMALLEST_FIRST else known[::-1]
    return [runs[n] for n in order] + [run for run, value in zip(runs, keys, strict=True) if value is None]


def differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Return each setting that is not the same in all runs, with its value in each; None where a run has it not."""
    flat = [_flat(run.config) for run in runs]
    names = dict.fromkeys(name for settings in flat for name in settings)
    found = {name: [settings.get(name) for settings in flat] for name in names}
    return {name: values for name, values in found.items() if any(value != values[0] for value in values)}


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by the name that their option has; those of the data begin with `data.`."""
    data = {f"data.{name}": value for name, value in config["data"].items()}
    return {"preset": config.get("preset"), **config["model"], **config["train"], **data}


def short_names(runs: Sequence[Run]) -> list[str]:
    """Return the runs' folders without what all of them have in common."""
    folders = [run.folder.absolute() for run in runs]
    above = os.path.commonpath([folder.parent for folder in folders])
    return [str(folder.relative_to(above)) for folder in folders]


def legend(runs: Sequence[Run], most: int = 4) -> list[str]:
    """Return each run's name and its values of the first few settings in which the runs differ."""
    differing = {name: values for name, values in differences(runs).items() if name not in HASHES}
    labels = []
    for number, name in enumerate(short_names(runs)):
        told = [f"{setting} {show(values[number])}" for setting, values in list(differing.items())[:most]]
        more = [f"{len(differing) - most} more"] if len(differing) > most else []
        labels.append(f"{name} ({', '.join(told + more)})" if told else name)
    return labels


def show(value: Any) -> str:
    """Return a setting's value as a table shows it; a hash by its beginning."""
    text = f"{value:g}" if isinstance(value, float) else "-" if value is None else str(value)
    return text if len(text) <= 24 else f"{text[:8]}..."


def smooth(curve: Curve, width: float, geometric: bool = False) -> Curve:
    """Return the mean of a curve's values around each step, weighted by a Gaussian: it lags behind nothing.

    Args:
        curve: with any spacing; more than `POINTS` values are first averaged in groups.
        width: standard deviation of the weights, in steps; 0 leaves the values as they are.
        geometric: take the geometric mean, which is the middle of what a logarithmic axis shows.
    """
    groups = np.array_split(np.arange(len(curve.steps)), min(POINTS, len(curve.steps)))
    steps = np.array([curve.steps[group].mean() for group in groups])
    values = np.array([curve.values[group].mean() for group in groups])
    if width == 0:
        return Curve(steps, values)
    weights = np.exp(-0.5 * ((steps[:, None] - steps) / width) ** 2)
    weights /= weights.sum(1, keepdims=True)
    return Curve(steps, np.exp(weights @ np.log(values)) if geometric else weights @ values)


def with_metric(runs: Sequence[Run], metric: str) -> list[Run]:
    """Return the runs that logged a metric. Raises DataError where none has."""
    found = [run for run in runs if metric in run.curves]
    if not found:
        there = sorted({name for run in runs for name in run.curves})
        raise DataError(f"metric {metric!r} is in none of these runs; there are {', '.join(there) or 'none yet'}")
    return found


def save_comparison(
    path: Path, runs: Sequence[Run], metric: str, width: float | None = None, scale: Scale = "auto"
) -> None:
    """Draw a metric's curves, the logged values faintly behind the smoothed ones.

    Args:
        path: a PNG or SVG by its ending.
        runs: all of which have the metric.
        metric: its name.
        width: of the smoothing in steps, see `smooth`; by default a fiftieth of the longest curve.
        scale: of the values; `auto` is logarithmic where they are above 0 and span more than a factor of 5.

    Raises:
        DataError: where a logarithmic axis cannot show the values, or the width is negative.
    """
    import matplotlib  # slow to import, and only needed here
    from matplotlib.figure import Figure

    curves = [run.curves[metric] for run in runs]
    if width is None:
        width = max(float(curve.steps[-1]) for curve in curves) / 50
    if not 0 <= width < np.inf:
        raise DataError(f"smoothing {width:g} is not allowed; it must be 0 or more steps")
    logarithmic = _is_logarithmic(scale, curves)
    lines = [smooth(curve, width, logarithmic) for curve in curves]
    figure = Figure(figsize=(7.2, 3.9 + 0.2 * len(runs)), layout="constrained")
    axes = figure.subplots()
    for number, (raw, line, label) in enumerate(zip(curves, lines, legend(runs), strict=True)):
        colour, style = COLOURS[number % len(COLOURS)], STYLES[number // len(COLOURS) % len(STYLES)]
        if width:
            faint = smooth(raw, 0)
            axes.plot(faint.steps, faint.values, linewidth=0.7, alpha=0.25, color=colour)
        label = "\u200b" + label.replace("$", r"\$")  # "_" at its beginning would hide it, and "$" begin a formula
        axes.plot(line.steps, line.values, linewidth=1.6, label=label, color=colour, linestyle=style)
    if logarithmic:
        _number_decades(axes)
    axes.set(xlabel="step", ylabel=metric, title=f"smoothed over {width:g} steps" if width else "as logged")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower left", fontsize=8, frameon=False)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "drnet"}):  # the same runs give the same bytes
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(buffer, format=path.suffix[1:], dpi=130, metadata=metadata)
    write_whole(path, buffer.getvalue())


def _is_logarithmic(scale: Scale, curves: Sequence[Curve]) -> bool:
    values = np.concatenate([curve.values for curve in curves])
    if scale == "log" and values.min() <= 0:
        raise DataError("a logarithmic axis shows no values of 0 or less, and some are; use the linear scale")
    return scale == "log" or (scale == "auto" and bool(values.max() > 5 * values.min() > 0))


def _number_decades(axes: "Axes") -> None:
    """Make an axis logarithmic, with plain numbers on it."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
