"""Where a run's numbers go: each writer, what a continued run finds, and one that fails without stopping anything."""

import gc
import json
import resource
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from drnet.datasets.contract import DataError
from drnet.pipelines.progress import Silent
from drnet.pipelines.run import latest_checkpoint, read_config, read_metrics, settle_config
from drnet.pipelines.train import Logging, resolve, train
from drnet.pipelines.training.runs import read_run, sum_up
from drnet.pipelines.training.writers import Guarded, Writers, check_wandb, open_writers

NOISE = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with its settings."""
    settle_config(tmp_path / "run", {"format": 1, **resolve("mnist", {}, (32, 32, 3)), "data": {"clips": 9}})
    return tmp_path / "run"


def write(writers: Writers, *steps: int) -> None:
    for step in steps:
        writers.scalars(step, {"loss/x": 1 / step, "lr": 0.5})


def events_of(run: Path) -> EventAccumulator:
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return events


@contextmanager
def no_room(limit: int) -> Iterator[None]:
    """Let files grow to a number of bytes and no further, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_metrics_and_tensorboard_have_every_number_at_once(run: Path) -> None:
    notes: list[str] = []
    with open_writers(run, 0, notes.append) as writers:
        write(writers, 50, 100)
        lines = [{"step": step, "loss/x": 1 / step, "lr": 0.5} for step in (50, 100)]
        assert read_metrics(run) == lines
        events = events_of(run)
    assert [(event.step, event.value) for event in events.Scalars("loss/x")] == [
        (line["step"], pytest.approx(line["loss/x"])) for line in lines
    ]
    assert set(events.Tags()["scalars"]) == {"loss/x", "lr"}
    assert notes == []


def test_a_picture_is_the_same_in_tensorboard(run: Path) -> None:
    from io import BytesIO

    from PIL import Image

    with open_writers(run, 0, print) as writers:
        writers.image(7, "samples", NOISE)
        writers.flush()
        (event,) = events_of(run).Images("samples")
    assert (event.step, event.width, event.height) == (7, 160, 120)
    with Image.open(BytesIO(event.encoded_image_string)) as image:
        assert np.array_equal(np.asarray(image), NOISE)


@pytest.mark.parametrize("start", [0, 50, 75, 100])
def test_a_continued_run_has_each_step_once_and_no_gap(run: Path, start: int) -> None:
    with open_writers(run, 0, print) as writers:
        write(writers, 25, 50, 75, 100)
        writers.image(100, "samples", NOISE)
    with open_writers(run, start, print) as writers:
        write(writers, *range(start + 25, 151, 25))
        writers.image(150, "samples", NOISE)
    events = events_of(run)
    assert [event.step for event in events.Scalars("lr")] == [25, 50, 75, 100, 125, 150]
    assert [event.step for event in events.Images("samples")] == ([100, 150] if start == 100 else [150])
    assert len(list((run / "tensorboard").iterdir())) == 2


def test_tensorboard_that_fails_is_told_once_and_the_metrics_go_on(run: Path) -> None:
    notes: list[str] = []
    with no_room(10_000), open_writers(run, 0, notes.append) as writers:
        write(writers, 1)
        writers.image(2, "samples", NOISE)  # 57 kB
        writers.flush()
        write(writers, 3, 4)
        writers.flush()
    gc.collect()  # a file that was left open would warn now
    (note,) = notes
    assert note.startswith("TensorBoard is off from here, and training goes on: ")
    assert "File too large" in note
    assert [line["step"] for line in read_metrics(run)] == [1, 3, 4]
    assert [event.step for event in events_of(run).Scalars("lr")] == [1]


def test_tensorboard_that_cannot_begin_is_told_once(run: Path) -> None:
    (run / "tensorboard").write_text("in the way")
    notes: list[str] = []
    with open_writers(run, 0, notes.append) as writers:
        write(writers, 1, 2)
    assert len(notes) == 1
    assert "File exists" in notes[0]
    assert len(read_metrics(run)) == 2


def test_metrics_that_cannot_be_written_end_training(run: Path) -> None:
    def fill() -> None:
        with open_writers(run, 0, print) as writers:
            writers.scalars(1, {f"loss/{n}": 0.1 for n in range(100)})

    with no_room(1000), pytest.raises(OSError, match="File too large"):
        fill()
    gc.collect()
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").mkdir()
    with pytest.raises(IsADirectoryError):
        fill()


def test_only_numbers_go_into_the_metrics(run: Path) -> None:
    with open_writers(run, 0, print) as writers, pytest.raises(ValueError, match="JSON"):
        writers.scalars(1, {"loss/x": float("nan")})
    assert read_metrics(run) == []


def test_an_interruption_is_not_swallowed() -> None:
    def interrupted() -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Guarded("W", interrupted, print)


class Cloud:
    """Stands for the `wandb` module: remembers everything, and fails where it is told to."""

    def __init__(self) -> None:
        self.inits: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.finished = 0
        self.broken: set[str] = set()
        self.reached = 0  # the last step its server has
        self.module = SimpleNamespace(init=self.init, Settings=dict, Image=lambda pixels: ("image", pixels.shape))

    def init(self, **words: Any) -> "Cloud":
        self.fail("init")
        self.inits.append(words)
        self.step, self.offline = self.reached and self.reached + 1, words["project"] == "quiet"
        self.url, self.dir = "https://wandb.example/run", f"{words['dir']}/wandb/offline-run-1/files"
        return self

    def log(self, values: Mapping[str, Any], step: int) -> None:
        self.fail("log")
        assert step >= self.step, "it would warn, and ignore this"
        self.step = self.reached = step
        self.logged.append((step, dict(values)))

    def finish(self) -> None:
        self.finished += 1
        self.fail("finish")

    def fail(self, name: str) -> None:
        if name in self.broken:
            raise ConnectionError(f"the server is down\nin {name}")


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Cloud:
    found = Cloud()
    monkeypatch.setitem(sys.modules, "wandb", found.module)
    for name in ("WANDB_PROJECT", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    return found


def test_weights_and_biases_gets_numbers_pictures_and_settings(run: Path, cloud: Cloud) -> None:
    notes: list[str] = []
    with open_writers(run, 0, notes.append, "team/digits") as writers:
        write(writers, 50)
        writers.image(50, "samples", NOISE)
        writers.flush()
    assert cloud.logged == [(50, {"loss/x": 0.02, "lr": 0.5}), (50, {"samples": ("image", NOISE.shape)})]
    assert cloud.finished == 1
    (words,) = cloud.inits
    assert (words["entity"], words["project"], words["name"], words["resume"]) == ("team", "digits", "run", "allow")
    assert words["dir"] == str(run)
    assert words["config"] == read_config(run)
    assert words["settings"]["console"] == "off"  # the progress bar stays ours
    assert notes == ["Weights & Biases: https://wandb.example/run"]
    assert len(read_metrics(run)) == len(events_of(run).Scalars("lr")) == 1


def test_a_continued_run_goes_on_in_the_same_run_and_never_back(run: Path, cloud: Cloud) -> None:
    with open_writers(run, 0, print, "digits") as writers:
        write(writers, 50, 100, 150)
    with open_writers(run, 50, print, "") as writers:  # killed, and continued from an older checkpoint
        write(writers, 100, 150, 200)
    assert [step for step, _ in cloud.logged] == [50, 100, 150, 200]
    first, second = cloud.inits
    assert first["id"] == second["id"] == json.loads((run / "wandb.json").read_text())["id"]
    assert (second["project"], second["entity"]) == ("digits", None)


def test_the_project_is_the_users_then_the_runs_then_the_environments(
    run: Path, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "of-the-environment")
    for project in ("", "mine", ""):
        with open_writers(run, 0, print, project):
            pass
    assert [words["project"] for words in cloud.inits] == ["of-the-environment", "mine", "mine"]
    assert len({words["id"] for words in cloud.inits}) == 1


def test_offline_says_how_it_is_sent_later(run: Path, cloud: Cloud) -> None:
    notes: list[str] = []
    with open_writers(run, 0, notes.append, "quiet"):
        pass
    assert notes == [f"Weights & Biases: offline; `wandb sync {run}/wandb/offline-run-1` sends it"]


@pytest.mark.parametrize(("broken", "logged"), [("init", []), ("log", []), ("finish", [1, 2, 3])])
def test_weights_and_biases_that_fails_is_told_once(run: Path, cloud: Cloud, broken: str, logged: list[int]) -> None:
    cloud.broken = {broken}
    notes: list[str] = []
    with open_writers(run, 0, notes.append, "digits") as writers:
        write(writers, 1, 2, 3)
        writers.flush()
    told = [note for note in notes if "example" not in note]
    assert told == [f"Weights & Biases is off from here, and training goes on: the server is down in {broken}"]
    assert [step for step, _ in cloud.logged] == logged
    assert cloud.finished >= (broken != "init")  # no process of its own is left behind
    assert [line["step"] for line in read_metrics(run)] == [1, 2, 3]
    assert [event.step for event in events_of(run).Scalars("lr")] == [1, 2, 3]


@pytest.mark.parametrize("kept", ["{", "[]", '{"id": "a b", "project": "p"}', '{"id": "ab", "project": "../x/y"}'])
def test_a_damaged_id_is_told_and_not_used(run: Path, cloud: Cloud, kept: str) -> None:
    (run / "wandb.json").write_text(kept)
    notes: list[str] = []
    with open_writers(run, 0, notes.append, "digits") as writers:
        write(writers, 1)
    assert len(notes) == 1
    assert cloud.inits == []
    assert (run / "wandb.json").read_text() == kept


def _absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)


def _folder_that_it_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", ModuleType("wandb"))


@pytest.mark.parametrize("missing", [_absent, _folder_that_it_left])
def test_where_it_is_not_installed_one_line_says_how(
    missing: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing(monkeypatch)
    with pytest.raises(DataError, match=r"^--wandb needs wandb, which is not installed: pip install 'drnet\[wandb\]'$"):
        check_wandb("")


def test_a_project_is_a_name(cloud: Cloud) -> None:
    for project in ("", "drnet", "my-team/Project 1.0"):
        check_wandb(project)
    for project in ("a/b/c", "/", "x" * 200, "a\nb", "what?"):
        with pytest.raises(DataError, match="is not allowed; it must be a name like drnet or team/drnet"):
            check_wandb(project)


def test_the_real_one_works_offline(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="Weights & Biases is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_DIR", "WANDB_PROJECT", "WANDB_RUN_ID", "WANDB_RESUME"):
        monkeypatch.delenv(name, raising=False)
    notes: list[str] = []
    for start in (0, 100):
        with open_writers(run, start, notes.append, "digits") as writers:
            write(writers, start + 50, start + 100)
            writers.image(start + 100, "samples", NOISE)
    name = json.loads((run / "wandb.json").read_text())["id"]
    assert len(notes) == 2
    assert all("offline; `wandb sync " in note and f"-{name}" in note for note in notes)
    folders = [path for path in (run / "wandb").iterdir() if path.name.startswith("offline-run-")]
    assert len(folders) == 2
    assert all(f"-{name}" in path.name for path in folders)
    pictures = [picture for path in folders for picture in path.glob("files/media/images/samples_*.png")]
    assert {picture.name.split("_")[1] for picture in pictures} == {"100", "200"}


class Notes(Silent):
    """Keeps what a person should read."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


def train_to(steps: int, digits: Path, run: Path, tiny: dict[str, Any], **logging: Any) -> list[str]:
    """Train a very small model to a step; returns what was noted."""
    notes = Notes()
    every = Logging(log_every=1, checkpoint_every=4, sample_every=5, **logging)
    train(digits, run, steps=steps, overrides=tiny, device="cpu", logging=every, progress=notes)
    return notes.lines


def test_training_goes_on_without_tensorboard_to_the_same_bits(
    digits: Path, tmp_path: Path, tiny: dict[str, Any]
) -> None:
    whole, hindered = tmp_path / "whole", tmp_path / "hindered"
    train_to(6, digits, whole, tiny)
    train_to(3, digits, hindered, tiny)
    shutil.rmtree(hindered / "tensorboard")
    (hindered / "tensorboard").write_text("in the way")
    told = train_to(6, digits, hindered, tiny)
    lines = [line.split(":")[0] for line in told if "TensorBoard" in line]
    assert lines == ["TensorBoard is off from here, and training goes on"]
    first, second = latest_checkpoint(whole), latest_checkpoint(hindered)
    assert (first.step, first.sha256, first.trainer_sha256) == (6, second.sha256, second.trainer_sha256)
    assert [line["step"] for line in read_metrics(hindered)] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in events_of(whole).Images("samples")] == [5, 6]


def test_a_trained_run_is_at_weights_and_biases_and_continues_there(
    digits: Path, tmp_path: Path, tiny: dict[str, Any], cloud: Cloud
) -> None:
    for steps in (3, 6):
        train_to(steps, digits, tmp_path / "run", tiny, wandb="digits")
    assert [step for step, values in cloud.logged if "loss/reconstruction" in values] == [1, 2, 3, 4, 5, 6]
    assert [step for step, values in cloud.logged if "samples" in values] == [3, 5, 6]
    assert len({words["id"] for words in cloud.inits}) == 1
    assert cloud.inits[0]["config"]["model"]["width"] == tiny["width"]


def test_a_run_for_weights_and_biases_does_not_begin_without_it(
    digits: Path, tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _absent(monkeypatch)
    with pytest.raises(DataError, match="--wandb needs wandb, which is not installed"):
        train_to(3, digits, tmp_path / "run", tiny, wandb="")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_stopped_is_not_finished(digits: Path, tmp_path: Path, tiny: dict[str, Any]) -> None:
    stop = threading.Event()
    stop.set()
    train(digits, tmp_path / "run", steps=6, overrides=tiny, device="cpu", stop=stop)
    stopped = sum_up(read_run(tmp_path / "run"), "loss/reconstruction")
    train_to(6, digits, tmp_path / "run", tiny)
    finished = sum_up(read_run(tmp_path / "run"), "loss/reconstruction")
    assert (stopped.steps, stopped.asked, stopped.finished) == (1, 6, False)
    assert (finished.steps, finished.asked, finished.finished) == (6, 6, True)
