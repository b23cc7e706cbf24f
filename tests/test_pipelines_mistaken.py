"""A path of one kind where another is asked for: one line says what was given, and what is needed."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest

from drnet.pipelines.mistaken import DATA, FEATURES, NEW_RUN, RUN, mistaken

A_RUN = "is a run, which is the RUN of `drnet evaluate RUN --shards S` and others"
A_DATA_SET = "is a data set, which --shards takes"
AN_H5 = "is an .h5 file, such as the features that `drnet probe` and `drnet classify` take"


@pytest.fixture(scope="module")
def places(digits: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A thing of each kind, in copies that a mistake may not change."""
    root = tmp_path_factory.mktemp("places")
    data, run = Path(shutil.copytree(digits, root / "data")), Path(shutil.copytree(trained, root / "run"))
    with h5py.File(root / "features.h5", "w"):
        pass
    return {
        "data": data,
        "shard": data / "train-000000.tar",
        "sidecar": data / "train-000000.json",
        "run": run,
        "checkpoints": run / "checkpoints",
        "weights": next(run.glob("checkpoints/*/model.safetensors")),
        "features": root / "features.h5",
    }


COMMANDS: dict[str, tuple[list[str], str]] = {
    "train --shards": (["train", "--shards", "{wrong}", "--out", "{new}", "--steps", "1"], DATA),
    "train --out": (["train", "--shards", "{data}", "--out", "{wrong}", "--steps", "1"], NEW_RUN),
    "export-features": (["export-features", "{wrong}", "--shards", "{data}", "--out", "{new}.h5"], RUN),
    "export-features --shards": (["export-features", "{run}", "--shards", "{wrong}", "--out", "{new}.h5"], DATA),
    "probe": (["probe", "{wrong}"], FEATURES),
    "classify": (["classify", "{wrong}", "--label", "digit_red"], FEATURES),
    "evaluate": (["evaluate", "{wrong}", "--shards", "{data}", "--out", "{new}.json"], RUN),
    "evaluate --shards": (["evaluate", "{run}", "--shards", "{wrong}", "--out", "{new}.json"], DATA),
    "predict": (["predict", "{wrong}", "--shards", "{data}", "--out", "{new}.gif"], RUN),
    "figure swap": (["figure", "swap", "{wrong}", "--shards", "{data}", "--out", "{new}.png"], RUN),
    "figure swap --shards": (["figure", "swap", "{run}", "--shards", "{wrong}", "--out", "{new}.png"], DATA),
    "data info": (["data", "info", "{wrong}"], DATA),
    "data verify": (["data", "verify", "{wrong}"], DATA),
}
GIVEN = {
    "data": A_DATA_SET,
    "sidecar": "is a file of the data set",
    "run": A_RUN,
    "checkpoints": "is a part of the run",
    "weights": "is a file of the run",
    "features": AN_H5,
}
RIGHT = {DATA: {"data"}, RUN: {"run"}, FEATURES: {"features"}, NEW_RUN: {"run"}}


@pytest.mark.parametrize("name", COMMANDS)
def test_what_was_given_and_what_is_needed_are_told_in_one_line(
    name: str, places: dict[str, Path], tmp_path: Path, command: Callable[..., Any]
) -> None:
    words, wanted = COMMANDS[name]
    for kind in sorted(GIVEN.keys() - RIGHT[wanted]):
        values = {"wrong": places[kind], "new": tmp_path / "new", "data": places["data"], "run": places["run"]}
        before = sorted(places[kind].parent.iterdir())
        ended = command(*(word.format_map(values) for word in words))
        lines = [line for line in ended.err.splitlines() if line.startswith("drnet: error: ")]
        assert (ended.code, len(lines), "Traceback" in ended.err) == (1, 1, False), (kind, ended.err)
        assert lines[0].startswith(f"drnet: error: {places[kind]} {GIVEN[kind]}"), kind
        assert lines[0].endswith(f"; needed here is {wanted}")
        assert sorted(places[kind].parent.iterdir()) == before
        assert list(tmp_path.iterdir()) == []


def test_what_nobody_made_is_not_explained(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert mistaken(tmp_path / "folder", DATA) == mistaken(tmp_path / "absent", DATA) == ""
    (tmp_path / "note.txt").write_text("x")
    assert mistaken(tmp_path / "note.txt", DATA) == f"{tmp_path / 'note.txt'} is a file; needed here is {DATA}"


def test_weights_of_no_run_shards_and_exported_models_are_known(places: dict[str, Path], tmp_path: Path) -> None:
    weights = Path(shutil.copy(places["weights"], tmp_path))
    assert "is a file of weights, and of no run; " in mistaken(weights, RUN)
    (tmp_path / "config.json").write_text("{}")
    assert "is an exported model, which drnet.from_pretrained loads in Python; " in mistaken(tmp_path, RUN)
    assert "is a shard, which --shards takes; " in mistaken(places["shard"], RUN)
    (tmp_path / "shards").mkdir()
    shutil.copy(places["shard"], tmp_path / "shards")
    assert "is a folder of shards, which --shards takes; " in mistaken(tmp_path / "shards", RUN)
