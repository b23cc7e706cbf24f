"""Training into a run folder: interrupted anywhere, it ends with the same bits as if nothing had happened."""

import json
import math
import multiprocessing
import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from drnet.pipelines.progress import Silent
from drnet.pipelines.run import RunError, latest_checkpoint, read_config, read_metrics
from drnet.pipelines.source import open_shards
from drnet.pipelines.train import Logging, choose_device, resolve, train

STEPS = 16
LOGGING = Logging(log_every=3, checkpoint_every=5, sample_every=10, keep=2)
SETTINGS: dict[str, Any] = {"width": 4, "batch_size": 8, "beta": 0.3, "seed": 3}


def run_to(shards: Path, run: Path, steps: int = STEPS, **more: Any) -> Any:
    arguments: dict[str, Any] = {"overrides": SETTINGS, "logging": LOGGING, "device": "cpu"}
    return train(shards, run, steps=steps, **(arguments | more))


@pytest.fixture(scope="module")
def through(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    run = tmp_path_factory.mktemp("through") / "run"
    run_to(digits, run)
    return run


class StopAfter(Silent):
    """Asks for the end of training after some steps, as a signal does."""

    def __init__(self, steps: int) -> None:
        self.left, self.stop_event = steps, threading.Event()

    def advance(self, count: int, **values: float) -> None:
        self.left -= count
        if self.left == 0:
            self.stop_event.set()


class Slowly(Silent):
    """Makes sure that a run takes a while."""

    def advance(self, count: int, **values: float) -> None:
        time.sleep(0.03)


class Notes(Silent):
    """Keeps what a person should read."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


def lines_of(run: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in read_metrics(run)]


def assert_same(run: Path, expected: Path) -> None:
    """Assert that two runs end alike: weights, optimizers, metrics and pictures, bit for bit."""
    one, other = latest_checkpoint(run), latest_checkpoint(expected)
    assert one is not None
    assert other is not None
    assert one.step == other.step
    for file in ("model.safetensors", "trainer.safetensors"):
        mine, theirs = load_file(one.folder / file), load_file(other.folder / file)
        assert mine.keys() == theirs.keys()
        assert [name for name in mine if not mine[name].equal(theirs[name])] == []
    assert (one.sha256, one.trainer_sha256) == (other.sha256, other.trainer_sha256)
    assert lines_of(run) == lines_of(expected)
    for picture in (expected / "samples").iterdir():
        assert (run / "samples" / picture.name).read_bytes() == picture.read_bytes()


def test_training_twice_gives_the_same_bits(through: Path, digits: Path, tmp_path: Path) -> None:
    run_to(digits, tmp_path / "run")
    assert_same(tmp_path / "run", through)


@pytest.mark.parametrize("after", [1, 5, 7])
def test_a_stopped_run_continues_bit_for_bit(through: Path, digits: Path, tmp_path: Path, after: int) -> None:
    run = tmp_path / "run"
    asked = StopAfter(after)
    report = run_to(digits, run, progress=asked, stop=asked.stop_event)
    assert report.stopped
    assert report.checkpoint.step == after + 1  # the signal came after a step: one more is finished
    report = run_to(digits, run)
    assert (report.start, report.checkpoint.step, report.stopped) == (after + 1, STEPS, False)
    assert_same(run, through)


def test_a_larger_step_is_as_if_it_had_been_asked_for_at_once(through: Path, digits: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for steps in (4, 9, STEPS):
        run_to(digits, run, steps)
    assert_same(run, through)


def test_other_logging_leaves_the_weights_alone(through: Path, digits: Path, tmp_path: Path) -> None:
    run_to(digits, tmp_path / "run", logging=Logging(1, 2, 16, 1))
    one, other = latest_checkpoint(tmp_path / "run"), latest_checkpoint(through)
    assert one is not None
    assert other is not None
    assert one.sha256 == other.sha256
    assert [line["step"] for line in lines_of(tmp_path / "run")] == list(range(1, STEPS + 1))


def test_a_run_killed_at_random_moments_ends_with_the_same_bits(through: Path, digits: Path, tmp_path: Path) -> None:
    run, draw = tmp_path / "run", random.Random(0)
    kills = 0
    for _ in range(40):
        process = multiprocessing.get_context("fork").Process(
            target=run_to, args=(digits, run), kwargs={"progress": Slowly()}
        )
        process.start()
        time.sleep(draw.uniform(0.05, 0.4))  # too short for the whole run
        process.kill()
        process.join()
        code = process.exitcode
        process.close()
        if code == 0:
            break
        kills += 1
    else:
        run_to(digits, run)
    assert kills >= 1
    assert_same(run, through)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["00000015", "00000016"]


def test_a_run_continues_elsewhere_on_data_that_lies_elsewhere(through: Path, digits: Path, tmp_path: Path) -> None:
    run_to(digits, tmp_path / "run", 9)
    shutil.copytree(tmp_path / "run", tmp_path / "there")
    shutil.copytree(digits, tmp_path / "data")
    run_to(tmp_path / "data", tmp_path / "there")
    assert_same(tmp_path / "there", through)


def test_after_a_damaged_checkpoint_is_deleted_the_one_before_leads_to_the_same_end(
    through: Path, digits: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run_to(digits, run, 12)
    newest = latest_checkpoint(run)
    assert newest is not None
    (newest.folder / "trainer.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(RunError, match=r"trainer\.safetensors: damaged .*; delete this checkpoint"):
        run_to(digits, run)
    shutil.rmtree(newest.folder)
    report = run_to(digits, run)
    assert report.start == 10
    assert_same(run, through)


def test_a_finished_run_is_left_as_it_is(through: Path, digits: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(through, run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for steps in (STEPS, 3):
        report = run_to(digits, run, steps)
        assert (report.start, report.checkpoint.step, report.stopped) == (STEPS, STEPS, False)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["seed", "lr", "beta", "pose_dim", "max_offset", "horizon", "batch_size", "precision"])
def test_any_other_change_is_refused_by_name(through: Path, digits: Path, name: str) -> None:
    other = {"lr": 0.5, "beta": 0.9, "precision": "bf16"}.get(name, 17)
    with pytest.raises(
        RunError, match=rf"was started with (model|train)\.{name} .*, not {other!r}; use that"
    ) as raised:
        run_to(digits, through, 99, overrides=SETTINGS | {name: other})
    assert "\n" not in str(raised.value)


def test_other_data_is_refused_by_name(through: Path, digits: Path) -> None:
    with pytest.raises(RunError, match=r"was started with data\.clips 48, not 16"):
        train(f"{digits}/train-{{000000..000001}}.tar", through, steps=99, overrides=SETTINGS, device="cpu")


def test_another_seed_gives_other_weights_and_another_order(through: Path, digits: Path, tmp_path: Path) -> None:
    run_to(digits, tmp_path / "run", overrides=SETTINGS | {"seed": 4})
    one, other = lines_of(tmp_path / "run"), lines_of(through)
    assert [line["step"] for line in one] == [line["step"] for line in other]
    name = "loss/reconstruction"
    assert all(mine[name] != theirs[name] for mine, theirs in zip(one, other, strict=True) if name in mine)


def test_everything_a_person_wants_to_watch_is_logged(through: Path) -> None:
    every = read_metrics(through)
    lines = [line for line in every if line["step"] % 3 == 0]
    steps = [3, 5, 6, 9, 10, 12, 15, 16]  # at checkpoints, 5 and 10, held-out clips; at the end, 16, all there is
    assert [line["step"] for line in every] == steps
    measured = {
        "reconstruction",
        "copy",
        "mean_frame",
        "variance_pose",
        "variance_content",
        "participation_pose",
        "participation_content",
        "pose_used",
        "content_used",
    }
    assert set(every[1]) == {"step"} | {f"held_out/{name}" for name in measured}
    losses = {f"loss/{name}" for name in ("reconstruction", "similarity", "adversarial")}
    health = {"discriminator/bce", "discriminator/accuracy", "variance/pose", "variance/content", "baseline/mean_frame"}
    health |= {"participation/content"}
    times = {"time/steps_per_second", "time/waiting_for_data"}
    assert set(lines[0]) == losses | health | times | {"step", "lr", "data/skipped"}
    assert all(math.isfinite(value) for line in every for value in line.values())
    assert all(0 <= line["time/waiting_for_data"] < 1 < line["time/steps_per_second"] for line in lines)
    assert lines[-1]["loss/reconstruction"] < lines[0]["loss/reconstruction"]


def test_tensorboard_shows_what_the_metrics_say(through: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(through / "tensorboard"))
    events.Reload()
    lines = read_metrics(through)
    assert set(events.Tags()["scalars"]) == {name for line in lines for name in line} - {"step"}
    for name in ("loss/reconstruction", "held_out/reconstruction"):
        shown = [(event.step, event.value) for event in events.Scalars(name)]
        assert shown == [(line["step"], pytest.approx(line[name])) for line in lines if name in line]


def test_samples_are_pictures_of_a_whole_grid(through: Path) -> None:
    pictures = sorted((through / "samples").iterdir())
    assert [path.name for path in pictures] == ["00000010.png", "00000016.png"]
    with Image.open(pictures[-1]) as image:
        pixels = np.asarray(image)
    assert pixels.ndim == 3
    assert pixels.shape[0] > 7 * 32  # six contents below a row of poses
    assert pixels.shape[1] > 9 * 32  # eight poses beside a column of contents
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


def test_bfloat16_trains_and_continues_bit_for_bit(digits: Path, tmp_path: Path) -> None:
    for run, stops in (("once", (8,)), ("twice", (3, 8))):
        for steps in stops:
            run_to(digits, tmp_path / run, steps, overrides=SETTINGS | {"precision": "bf16"})
    assert [line["step"] for line in lines_of(tmp_path / "once")] == [3, 5, 6, 8]
    one, other = latest_checkpoint(tmp_path / "once"), latest_checkpoint(tmp_path / "twice")
    assert one is not None
    assert other is not None
    assert (one.sha256, one.trainer_sha256) == (other.sha256, other.trainer_sha256)


@pytest.mark.parametrize("log_every", [1, 1000])
def test_a_loss_that_explodes_stops_and_names_the_last_good_checkpoint(
    digits: Path, tmp_path: Path, log_every: int
) -> None:
    run = tmp_path / "run"
    with pytest.raises(
        RunError, match=r"not finite in step \d+; try a lower --lr, .*; its batch held train-"
    ) as raised:
        run_to(digits, run, 50, overrides=SETTINGS | {"lr": 1e20}, logging=Logging(log_every, 1, 1000))
    assert "\n" not in str(raised.value)
    checkpoint = latest_checkpoint(run)
    if checkpoint is None:
        assert "there is no checkpoint yet" in str(raised.value)
        return
    assert f"the last good checkpoint is {checkpoint.folder}" in str(raised.value)
    assert all(bool(value.isfinite().all()) for value in load_file(checkpoint.folder / "model.safetensors").values())


def test_nothing_is_left_behind_where_the_arguments_are_wrong(digits: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    wrong: list[Callable[[], object]] = [
        lambda: run_to(digits, run, 0),
        lambda: run_to(digits, run, overrides={"pose_dim": 0}),
        lambda: run_to(digits, run, overrides={"batch_size": 1}),
        lambda: run_to(digits, run, overrides={"tail": 1}),
        lambda: run_to(digits, run, device="toaster"),
        lambda: run_to(digits, run, preset_name="nothing"),
        lambda: run_to(tmp_path / "nowhere", run),
    ]
    for call in wrong:
        with pytest.raises(ValueError) as raised:
            call()
        assert "\n" not in str(raised.value)
    assert not run.exists()


def test_training_needs_no_test_shards(digits: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for path in digits.iterdir():
        if not path.name.startswith("test"):
            shutil.copy(path, data / path.name)
    assert run_to(data, tmp_path / "run", 2).checkpoint.step == 2


def test_a_pattern_in_the_working_folder_samples_held_out_clips(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from drnet.pipelines.looking import swaps

    monkeypatch.chdir(digits)
    spec = "train-{000000..000001}.tar"
    assert swaps.held_out_clips(spec, open_shards(spec)).places[0].split == "test"


def test_settings_are_the_presets_with_the_users_changes_and_the_datas_size() -> None:
    found = resolve("mnist", {"beta": 0.5, "lr": None, "batch_size": 12}, (32, 32, 1))
    assert (found["model"]["size"], found["model"]["channels"], found["model"]["beta"]) == (32, 1, 0.5)
    assert (found["train"]["batch_size"], found["train"]["lr"]) == (12, 0.002)
    with pytest.raises(ValueError, match="frames of 32x64 are not allowed; the networks take square ones"):
        resolve("mnist", {}, (32, 64, 3))


def test_no_path_of_this_machine_is_in_a_runs_settings(through: Path, digits: Path) -> None:
    text = json.dumps(read_config(through))
    assert str(digits) not in text
    assert str(through) not in text


def test_cyclic_training_is_refused_where_clips_are_no_whole_turns(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cyclic training needs clips that are whole turns, and these are not"):
        run_to(digits, tmp_path / "run", overrides=SETTINGS | {"cyclic": True})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["toaster", "cuda:99", "mps", ""])
def test_a_device_that_is_not_there_is_refused_in_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match="device") as raised:
        choose_device(name)
    assert "\n" not in str(raised.value)
    assert choose_device("auto").type == "cpu"


def test_health_is_told_while_it_trains(digits: Path, tmp_path: Path) -> None:
    notes = Notes()
    run_to(digits, tmp_path / "run", 12, logging=Logging(1, 100, 100), progress=notes)
    unusual, streamed, health, *rest = notes.lines
    assert unusual == "preset mnist is meant for frames of 64, and these are 32"
    assert streamed.startswith("frames are streamed from the shards")
    assert health.startswith("step 10: reconstruction ")
    assert any("24 held-out clips, and there are 16" in line for line in rest)  # of the last checkpoint's measurement


def test_a_run_is_continued_without_repeating_its_settings(through: Path, digits: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_to(digits, run, 7)
    train(digits, run, None, STEPS, "cpu", {}, LOGGING)
    assert_same(run, through)


@pytest.mark.parametrize("name", ["log_every", "checkpoint_every", "sample_every", "measure_every", "keep"])
def test_logging_never_is_not_an_interval(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} 0 is not allowed; it must be at least 1"):
        Logging(**{name: 0})


def test_tensorboard_misses_no_step_of_a_run_that_was_continued(digits: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    for steps in (6, STEPS):  # step 6 is logged before the checkpoint that the run continues from
        run_to(digits, run, steps)
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("lr")] == [
        line["step"] for line in read_metrics(run) if "lr" in line
    ]


def test_the_warm_ups_of_a_preset_follow_its_horizon() -> None:
    whole, half = (resolve("mnist-small", {"horizon": n}, (32, 32, 3)) for n in (12_000, 6_000))
    assert whole == resolve("mnist-small", {}, (32, 32, 3))
    for part, name in (("model", "alpha_warmup"), ("model", "beta_warmup"), ("train", "warmup")):
        assert half[part][name] == whole[part][name] // 2 > 0
