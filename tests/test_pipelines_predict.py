"""Training a predictor and predicting: continued bit for bit, refused for other weights, scored as far as clips go."""

import hashlib
import json
import shutil
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import drnet
from drnet.datasets.contract import DataError
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.evaluation.frames import HIGHEST
from drnet.pipelines.looking.pictures import save_gif
from drnet.pipelines.prediction import features as features_module
from drnet.pipelines.prediction.features import CACHE, EncodedLater, encode_windows, windows_of
from drnet.pipelines.prediction.predict import Prediction, Scores, Truth, predict, write_prediction
from drnet.pipelines.prediction.rollout import FOLDER, load_predictor, predicted_frames
from drnet.pipelines.prediction.sheets import OBSERVED, moments, movie_page
from drnet.pipelines.prediction.train import resolve, train_predictor
from drnet.pipelines.progress import Silent
from drnet.pipelines.run import RunError, latest_checkpoint, load_run, read_metrics
from drnet.pipelines.source import Collection, open_shards
from drnet.pipelines.train import Logging, train

SETTINGS: dict[str, Any] = {"hidden": 8, "batch_size": 6, "observe": 3, "predict": 2, "sampling": 0.5}
LOGGING = Logging(log_every=2, checkpoint_every=5, sample_every=50)
CPU = torch.device("cpu")


class Notes(Silent):
    """Keeps what a person should read, and what was begun."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.begun: list[str] = []

    def start(self, title: str, total: int, unit: str, done: int = 0) -> None:
        self.begun.append(title)

    def note(self, line: str) -> None:
        self.lines.append(line)


def to_step(run: Path, shards: Path, steps: int, **more: Any) -> Any:
    arguments: dict[str, Any] = {"device": "cpu", "overrides": SETTINGS, "logging": LOGGING}
    return train_predictor(run, shards, steps, **(arguments | more))


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A run of one's own, without a predictor."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture(scope="module")
def predicting(trained: Path, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a predictor of twelve steps; read only."""
    own = Path(shutil.copytree(trained, tmp_path_factory.mktemp("predicting") / "run"))
    to_step(own, digits, 12)
    return own


def digest(run: Path) -> tuple[str, str]:
    checkpoint = latest_checkpoint(run / FOLDER)
    assert checkpoint is not None
    return checkpoint.sha256, checkpoint.trainer_sha256


def test_a_predictor_is_a_run_of_its_own_inside_the_run(predicting: Path) -> None:
    model, _, config = load_run(predicting / FOLDER, kinds=("predictor",))
    weights = latest_checkpoint(predicting)
    assert weights is not None
    assert config["kind"] == "predictor"
    assert config["drnet"] == {"sha256": weights.sha256, "step": weights.step}
    assert (model.config.pose_dim, model.config.content_dim) == (5, 128)
    assert float(model.scale) > 0
    assert not load_predictor(predicting).training
    lines = read_metrics(predicting / FOLDER)
    assert [line["step"] for line in lines] == [2, 4, 5, 6, 8, 10, 12]
    assert {"loss/pose", "baseline/copy", "held_out/rollout", "held_out/copy"} <= {
        name for row in lines for name in row
    }
    assert (predicting / FOLDER / "samples" / "00000012.png").exists()


def test_training_in_two_parts_ends_with_the_same_bits(run: Path, digits: Path, predicting: Path) -> None:
    assert to_step(run, digits, 7).start == 0
    assert to_step(run, digits, 12, overrides={}).start == 7  # settings that are not given stay
    assert digest(run) == digest(predicting)


def test_features_are_computed_once_and_again_where_they_are_damaged(run: Path, digits: Path, predicting: Path) -> None:
    begun = []
    for step in (2, 4, 12):
        if step == 12:
            (run / FOLDER / CACHE).write_bytes(b"damaged")
        notes = Notes()
        to_step(run, digits, step, progress=notes)
        begun.append(notes.begun)
    assert begun == [["features", "training"], ["training"], ["features", "training"]]
    assert digest(run) == digest(predicting)


def test_features_that_do_not_fit_are_computed_for_each_batch(
    run: Path, digits: Path, predicting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features_module, "MEMORY", 1000)
    notes = Notes()
    to_step(run, digits, 4, progress=notes)
    assert "of features are too many to be kept" in notes.lines[0]
    assert not (run / FOLDER / CACHE).exists()
    rows = [
        {row["step"]: row["loss/pose"] for row in read_metrics(r / FOLDER) if "loss/pose" in row}
        for r in (run, predicting)
    ]
    assert rows[0][4] == pytest.approx(rows[1][4], rel=1e-4)


@pytest.mark.parametrize("cyclic", [False, True])
def test_kept_features_are_those_of_the_frames_they_are_said_to_be_of(
    trained: Path, digits: Path, cyclic: bool
) -> None:
    model, _, _ = load_run(trained)
    collection = open_shards(digits)
    windows = windows_of(collection, 3, 2, cyclic)
    kept = encode_windows(model, windows, (5, 128), CPU, Silent(), threading.Event())
    assert kept is not None
    rows, starts = np.array([0, 17, 47, 9]), np.array([0, 3, 7 if cyclic else 3, 1])
    poses, content = kept.gather(rows, starts)
    for row, start, pose, vector in zip(rows.tolist(), starts.tolist(), poses, content, strict=True):
        frames = torch.from_numpy(np.array(collection.frames(row))).movedim(-1, 1).float() / 255
        times = [(start + step) % 8 for step in range(5)]
        contents, all_poses = model.encode(frames)
        assert torch.allclose(pose, all_poses[times], atol=1e-5)
        assert torch.allclose(vector, contents[times[2]], atol=1e-5)
    later = EncodedLater(model, windows, CPU).gather(rows, starts)
    assert torch.allclose(later[0], poses, atol=1e-5)
    assert torch.allclose(later[1], content, atol=1e-5)


def test_clips_shorter_than_a_window_are_counted_and_told(
    run: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Collection.sample

    def shorter(self: Collection, clip: int) -> Any:
        sample = real(self, clip)
        object.__setattr__(sample, "length", 4 if clip < 5 else 8)
        return sample

    monkeypatch.setattr(Collection, "sample", shorter)
    notes = Notes()
    to_step(run, digits, 1, progress=notes)
    assert notes.lines[0] == "5 of 48 clips have fewer than 5 frames and are left out"
    config = json.loads((run / FOLDER / "config.json").read_text())
    assert config["data"]["clips_too_short"] == 5


def test_a_window_longer_than_every_clip_is_told_with_the_way_out(run: Path, digits: Path) -> None:
    with pytest.raises(DataError, match="take 15 frames, and the longest clip has 8; give a lower --observe"):
        to_step(run, digits, 1, overrides={})


def test_a_stop_while_features_are_computed_leaves_no_checkpoint(run: Path, digits: Path) -> None:
    stop = threading.Event()
    stop.set()
    report = to_step(run, digits, 5, stop=stop)
    assert (report.checkpoint, report.stopped) == (None, True)
    assert to_step(run, digits, 1).checkpoint.step == 1


def test_a_predictor_of_other_weights_is_refused_until_it_is_trained_anew(run: Path, digits: Path, tiny: Any) -> None:
    to_step(run, digits, 1)
    train(digits, run, steps=7, overrides=tiny, device="cpu", logging=Logging(2, 3, 3))
    message = (
        "trained on the run's weights of step 6, which is now at step 7; train it anew with `drnet train-predictor"
    )
    for refused in (lambda: load_predictor(run), lambda: to_step(run, digits, 2)):
        with pytest.raises(RunError, match=message):
            refused()
    assert to_step(run, digits, 1, anew=True).start == 0
    assert load_predictor(run).config.observe == 3


def test_a_run_without_predictor_says_how_to_train_one(trained: Path) -> None:
    with pytest.raises(RunError, match="has no predictor yet; train one with `drnet train-predictor"):
        load_predictor(trained)


def test_settings_follow_from_the_run_and_its_preset() -> None:
    for name, observe, unit, output in (
        ("mnist-small", 5, True, "unit"),
        ("kth", 10, False, "tanh"),
        ("chairs", 5, None, "linear"),
    ):
        origin = {
            "preset": name,
            "model": {} if unit is None else {"unit_norm": unit},
            "train": {"cyclic": name == "chairs", "precision": "fp32"},
        }
        found = resolve(origin, (7, 9), {"horizon": 40})
        model, training = found["model"], found["train"]
        assert (model["pose_dim"], model["content_dim"], model["output"]) == (7, 9, output)
        assert (model["observe"], model["predict"], model["sampling_steps"]) == (observe, 10, 40)
        assert (training["cyclic"], training["lr"], training["batch_size"]) == (name == "chairs", 0.002, 100)
    with pytest.raises(ValueError, match="setting 'width' is not known"):
        resolve(origin, (7, 9), {"width": 3})


def test_predictions_are_the_same_for_a_clip_alone_and_among_others(predicting: Path, digits: Path) -> None:
    model, _, _ = load_run(predicting)
    clips = open_shards(digits, ["test"])
    frames = np.stack([clips.frames(clip)[:3] for clip in range(3)])
    together = np.stack(list(predicted_frames(model, load_predictor(predicting), frames, 6)), 1)
    alone = drnet.predict(predicting, frames[1], steps=6, device="cpu")
    assert alone.shape == (6, 32, 32, 3)
    assert np.abs(together[1].astype(int) - alone).max() <= 1
    assert predict(predicting, frames, steps=2, device="cpu").shape == (3, 2, 32, 32, 3)


@pytest.mark.parametrize(
    ("frames", "steps", "message"),
    [
        (np.zeros((3, 32, 32, 3), np.float32), 1, "they must be uint8"),
        (np.zeros((32, 32, 3), np.uint8), 1, "they must be uint8 of"),
        (np.zeros((3, 64, 64, 3), np.uint8), 1, "do not fit this run"),
        (np.zeros((3, 32, 32, 3), np.uint8), 0, "steps 0 is not allowed"),
    ],
)
def test_frames_that_do_not_fit_are_told(predicting: Path, frames: Any, steps: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predict(predicting, frames, steps, "cpu")


def test_the_truth_of_digits_is_their_closed_form_at_any_step(digits: Path) -> None:
    clips = open_shards(digits, ["test"])
    truth = Truth(clips, [4], cyclic=False)
    redrawn = BouncingDigits("optdigits", clips=48, test_clips=16, frames=8, size=32).redraw(
        clips.labels(4), range(500)
    )
    for time in (0, 7, 8, 99, 499):
        assert np.array_equal(truth.at(4, time), redrawn[time])


def test_the_truth_of_mnist_is_drawn_from_the_clips_own_frames(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drnet.pipelines.prediction.predict.OPTDIGITS", "another source")
    clips = open_shards(digits, ["test"])
    truth = Truth(clips, [1], cyclic=False)
    redrawn = BouncingDigits("optdigits", clips=48, test_clips=16, frames=8, size=32).redraw(clips.labels(1), range(99))
    differs = [np.mean(truth.at(1, time) != redrawn[time]) for time in range(99)]
    assert max(differs) < 0.02  # pixels that were hidden in all eight frames


def test_the_truth_of_whole_turns_goes_on_at_their_beginning(digits: Path) -> None:
    clips = open_shards(digits, ["test"])
    truth = Truth(clips, [2], cyclic=True)
    assert np.array_equal(truth.at(2, 8 + 3), clips.frames(2)[3])


def test_clips_are_scored_as_far_as_they_go() -> None:
    scores = Scores(3)
    black, white = np.zeros((2, 2, 1), np.uint8), np.full((2, 2, 1), 255, np.uint8)
    half = np.full((2, 2, 1), 51, np.uint8)  # a fifth
    scores.add(0, white, half, white)
    scores.add(0, black, half, white)
    scores.add(1, half, half, black)
    scores.add(2, None, half, white)
    first, second, third = (scores.row(step) for step in range(3))
    assert (first["step"], first["clips"], second["clips"], third["clips"]) == (1, 2, 1, 0)
    assert first["predicted"]["mse"] == pytest.approx((0.64 + 0.04) / 2)
    assert first["predicted"]["psnr"] == pytest.approx((1.93820 + 13.97940) / 2, abs=1e-4)  # of each frame, averaged
    assert first["copy_last_frame"]["psnr"] == pytest.approx(HIGHEST / 2)  # equal, and black for white
    assert second["predicted"] == {"mse": 0, "psnr": pytest.approx(HIGHEST)}
    assert third["predicted"] == {"mse": None, "psnr": None}


def test_beyond_the_end_of_other_clips_nothing_is_scored(
    predicting: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drnet.pipelines.prediction.predict.drawn_again", lambda collection: None)
    prediction = Prediction(predicting, open_shards(digits, ["test"]), "cpu", 3, 8, 16, 2)
    seen = list(prediction.moments(Silent()))
    assert [row["clips"] for row in prediction.report().rows] == [16] * 5 + [0] * 3
    assert all(true is None for true in seen[-1][1])
    keys = prediction.keys[:2]
    assert movie_page(*seen[-1], 3, 8, keys).shape == movie_page(*seen[3], 3, 8, keys).shape


def test_a_movie_is_written_in_constant_memory_and_scored(predicting: Path, digits: Path, tmp_path: Path) -> None:
    peaks = []
    for steps in (10, 80):
        tracemalloc.start()
        out = tmp_path / f"{steps}.gif"
        report = write_prediction(
            predicting, digits, out, steps=steps, clips=2, rows=2, metrics=tmp_path / "m.json", device="cpu"
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        with Image.open(out) as movie:
            assert movie.n_frames == 3 + steps
            movie.seek(0)
            colours = {colour for _, colour in movie.convert("RGB").getcolors(1 << 20) or ()}
            assert any(np.abs(np.subtract(colour, OBSERVED)).max() < 8 for colour in colours)
        assert [row["clips"] for row in report.rows] == [2] * steps
    assert peaks[1] < peaks[0] + 600_000  # 70 further pages have 9 MB
    found = json.loads((tmp_path / "m.json").read_text())
    weights = latest_checkpoint(predicting)
    assert weights is not None
    assert found["made_from"]["drnet"]["sha256"] == weights.sha256
    assert len(found["made_from"]["clips"]) == 2
    assert found["per_step"][0]["predicted"]["psnr"] > 0


def test_movies_as_mp4_and_pictures_have_what_was_asked_for(predicting: Path, digits: Path, tmp_path: Path) -> None:
    write_prediction(predicting, digits, tmp_path / "a.mp4", steps=4, clips=2, rows=2, device="cpu")
    assert (tmp_path / "a.mp4").stat().st_size > 1000
    write_prediction(predicting, digits, tmp_path / "a.png", steps=9, clips=2, rows=2, at=[1, 9], device="cpu")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size[1] > 4 * 96  # two clips, truth and prediction


def test_the_steps_of_a_sheet_reach_from_the_first_to_the_last() -> None:
    for steps in (1, 2, 9, 500):
        assert moments(steps)[0] == 1
        assert moments(steps)[-1] == steps


def test_a_gif_writes_only_what_changes_and_shows_the_same(tmp_path: Path) -> None:
    pages = [np.full((40, 60, 3), 255, np.uint8) for _ in range(3)]
    pages[1][5:9, 20:30] = (250, 0, 0)
    save_gif(tmp_path / "a.gif", pages)
    with Image.open(tmp_path / "a.gif") as movie:
        for number, page in enumerate(pages):
            movie.seek(number)
            assert np.abs(np.asarray(movie.convert("RGB")).astype(int) - page).max() < 8
    assert (tmp_path / "a.gif").stat().st_size < 3000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observe": 8}, "observe 8 is not allowed; the longest clip has 8 frames"),
        ({"steps": 0}, "steps 0 is not allowed"),
        ({"rows": 0}, "rows 0 is not allowed"),
        ({"fps": 0}, "fps 0 is not allowed"),
        ({"at": [200]}, "step 200 is not there"),
    ],
)
def test_values_that_are_not_allowed_are_told(
    predicting: Path, digits: Path, tmp_path: Path, changes: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_prediction(predicting, digits, tmp_path / "x.gif", device="cpu", **changes)
    assert list(tmp_path.iterdir()) == []


def test_the_order_of_the_windows_is_a_function_of_the_step_alone(predicting: Path, digits: Path) -> None:
    from drnet.pipelines.prediction.train import WindowFeed
    from drnet.trainer import TrainConfig

    model, _, _ = load_run(predicting)
    windows = windows_of(open_shards(digits), 3, 2)
    feed = WindowFeed(EncodedLater(model, windows, CPU), windows, TrainConfig(batch_size=6), CPU)
    first = [hashlib.sha256(b"".join(t.numpy().tobytes() for t in feed.inputs(step))).hexdigest() for step in (5, 6)]
    again = [hashlib.sha256(b"".join(t.numpy().tobytes() for t in feed.inputs(step))).hexdigest() for step in (6, 5)]
    assert first == again[::-1]
    assert first[0] != first[1]
    assert len(feed.names(5)) == 6
