"""Where a run's numbers go while it trains: metrics.jsonl always, TensorBoard by default, Weights & Biases where asked.

metrics.jsonl is part of the run, and an error in it ends training. The others only show: at its first error such a
writer is told of once and switched off, and training goes on.
"""

import io
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from drnet.datasets.contract import DataError
from drnet.pipelines.fields import text
from drnet.pipelines.files import canonical_json, pretty_json, read_json, sync, write_whole
from drnet.pipelines.looking.pictures import Frames
from drnet.pipelines.run import METRICS, read_config

WANDB = "wandb.json"  # which run of Weights & Biases a run folder belongs to
WANDB_PROJECT = "drnet"
NO_WANDB = "--wandb needs wandb, which is not installed: pip install 'drnet[wandb]'"
WANDB_START, WANDB_END = 30.0, 60.0  # seconds to wait for its server, at the start and at the end
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PROJECT = re.compile(r"[\w. -]{1,128}(/[\w. -]{1,128})?")


class Writer(Protocol):
    """Receives what a run measures. Steps count from 1 and never go back."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers by name, each of them finite."""

    def image(self, step: int, name: str, pixels: Frames) -> None:
        """A picture (H, W, 3) uint8."""

    def flush(self) -> None:
        """Let go of what was written: a checkpoint follows, from which the run may be continued."""

    def close(self) -> None:
        """Nothing more will come."""


class MetricsFile:
    """Writes `metrics.jsonl`, one line for every logged step; pictures lie in `samples/` already."""

    def __init__(self, run: Path) -> None:
        self._file = (run / METRICS).open("ab")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Append a line, at once visible to readers."""
        self._file.write(canonical_json({"step": step, **values}) + b"\n")
        self._file.flush()

    def image(self, step: int, name: str, pixels: Frames) -> None:
        """Ignore."""

    def flush(self) -> None:
        """Make the lines durable."""
        sync(self._file)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoard:
    """Writes an event file into `tensorboard/`.

    It writes in this thread: `SummaryWriter` does it in one of its own, where a full disk ends in a traceback.

    Args:
        run: the run folder.
        start: steps done before; what an earlier session logged after them is hidden, since it is logged again.
    """

    def __init__(self, run: Path, start: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # slow to import, and only needed here
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = Event, Summary
        folder = run / "tensorboard"
        folder.mkdir(exist_ok=True)
        # TensorBoard reads the files in the order of their names, and two sessions may begin in one second.
        seconds, rest = divmod(time.time_ns(), 1_000_000_000)
        name = f"{seconds:010d}.{rest:09d}.{socket.gethostname()}.{os.getpid()}"
        self._file = RecordWriter((folder / f"events.out.tfevents.{name}").open("xb"))
        try:
            self._add(0, file_version="brain.Event:2")
            self._add(start + 1, session_log=SessionLog(status=SessionLog.START))
            self._file.flush()
        except BaseException:
            self._file.close()
            raise

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers, at once visible to readers."""
        shown = [self._summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._add(step, summary=self._summary(value=shown))
        self._file.flush()

    def image(self, step: int, name: str, pixels: Frames) -> None:
        """Write a picture as PNG."""
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        height, width, _ = pixels.shape
        image = self._summary.Image(height=height, width=width, colorspace=3, encoded_image_string=buffer.getvalue())
        self._add(step, summary=self._summary(value=[self._summary.Value(tag=name, image=image)]))

    def flush(self) -> None:
        """Hand what was written to the system."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _add(self, step: int, **content: Any) -> None:
        self._file.write(self._event(wall_time=time.time(), step=step, **content).SerializeToString())


class WeightsAndBiases:
    """Sends everything to Weights & Biases or, with WANDB_MODE=offline, keeps it in `wandb/` for `wandb sync`.

    A run that is continued goes on in the same run there: its id is kept in the run folder.

    Args:
        run: the run folder.
        project: `PROJECT` or `ENTITY/PROJECT`; an empty text is the one that the run had, or `WANDB_PROJECT`.
        note: told where to look.
    """

    def __init__(self, run: Path, project: str, note: Callable[[str], None]) -> None:
        self._wandb = _module()
        name, project = _settle(run, project)
        entity, _, project = project.rpartition("/")
        self._run = self._wandb.init(
            entity=entity or None,
            project=project,
            id=name,
            name=run.absolute().name,
            resume="allow",
            dir=str(run),
            config=read_config(run),
            settings=self._wandb.Settings(
                console="off", silent=True, init_timeout=WANDB_START, finish_timeout=WANDB_END
            ),
        )
        if self._run.offline:
            note(f"Weights & Biases: offline; `wandb sync {Path(self._run.dir).parent}` sends it")
        else:
            note(f"Weights & Biases: {self._run.url}")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Send numbers."""
        self._log(step, values)

    def image(self, step: int, name: str, pixels: Frames) -> None:
        """Send a picture."""
        self._log(step, {name: self._wandb.Image(pixels)})

    def flush(self) -> None:
        """Ignore: its own process writes at once."""

    def close(self) -> None:
        """End the run; waits for its server no longer than `WANDB_END`."""
        self._run.finish()

    def _log(self, step: int, values: Mapping[str, Any]) -> None:
        # Its steps cannot go back. A run that was killed repeats the steps after its checkpoint, which are there.
        if step >= self._run.step:
            self._run.log(dict(values), step=step)


def check_wandb(project: str) -> None:
    """Raise DataError where Weights & Biases cannot be used: before a run begins that asks for it."""
    if project and not _PROJECT.fullmatch(project):
        raise DataError(f"W&B project {project!r} is not allowed; it must be a name like drnet or team/drnet")
    _module()


def _module() -> Any:
    try:
        import wandb
    except ImportError:
        raise DataError(NO_WANDB) from None
    if not hasattr(wandb, "init"):  # the folder that W&B itself leaves where it was used, which Python can import
        raise DataError(NO_WANDB)
    return wandb


def _settle(run: Path, project: str) -> tuple[str, str]:
    """Return the id and the project of a run at Weights & Biases, and keep them in the run folder."""
    name, before = secrets.token_hex(4), os.environ.get("WANDB_PROJECT") or WANDB_PROJECT
    if (run / WANDB).exists():
        kept = read_json(run / WANDB, "the run's id at Weights & Biases", "delete the file to begin a new one")
        name, before = text(kept, "id", _ID), text(kept, "project", _PROJECT)
    write_whole(run / WANDB, pretty_json({"id": name, "project": project or before}), keep_same=True)
    return name, project or before


class Guarded:
    """A writer that training can do without: its first error is told, and it is never used again."""

    def __init__(self, name: str, make: Callable[[], Writer], note: Callable[[str], None]) -> None:
        self._name, self._note = name, note
        self._writer: Writer | None = None
        try:
            self._writer = make()
        except Exception as error:  # whatever it is, as below
            self._switch_off(error)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Pass on."""
        self._use(lambda writer: writer.scalars(step, values))

    def image(self, step: int, name: str, pixels: Frames) -> None:
        """Pass on."""
        self._use(lambda writer: writer.image(step, name, pixels))

    def flush(self) -> None:
        """Pass on."""
        self._use(lambda writer: writer.flush())

    def close(self) -> None:
        """Pass on."""
        self._use(lambda writer: writer.close())

    def _use(self, action: Callable[[Writer], None]) -> None:
        if self._writer is None:
            return
        try:
            action(self._writer)
        except Exception as error:  # whatever it is: hours of training must not end for a picture of them
            self._switch_off(error)

    def _switch_off(self, error: Exception) -> None:
        broken, self._writer = self._writer, None
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        self._note(f"{self._name} is off from here, and training goes on: {reason}")
        with suppress(Exception):  # its trouble was told already
            if broken is not None:
                broken.close()


class Writers:
    """A run's writers as one."""

    def __init__(self, writers: Sequence[Writer]) -> None:
        self._writers = writers

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Pass on to each."""
        for writer in self._writers:
            writer.scalars(step, values)

    def image(self, step: int, name: str, pixels: Frames) -> None:
        """Pass on to each."""
        for writer in self._writers:
            writer.image(step, name, pixels)

    def flush(self) -> None:
        """Pass on to each."""
        for writer in self._writers:
            writer.flush()


@contextmanager
def no_writers() -> Iterator[Writers]:
    """Give writers that write nowhere: of all processes that train together only the first writes."""
    yield Writers([])


@contextmanager
def open_writers(run: Path, start: int, note: Callable[[str], None], wandb: str | None = None) -> Iterator[Writers]:
    """Open a run's writers for one session of training.

    Args:
        run: the run folder, with its settings in it.
        start: steps done before.
        note: told what a person should read.
        wandb: project at Weights & Biases, see `WeightsAndBiases`; None leaves it out.

    Raises:
        OSError: where metrics.jsonl cannot be written.
    """
    with ExitStack() as stack:

        def opened(writer: Writer) -> Writer:
            stack.callback(writer.close)
            return writer

        writers = [opened(MetricsFile(run))]
        writers.append(opened(Guarded("TensorBoard", lambda: TensorBoard(run, start), note)))
        if wandb is not None:
            writers.append(opened(Guarded("Weights & Biases", lambda: WeightsAndBiases(run, wandb, note), note)))
        yield Writers(writers)
