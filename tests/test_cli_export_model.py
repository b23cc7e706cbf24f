"""`drnet export-model`: what it says, and one line for every mistake."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drnet.cli.export_model import FormatName
from drnet.pipelines.pretrained import from_pretrained
from drnet.pipelines.sharing.export_model import Format


def test_it_says_what_it_wrote_and_what_comes_next(
    trained: Path, digits: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    out = tmp_path / "my model"
    done = command("export-model", trained, "--shards", digits, "--out", out)
    assert done.code == 0, done.err
    assert done.out.splitlines() == [
        f"step 6: model.safetensors, config.json and README.md in {out}",
        f"next: hf upload USER/NAME '{out}'",
    ]
    assert from_pretrained(out).facts["step"] == 6
    done = command("export-model", trained, "--format", "onnx", "--licence", "mit", "--checkpoint", 6, "--out", out)
    assert done.code == 0, done.err
    assert done.out.startswith("step 6: content_encoder.onnx, pose_encoder.onnx, decoder.onnx, config.json")
    assert 'license: "mit"' in (out / "README.md").read_text()
    assert len(json.loads((out / "config.json").read_text())["files"]) == 4


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--checkpoint", "5"], 1, "drnet: error: RUN: no checkpoint '5'; there are last, best and the steps 3, 6"),
        (["--shards", "RUN"], 1, "drnet: error: RUN is a run, which is the"),
        (["--format", "tf"], 2, "'tf' is not one of 'safetensors', 'torch-export', 'onnx'"),
    ],
)
def test_a_mistake_is_one_line(
    trained: Path, tmp_path: Path, command: Callable[..., Any], words: list[str], code: int, message: str
) -> None:
    given = [word.replace("RUN", str(trained)) for word in words]
    done = command("export-model", trained, "--out", tmp_path / "out", *given)
    assert (done.code, done.out) == (code, "")
    assert message.replace("RUN", str(trained)) in done.err
    assert code == 2 or len(done.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_choices_are_the_pipelines_own() -> None:
    assert [name.value for name in FormatName] == list(Format.__args__)  # type: ignore[attr-defined]
