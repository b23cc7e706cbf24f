"""`drnet train-predictor` and `drnet predict`: what they say, write and refuse."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from drnet.pipelines.source import open_shards

WORDS = ["--hidden", 8, "--batch-size", 6, "--observe", 3, "--predict", 2, "--device", "cpu", "--log-every", 2]


@pytest.fixture(scope="module")
def run(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of this file's own; its first test trains the predictor."""
    return Path(shutil.copytree(trained, tmp_path_factory.mktemp("predict") / "run"))


def test_a_predictor_is_trained_and_continued_by_the_same_command(
    command: Callable[..., Any], run: Path, digits: Path
) -> None:
    for steps in (3, 5):
        ended = command("train-predictor", run, "--shards", digits, "--steps", steps, *WORDS)
        assert ended.code == 0, ended.err
        assert f"{steps} steps: {run}/predictor/checkpoints/0000000{steps}" in ended.out
        assert f"next: drnet predict {run} --shards {digits} --steps 100 --out prediction.gif" in ended.out
    again = command("train-predictor", run, "--shards", digits, "--steps", 5, "--device", "cpu")
    assert "has 5 steps already; a larger --steps trains on" in again.out


def test_another_setting_is_refused_in_one_line_and_taken_anew(
    command: Callable[..., Any], run: Path, digits: Path
) -> None:
    refused = command("train-predictor", run, "--shards", digits, "--steps", 6, "--lr", 0.1, "--device", "cpu")
    assert refused.code == 1
    assert "was started with train.lr 0.002, not 0.1" in refused.err
    anew = command("train-predictor", run, "--shards", digits, "--steps", 2, "--anew", *WORDS)
    assert anew.code == 0, anew.err
    assert "2 steps:" in anew.out


def test_a_prediction_is_written_with_its_scores(
    command: Callable[..., Any], run: Path, digits: Path, tmp_path: Path
) -> None:
    out, scores = tmp_path / "a.gif", tmp_path / "m.json"
    ended = command(
        *("predict", run, "--shards", digits, "--steps", 7, "--rows", 2, "--clips", 4),
        *("--out", out, "--metrics", scores, "--device", "cpu"),
    )
    assert ended.code == 0, ended.err
    assert out.exists()
    assert ended.out.splitlines()[-2:] == [str(out), str(scores)]
    assert "3 frames observed" in ended.out
    assert [row["clips"] for row in json.loads(scores.read_text())["per_step"]] == [4] * 7


def test_clips_that_are_named_are_shown_and_scored_from_their_frames_on(
    command: Callable[..., Any], run: Path, digits: Path, tmp_path: Path
) -> None:
    def scores(clips: str, name: str) -> Any:
        words = [
            "--steps",
            2,
            "--clips",
            clips,
            "--out",
            tmp_path / f"{name}.png",
            "--metrics",
            tmp_path / f"{name}.json",
        ]
        ended = command("predict", run, "--shards", digits, *words, "--device", "cpu")
        assert ended.code == 0, ended.err
        return json.loads((tmp_path / f"{name}.json").read_text())

    named = scores("test-00000003:4, test-00000001", "a")
    assert named["made_from"]["clips"] == ["test-00000003:4", "test-00000001"]
    assert [row["clips"] for row in named["per_step"]] == [2, 2]
    clips = [open_shards(digits, ["test"]).frames(clip) / 255.0 for clip in (3, 1)]
    copied = [np.square(clip[last] - clip[last + 1]).mean() for clip, last in zip(clips, (5, 2), strict=True)]
    assert named["per_step"][0]["copy_last_frame"]["mse"] == pytest.approx(np.mean(copied))
    six = scores(",".join(f"test-0000000{n}" for n in range(6)), "six")
    assert len(six["made_from"]["clips"]) == 6
    with Image.open(tmp_path / "six.png") as all_of_them, Image.open(tmp_path / "a.png") as two:
        assert all_of_them.size[1] > 2.5 * two.size[1]  # more than the five that are shown of unnamed ones


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "x.txt"], "x.txt: .txt is not allowed here"),
        (["--out", "x.gif", "--metrics", "m.csv"], "m.csv: .csv is not allowed here"),
        (["--out", "x.gif", "--observe", 8], "observe 8 is not allowed"),
        (["--out", "x.png", "--clips", "0"], "clips 0 is not allowed"),
        (["--out", "x.png", "--clips", "test-1"], "clip 'test-1' is not in the test split; the nearest are test-"),
        (["--out", "x.png", "--clips", "test-00000003:6"], "has 3 frames there; 3 are observed, and one must follow"),
        (["--out", "x.png", "--show-step", 999], "step 999 is not there; steps are counted from 1 to 100"),
    ],
)
def test_mistakes_are_told_in_one_line(
    command: Callable[..., Any],
    run: Path,
    digits: Path,
    words: list[Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = command("predict", run, "--shards", digits, *words)
    assert ended.code == 1
    assert message in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_predictor_is_told_with_the_way_out(
    command: Callable[..., Any], trained: Path, digits: Path, tmp_path: Path
) -> None:
    ended = command("predict", trained, "--shards", digits, "--out", tmp_path / "x.gif")
    assert ended.code == 1
    assert f"train one with `drnet train-predictor {trained} --shards S`" in ended.err
