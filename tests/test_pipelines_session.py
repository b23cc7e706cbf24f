"""A stretch of training: what its last step adds, what is dropped where it goes on, what a failed start leaves."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from drnet.pipelines.progress import Silent
from drnet.pipelines.run import RunError, latest_checkpoint, read_config, read_metrics
from drnet.pipelines.train import FrameFeed, Logging, train
from drnet.pipelines.training.alarms import Patience
from drnet.pipelines.training.session import cut_metrics

SETTINGS: dict[str, Any] = {"width": 4, "batch_size": 8, "seed": 3}
LOSSES = ("loss/reconstruction", "loss/similarity", "loss/adversarial", "discriminator/bce", "variance/pose")


class Notes(Silent):
    """Keeps what a person should read, and asks for the end after some steps."""

    def __init__(self, steps: int = 0) -> None:
        self.lines: list[str] = []
        self.left, self.asked = steps, threading.Event()

    def note(self, line: str) -> None:
        self.lines.append(line)

    def advance(self, count: int, **values: float) -> None:
        self.left -= count
        if self.left == 0:
            self.asked.set()


def run_to(shards: Path, run: Path, steps: int, log_every: int = 50, notes: Notes | None = None, **more: Any) -> Any:
    notes = notes or Notes()
    arguments: dict[str, Any] = {"overrides": SETTINGS, "logging": Logging(log_every, 100, 100), "device": "cpu"}
    return train(shards, run, steps=steps, progress=notes, stop=notes.asked, **(arguments | more))


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def by_step(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    """The metrics of each of seven steps."""
    run = tmp_path_factory.mktemp("by_step") / "run"
    run_to(digits, run, 7, log_every=1)
    return read_metrics(run)


def assert_means(line: dict[str, float], of: list[dict[str, float]]) -> None:
    assert len(of)
    for name in LOSSES:
        assert line[name] == pytest.approx(sum(row[name] for row in of) / len(of), rel=1e-5), name


def test_a_run_shorter_than_an_interval_ends_with_its_losses_and_its_health(
    by_step: list[dict[str, float]], digits: Path, tmp_path: Path
) -> None:
    report = run_to(digits, tmp_path / "run", 7)
    (line,) = read_metrics(tmp_path / "run")
    assert line["step"] == 7
    assert_means(line, by_step)
    assert {"held_out/reconstruction", "lr", "data/skipped", "time/steps_per_second"} <= line.keys()
    assert report.metrics["loss/reconstruction"] == line["loss/reconstruction"]


def test_the_last_line_is_of_the_steps_since_the_one_before(
    by_step: list[dict[str, float]], digits: Path, tmp_path: Path
) -> None:
    run_to(digits, tmp_path / "run", 7, log_every=5)
    lines = read_metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == [5, 7]
    assert_means(lines[0], by_step[:5])
    assert_means(lines[1], by_step[5:])


def test_what_stopping_added_is_gone_where_the_run_is_continued(
    by_step: list[dict[str, float]], digits: Path, tmp_path: Path
) -> None:
    notes = Notes(1)  # the signal comes after a step: one more is finished
    assert run_to(digits, tmp_path / "run", 7, 5, notes).stopped
    (line,) = read_metrics(tmp_path / "run")
    assert line["step"] == 2
    assert_means(line, by_step[:2])
    run_to(digits, tmp_path / "run", 5, 5)
    (line,) = read_metrics(tmp_path / "run")  # of all steps since the last regular line, those before the stop too
    assert line["step"] == 5
    assert_means(line, by_step[:5])
    assert "held_out/reconstruction" in line
    run_to(digits, tmp_path / "run", 7, 5)
    first, last = read_metrics(tmp_path / "run")
    assert first == {name: value for name, value in line.items() if not name.startswith("held_out/")}
    assert_means(last, by_step[5:])


def test_a_regular_line_loses_only_what_stopping_added(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "00000004"
    folder.mkdir(parents=True)
    rows = [{"loss": 3.0, "step": 2}, {"held_out/error": 0.1, "loss": 2.0, "step": 4}]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    for added, left in (
        (["loss"], {"held_out/error": 0.1, "step": 4}),
        (["loss", "held_out/error"], None),
        ([], rows[1]),
    ):
        (tmp_path / "metrics.jsonl").write_text(text)
        (folder / "state.json").write_text(json.dumps({"added": added}))
        for _ in range(2):  # a session that was killed is taken up there again
            cut_metrics(tmp_path, 4)
            assert read_metrics(tmp_path) == [rows[0], *([left] if left else [])]
    for damaged in ("loss", [1], {"loss": 1}, None):
        (folder / "state.json").write_text(json.dumps({"added": damaged}))
        with pytest.raises(RunError, match=r"state\.json: damaged; delete this checkpoint"):
            cut_metrics(tmp_path, 4)


def test_alarms_are_asked_for_at_the_end_of_a_short_run(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = Patience(0, 0, 0, 0, 0, 0)
    monkeypatch.setattr("drnet.pipelines.training.health.patience_of", lambda *_: at_once)
    notes = Notes()
    settings = SETTINGS | {"lr": 1e-12}  # learns nothing: no frame is better than the mean frame
    run_to(digits, tmp_path / "run", 3, 50, notes, overrides=settings)
    alarms = [line for line in notes.lines if line.startswith("alarm at step 3: ")]
    assert any("training frames come out no better" in line for line in alarms), notes.lines


class Full(FrameFeed):
    """Frames for which there is no memory."""

    def inputs(self, batch: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")


@pytest.mark.parametrize("existed", [False, True])
def test_a_start_that_fails_leaves_nothing(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existed: bool
) -> None:
    run = tmp_path / "run"
    if existed:
        run.mkdir()
    with pytest.raises(
        ValueError, match="cache 'nothing' is not allowed"
    ):  # found where the run's settings are written
        run_to(digits, run, 7, overrides=SETTINGS | {"width": 8}, cache="nothing")
    assert run.exists() == existed
    with monkeypatch.context() as patch:
        patch.setattr("drnet.pipelines.train.FrameFeed", Full)
        with pytest.raises(RunError, match=r"out of memory on cpu .* try a smaller --batch-size, or --cache stream"):
            run_to(digits, run, 7, overrides=SETTINGS | {"width": 8})
    assert run.exists() == existed
    assert not existed or not list(run.iterdir())
    run_to(digits, run, 1, overrides={"batch_size": 8})
    assert read_config(run)["model"]["width"] != 8  # of the preset: the failed command's is forgotten


def test_a_run_that_cannot_be_continued_so_stays_as_it_was(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    run_to(digits, run, 6)  # whose metrics have a line only because it ended there
    before = everything_in(run)
    assert len(read_metrics(run)) == 1
    for wrong in ({"accumulate": 2}, {"lr": 0.5}):  # the first may change, and is written before the start fails
        with pytest.raises(ValueError, match=r"cache 'nothing' is not allowed|was started with train\.lr"):
            train(digits, run, steps=9, device="cpu", overrides=wrong, cache="nothing")  # type: ignore[arg-type]
        assert everything_in(run) == before
    with monkeypatch.context() as patch:
        patch.setattr("drnet.pipelines.train.FrameFeed", Full)
        with pytest.raises(RunError, match=r"out of memory on cpu"):  # found where all writers are open
            train(digits, run, steps=9, device="cpu")
    assert everything_in(run) == before
    assert train(digits, run, steps=7, device="cpu").start == 6
    assert read_config(run)["train"]["accumulate"] == 1


def test_a_run_that_fails_after_a_step_keeps_its_settings(digits: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(RunError, match="not finite"):
        run_to(digits, run, 50, 1, overrides=SETTINGS | {"lr": 1e20})
    assert read_config(run)["train"]["lr"] == 1e20
    assert latest_checkpoint(run) is None
