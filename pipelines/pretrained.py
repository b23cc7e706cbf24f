"""Load a shared model: a folder with `config.json` and `model.safetensors`, on this machine or on the Hugging Face hub.

`drnet export-model` writes such a folder. What is read may be a stranger's: nothing in it is code, the settings are
checked, and the weights fit the settings to the last tensor or are refused.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file

from drnet.datasets.contract import DataError
from drnet.datasets.reading.source_files import sha256_file
from drnet.pipelines.fields import HASH, count, field, harmless, objects, short, text
from drnet.pipelines.files import read_json, regular_size
from drnet.pipelines.run import CONFIG, STATE, WEIGHTS
from drnet.pipelines.train import choose_device
from drnet.pretrained import Pretrained, checked_settings, model_of

MODEL_FORMAT = 1
VERSION = "drnet_format"  # the field of config.json that names the format
NO_HUB = "loading from the Hugging Face hub needs huggingface_hub: pip install 'drnet[hub]'"
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def from_pretrained(name: str | Path, *, revision: str | None = None, device: str = "cpu") -> Pretrained:
    """Load a model that `drnet export-model` wrote, or one of the Hugging Face hub.

    Args:
        name: a folder; or, where there is none of this name, `USER/NAME` of the hub, which is downloaded once and then
            read from the hub's cache.
        revision: branch, tag or commit of the hub's repository.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        ValueError: where there is no model, or it is damaged, of a newer format, or does not fit its settings.
    """
    chosen = choose_device(device)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        folder = download(str(name), revision)
    facts = read_facts(folder)
    path = folder / WEIGHTS
    weights = read_weights(path, facts["files"])
    try:
        model = model_of(checked_settings(facts["model"]), weights)
    except ValueError as error:
        raise DataError(f"{path}: does not fit the settings of {CONFIG}: {error}") from None
    model.to(chosen, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Pretrained(model, facts)


def download(name: str, revision: str | None = None) -> Path:
    """Return the folder with the files of one commit of a hub repository, downloaded where they are not in its cache.

    Raises:
        DataError: where it is no repository's name, or the hub does not give it.
    """
    if not _REPO.fullmatch(name):
        raise DataError(f"{name}: no such folder; give a folder of `drnet export-model`, or USER/NAME of the hub")
    try:
        import huggingface_hub
    except ImportError:
        raise DataError(f"{name}: no such folder; {NO_HUB}") from None
    try:
        found = huggingface_hub.snapshot_download(
            name, revision=revision, allow_patterns=[CONFIG, WEIGHTS], library_name="drnet"
        )
    except Exception as error:  # of the hub, of the network, or of the HTTP client, which has errors of its own
        reason = next(iter(str(error).split("\n")), "")[:200]
        raise DataError(
            f"{name}: no such folder, and the hub does not give it ({type(error).__name__}: {reason})"
        ) from None
    return Path(str(found))


def read_facts(folder: Path) -> dict[str, Any]:
    """Return what a model's `config.json` says, converted to the newest format.

    Returns:
        `model` and `train` settings, `preset`, `data`, `step`, `checkpoint_sha256`, `files` (SHA-256 by name), and more.

    Raises:
        DataError: where there is none, it is damaged or of a newer format.
    """
    path = folder / CONFIG
    if not path.exists():
        raise DataError(f"{folder}: no model here ({CONFIG} is missing); `drnet export-model RUN --out DIR` writes one")
    found = read_json(path, "the model's settings")
    try:
        harmless(objects({"settings": found}, "settings"), "settings")
        version = count(found, VERSION) if VERSION in found else 0
        if version > MODEL_FORMAT:
            new = f"of format {version}, and this version of drnet reads up to {MODEL_FORMAT}"
            raise DataError(f"{path}: {new}; upgrade drnet: pip install --upgrade drnet")
        for number in range(version, MODEL_FORMAT):
            found = CONVERSIONS[number](found, folder)
        objects(found, "files")
        return {**found, "model": checked_settings(field(found, "model")).to_json()}
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: damaged, or of a newer version ({error}); export the model again") from None


def _from_run(found: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Format 0, shared by hand: a run's own `config.json` beside the weights of one of its checkpoints."""
    if (folder / "checkpoints").is_dir() and not (folder / WEIGHTS).exists():
        raise DataError(f"{folder}: a run, not a model to load; `drnet export-model {folder} --out DIR` makes one")
    facts = {name: found.get(name) for name in ("preset", "train", "data")}
    facts = {VERSION: 1, "model": field(found, "model"), **facts, "step": None, "files": {WEIGHTS: None}}
    if (folder / STATE).is_file():  # copied along with the weights
        state = read_json(folder / STATE, "the checkpoint's state")
        facts |= {"step": count(state, "step"), "files": {WEIGHTS: text(state, "sha256", HASH)}}
    return facts


CONVERSIONS: tuple[Callable[[Mapping[str, Any], Path], dict[str, Any]], ...] = (_from_run,)  # from 0 to 1, ...


def read_weights(path: Path, files: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return a model's tensors.

    Args:
        path: of `model.safetensors`.
        files: SHA-256 by name, None where it is not known.

    Raises:
        DataError: where the file is missing, damaged, or not the one that was exported.
    """
    if path.name not in files:
        there = ", ".join(sorted(files)) or "nothing yet"
        raise DataError(f"{path.parent}: no {path.name}, only {short(there)}; export with --format safetensors")
    try:
        regular_size(path)
        if files[path.name] not in (None, sha256_file(path)):
            raise DataError(f"{path}: not the file that was exported (its SHA-256 differs); copy or export it again")
        return load_file(path)
    except FileNotFoundError:
        raise DataError(f"{path}: missing; copy the whole folder, or export the model again") from None
    except (safetensors.SafetensorError, KeyError, RuntimeError) as error:  # KeyError: a type that torch has not
        raise DataError(f"{path}: damaged ({str(error)[:200]}); copy or export it again") from None
