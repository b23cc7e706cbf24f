"""A run folder: settings, metrics, checkpoints. Weights are safetensors, everything else is JSON; nothing is pickled.

RUN/
  config.json        everything resolved: model, training, data
  metrics.jsonl      one line for every logged step
  tensorboard/       event files
  samples/           pictures made while it trains
  checkpoints/00010000/{model,trainer}.safetensors, state.json
  latest.json        the newest checkpoint's name
  best.json          the best checkpoint's, once held-out clips were measured
"""

import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from drnet.datasets.contract import DataError
from drnet.datasets.reading.source_files import sha256_file
from drnet.guess import guess
from drnet.kinds import KINDS
from drnet.pipelines.claim import locked
from drnet.pipelines.fields import HASH, LARGEST, count, harmless, objects, short, text
from drnet.pipelines.files import (
    is_temporary,
    pretty_json,
    read_json,
    regular_size,
    remove_temporaries,
    sync_folder,
    write_whole,
)
from drnet.pipelines.mistaken import NEW_RUN, RUN, mistaken
from drnet.trainer import TrainConfig

RUN_FORMAT = 1
CONFIG, METRICS, LATEST, BEST = "config.json", "metrics.jsonl", "latest.json", "best.json"
OWN = (CONFIG, METRICS, LATEST, BEST)
OF_FRAMES = ("drnet", "autoencoder")  # kinds of models that encode and decode frames
WEIGHTS, TRAINER, STATE = "model.safetensors", "trainer.safetensors", "state.json"
_KIND = re.compile(r"[a-z]{1,32}")
_METRIC = re.compile(r"[a-z0-9_/]{1,80}")
_STEP = re.compile(r"[0-9]{1,18}")  # the name of a checkpoint's folder
HASHES = ("data.build", "data.order_key")
CHANGEABLE = "train.accumulate"  # where memory ends: the batches stay what they are
GO_BACK = "delete this checkpoint to go on from the one before"


class RunError(ValueError):
    """Something about a run folder that the user can put right; the message is one line."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk.

    Attributes:
        folder: `checkpoints/<step>`.
        step: steps trained.
        sha256: of the weights file.
        trainer_sha256: of the file with everything else that the next step depends on.
    """

    folder: Path
    step: int
    sha256: str
    trainer_sha256: str


@dataclass(frozen=True)
class Best:
    """The checkpoint with the least of a measurement.

    Attributes:
        step: of the checkpoint.
        metric: name of the measurement.
        value: what it was.
    """

    step: int
    metric: str
    value: float


@contextmanager
def run_folder(run: Path) -> Iterator[None]:
    """Make a run's folder where it is missing and hold it for this process, without what killed writers left in it.

    Raises:
        RunError: where another process trains into it.
    """
    if found := "" if run.is_dir() else mistaken(run, NEW_RUN):
        raise RunError(found)
    run.mkdir(parents=True, exist_ok=True)
    with locked(run, RunError, "trains"):
        remove_temporaries(run, OWN)
        yield


def read_config(run: Path) -> dict[str, Any]:
    """Return a run's settings. Raises RunError where there are none or they are of another format."""
    if not (run / CONFIG).exists():
        if found := mistaken(run, RUN):
            raise RunError(found)
        raise RunError(f"{run}: no run here ({CONFIG} is missing); `drnet train --shards S --out {run}` makes one")
    config = read_json(run / CONFIG, "the run's settings")
    if not isinstance(config, dict) or config.get("format") != RUN_FORMAT:
        raise RunError(f"{run / CONFIG}: not a run of format {RUN_FORMAT}, the only one this version of drnet reads")
    try:  # settings that a later version added take their defaults
        harmless(config, "config")
        kind = text(config, "kind", _KIND) if "kind" in config else "drnet"
        if kind not in KINDS:
            raise ValueError(f"kind {kind!r} is not known; there are {', '.join(KINDS)}")
        model, train = _settings(config["model"], KINDS[kind].config()), _settings(config["train"], TrainConfig())
        return {**config, "kind": kind, "model": model, "train": train, "data": objects(config, "data")}
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{run / CONFIG}: damaged, or of a newer version ({error}); train into another --out") from None


def _settings(found: Mapping[str, Any], defaults: Any) -> dict[str, Any]:
    """Return settings with the defaults of those that are missing; raises ValueError for one of another type."""
    settings = replace(defaults, **found).to_json()
    for name, default in defaults.to_json().items():
        value, kinds = settings[name], (int, float) if isinstance(default, float) else (type(default),)
        if type(value) not in kinds or (type(value) is int and value > LARGEST):
            raise ValueError(f"{name} {short(value)} is of another type, or too large")
    return settings


def settle_config(run: Path, config: Mapping[str, Any]) -> None:
    """Write a new run's settings, or compare them with an existing run's; where it has no checkpoint yet it starts anew.

    Raises:
        RunError: naming the setting that differs from the run that is to be continued.
    """
    if not (run / CONFIG).exists() or latest_checkpoint(run) is None:
        run.mkdir(parents=True, exist_ok=True)
        if not (run / CONFIG).exists() and not all(is_temporary(path, OWN) for path in run.iterdir()):
            if found := mistaken(run, NEW_RUN):
                raise RunError(found)
            raise RunError(f"{run}: holds files that are not a run; choose an empty or new folder as --out")
        write_whole(run / CONFIG, pretty_json(config))
        return
    before, now = _flat(read_config(run)), _flat(config)
    names = sorted(before.keys() | now.keys())
    for name in sorted(names, key=lambda name: name != "preset"):  # the preset is why many others differ
        if before.get(name) != now.get(name):
            old, new = (str(value)[:12] if name in HASHES else value for value in (before.get(name), now.get(name)))
            if name != CHANGEABLE:
                raise RunError(f"{run}: was started with {name} {old!r}, not {new!r}; use that, or another --out")
            write_whole(run / CONFIG, pretty_json(config))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def save_checkpoint(
    run: Path, model: torch.nn.Module, trainer: Mapping[str, Tensor], state: Mapping[str, Any]
) -> Checkpoint:
    """Write a checkpoint so that it appears whole: a hidden folder, fsync, rename, then `latest.json`."""
    name = f"{state['step']:08d}"
    final, temporary = run / "checkpoints" / name, run / "checkpoints" / f".{name}.new.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    weights = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    save_file(weights, temporary / WEIGHTS)
    save_file(dict(trainer), temporary / TRAINER)
    digests = [_sync_and_hash(temporary / file) for file in (WEIGHTS, TRAINER)]
    hashes = {"sha256": digests[0], "trainer_sha256": digests[1]}
    write_whole(temporary / STATE, pretty_json({"format": RUN_FORMAT, **state, **hashes}))
    sync_folder(temporary)
    _drop(final)
    temporary.rename(final)
    sync_folder(final.parent)
    write_whole(run / LATEST, pretty_json({"latest": name}))
    return Checkpoint(final, state["step"], *digests)


def _sync_and_hash(path: Path) -> str:
    """Make a written file durable and return its SHA-256."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return sha256_file(path)


def _drop(checkpoint: Path) -> None:
    """Delete a checkpoint so that a killed deletion leaves no half of it under its name."""
    if checkpoint.exists():
        hidden = checkpoint.with_name(f".{checkpoint.name}.old.tmp")
        shutil.rmtree(hidden, ignore_errors=True)
        checkpoint.rename(hidden)
        shutil.rmtree(hidden)


def _checkpoints(run: Path) -> list[Path]:
    """Return the folders of a run's checkpoints, the oldest first."""
    return sorted((p for p in (run / "checkpoints").glob("*") if _STEP.fullmatch(p.name)), key=lambda p: int(p.name))


def keep_checkpoints(run: Path, keep: int, found: Best | None = None) -> None:
    """Delete all but the newest `keep` checkpoints and the best one, and what killed writers left.

    Args:
        run: the run folder.
        keep: how many of the newest stay.
        found: a measurement of the newest, which becomes the best where none was better.
    """
    for stale in (run / "checkpoints").glob(".*.tmp"):
        shutil.rmtree(stale)
    best = read_best(run)
    if found is not None and (best is None or best.metric != found.metric or found.value <= best.value):
        best = found
        write_whole(run / BEST, pretty_json(asdict(found)))
    for old in _checkpoints(run)[:-keep]:
        if best is None or int(old.name) != best.step:
            _drop(old)


def read_best(run: Path) -> Best | None:
    """Return which checkpoint of a run is the best, or None where that is not known or its files are gone."""
    path = run / BEST
    if not path.exists():
        return None
    found = read_json(path, "the best checkpoint's name", "delete the file; the next checkpoint writes it again")
    try:
        best = Best(count(found, "step"), text(found, "metric", _METRIC), float(found["value"]))
        if type(found["value"]) not in (int, float) or not math.isfinite(best.value):
            raise ValueError("not a number")
    except (KeyError, TypeError, ValueError, OverflowError):
        raise RunError(f"{path}: damaged; delete the file; the next checkpoint writes it again") from None
    return best if (run / "checkpoints" / f"{best.step:08d}").exists() else None


def latest_checkpoint(run: Path) -> Checkpoint | None:
    """Return the newest whole checkpoint, or None where there is none yet."""
    folders = _checkpoints(run)
    return _checkpoint(folders[-1]) if folders else None


def _checkpoint(folder: Path) -> Checkpoint:
    path = folder / STATE
    try:
        state = read_json(path, "the checkpoint's state")
        digests = [text(state, name, HASH) for name in ("sha256", "trainer_sha256")]
        return Checkpoint(folder, count(state, "step"), *digests)
    except ValueError:
        raise RunError(f"{path}: missing or damaged; {GO_BACK}") from None


def choose_checkpoint(run: Path, which: str = "last") -> Checkpoint:
    """Return a run's checkpoint by name: `last`, `best` (the least `held_out/reconstruction` measured), or its step.

    Raises:
        RunError: where there is none of that name, with those that there are.
    """
    folders = {int(folder.name): folder for folder in _checkpoints(run)}
    if not folders:
        raise RunError(f"{run}: no checkpoint yet; train it first with `drnet train --shards S --out {run}`")
    if which == "last":
        return _checkpoint(folders[max(folders)])
    if which == "best":
        best = read_best(run)
        if best is None:
            raise RunError(f"{run}: no checkpoint is known to be the best, no held-out clips having been measured yet")
        return _checkpoint(folders[best.step])
    if _STEP.fullmatch(which) and int(which) in folders:
        return _checkpoint(folders[int(which)])
    steps = ", ".join(map(str, folders))
    meant = guess(which, ("last", "best"))
    raise RunError(f"{run}: no checkpoint '{which}'{meant}; there are last, best and the steps {steps}")


def load_tensors(path: Path, sha256: str) -> dict[str, Tensor]:
    """Read a safetensors file. Raises RunError in one line where it is missing or has not this hash."""
    try:
        regular_size(path)
        if sha256_file(path) != sha256:
            raise RunError(f"{path}: damaged (its SHA-256 differs); {GO_BACK}")
        return load_file(path)
    except FileNotFoundError:
        raise RunError(f"{path}: missing; copy the whole run folder, or {GO_BACK}") from None
    except (safetensors.SafetensorError, KeyError, RuntimeError) as error:  # KeyError: a type that torch has not
        raise RunError(f"{path}: damaged ({str(error)[:200]}); {GO_BACK}") from None


def load_weights(model: torch.nn.Module, checkpoint: Checkpoint) -> None:
    """Load a checkpoint's weights, strictly."""
    path = checkpoint.folder / WEIGHTS
    weights = load_tensors(path, checkpoint.sha256)
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise RunError(f"{path}: does not fit the model of {CONFIG} ({str(error).splitlines()[0]})") from None


def _refuse_larger(kind: str, settings: Any, path: Path) -> None:
    """Raise RunError where settings ask for a model that a weights file cannot hold, before it takes its memory."""
    try:
        with torch.device("meta"):
            needed = sum(value.nbytes for value in KINDS[kind].model(settings).state_dict().values())
    except RuntimeError:  # sizes beyond 64 bits
        needed = LARGEST
    except ValueError as error:
        raise RunError(f"{path.parents[2] / CONFIG}: {error}") from None
    if path.exists() and needed > regular_size(path):
        raise RunError(
            f"{path}: holds fewer than the {needed} bytes of the model of {CONFIG}; copy the whole run folder"
        )


def load_run(
    run: Path, device: str = "cpu", which: str = "last", kinds: Sequence[str] = OF_FRAMES
) -> tuple[Any, Checkpoint, dict[str, Any]]:
    """Return a run's model in evaluation mode, the checkpoint it comes from, and the run's settings.

    Args:
        run: the run folder.
        device: where the model goes.
        which: the checkpoint: `last`, `best`, or its step.
        kinds: of runs that are allowed (`drnet.kinds`).

    Returns:
        A `DrNet`, or the model of another kind of run (`drnet.kinds`); its weights are the averaged ones where they
        were averaged.

    Raises:
        RunError: where there is no run, no such checkpoint, or a run of another kind.
    """
    config = read_config(run)
    if config["kind"] not in kinds:
        place = f", such as the run that it belongs to, {run.parent}" if config["kind"] == "predictor" else ""
        raise RunError(
            f"{run}: a run of kind {config['kind']} is not allowed here; name a run of kind {' or '.join(kinds)}{place}"
        )
    checkpoint = choose_checkpoint(run, which)
    kind = KINDS[config["kind"]]
    try:
        settings = kind.config(**config["model"])
    except ValueError as error:
        raise RunError(f"{run / CONFIG}: {error}") from None
    _refuse_larger(config["kind"], settings, checkpoint.folder / WEIGHTS)
    model = kind.model(settings)
    load_weights(model, checkpoint)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval(), checkpoint, config


def read_metrics(run: Path) -> list[dict[str, float]]:
    """Return the logged lines of a run."""
    path = run / METRICS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def train_config(config: Mapping[str, Any]) -> TrainConfig:
    """Return the training settings of a run."""
    return TrainConfig(**config["train"])


def data_error_if_size_differs(config: Mapping[str, Any], shape: tuple[int, int, int]) -> None:
    """Raise DataError where shards hold frames of another shape than a run was trained on."""
    size, channels = config["model"]["size"], config["model"]["channels"]
    if shape != (size, size, channels):
        raise DataError(
            f"frames of {shape} do not fit this run, which was trained on {(size, size, channels)}; "
            f"build shards of that size, or train a run on these"
        )
