"""`drnet figure`: files and words, and one line for every mistake."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image

from drnet.predictor import PosePredictor, PredictorConfig

KINDS = ("swap", "interpolate", "rollout", "neighbours", "difference")


@pytest.fixture
def predicting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A predictor with random weights, for every run."""
    torch.manual_seed(1)
    predictor = PosePredictor(PredictorConfig(pose_dim=5, content_dim=128, hidden=8, observe=2)).eval()
    for module in ("figures.futures", "prediction.rollout"):
        monkeypatch.setattr(
            f"drnet.pipelines.{module}.load_predictor", lambda run, device="cpu", weights=None: predictor
        )


@pytest.mark.parametrize("kind", KINDS)
def test_each_figure_is_written_and_its_numbers_are_json(
    kind: str, trained: Path, digits: Path, tmp_path: Path, command: Callable[..., Any], predicting: None
) -> None:
    words = ["figure", kind, trained, "--shards", digits, "--rows", 1, "--columns", 2, "--device", "cpu", "--out"]
    shown = command(*words, tmp_path / "f.png")
    assert shown.code == 0, shown.err
    assert shown.out.splitlines()[-1] == f"wrote {tmp_path / 'f.png'}"
    assert "held-out clips" in shown.out
    with Image.open(tmp_path / "f.png") as image:
        assert min(image.size) > 100
    found = json.loads(command(*words, tmp_path / "f.svg", "--json").out)
    assert (found["figure"], found["out"], found["split"]) == (kind, str(tmp_path / "f.svg"), "test")
    assert ElementTree.parse(tmp_path / "f.svg").getroot().tag.endswith("svg")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "neighbours"])
def test_a_figure_with_time_can_be_a_movie(
    kind: str, trained: Path, digits: Path, tmp_path: Path, command: Callable[..., Any], predicting: None
) -> None:
    shown = command("figure", kind, trained, "--shards", digits, "--rows", 1, "--out", tmp_path / "f.gif")
    assert shown.code == 0, shown.err
    with Image.open(tmp_path / "f.gif") as image:
        assert image.n_frames > 5  # type: ignore[attr-defined]


def test_the_same_command_gives_the_same_bytes_and_another_seed_others(
    trained: Path, digits: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    words = ["figure", "swap", trained, "--shards", digits, "--rows", 1, "--columns", 2, "--device", "cpu"]
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert command(*words, "--seed", seed, "--out", tmp_path / f"{name}.svg").code == 0
    first, again, other = ((tmp_path / f"{name}.svg").read_bytes() for name in "abc")
    assert first == again != other


def test_times_clips_and_further_runs_can_be_named(
    trained: Path, digits: Path, tmp_path: Path, command: Callable[..., Any], predicting: None
) -> None:
    words = ["--clips", "test-00000003, test-00000001:2", "--at", "1,4,6", "--beside", f"AE-LSTM={trained}"]
    words += ["--missing", "MCNet", "--json", "--out", str(tmp_path / "f.svg")]
    shown = command("figure", "rollout", trained, "--shards", digits, *words)
    assert shown.code == 0, shown.err
    found = json.loads(shown.out)
    assert [(clip["clip"], clip["first"]) for clip in found["clips"]] == [("test-00000003", 1), ("test-00000001", 2)]
    assert found["times"] == [1, 4, 6]
    texts = [element.text for element in ElementTree.parse(tmp_path / "f.svg").iter() if element.text]
    assert {"AE-LSTM", "MCNet", "not implemented yet", "t = 4"} <= set(texts)
    assert [text.rpartition(", ")[2] for text in texts if ", test-" in text] == ["test-00000003", "test-00000001:2"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_number_of_clips_is_drawn_by_either_name(
    kind: str, trained: Path, digits: Path, tmp_path: Path, command: Callable[..., Any], predicting: None
) -> None:
    for option in ("--clips", "--rows"):
        words = [option, 2, "--device", "cpu", "--out", tmp_path / f"{option}.svg"]
        assert command("figure", kind, trained, "--shards", digits, *words).code == 0
    assert (tmp_path / "--clips.svg").read_bytes() == (tmp_path / "--rows.svg").read_bytes()


def test_what_is_drawn_without_either_is_told_and_drawn(
    trained: Path, digits: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    words = ["figure", "swap", trained, "--shards", digits, "--json", "--out", tmp_path / "a.svg"]
    found = json.loads(command(*words).out)
    assert (len(found["contents"]), len(found["poses"])) == (6, 8)
    told = " ".join(command("figure", "swap", "--help").out.split())
    assert "[default: 6]" in told
    assert "[default: 8]" in told


def test_poses_are_a_number_or_names_as_clips_are(
    trained: Path, digits: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    words = ["figure", "swap", trained, "--shards", digits, "--json", "--out", tmp_path / "a.svg", "--clips", "2"]
    assert len(json.loads(command(*words, "--poses", 3).out)["poses"]) == 3
    assert len(json.loads(command(*words, "--columns", 3).out)["poses"]) == 3
    named = json.loads(command(*words, "--poses", "test-00000004:2").out)
    assert named["poses"] == [{"clip": "test-00000004", "frame": 2}]
    assert len(named["contents"]) == 2


WRONG: dict[str, tuple[list[object], str]] = {
    "ending": (["swap", "--out", "f.jpg"], ".jpg is not allowed here; name a file that ends in .png, .svg, .gif, .mp4"),
    "movie": (["neighbours", "--out", "f.gif"], ".gif is not allowed here; name a file that ends in .png, .svg"),
    "key": (["swap", "--clips", "nobody"], "clip 'nobody' is not in the test split; the nearest are test-"),
    "frame": (["interpolate", "--clips", "test-00000001:3-9"], "has no frame 9; it has 8, counted from 1"),
    "beside": (["swap", "--beside", "runs/x"], "--beside 'runs/x' is not understood; write NAME=RUN"),
    "number": (["swap", "--clips", "0"], "clips 0 is not allowed; it must be at least 1"),
    "both": (
        ["swap", "--clips", "test-00000001", "--rows", 2],
        "--rows 2 is not allowed beside --clips test-00000001: both say which clips; leave one out",
    ),
    "both, of the default": (
        ["swap", "--clips", "6", "--rows", 4],
        "--rows 4 is not allowed beside --clips 6: both say",
    ),
    "both of poses": (
        ["swap", "--poses", "8", "--columns", 2],
        "--columns 2 is not allowed beside --poses 8: both say",
    ),
    "key of digits": (["swap", "--clips", "00000012"], "clip '00000012' is not in the test split; the nearest are"),
    "span of contents": (["swap", "--clips", "test-00000001:1-3"], "where only a first frame counts; write KEY:FRAME"),
    "no predictor": (["rollout"], "drnet train-predictor"),
    "times": (["difference", "--at", "1,b"], "--at '1,b' is not understood; write times as numbers"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_value_is_one_line_and_writes_nothing(
    case: str,
    trained: Path,
    digits: Path,
    tmp_path: Path,
    command: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (kind, *words), said = WRONG[case]
    found = command("figure", kind, trained, "--shards", digits, *words)
    assert found.code == 1
    assert len(found.err.splitlines()) == 1, found.err
    assert said in found.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["sing"], ["swap", "--rows", 0], ["swap"], ["interpolate", "--columns", 1]], ids=str)
def test_wrong_usage_is_exit_2(words: list[object], trained: Path, command: Callable[..., Any]) -> None:
    assert command("figure", words[0], trained, *words[1:]).code == 2
