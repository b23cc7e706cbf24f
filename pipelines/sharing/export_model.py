"""Write a trained model for others: weights as safetensors, graphs for `torch.export` or ONNX, and a model card.

OUT/
  config.json                                        settings, origin, SHA-256 of every file
  model.safetensors                                  --format safetensors
  {content_encoder,pose_encoder,decoder}.{pt2,onnx}  --format torch-export, onnx
  README.md                                          the card, as the Hugging Face hub reads it

A folder holds one checkpoint, in as many formats as were asked for, one after the other.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from safetensors.torch import save

from drnet import __version__
from drnet.datasets.contract import DataError
from drnet.model import DrNet
from drnet.pipelines.claim import locked
from drnet.pipelines.files import pretty_json, remove_temporaries, sha256_of, write_whole
from drnet.pipelines.pretrained import MODEL_FORMAT, VERSION, read_facts
from drnet.pipelines.progress import Progress, Silent
from drnet.pipelines.run import (
    CONFIG,
    METRICS,
    WEIGHTS,
    Checkpoint,
    RunError,
    choose_checkpoint,
    load_tensors,
    read_config,
    read_metrics,
)
from drnet.pipelines.shards.manifest import CARD, read_manifest
from drnet.pipelines.sharing.graphs import NAMES, onnx_graph, parts_of, shapes_of, torch_graph
from drnet.pipelines.sharing.model_card import model_card
from drnet.pretrained import checked_settings, model_of

Format = Literal["safetensors", "torch-export", "onnx"]
GRAPHS: Mapping[str, tuple[str, Callable[..., bytes]]] = {
    "torch-export": (".pt2", torch_graph),
    "onnx": (".onnx", onnx_graph),
}
OWN = (CONFIG, CARD, WEIGHTS, *(name + ending for ending, _ in GRAPHS.values() for name in NAMES))


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        folder: with the card.
        checkpoint: the one that was exported.
        files: names of the weights or graphs, of this format.
    """

    folder: Path
    checkpoint: Checkpoint
    files: tuple[str, ...]


def export_model(
    run: Path,
    out: Path,
    kind: str = "safetensors",
    checkpoint: str = "last",
    licence: str | None = None,
    shards: Path | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Write a run's model, with a card, into a folder that can be put on the Hugging Face hub as it is.

    Args:
        run: the run folder.
        out: a new or empty folder, or one with the same checkpoint in another format.
        kind: `safetensors`, which `from_pretrained` loads; `torch-export` or `onnx`, which need no drnet.
        checkpoint: `last`, `best` (the lowest error of held-out frames) or a step; among those kept.
        licence: of the weights, as the hub names it (`mit`, `cc-by-4.0`); None for that of the data set.
        shards: the folder of the data set, for its title, licence and citation.
        progress: told of each file.

    Raises:
        ValueError: where there is nothing to export, the folder is another's, or a graph differs from the model.
    """
    progress = progress or Silent()
    if kind not in get_args(Format):
        raise RunError(f"format '{kind}' is not allowed; there are {', '.join(get_args(Format))}")
    config = read_config(run)
    if config["kind"] != "drnet":
        raise RunError(f"{run}: a run of kind {config['kind']} is not allowed; only a DrNet is exported to be shared")
    chosen = choose_checkpoint(run, checkpoint)
    model = load_checkpoint(config, chosen)
    about = about_data(config, shards)
    metrics = metrics_at(run, chosen.step)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out, RunError, "exports"):
        facts = claim(out, facts_of(config, chosen))
        files: dict[str, str] = {}
        progress.start("exporting", 1 if kind == "safetensors" else len(NAMES), "files")
        try:
            for name, data in contents(model, kind):
                write_whole(out / name, data, keep_same=True)
                files[name] = sha256_of(data)
                progress.advance(1)
        finally:
            progress.stop()
        facts = {**facts, "files": dict(sorted({**facts["files"], **files}.items()))}
        write_whole(out / CONFIG, pretty_json(facts))
        write_whole(out / CARD, model_card(facts, shapes_of(model), metrics, about, licence).encode())
    return Exported(out, chosen, tuple(files))


def load_checkpoint(config: Mapping[str, Any], checkpoint: Checkpoint) -> DrNet:
    """Return a checkpoint's model in evaluation mode, on the CPU."""
    path = checkpoint.folder / WEIGHTS
    weights = load_tensors(path, checkpoint.sha256)
    try:
        return model_of(checked_settings(config["model"]), weights)
    except ValueError as error:
        raise RunError(f"{path}: does not fit the settings of the run's {CONFIG}: {error}") from None


def metrics_at(run: Path, step: int) -> dict[str, float]:
    """Return the last metrics that were logged up to a step, without those of time; none where there are none."""
    try:
        lines = [line for line in read_metrics(run) if line["step"] <= step]
    except (ValueError, KeyError, TypeError):
        raise RunError(f"{run / METRICS}: damaged; the run's own `drnet train` command drops what is wrong") from None
    last = {name: value for line in lines for name, value in line.items()}
    return {name: value for name, value in last.items() if not name.startswith("time/")}


def about_data(config: Mapping[str, Any], shards: Path | None) -> dict[str, Any]:
    """Return what the data set says of itself; nothing without its folder. Raises RunError where it is another one."""
    if shards is None:
        return {}
    manifest = read_manifest(shards)
    if manifest.build != config["data"].get("build"):
        trained = str(config["data"].get("build"))[:12]
        raise RunError(f"{shards}: build {manifest.build[:12]}, and the run was trained on {trained}; name that folder")
    return dict(manifest.about)


def facts_of(config: Mapping[str, Any], checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what `config.json` says, without files yet."""
    return {
        VERSION: MODEL_FORMAT,
        "library_name": "drnet",
        "drnet_version": __version__,
        **{name: config.get(name) for name in ("model", "train", "preset", "data")},
        "step": checkpoint.step,
        "checkpoint_sha256": checkpoint.sha256,
        "files": {},
    }


def claim(out: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Make a folder this export's, and return what its `config.json` says: files of other formats stay.

    Raises:
        RunError: where it holds another checkpoint, or anything else.
    """
    remove_temporaries(out, OWN)
    here = {path.name for path in out.iterdir() if not path.name.startswith(".")}  # .git of a cloned repository
    strangers = sorted(here - set(OWN)) if CONFIG in here else sorted(here)
    if strangers:
        raise RunError(f"{out}: holds {strangers[0]}, which is not of a model's export; choose a new folder as --out")
    if CONFIG not in here:
        write_whole(out / CONFIG, pretty_json(facts))
        return dict(facts)
    try:
        before = read_facts(out)
    except DataError as error:
        raise RunError(f"{error}, or choose a new folder as --out") from None
    if before.get("checkpoint_sha256") != facts["checkpoint_sha256"]:
        raise RunError(
            f"{out}: holds the model of step {before.get('step')}, another one; choose a new folder as --out"
        )
    return {**facts, "files": before["files"]}


def contents(model: DrNet, kind: str) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of each file of a format."""
    if kind == "safetensors":
        weights = {name: value.contiguous() for name, value in model.state_dict().items()}
        yield WEIGHTS, save(weights, {"format": "pt"})
        return
    ending, graph = GRAPHS[kind]
    for part in parts_of(model):
        yield part.name + ending, graph(model, part)
