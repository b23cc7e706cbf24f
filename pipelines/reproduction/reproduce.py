"""Reproduce figures and tables of the paper: make what is missing, draw, put numbers beside the paper's, and go on.

OUT/
  data/, runs/, features/   what experiments share, each made once
  <id>/                     figures, movies, metrics, `result.json`
  reproduction.json         the scale: a folder holds one
  seconds.json              how long each part has taken
  index.html                everything on one page

An experiment is drawn again where anything that it is made from has changed, or where that is asked for; else it is
kept. What fails is told at
the end and in the page, and does not keep the others from being made.
"""

import re
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import drnet
from drnet.datasets.cache import cache_folder
from drnet.datasets.contract import DataError
from drnet.pipelines.claim import locked, refuse_file, refuse_strangers
from drnet.pipelines.files import canonical_json, pretty_json, read_json, sha256_of, write_whole
from drnet.pipelines.progress import Progress, Silent
from drnet.pipelines.reproduction.experiments import BY_ID, Experiment, Need, chosen
from drnet.pipelines.reproduction.report import PAGE, command_of, write_report
from drnet.pipelines.reproduction.result import Made, line_of, read_result, why_unjudged, write_result
from drnet.pipelines.reproduction.scales import Scale, scale_of
from drnet.pipelines.reproduction.sources import Absent
from drnet.pipelines.reproduction.workshop import SECONDS, Halted, Stoppable, Workshop, facts_of
from drnet.pipelines.train import choose_device
from drnet.pipelines.versions import versions

MATTER = ("torch", "numpy", "python")  # whose versions numbers may depend on
NOTE = "reproduction.json"
OWN = {"data", "runs", "features", NOTE, SECONDS, PAGE, *BY_ID}
State = Literal["done", "kept", "failed", "not run"]


@dataclass(frozen=True)
class Ended:
    """How an experiment ended.

    Attributes:
        id: of the experiment.
        state: `kept` where it was there already; `not run` where its data is not at hand.
        lines: what to say: its numbers beside the paper's, or why there are none.
    """

    id: str
    state: State
    lines: tuple[str, ...]


@dataclass
class Reproduction:
    """What a call has done.

    Attributes:
        page: where everything is shown.
        ended: experiments, in turn.
        stopped: whether a signal ended it before its last experiment.
    """

    page: Path
    ended: list[Ended] = field(default_factory=list)
    stopped: bool = False

    def of(self, state: State) -> list[Ended]:
        """Return the experiments that ended so."""
        return [one for one in self.ended if one.state == state]


@contextmanager
def never_stopped() -> Iterator[threading.Event]:
    """Give an event that nobody sets."""
    yield threading.Event()


def reproduce(
    ids: Sequence[str],
    out: Path,
    scale: str | Scale = "tiny",
    root: Path | None = None,
    device: str = "auto",
    workers: int = 2,
    progress: Progress | None = None,
    stoppable: Stoppable = never_stopped,
    again: bool = False,
) -> Reproduction:
    """Make experiments, each continued where an earlier call in the same folder was stopped.

    Args:
        ids: of the experiments, or `all`.
        out: folder of the results.
        scale: `tiny`, `small` or `paper`.
        root: folder with `mnist/`, `kth/`, `norb/`, `coil20/`; the user's cache is looked at after it.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        workers: processes that build.
        progress: told of everything.
        stoppable: entered while it trains; when the event it gives is set, training ends with a checkpoint.
        again: whether what is there is drawn and scored anew, too, from the data and runs that are there.

    Raises:
        ValueError: for ids, scales, folders and devices that are not allowed.
    """
    progress, experiments = progress or Silent(), chosen(tuple(ids))
    wanted = scale_of(scale) if isinstance(scale, str) else scale
    if root is not None and not root.is_dir():
        raise DataError(f"data root {root} is not a folder; name the one that holds mnist, kth, norb or coil20")
    choose_device(device)
    settle(out, wanted)
    shop = Workshop(out, wanted, root, device, workers, progress, stoppable)
    found = Reproduction(out / PAGE)
    with locked(out, DataError, "reproduces"):
        write_report(out, wanted.name)  # a call that is interrupted leaves a page, too
        try:
            for number, experiment in enumerate(experiments, 1):
                progress.note(f"[{number}/{len(experiments)}] {experiment.id}: {experiment.title}")
                found.ended.append(_ended(experiment, shop, again))
                write_report(out, wanted.name)
        except Halted:
            found.stopped = True
    return found


def settle(out: Path, scale: Scale) -> None:
    """Make a folder of results this scale's; raises DataError where it is another's, or holds other files."""
    refuse_file(out)
    out.mkdir(parents=True, exist_ok=True)
    if (out / NOTE).exists():
        before = read_json(out / NOTE, "what the folder is of", "choose another --out").get("scale")
        if before != scale.name:
            raise DataError(f"{out} holds results of scale {before}; choose another --out for scale {scale.name}")
        return
    refuse_strangers(out, {path.name for path in out.glob("[!.]*")})
    write_whole(out / NOTE, pretty_json({"scale": scale.name, "drnet": drnet.__version__}))


def report(out: Path) -> Path:
    """Write the page of what is there, and return its path; raises DataError where there are no results."""
    if not (out / NOTE).exists():
        raise DataError(f"{out}: no results here; `drnet reproduce all --out {out}` makes them")
    write_report(out, str(read_json(out / NOTE, "what the folder is of", "choose another --out").get("scale")))
    return out / PAGE


def _ended(experiment: Experiment, shop: Workshop, again: bool) -> Ended:
    """Make an experiment; whatever fails in it is told and written down, and ends nothing else."""
    folder = shop.out / experiment.id
    try:
        made = _make(experiment, shop, again)
    except Halted:
        raise
    except Exception as error:
        absent = isinstance(error, Absent)
        why = " ".join(str(error).split()) or type(error).__name__
        told: dict[str, Any] = {"state": "not run" if absent else "failed", "error": _shared(why, shop)}
        if not isinstance(error, ValueError | OSError):  # no mistake of the user's: where it happened helps
            why = f"{type(error).__name__}: {why}"
            told["error"] = _shared(why, shop)
            told["traceback"] = traceback.format_exception(error)
        write_result(folder, _about(experiment, shop) | told)
        return Ended(experiment.id, "not run" if absent else "failed", (why,))
    return made


def _shared(why: str, shop: Workshop) -> str:
    """Return an error or a note as the page shows it, which others read, too: folders by the names that commands in it have."""
    for folder, name in ((shop.root, "DIR"), (cache_folder(), "CACHE"), (shop.out, shop.out.resolve().name)):
        if folder is not None:
            why = name.join(re.split(rf"(?<![\w./-]){re.escape(str(folder))}(?=/)", why))
    return why


def _about(experiment: Experiment, shop: Workshop) -> dict[str, Any]:
    """Return what every result says."""
    return {
        "id": experiment.id,
        "title": experiment.title,
        "where": experiment.where,
        "scale": shop.scale.name,
        "command": command_of(experiment.id, shop.scale.name, shop.out),
        "versions": versions(*MATTER),
    }


def _make(experiment: Experiment, shop: Workshop, again: bool) -> Ended:
    folder, before = shop.out / experiment.id, read_result(shop.out / experiment.id)
    data = _data(experiment, shop)
    runs = [run for need in experiment.needs for run in _runs(need, shop)]
    facts = [facts_of(run, shop.out) for run in runs]
    about = _about(experiment, shop) | {"data": data, "runs": facts}
    settings = _settings(shop.scale)
    used = {"data": data["build"], "runs": facts, "settings": settings, "versions": versions(*MATTER)}
    inputs = sha256_of(canonical_json(used))
    if not again and before is not None and _is_whole(folder, before, inputs):
        return Ended(experiment.id, "kept", tuple(map(line_of, before["numbers"])))
    folder.mkdir(parents=True, exist_ok=True)
    made = Made(folder, experiment.by_name(), why_unjudged(shop.scale, data))
    began = time.monotonic()
    experiment.draw(shop, made)
    made.end()
    parts = [f"data/{data['name']}", *(f"runs/{run.name}" for run in runs)]
    parts += [f"runs/{run.name}/predictor" for run in runs] + [f"features/{run.name}.h5" for run in runs]
    write_result(
        folder,
        about
        | {
            "state": "done",
            "inputs": inputs,
            "settings": settings,
            "seeds": sorted({fact["seed"] for fact in facts}),
            "pictures": made.pictures,
            "tables": made.tables,
            "numbers": made.numbers,
            "notes": made.notes,
            "seconds": shop.seconds(*parts) | {"drawing and scoring": round(time.monotonic() - began, 2)},
        },
    )
    return Ended(experiment.id, "done", tuple(map(line_of, made.numbers)))


def _data(experiment: Experiment, shop: Workshop) -> dict[str, Any]:
    """Build an experiment's data, and return what its result says of it."""
    shop.shards(experiment.role)
    manifest = shop.manifest(experiment.role)
    found = shop.chosen(experiment.role).to_json()
    return found | {
        "notes": [_shared(note, shop) for note in found["notes"]],
        "data_set": manifest.about["data_set"],
        "build": manifest.build,
        "licence": manifest.about["licence"],
        "clips": {split: sum(row.clips for row in rows) for split, rows in manifest.splits.items()},
        "items": {split: dict(counts) for split, counts in manifest.accounting.items()},
    }


def _runs(need: Need, shop: Workshop) -> list[Path]:
    """Make all that is needed of a run, and return its folder; one for each seed."""
    found = []
    for seed in range(shop.scale.seeds if need.every_seed else 1):
        found.append(shop.run(need.role, need.variant, seed))
        if need.part == "features":
            shop.features(need.role, need.variant, seed)
        elif need.part == "predictor":
            shop.predictor(need.role, need.variant)
    return found


def _settings(scale: Scale) -> Mapping[str, Any]:
    """Return what of a scale figures depend on, besides the runs."""
    names = (
        "judged",
        "seeds",
        "far_digits",
        "far",
        "scored",
        "sections",
        "persons",
        "draws",
        "hidden",
        "fits",
        "searched",
    )
    return {name: getattr(scale, name) for name in names}


def _is_whole(folder: Path, before: Mapping[str, Any], inputs: str) -> bool:
    """Return whether a result was made from these inputs, and all its pictures are there."""
    if before.get("state") != "done" or before.get("inputs") != inputs:
        return False
    return all((folder / picture["file"]).is_file() for picture in before["pictures"])
