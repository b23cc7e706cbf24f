"""All results on one page that needs nothing but its folder: pictures, movies, tables with the paper's numbers beside."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drnet.pipelines.files import write_whole
from drnet.pipelines.looking import page
from drnet.pipelines.reproduction.experiments import EXPERIMENTS, Experiment
from drnet.pipelines.reproduction.result import NO_NUMBER, read_result

PAGE = "index.html"
MOVIE = ".mp4"


def write_report(out: Path) -> None:
    """Write `index.html` of what is in a folder of results; what is not there yet is named with its command."""
    found = {experiment.id: read_result(out / experiment.id) for experiment in EXPERIMENTS}
    done = [result for result in found.values() if result and result["state"] == "done"]
    scales = sorted({result["scale"] for result in found.values() if result})
    parts = [
        page.paragraph(
            "Denton and Birodkar, Unsupervised Learning of Disentangled Representations from Video (2017), reproduced. "
            f"{len(done)} of {len(EXPERIMENTS)} figures and tables are done"
            + (f", at scale {', '.join(scales)}." if scales else ".")
        ),
        page.contents([(one.id, f"{one.where}: {one.title}", f"({told_of(found[one.id])})") for one in EXPERIMENTS]),
    ]
    if any(result["data"]["licence"] and "publish no pictures" in result["data"]["licence"] for result in done):
        parts.append(page.paragraph("This page shows persons who can be recognised: do not publish it."))
    if numbers := [row for result in done for row in judged(result)]:
        parts += [page.heading("Our numbers beside the paper's"), page.table(COLUMNS, numbers)]
    for experiment in EXPERIMENTS:
        parts += section(experiment, found[experiment.id])
    write_whole(out / PAGE, page.page("DrNet, reproduced", parts))


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


def section(experiment: Experiment, result: Mapping[str, Any] | None) -> list[str]:
    """Return an experiment's part of the page."""
    parts = [
        page.heading(f"{experiment.where}: {experiment.title}", experiment.id),
        page.paragraph(f"In the paper: {experiment.claim}"),
    ]
    if result is None:
        return [*parts, page.paragraph(f"Not run yet: drnet reproduce {experiment.id}")]
    if result["state"] != "done":
        return [*parts, page.paragraph(f"{str(result['state']).capitalize()}: {result['error']}")]
    clips = ", ".join(f"{count:,} {split}" for split, count in result["data"]["clips"].items())
    parts.append(page.paragraph(f"Data: {data_of(result)}; clips: {clips}."))
    for picture in result["pictures"]:
        source = f"{experiment.id}/{picture['file']}"
        show = page.movie if source.endswith(MOVIE) else page.picture
        parts.append(show(source, picture["caption"]))
    if result["numbers"]:
        parts.append(page.table(COLUMNS[:-1], [[row["name"], *cells(row)] for row in result["numbers"]]))
    for table in result["tables"]:
        parts += [page.paragraph(table["title"]), page.table(table["columns"], table["rows"])]
    parts += [page.small(note) for note in (*result["data"]["notes"], *result["notes"])]
    return [*parts, *map(page.small, origin(result))]


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
