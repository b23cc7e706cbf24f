"""An evaluation from the run folder to `metrics.json`: what it holds, and why something is not in it."""

import errno
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from drnet.datasets.cache import cache_folder
from drnet.datasets.contract import About, Clip, DataError, Label, SourceFile, Split
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.evaluation import evaluate as stage
from drnet.pipelines.evaluation.evaluate import evaluate, save_report
from drnet.pipelines.evaluation.protocols import Window
from drnet.pipelines.evaluation.sampled import MOST, sampled_features, spread
from drnet.pipelines.evaluation.scenes import DigitScenes
from drnet.pipelines.evaluation.steps import Pass
from drnet.pipelines.evaluation.swap_scores import swap_scores
from drnet.pipelines.export import export_features, load_features
from drnet.pipelines.progress import Silent
from drnet.pipelines.run import load_run
from drnet.pipelines.source import Collection, open_shards
from drnet.pipelines.train import Logging, train
from drnet.predictor import PosePredictor, PredictorConfig

CPU = torch.device("cpu")
QUICK = ("frames", "swap", "position")


class Stripes:
    """Grey stripes that move sideways, in clips of different lengths."""

    about = About("stripes", 1, "stripes", "MIT", "nobody", "number", "number")
    labels: Mapping[str, Label] = {"number": Label("number", unit="id")}

    def parameters(self) -> dict[str, Any]:
        return {}

    def sources(self) -> list[SourceFile]:
        return []

    def frame_shape(self) -> tuple[int, int, int]:
        return 32, 32, 1

    def count(self, split: Split) -> int:
        return 8 if split == "train" else 5

    def item(self, split: Split, index: int) -> str:
        return f"{split}-{index}"

    def clips(self, split: Split, index: int) -> Iterator[Clip]:
        number = index + (0 if split == "train" else 100)
        frames = [np.roll(np.tile(np.arange(32) * 7 % 251, (32, 1)), t + number, 1) for t in range(8 + 2 * index)]
        yield Clip(self.item(split, index), np.stack(frames)[..., None].astype(np.uint8), {"number": number})


@pytest.fixture(scope="module")
def stripes(tmp_path_factory: pytest.TempPathFactory, tiny: dict[str, Any]) -> tuple[Path, Path]:
    """Shards of stripes, and a run on them."""
    folder = tmp_path_factory.mktemp("stripes")
    build(plan_build(Stripes(), "zstd"), folder / "data")
    train(folder / "data", folder / "run", steps=2, overrides=tiny, device="cpu", logging=Logging(1, 2, 2))
    return folder / "data", folder / "run"


@pytest.fixture
def predictor(monkeypatch: pytest.MonkeyPatch, trained: Path) -> PosePredictor:
    """A predictor that knows nothing, for the run of the digits."""
    config = load_run(trained)[2]["model"]
    torch.manual_seed(0)
    found = PosePredictor(PredictorConfig(config["pose_dim"], config["content_dim"], hidden=8)).eval()
    monkeypatch.setattr(stage, "load_predictor", lambda run, device, weights: found)
    return found


def test_a_run_without_predictor_is_scored_and_says_so(trained: Path, digits: Path, tmp_path: Path) -> None:
    report = evaluate(trained, digits, sections=QUICK, steps=12, clips=6, device="cpu")
    for name in ("frames", "position"):
        assert "has no predictor yet" in report[name]["predicted"]["not_computed"]
        assert set(report[name]["rows"]) - {"truth", "middle", "other_clip"} == {"true_pose", "copy_last"}
    assert "has no predictor yet" in report["predictor"]["not_computed"]
    assert report["frames"]["steps"] == list(range(1, 13))
    assert report["frames"]["clips"] == report["data"]["clips_scored"] == 6
    assert report["data"]["clips"] == 16
    assert report["position"]["steps"] == [1, 2, 5, 10]
    assert report["swap"]["pairs"] == 96
    assert report["extras"].keys() == {"lpips", "fvd"}
    assert save_report(tmp_path / "new" / "metrics.json", report) == tmp_path / "new" / "metrics.png"
    assert json.loads((tmp_path / "new" / "metrics.json").read_text()) == report
    with Image.open(tmp_path / "new" / "metrics.png") as image:
        assert image.width > 1500  # PSNR, SSIM and positions


@pytest.mark.usefixtures("predictor")
def test_predictions_stand_beside_copies_of_the_last_frame(trained: Path, digits: Path) -> None:
    found = evaluate(trained, digits, sections=("frames", "position"), steps=40, clips=4, device="cpu")
    frames = found["frames"]
    assert list(frames["rows"]) == ["predicted", "true_pose", "copy_last"]
    assert [mean["steps"] for mean in frames["means"]] == [[1, 10], [1, 40]]
    assert set(frames["means"][0]["psnr_above_copy_last"]) == {"predicted", "true_pose"}
    assert "digits are back where they were after 32 frames: at such steps a copy is the truth" in frames["notes"]
    assert frames["repeats_every"] == 32
    assert frames["ssim"]["copy_last"]["mean"][31] == 1
    assert frames["identical_frames"] == {"predicted": 0, "true_pose": 0, "copy_last": 4}
    scenes = DigitScenes(open_shards(digits, ["test"]))
    away = [np.linalg.norm(scenes.positions(c, 5) - scenes.positions(c, 4), axis=1).mean() for c in (0, 4, 8, 12)]
    errors = found["position"]["errors"]
    assert errors["copy_last"]["error"]["mean"][0] == pytest.approx(np.mean(away), abs=0.6)
    places = np.stack([scenes.positions(clip, 5) for clip in (0, 4, 8, 12)])  # at step 1
    middle = np.linalg.norm(places - (32 - 16) / 2, axis=2)
    others = np.linalg.norm(places - np.roll(places, -1, axis=0), axis=2)
    assert errors["middle"]["error"]["mean"][0] == pytest.approx(middle.mean(), rel=1e-5)
    assert errors["other_clip"]["error"]["mean"][0] == pytest.approx(others.mean(), rel=1e-5)
    assert not any(errors["middle"]["not_found"])


@pytest.mark.usefixtures("predictor")
def test_the_same_command_gives_the_same_numbers(trained: Path, digits: Path) -> None:
    first, second = (evaluate(trained, digits, sections=QUICK, steps=2, clips=2, device="cpu") for _ in range(2))
    assert first == second


def test_grey_clips_are_scored_as_far_as_they_go(stripes: tuple[Path, Path]) -> None:
    report = evaluate(stripes[1], stripes[0], observe=9, sections=QUICK, device="cpu")
    frames = report["frames"]
    assert frames["too_short"] == 1  # of 8 frames
    assert frames["steps"] == list(range(1, 8))
    assert frames["clips_at_step"] == [4, 3, 3, 2, 2, 1, 1]
    collection = open_shards(stripes[0], ["test"])
    errors = [np.square(clip[9] / 255.0 - clip[8] / 255).mean() for clip in map(collection.frames, range(1, 5))]
    assert frames["psnr"]["copy_last"]["mean"][0] == pytest.approx(float(np.mean(-10 * np.log10(errors))), rel=1e-4)
    assert "known of generated data only" in report["swap"]["not_computed"]
    assert "known of bouncing digits only" in report["position"]["not_computed"]
    assert frames["means"] == []
    assert frames["notes"][0] == "no mean up to step 20, 100: the longest clip ends after step 7"


def test_windows_are_told_apart_from_clips(stripes: tuple[Path, Path]) -> None:
    report = evaluate(stripes[1], stripes[0], "mcnet", 2, 3, ("frames",), device="cpu")
    assert report["frames"]["windows"] == 10  # one every 3 frames: 1, 1, 2, 3 and 3 of clips of 8 to 16 frames
    assert report["frames"]["clips"] == 5
    assert report["protocol"]["differences"][0] == "the clips are of stripes, the protocol is for kth"


def test_what_cannot_be_computed_says_why(stripes: tuple[Path, Path], tmp_path: Path) -> None:
    report = evaluate(stripes[1], stripes[0], observe=50, device="cpu")
    assert "none of 5 clips has the 51 frames that protocol drnet needs" in report["frames"]["not_computed"]
    assert set(stage.SECTIONS) <= set(report)
    for name in stage.SECTIONS:
        (reason,) = report[name].values()
        assert reason
        assert "\n" not in reason
    assert save_report(tmp_path / "metrics.json", report) is None
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"sections": ["frame"]},
            r"section 'frame' is not known \(did you mean 'frames'\?\); supported are frames, swap",
        ),
        ({"position_steps": [0]}, "step 0 is not allowed; the first predicted frame is step 1"),
        ({"clips": 0}, "clips 0 is not allowed; it must be at least 1"),
        ({"protocol": "kth"}, "protocol 'kth' is not known"),
    ],
)
def test_a_setting_that_is_not_allowed_is_one_line(
    trained: Path, digits: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        evaluate(trained, digits, device="cpu", **changes)


def test_shards_of_another_size_are_refused(trained: Path, stripes: tuple[Path, Path]) -> None:
    with pytest.raises(DataError, match="do not fit this run"):
        evaluate(trained, stripes[0], device="cpu")


class Echo(torch.nn.Module):
    """Decodes to the frame that the pose was taken from."""

    def content_encoder(self, frames: torch.Tensor) -> torch.Tensor:
        return frames.flatten(1)

    pose_encoder = content_encoder

    def decode(self, content: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
        return pose.reshape(-1, 3, 32, 32)


class Taken:
    """A meter that keeps what it is given."""

    def __init__(self) -> None:
        self.seen: dict[tuple[int, int], tuple[NDArray[np.uint8], dict[str, NDArray[np.uint8]]]] = {}

    def add(self, which: Any, step: int, truth: NDArray[np.uint8], shown: Mapping[str, Any]) -> None:
        for place, number in enumerate(which):
            self.seen[int(number), step] = truth[place], {row: frames[place] for row, frames in shown.items()}


def test_every_step_is_compared_with_its_own_frame(stripes: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drnet.pipelines.evaluation.steps.AT_ONCE", 2)
    collection = open_shards(stripes[0], ["test"])

    class Grey(Echo):
        def decode(self, content: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
            return pose.reshape(-1, 1, 32, 32)

    windows = [Window(0, 1, 2), Window(4, 3, 7), Window(2, 0, 4)]
    taken = Taken()
    Pass(Grey(), None, collection, None, 3, CPU).run(windows, [taken], Silent())
    assert set(taken.seen) == {(n, step) for n, window in enumerate(windows) for step in range(1, window.future + 1)}
    for (number, step), (truth, shown) in taken.seen.items():
        window = windows[number]
        clip = collection.frames(window.clip)
        np.testing.assert_array_equal(truth, clip[window.start + 2 + step])
        np.testing.assert_array_equal(shown["true_pose"], truth)
        np.testing.assert_array_equal(shown["copy_last"], clip[window.start + 2])


def test_digits_beyond_their_clip_are_compared_with_the_drawing(digits: Path) -> None:
    collection = open_shards(digits, ["test"])
    scenes, taken = DigitScenes(collection), Taken()
    Pass(Echo(), None, collection, scenes, 5, CPU).run([Window(3, 0, 60)], [taken], Silent())
    np.testing.assert_array_equal(taken.seen[0, 3][0], collection.frames(3)[7])  # the last that the clip has
    np.testing.assert_array_equal(taken.seen[0, 60][0], scenes.frame(3, 64))


def test_swaps_are_scored_against_the_truth(digits: Path) -> None:
    collection = open_shards(digits, ["test"])
    scenes = DigitScenes(collection)
    found = swap_scores(Echo(), collection, scenes.swapped, [1, 5, 7], CPU, Silent(), pairs=66)
    assert found["ssim"]["own_pose"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert found["psnr"]["other_pose"] == found["psnr"]["pose_frame"]  # the pose's frame comes back
    assert found["psnr"]["other_pose"]["mean"] < 40
    assert found["clips"] <= 3
    assert found == swap_scores(Echo(), collection, scenes.swapped, [1, 5, 7], CPU, Silent(), pairs=66)
    with pytest.raises(DataError, match="1 held-out clip is not enough to swap"):
        swap_scores(Echo(), collection, scenes.swapped, [1], CPU, Silent())


def test_sampled_features_are_those_of_the_file(trained: Path, digits: Path, tmp_path: Path) -> None:
    export_features(trained, digits, tmp_path / "f.h5", "cpu")
    whole = load_features(tmp_path / "f.h5")
    model, checkpoint, config = load_run(trained)
    found = sampled_features(model, open_shards(digits, ["train", "test"]), checkpoint, config, CPU, Silent())
    assert len(found.key) == len(whole.key) <= sum(MOST.values())
    for name in ("key", "split", "length"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    for name in ("content", "pose"):
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), atol=1e-5)
    assert found.labels.keys() == whole.labels.keys()
    for name, values in whole.labels.items():
        np.testing.assert_array_equal(found.labels[name], values)
    assert dict(found.label_types) == dict(whole.label_types)


def test_numbers_are_spread_evenly() -> None:
    assert spread(10, None) == spread(10, 20) == list(range(10))
    assert spread(10, 4) == [0, 2, 5, 7]


@pytest.mark.usefixtures("predictor")
def test_sections_of_others_get_the_run_and_its_clips(
    trained: Path, digits: Path, predictor: PosePredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def judge(training: Collection, held_out: Collection, cache: Path, *rest: Any) -> str:
        asked["splits"] = {place.split for c in (training, held_out) for place in c.places}
        asked["cache"] = cache
        return "judge"

    monkeypatch.setattr("drnet.pipelines.evaluation.judge.train_judge", judge)
    monkeypatch.setattr(
        "drnet.pipelines.evaluation.judge.identity", lambda *given, **named: {"given": given[3]} | named
    )
    found = evaluate(trained, digits, sections=("identity",), observe=3, seed=4, device="cpu")["identity"]
    assert found["given"] == "judge"
    assert (found["observe"], found["seed"], found["device"]) == (3, 4, "cpu")
    assert asked == {"splits": {"train", "test"}, "cache": cache_folder() / "judges"}


@pytest.mark.usefixtures("predictor")
def test_a_file_that_cannot_be_read_ends_its_section_alone(
    trained: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> Any:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/cache/judge.json")

    monkeypatch.setattr("drnet.pipelines.evaluation.judge.train_judge", refused)
    found = evaluate(trained, digits, sections=("swap", "identity"), clips=2, device="cpu")
    assert found["identity"] == {"not_computed": "/cache/judge.json: Permission denied"}
    assert "psnr" in found["swap"]
