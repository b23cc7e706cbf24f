"""What each kind of run is taken for: an autoencoder as a DrNet everywhere, a predictor nowhere but with its run."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from turning_bars import only

import drnet
from drnet.datasets.contract import DataError
from drnet.pipelines.evaluation.classify import ClassifySettings, classify
from drnet.pipelines.evaluation.evaluate import evaluate
from drnet.pipelines.export import export_features, load_features
from drnet.pipelines.figures.beside import runs_beside
from drnet.pipelines.figures.difference import difference_figure
from drnet.pipelines.figures.interpolate import interpolate_figure
from drnet.pipelines.figures.neighbours import neighbours_figure
from drnet.pipelines.figures.rollout import rollout_figure
from drnet.pipelines.figures.scene import open_scene
from drnet.pipelines.figures.swap import swap_figure
from drnet.pipelines.prediction.predict import write_prediction
from drnet.pipelines.prediction.rollout import FOLDER, load_predictor
from drnet.pipelines.prediction.train import train_predictor
from drnet.pipelines.run import RunError, load_run
from drnet.pipelines.train import train


@pytest.fixture(scope="module")
def predicting(trained: Path, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a predictor of one step; read only."""
    own = Path(shutil.copytree(trained, tmp_path_factory.mktemp("predicting") / "run"))
    train_predictor(own, digits, 1, "cpu", {"hidden": 8, "batch_size": 6, "observe": 3, "predict": 2})
    return own


@pytest.fixture(scope="module")
def coded(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An autoencoder's run with a predictor; read only."""
    own = tmp_path_factory.mktemp("coded") / "run"
    train(digits, own, "kth-small-autoencoder", 2, "cpu", {"width": 4, "batch_size": 8, "pose_dim": 7})
    train_predictor(own, digits, 1, "cpu", {"hidden": 8, "batch_size": 6, "observe": 3, "predict": 2})
    return own


def test_an_autoencoder_is_predicted_drawn_and_scored_as_a_drnet(coded: Path, digits: Path, tmp_path: Path) -> None:
    report = write_prediction(coded, digits, tmp_path / "a.png", steps=4, clips=2, rows=2, device="cpu")
    assert [row["clips"] for row in report.rows] == [2] * 4
    scene = open_scene(coded, digits, device="cpu")
    swapped = only(swap_figure(scene, rows=2, columns=2))
    assert len(swapped.rows) == 3
    assert np.array_equal(swapped.rows[1].cells[1].frame, swapped.rows[2].cells[1].frame)  # all is in the code
    assert len(only(interpolate_figure(scene, rows=1, columns=3)).rows) == 1
    for figure in (rollout_figure(scene, rows=1, steps=4, columns=2), difference_figure(scene, rows=1, steps=4)):
        labels = [row.label for row in only(figure).rows]
        assert any(label.startswith("autoencoder") for label in labels)
        assert not any("DrNet" in label for label in labels)
    near = neighbours_figure(scene, rows=1, columns=2, predictor=load_predictor(coded), steps=4).numbers
    for query in near["queries"]:  # a content without numbers takes no part in the distance
        assert query["nearest"]["pose"] == query["nearest"]["content and pose"]


def test_an_autoencoder_is_evaluated_and_classified_by_its_code(coded: Path, digits: Path, tmp_path: Path) -> None:
    found = evaluate(coded, digits, steps=4, clips=4, sections=("frames", "swap", "position"), device="cpu")
    assert all("not_computed" not in found[name] for name in ("frames", "swap", "position"))
    swap = found["swap"]["psnr"]
    assert swap["own_pose"]["mean"] != swap["other_pose"]["mean"]
    export_features(coded, digits, tmp_path / "f.h5", "cpu")
    features = load_features(tmp_path / "f.h5")
    told = classify(features, ClassifySettings("digit_red", "pose", hidden=4, seeds=1))
    assert 0 <= told.accuracy().mean <= 1
    with pytest.raises(DataError, match="features 'content' have no numbers in this file; choose 'pose'"):
        classify(features, ClassifySettings("digit_red", "content", seeds=1))


def test_a_predictor_is_no_run_of_frames_for_any_command(predicting: Path, digits: Path, tmp_path: Path) -> None:
    own, out = predicting / FOLDER, tmp_path / "x"
    wrong: list[Callable[[], object]] = [
        lambda: load_run(own),
        lambda: drnet.predict(own, np.zeros((3, 32, 32, 3), np.uint8)),
        lambda: write_prediction(own, digits, out.with_suffix(".png")),
        lambda: train_predictor(own, digits, 1, "cpu"),
        lambda: export_features(own, digits, out.with_suffix(".h5"), "cpu"),
        lambda: evaluate(own, digits, device="cpu"),
        lambda: open_scene(own, digits, device="cpu"),
        lambda: runs_beside([f"A={own}"], (32, 32, 3), torch.device("cpu")),
    ]
    for call in wrong:
        with pytest.raises(RunError) as refused:
            call()
        assert str(refused.value) == (
            f"{own}: a run of kind predictor is not allowed here; "
            f"name a run of kind drnet or autoencoder, such as the run that it belongs to, {predicting}"
        )
    assert list(tmp_path.iterdir()) == []
