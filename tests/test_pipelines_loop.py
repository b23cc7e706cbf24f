"""The loop: what it does where memory ends, which checkpoint is the best, and how a run folder is taken up."""

import json
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from drnet.pipelines.progress import Silent
from drnet.pipelines.run import RunError, latest_checkpoint, read_best, read_metrics, settle_config
from drnet.pipelines.train import train
from drnet.pipelines.training.loop import Logging, Loop
from drnet.predictor import PredictorConfig
from drnet.trainer import TrainConfig, Trainer

CPU = torch.device("cpu")


class Hungry(nn.Module):
    """A model that finds memory for some rows at once, as a GPU does."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.weight, self.most = nn.Parameter(torch.ones(1)), most
        self.config = None

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {"main": [self.weight]}

    def losses(self, rows: Tensor, step: int) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        if len(rows) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        loss = (self.weight * rows).square().mean()
        yield "main", loss, {"loss/main": loss.detach()}


class Rows:
    """The same batch at every step, from a step on not a number."""

    lighter = "fewer rows"

    def __init__(self, size: int, spoiled: int | None = None) -> None:
        self.size, self.spoiled = size, spoiled
        self.closed = False

    def batches(self, start: int) -> Generator[int, None, None]:
        step = start
        try:
            while True:
                yield step
                step += 1
        finally:
            self.closed = True

    def inputs(self, batch: int) -> tuple[Tensor, ...]:
        return (torch.full((self.size,), torch.nan if batch == self.spoiled else 1.0),)

    def names(self, step: int) -> Sequence[str]:
        return [f"clip-{step}-{row}" for row in range(self.size)]

    def counted(self) -> Mapping[str, float]:
        return {}


class Scores:
    """Measurements told beforehand, by step."""

    best = "held_out/error"

    def __init__(self, values: Mapping[int, float] | None = None) -> None:
        self.values = values or {}

    def measure(self, trainer: Trainer) -> Mapping[str, float]:
        return {"held_out/error": self.values[trainer.step]} if trainer.step in self.values else {}

    def picture(self, trainer: Trainer) -> None:
        return None

    def lines(self, step: int, values: Mapping[str, float], report: bool) -> Sequence[str]:
        return []


def loop_of(run: Path, most: int = 99, size: int = 12, feed: Rows | None = None, **settings: int) -> Loop:
    config = TrainConfig(batch_size=size, **settings)  # type: ignore[arg-type]
    trainer = Trainer(Hungry(most), config, CPU)
    settle_config(run, {"format": 1, "preset": "mnist", "model": {}, "train": config.to_json(), "data": {}})
    logging = Logging(log_every=2, checkpoint_every=4, keep=1)
    return Loop(run, trainer, feed or Rows(size), Scores({4: 3.0, 8: 1.0, 12: 2.0}), logging, Silent(), {})


def test_out_of_memory_tells_the_parts_that_fit(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(RunError) as raised:
        loop_of(run, most=5).run_to(3, threading.Event())
    assert str(raised.value) == (
        "out of memory on cpu with batch_size 12; 4 clips at once do fit: --accumulate 3 computes the same batches in 3 "
        "parts, --batch-size 4 takes smaller ones; there is no checkpoint yet"
    )
    loop_of(run, most=5, accumulate=3).run_to(3, threading.Event())  # the advice holds, in the same folder
    assert latest_checkpoint(run).step == 3  # type: ignore[union-attr]


def test_out_of_memory_with_two_clips_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="and with two clips; take a smaller --width, or smaller frames"):
        loop_of(tmp_path / "run", most=1).run_to(3, threading.Event())


@pytest.mark.parametrize("place", ["batches", "inputs"])
def test_out_of_memory_for_a_batch_is_one_line_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    feed, given = Rows(12), getattr(Rows, place)

    def full(*words: int) -> object:
        if place == "inputs" and words[0] < 5:
            return given(feed, *words)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    def full_later(start: int) -> Generator[int, None, None]:
        for step in given(feed, start):
            yield step if step < 5 else full(step)

    monkeypatch.setattr(feed, place, full if place == "inputs" else full_later)
    run = tmp_path / "run"
    with pytest.raises(RunError) as raised:
        loop_of(run, feed=feed).run_to(9, threading.Event())
    assert str(raised.value) == (
        "out of memory on cpu while a batch was brought there, with batch_size 12; try fewer rows; "
        f"the last good checkpoint is {run / 'checkpoints' / '00000004'}"
    )
    assert feed.closed


def test_the_batch_that_is_to_blame_is_named_with_the_last_good_checkpoint(tmp_path: Path) -> None:
    run, feed = tmp_path / "run", Rows(12, spoiled=4)
    with pytest.raises(RunError) as raised:
        loop_of(run, feed=feed).run_to(99, threading.Event())
    assert "loss/main not finite in step 5" in str(raised.value)
    assert f"the last good checkpoint is {run / 'checkpoints' / '00000004'}" in str(raised.value)
    assert "; its batch held clip-4-0, clip-4-1, " in str(raised.value)
    assert str(raised.value).endswith("clip-4-7 and 4 more")
    assert feed.closed


def test_the_best_checkpoint_is_kept_and_each_knows_its_measurements(tmp_path: Path) -> None:
    run = tmp_path / "run"
    loop_of(run).run_to(12, threading.Event())
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == ["00000008", "00000012"]
    best = read_best(run)
    assert best is not None
    assert (best.step, best.metric, best.value) == (8, "held_out/error", 1.0)
    state = json.loads((run / "checkpoints" / "00000012" / "state.json").read_text())
    assert state["held_out"] == {"held_out/error": 2.0}
    lines = {line["step"]: line.get("held_out/error") for line in read_metrics(run)}
    assert lines == {2: None, 4: 3.0, 6: None, 8: 1.0, 10: None, 12: 2.0}


@pytest.mark.parametrize("value", ["1" + "0" * 400, '"nan"', "1e999", "true", "NaN", "null"])
def test_a_best_measurement_that_is_no_number_is_refused_in_one_line(tmp_path: Path, value: str) -> None:
    (tmp_path / "checkpoints" / "00000001").mkdir(parents=True)
    (tmp_path / "best.json").write_text(f'{{"step": 1, "metric": "a", "value": {value}}}')
    with pytest.raises(ValueError, match=r"best\.json: .*delete the file; the next checkpoint writes it again$"):
        read_best(tmp_path)
    (tmp_path / "best.json").write_text('{"step": 1, "metric": "a", "value": 1}')
    assert read_best(tmp_path) is not None


def test_a_run_of_another_kind_of_input_is_not_continued_on_frames(digits: Path, tmp_path: Path) -> None:
    model, settings = PredictorConfig().to_json(), TrainConfig().to_json()
    settle_config(tmp_path, {"format": 1, "kind": "predictor", "model": model, "train": settings, "data": {}})
    with pytest.raises(ValueError, match="a run of kind 'predictor' is not trained on frames; choose another --out"):
        train(digits, tmp_path, steps=1, device="cpu")


def test_a_run_is_taken_up_only_as_asked_for(digits: Path, tmp_path: Path) -> None:
    run, changes = tmp_path / "run", {"width": 4, "batch_size": 8}
    with pytest.raises(
        RunError, match="no checkpoint to continue from; --resume auto starts a run where there is none"
    ):
        train(digits, run, steps=1, device="cpu", overrides=changes, resume="always")
    assert not run.exists()
    train(digits, run, steps=1, device="cpu", overrides=changes, resume="never")
    with pytest.raises(RunError, match="is at step 1 already; choose another --out, or --resume auto to continue it"):
        train(digits, run, steps=2, device="cpu", overrides=changes, resume="never")
    assert train(digits, run, steps=2, device="cpu", overrides=changes, resume="always").start == 1


def test_averaged_weights_are_what_a_run_is_loaded_with_and_it_continues_bit_for_bit(
    digits: Path, tmp_path: Path
) -> None:
    changes = {"width": 4, "batch_size": 8, "ema": 0.5, "clip_norm": 0.1, "accumulate": 2}
    for run, stops in (("once", (4,)), ("twice", (1, 4))):
        for steps in stops:
            train(digits, tmp_path / run, steps=steps, device="cpu", overrides=changes)
    one, other = latest_checkpoint(tmp_path / "once"), latest_checkpoint(tmp_path / "twice")
    assert one is not None
    assert other is not None
    assert (one.sha256, one.trainer_sha256) == (other.sha256, other.trainer_sha256)
    train(digits, tmp_path / "plain", steps=4, device="cpu", overrides=changes | {"ema": 0.0})
    plain = latest_checkpoint(tmp_path / "plain")
    assert plain is not None
    assert plain.sha256 != one.sha256


@pytest.mark.filterwarnings("default")  # the compiler raises some inside itself
def test_a_compiled_model_trains_to_nearly_the_same_loss_and_saves_plain_names(digits: Path, tmp_path: Path) -> None:
    found = {}
    for compiling in ("off", "on"):
        run = tmp_path / compiling
        logging = Logging(log_every=1)
        changes = {"width": 4, "batch_size": 8, "seed": 5}
        report = train(digits, run, None, 2, "cpu", changes, logging, compiling=compiling)  # type: ignore[arg-type]
        found[compiling] = report
    one, other = (read_metrics(tmp_path / name) for name in ("off", "on"))
    for mine, theirs in zip(one, other, strict=True):
        assert theirs["loss/reconstruction"] == pytest.approx(mine["loss/reconstruction"], rel=1e-3)
    assert train(digits, tmp_path / "on", None, 3, "cpu").start == 2  # uncompiled
