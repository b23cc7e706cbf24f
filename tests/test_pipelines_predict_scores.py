"""What a prediction's scores are of: the evaluation's PSNR, and held-out clips."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from drnet.datasets.contract import DataError
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.evaluation.frames import as_tensor, psnr
from drnet.pipelines.prediction.predict import Scores, write_prediction
from drnet.pipelines.prediction.train import train_predictor
from drnet.pipelines.progress import Silent


class Notes(Silent):
    """Keeps what a person should read."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def predicting(trained: Path, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a predictor of one step; read only."""
    own = Path(shutil.copytree(trained, tmp_path_factory.mktemp("predicting") / "run"))
    train_predictor(own, digits, 1, "cpu", {"hidden": 8, "batch_size": 6, "observe": 3, "predict": 2})
    return own


def test_the_psnr_of_a_prediction_is_that_of_the_evaluation() -> None:
    draw = np.random.default_rng(0)
    true, other = draw.integers(0, 256, (2, 3, 32, 32, 3)).astype(np.uint8)
    scores = Scores(1)
    for one, found in zip(true, other, strict=True):
        scores.add(0, one, found, one)
    row = scores.row(0)
    assert row["predicted"]["psnr"] == pytest.approx(psnr(as_tensor(other), as_tensor(true)).mean(), abs=1e-5)
    assert row["copy_last_frame"]["psnr"] == pytest.approx(psnr(as_tensor(true), as_tensor(true)).mean())


def test_training_clips_stand_in_only_where_there_are_no_held_out_ones_and_are_told(
    predicting: Path, digits: Path, tmp_path: Path
) -> None:
    build(plan_build(BouncingDigits("optdigits", clips=4, test_clips=0, frames=8, size=32), "raw", 4), tmp_path / "all")
    told = Notes()
    write_prediction(
        *(predicting, tmp_path / "all", tmp_path / "a.png"), steps=2, metrics=tmp_path / "m.json", progress=told
    )
    assert any("these are training clips" in note for note in told.lines)
    assert json.loads((tmp_path / "m.json").read_text())["made_from"]["data"]["splits"] == ["train"]
    shutil.copytree(digits, tmp_path / "cut")
    next((tmp_path / "cut").glob("test-*.tar")).unlink()
    with pytest.raises(DataError, match=r"missing test-.*; run the build command again"):
        write_prediction(predicting, tmp_path / "cut", tmp_path / "b.png", steps=2)
