"""`--checkpoint` has one meaning in every command that looks at a run; a predictor belongs to one checkpoint."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import drnet
from drnet.pipelines.prediction.rollout import load_predictor
from drnet.pipelines.prediction.train import train_predictor
from drnet.pipelines.run import RunError, choose_checkpoint
from drnet.pipelines.train import Logging, train

OTHER = "trained on the run's weights of step 6, not of step 3; take --checkpoint 6"


@pytest.fixture(scope="module")
def run(trained: Path, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints of steps 3 and 6, and a predictor of the latter; read only."""
    own = Path(shutil.copytree(trained, tmp_path_factory.mktemp("checkpoint") / "run"))
    train_predictor(own, digits, 1, "cpu", {"hidden": 8, "batch_size": 6, "observe": 3, "predict": 2})
    return own


@pytest.fixture
def call(run: Path, digits: Path, command: Callable[..., Any]) -> Callable[..., Any]:
    """Run a command on the run, its first words before it and the others after."""

    def on_run(words: str, *others: object) -> Any:
        return command(*words.split(), run, "--shards", digits, "--device", "cpu", *others)

    return on_run


def test_an_evaluation_is_of_the_checkpoint_that_is_named(call: Callable[..., Any], run: Path, tmp_path: Path) -> None:
    words = ["--section", "frames", "--steps", 2, "--clips", 2, "--json", "--out", tmp_path / "m.json"]
    found = {}
    for name in ("3", "6", "last"):
        shown = call("evaluate", "--checkpoint", name, *words)
        assert shown.code == 0, shown.err
        found[name] = json.loads(shown.out)
        chosen = choose_checkpoint(run, name)
        assert found[name]["run"] | {"preset": None} == {"preset": None, "step": chosen.step, "sha256": chosen.sha256}
    assert found["6"] == found["last"]
    assert OTHER in found["3"]["frames"]["predicted"]["not_computed"]
    assert OTHER in found["3"]["predictor"]["not_computed"]
    assert "predicted" in found["6"]["frames"]["rows"]
    assert found["3"]["frames"]["psnr"]["true_pose"] != found["6"]["frames"]["psnr"]["true_pose"]


def test_a_prediction_needs_the_checkpoint_of_the_predictor(
    call: Callable[..., Any], run: Path, tmp_path: Path
) -> None:
    words = ["--steps", 2, "--clips", 2, "--out", tmp_path / "a.png", "--metrics", tmp_path / "a.json"]
    refused = call("predict", "--checkpoint", 3, *words)
    assert (refused.code, len(refused.err.splitlines())) == (1, 1)
    assert OTHER in refused.err
    assert list(tmp_path.iterdir()) == []
    ended = call("predict", "--checkpoint", 6, *words)
    assert ended.code == 0, ended.err
    assert "step 6 of the run" in ended.out
    made_from = json.loads((tmp_path / "a.json").read_text())["made_from"]
    assert made_from["drnet"] == {"step": 6, "sha256": choose_checkpoint(run, "6").sha256}


@pytest.mark.parametrize("kind", ["swap", "interpolate", "neighbours"])
def test_a_figure_is_drawn_with_the_checkpoint_that_is_named(
    kind: str, call: Callable[..., Any], run: Path, tmp_path: Path
) -> None:
    pictures = []
    for step in (3, 6):
        out = tmp_path / f"{step}.svg"
        shown = call(f"figure {kind}", "--checkpoint", step, "--clips", 1, "--columns", 2, "--json", "--out", out)
        assert shown.code == 0, shown.err
        numbers = json.loads(shown.out)
        wanted = choose_checkpoint(run, str(step))
        assert (numbers["checkpoint_step"], numbers["checkpoint_sha256"]) == (step, wanted.sha256)
        pictures.append(out.read_bytes())
    assert pictures[0] != pictures[1]


@pytest.mark.parametrize("words", ["figure rollout", "figure difference", "figure neighbours --generated"])
def test_a_figure_of_predictions_needs_the_checkpoint_of_the_predictor(
    words: str, call: Callable[..., Any], tmp_path: Path
) -> None:
    first, second, *more = words.split()
    refused = call(f"{first} {second}", *more, "--checkpoint", 3, "--out", tmp_path / "a.svg")
    assert (refused.code, len(refused.err.splitlines())) == (1, 1)
    assert OTHER in refused.err
    others = ["--clips", 1, "--columns", 2, "--steps", 2, "--out", tmp_path / "a.svg"]
    assert call(f"{first} {second}", *more, "--checkpoint", 6, *others).code == 0


def test_runs_beside_keep_their_newest_checkpoint(call: Callable[..., Any], run: Path, tmp_path: Path) -> None:
    words = ["--checkpoint", 3, "--clips", 1, "--poses", 1, "--beside", f"B={run}", "--json"]
    numbers = json.loads(call("figure swap", *words, "--out", tmp_path / "a.svg").out)
    assert (numbers["checkpoint_step"], numbers["beside"][0]["step"]) == (3, 6)


@pytest.mark.parametrize("words", ["evaluate", "predict", "figure swap", "figure rollout", "export-features"])
def test_a_checkpoint_that_is_not_there_is_one_line(words: str, call: Callable[..., Any], tmp_path: Path) -> None:
    ending = {"evaluate": "json", "export-features": "h5"}.get(words, "png")
    found = call(words, "--checkpoint", "bets", "--out", tmp_path / f"a.{ending}")
    assert found.code == 1
    assert "no checkpoint 'bets' (did you mean 'best'?); there are last, best and the steps 3, 6" in found.err
    assert len(found.err.splitlines()) == 1


def test_a_predictor_of_older_weights_is_used_with_them_or_trained_anew(
    run: Path, digits: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    own = Path(shutil.copytree(run, tmp_path / "run"))
    train(digits, own, steps=7, overrides=tiny, device="cpu", logging=Logging(2, 3, 3))
    frames = np.zeros((3, 32, 32, 3), np.uint8)
    with pytest.raises(RunError, match=r"now at step 7; take --checkpoint 6, or train it anew with `drnet train-pred"):
        drnet.predict(own, frames, 2, "cpu")
    assert drnet.predict(own, frames, 2, "cpu", checkpoint="6").shape == (2, 32, 32, 3)
    shutil.rmtree(own / "checkpoints" / "00000006")
    with pytest.raises(RunError, match=r"not of step 3; train it anew with `[^`]*` and take --checkpoint last$"):
        load_predictor(own, "cpu", choose_checkpoint(own, "3"))
