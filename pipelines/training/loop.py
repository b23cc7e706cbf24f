"""The loop that trains any model: steps, what is written on the way, and how it ends.

A model brings a `Feed`, which gives the inputs of every step, and a `Watch`, which looks at it while it trains.
"""

import threading
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from drnet.pipelines.building.failures import Budget
from drnet.pipelines.looking.pictures import Frames, save_png
from drnet.pipelines.progress import Progress
from drnet.pipelines.run import Best, RunError, keep_checkpoints, latest_checkpoint, save_checkpoint
from drnet.pipelines.training.processes import ALONE, Processes
from drnet.pipelines.training.writers import Writers, no_writers, open_writers
from drnet.trainer import NotFinite, Trainer, computing

AGREE_EVERY = 4  # steps between two questions to all processes whether one was told to stop
NAMES_SHOWN = 8  # of the clips of a batch that is to blame


@dataclass(frozen=True)
class Logging:
    """What a run writes while it trains; none of it influences the weights.

    Attributes:
        log_every: steps between two lines of metrics.
        checkpoint_every: steps between two checkpoints.
        sample_every: steps between two pictures.
        measure_every: steps between two measurements of held-out clips; None measures at every checkpoint.
        keep: newest checkpoints that stay, besides the best.
        wandb: project at Weights & Biases, see `drnet.pipelines.training.writers.WeightsAndBiases`; None leaves it out.
        max_skipped: clips that may be left out because they cannot be read, before training stops.
    """

    log_every: int = 50
    checkpoint_every: int = 1000
    sample_every: int = 1000
    measure_every: int | None = None
    keep: int = 3
    wandb: str | None = None
    max_skipped: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        for name in ("log_every", "checkpoint_every", "sample_every", "measure_every", "keep"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} {value} is not allowed; it must be at least 1")


class Feed(Protocol):
    """Where a model's inputs come from."""

    lighter: str  # what to try where a batch finds no memory on the device

    def batches(self, start: int) -> Generator[Any, None, None]:
        """Yield this process's part of every step's batch, from an absolute step on, without end; closing frees it."""

    def inputs(self, batch: Any) -> tuple[Tensor, ...]:
        """Return what the model's `losses` takes of a batch, on the device."""

    def names(self, step: int) -> Sequence[str]:
        """Return the names of what the whole batch of a step, counted from 0, holds."""

    def counted(self) -> Mapping[str, float]:
        """Return what was left out so far, for the metrics; all processes ask at the same step."""


class Watch(Protocol):
    """How a model is looked at while it trains."""

    best: str | None  # the measurement of which the least is the best checkpoint's; None keeps none

    def measure(self, trainer: Trainer) -> Mapping[str, float]:
        """Return measurements on held-out clips."""

    def picture(self, trainer: Trainer) -> Frames | None:
        """Return a picture (H, W, 3) of what the model does, or None."""

    def lines(self, step: int, values: Mapping[str, float], report: bool) -> Sequence[str]:
        """Return what a person should read about metrics or measurements; `report` asks for a line on how it goes."""


@dataclass
class Clock:
    """Measures how fast training goes, and which share of the time it waits for data, between two lines of metrics."""

    began: float = field(default_factory=time.perf_counter)
    steps: int = 0
    waited: float = 0.0

    def next_of(self, batches: Generator[Any, None, None]) -> Any:
        """Return the next batch, with the wait for it measured."""
        began = time.perf_counter()
        batch = next(batches)
        self.waited += time.perf_counter() - began
        self.steps += 1
        return batch

    def take(self) -> dict[str, float]:
        """Return the metrics of time and start anew."""
        now = time.perf_counter()
        seconds = max(now - self.began, 1e-9)
        found = {"time/steps_per_second": self.steps / seconds, "time/waiting_for_data": self.waited / seconds}
        self.began, self.steps, self.waited = now, 0, 0.0
        return found


class Loop:
    """One stretch of training.

    Args:
        run: the run folder.
        trainer: model and optimizers, restored.
        feed: where its inputs come from.
        watch: how it is looked at.
        logging: what is written.
        progress: told of each step.
        data: what identifies the data, for the checkpoints.
        processes: those that train together; only the first writes.

    Attributes:
        last: the metrics last logged.
    """

    def __init__(
        self,
        run: Path,
        trainer: Trainer,
        feed: Feed,
        watch: Watch,
        logging: Logging,
        progress: Progress,
        data: Mapping[str, Any],
        processes: Processes = ALONE,
    ) -> None:
        self.run, self.trainer, self.feed, self.watch = run, trainer, feed, watch
        self.logging, self.progress, self.data, self.processes = logging, progress, data, processes
        self.last: dict[str, float] = {}
        self.asked = 0

    def run_to(self, target: int, stop: threading.Event) -> None:
        """Train up to a step, or until any process is told to stop; a checkpoint is written in either case.

        Raises:
            RunError: where a loss is not finite, or memory does not suffice.
        """
        start, self.asked = self.trainer.step, target
        batches = self.feed.batches(start)  # may show progress of its own
        self.progress.start("training", target, "steps", done=start)
        clock = Clock()
        wandb = self.logging.wandb
        opened = open_writers(self.run, start, self.progress.note, wandb) if self.processes.first else no_writers()
        try:
            with opened as writers:
                last = False
                while not last:
                    self._step(self._inputs(clock, batches))
                    last = self._last(target, stop)
                    self._record(last, clock, writers)
        except NotFinite as error:
            raise RunError(f"{error}; {self._good()}{self._blamed(error.step)}") from None
        finally:
            batches.close()
            self.progress.stop()

    def _inputs(self, clock: Clock, batches: Generator[Any, None, None]) -> tuple[Tensor, ...]:
        try:
            return self.feed.inputs(clock.next_of(batches))
        except torch.OutOfMemoryError:
            size = self.trainer.config.batch_size
            raise RunError(
                f"out of memory on {self.trainer.device} while a batch was brought there, with batch_size {size}; "
                f"try {self.feed.lighter}; {self._good()}"
            ) from None

    def _step(self, inputs: tuple[Tensor, ...]) -> None:
        try:
            self.trainer.train_step(*inputs)
        except torch.OutOfMemoryError:
            pass  # the advice is sought where the failed step's tensors are gone
        else:
            return
        raise RunError(f"{advice(self.trainer, inputs, self.processes)}; {self._good()}")

    def _last(self, target: int, stop: threading.Event) -> bool:
        """Whether all processes end here; a signal may reach them at different steps, or only one of them."""
        if self.trainer.step == target:
            return True
        if self.processes.count == 1:
            return stop.is_set()
        return self.trainer.step % AGREE_EVERY == 0 and self.processes.any(stop.is_set())

    def _record(self, last: bool, clock: Clock, writers: Writers) -> None:
        """Write what is due after a step; after the last one of a session all there is, and a checkpoint."""
        every, step = self.logging, self.trainer.step
        saves = last or step % every.checkpoint_every == 0
        logs = step % every.log_every == 0
        due = step % (every.measure_every or every.checkpoint_every) == 0
        asks = logs or not self.last  # of a few steps an alarm would be noise, where it was asked for already
        values: dict[str, float] = {}
        if logs or last:
            self.last = self.trainer.take_metrics(keep=not logs)  # of all processes together
            values = {**self.last, **clock.take(), **self.feed.counted()}
        if self.processes.first:
            held_out = self._measured() if due or saves else {}
            if logs or due or last:
                writers.scalars(step, {**values, **(held_out if due or last else {})})
            report = logs and step % (10 * every.log_every) == 0
            for line in self.watch.lines(step, {**(values if asks else {}), **held_out}, report):
                self.progress.note(line)
            if step % every.sample_every == 0 or last:
                self._picture(step, writers)
            if saves:
                writers.flush()
                added = [*({} if logs else values), *({} if due else held_out)] if last else []
                self._checkpoint(held_out, added)
        if saves:
            self.processes.wait()
        self.progress.advance(1, **{name.split("/")[-1]: value for name, value in self.last.items() if "loss" in name})

    def _measured(self) -> Mapping[str, float]:
        with computing(self.trainer.config.precision):
            return self.watch.measure(self.trainer)

    def _picture(self, step: int, writers: Writers) -> None:
        with computing(self.trainer.config.precision):
            picture = self.watch.picture(self.trainer)
        if picture is not None:
            save_png(self.run / "samples" / f"{step:08d}.png", picture)
            writers.image(step, "samples", picture)

    def _checkpoint(self, held_out: Mapping[str, float], added: Sequence[str]) -> None:
        trainer = self.trainer
        trainer.check_finite()
        state = {"step": trainer.step, "samples": trainer.step * trainer.config.batch_size, "data": dict(self.data)}
        state["asked"] = self.asked  # tells `drnet runs` whether it was stopped before that
        state["held_out"] = dict(held_out)
        # dropped from the metrics where the run is continued: they are of one never stopped
        state["added"] = list(added)
        save_checkpoint(self.run, trainer.evaluated, trainer.state(), state)
        name = self.watch.best
        found = None if name is None or name not in held_out else Best(trainer.step, name, held_out[name])
        keep_checkpoints(self.run, self.logging.keep, found)

    def _good(self) -> str:
        """Say which checkpoint is whole."""
        checkpoint = latest_checkpoint(self.run)
        return f"the last good checkpoint is {checkpoint.folder}" if checkpoint else "there is no checkpoint yet"

    def _blamed(self, step: int | None) -> str:
        """Name what the batch of a step, counted from 0, held."""
        if step is None:
            return ""
        names = list(self.feed.names(step))
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        return f"; its batch held {', '.join(names[:NAMES_SHOWN])}{more}"


def advice(trainer: Trainer, inputs: tuple[Tensor, ...], processes: Processes) -> str:
    """Say that a step does not fit into memory, and after trying it, which smaller one does.

    The trials train on: the trainer is of no more use after them.
    """
    config, size = trainer.config, len(inputs[0])
    message = f"out of memory on {trainer.device} with batch_size {config.batch_size}"
    if config.accumulate > 1:
        message += f" in {config.accumulate} parts"
    if processes.count > 1:  # the others wait for this one
        return f"{message}; try a larger --accumulate, which computes the same batches in parts, or more processes"
    for parts in range(config.accumulate + 1, size // 2 + 1):
        if size % parts == 0 and _fits(trainer, tuple(value[: size // parts] for value in inputs)):
            return (
                f"{message}; {size // parts} clips at once do fit: --accumulate {parts} computes the same batches in "
                f"{parts} parts, --batch-size {size // parts} takes smaller ones"
            )
    return f"{message}, and with two clips; take a smaller --width, or smaller frames"


def _fits(trainer: Trainer, inputs: tuple[Tensor, ...]) -> bool:
    """Whether a step on a part of a batch, computed at once, finds its memory."""
    for optimizer in trainer.optimizers.values():
        optimizer.zero_grad(set_to_none=True)
    if trainer.device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        trainer.update(inputs, 1)
    except torch.OutOfMemoryError:
        return False
    return True
