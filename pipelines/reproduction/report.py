"""All results on one page that needs nothing but its folder: pictures, movies, tables with the paper's numbers beside."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from drnet.pipelines.files import write_whole
from drnet.pipelines.looking import page
from drnet.pipelines.reproduction.experiments import EXPERIMENTS, Experiment
from drnet.pipelines.reproduction.result import NO_NUMBER, read_result
from drnet.pipelines.reproduction.scales import PAPER
from drnet.pipelines.reproduction.workshop import seconds_of

PAGE = "index.html"
REMARKS = "remarks.txt"  # beside an experiment's pictures: what is wrong with them, by whoever has looked at them
MOVIE = ".mp4"
DRAWING = "drawing and scoring"


def write_report(out: Path, scale: str) -> None:
    """Write `index.html` of what is in a folder of results; what is not there yet is named with its command."""
    found = {experiment.id: read_result(out / experiment.id) for experiment in EXPERIMENTS}
    done = [result for result in found.values() if result and result["state"] == "done"]
    parts = [
        page.paragraph(
            "Denton and Birodkar, Unsupervised Learning of Disentangled Representations from Video (2017), reproduced. "
            f"{len(done)} of {len(EXPERIMENTS)} figures and tables are done, at scale {scale}. {time_of(out, done)}"
        ),
        page.contents([(one.id, f"{one.where}: {one.title}", f"({told_of(found[one.id])})") for one in EXPERIMENTS]),
    ]
    parts.append(page.small("In commands DIR is the folder of the originals; without any, leave out --data-root DIR."))
    if any(result["data"]["licence"] and "publish no pictures" in result["data"]["licence"] for result in done):
        parts.append(page.paragraph("This page shows persons who can be recognised: do not publish it."))
    if numbers := [row for result in done for row in judged(result)]:
        parts += [page.heading("Our numbers beside the paper's"), page.table(COLUMNS, numbers)]
    for experiment in EXPERIMENTS:
        parts += section(experiment, found[experiment.id], out, scale)
    write_whole(out / PAGE, page.page("DrNet, reproduced", parts))


def command_of(name: str, scale: str, out: Path) -> str:
    """Return the command that makes an experiment, for a reader to copy: no folder of who made it, only results' own name.

    Args:
        name: of the experiment.
        scale: of the results.
        out: their folder.
    """
    where = out.resolve().name or "results"
    return shlex.join(["drnet", "reproduce", name, "--scale", scale, "--data-root", "DIR", "--out", where])


COLUMNS = ("number", "paper", "ours", "verdict", "data")


def told_of(result: Mapping[str, Any] | None) -> str:
    """Return how an experiment stands, in a word or two."""
    if result is None:
        return "not run yet"
    verdicts = [row["verdict"] for row in result.get("numbers", ())]
    counted = ", ".join(f"{verdicts.count(word)} {word}" for word in ("pass", "miss") if word in verdicts)
    return counted or str(result["state"])


def judged(result: Mapping[str, Any]) -> list[list[str]]:
    """Return a result's numbers that the paper has, too, as rows under `COLUMNS`."""
    rows = [row for row in result["numbers"] if row["paper"] != NO_NUMBER]
    data = result["data"]
    short = data["name"] + (f" for {data['stands_for']}" if data["stands_for"] else "" if data["whole"] else ", a part")
    return [[f"{result['id']}: {row['name']}", *cells(row), short] for row in rows]


def cells(row: Mapping[str, Any]) -> list[str]:
    """Return what stands beside a number's name: the paper's, ours, the verdict."""
    paper, digits = row["paper"], row["digits"]
    shown = f"{paper:.{digits}f}" if isinstance(paper, float) else str(paper)
    own = "-" if row["ours"] is None else f"{row['ours']:.{digits}f}"
    rule = f" ({row['rule']})" if row["rule"] and row["verdict"] in ("pass", "miss") else ""
    return [shown, own, row["verdict"] + rule]


def data_of(result: Mapping[str, Any]) -> str:
    """Return which data a result is of, and what that stands for."""
    data = result["data"]
    return data["what"] + (f" (in place of {data['stands_for']})" if data["stands_for"] else "")


def time_of(out: Path, done: Sequence[Mapping[str, Any]]) -> str:
    """Return how long everything has taken, over all calls, as a sentence; empty where nothing was timed."""
    parts = {"data": 0.0, "runs": 0.0, "features": 0.0}
    for part, seconds in seconds_of(out).items():
        parts[part.partition("/")[0]] += seconds
    drawn = sum(result["seconds"].get(DRAWING, 0.0) for result in done)
    named = {"building": parts["data"], "training": parts["runs"] + parts["features"], DRAWING: drawn}
    total = sum(named.values())
    each = ", ".join(f"{name} {seconds / 60:,.1f}" for name, seconds in named.items())
    return f"All of it took {total / 60:,.1f} minutes: {each}." if total else ""


def effort_of(experiment: Experiment, result: Mapping[str, Any]) -> str:
    """Return how far the training falls short of the full protocol, as a sentence; empty where it does not."""
    plans = [PAPER.plan(need.role, need.variant) for need in experiment.needs]
    steps, full = sorted({run["step"] for run in result["runs"]}), max(plan.steps for plan in plans)
    if steps[-1] >= full:
        return ""
    told = f"{steps[0]:,}" + (f" to {steps[-1]:,}" if len(steps) > 1 else "")
    words = [f"At {result['scale']}: {told} steps of training, where the full protocol has {full:,}"]
    if {run["preset"] for run in result["runs"]} - {plan.preset for plan in plans}:
        words.append("by smaller presets")
    if result["data"]["stands_for"]:
        words.append(f"on what stands in for {result['data']['stands_for']}")
    elif not result["data"]["whole"]:
        words.append("on a part of the data")
    expected = ": expect blur in frames, and numbers far from the paper's" if steps[-1] < full / 10 else ""
    return ", ".join(words) + expected + "."


def remarks_of(folder: Path) -> list[str]:
    """Return what somebody who looked at an experiment's pictures wrote of them, or that nobody has."""
    path = folder / REMARKS
    lines = path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""
    if not lines:
        return [page.small(f"What is wrong with the pictures: not said yet; {folder.name}/{REMARKS} is shown here.")]
    return [page.paragraph(f"What is wrong with the pictures: {line}") for line in lines.splitlines() if line]


def section(experiment: Experiment, result: Mapping[str, Any] | None, out: Path, scale: str) -> list[str]:
    """Return an experiment's part of the page."""
    folder = out / experiment.id
    parts = [
        page.heading(f"{experiment.where}: {experiment.title}", experiment.id),
        page.paragraph(f"In the paper: {experiment.claim}"),
    ]
    command = command_of(experiment.id, scale, out)
    if result is None:
        return [*parts, page.paragraph(f"Not run yet: {command}")]
    if result["state"] != "done":
        return [
            *parts,
            page.paragraph(f"{str(result['state']).capitalize()}: {result['error']}"),
            page.commands([command]),
        ]
    clips = ", ".join(f"{count:,} {split}" for split, count in result["data"]["clips"].items())
    parts.append(page.paragraph(f"Data: {data_of(result)}; clips: {clips}. {effort_of(experiment, result)}"))
    for picture in result["pictures"]:
        source, caption = f"{experiment.id}/{picture['file']}", picture["caption"]
        parts.append((page.movie if source.endswith(MOVIE) else page.picture)(source, caption))
    if result["pictures"]:
        parts += remarks_of(folder)
    if result["numbers"]:
        parts.append(page.table(COLUMNS[:-1], [[row["name"], *cells(row)] for row in result["numbers"]]))
    for table in result["tables"]:
        parts += [page.paragraph(table["title"]), page.table(table["columns"], table["rows"])]
        legend = [f"{name}: {words}" for name, words in table.get("legend", {}).items()]
        parts += [page.small("; ".join(legend) + ".")] if legend else []
    parts += [page.small(note) for note in (*result["data"]["notes"], *result["notes"])]
    return [*parts, *map(page.small, origin(result)), page.commands([command])]


def origin(result: Mapping[str, Any]) -> list[str]:
    """Return what a result was made from, in lines."""
    runs = (
        f"{run['folder']} ({run['preset']}, {run['step']:,} steps, seed {run['seed']}, weights {run['sha256'][:12]}"
        + (f"; predictor {run['predictor']['step']:,} steps" if "predictor" in run else "")
        + ")"
        for run in result["runs"]
    )
    versions = ", ".join(f"{name} {value}" for name, value in result["versions"].items())
    seconds = ", ".join(f"{part} {value:,.0f} s" for part, value in result["seconds"].items() if value >= 1)
    return [
        f"Runs: {', '.join(runs)}. Data: build {result['data']['build'][:12]}. Scale {result['scale']}. {versions}.",
        f"Time: {seconds}." if seconds else "",
    ]
