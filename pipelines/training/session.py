"""One stretch of training in a run folder: where its metrics go on, and what it leaves where nothing was trained."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from drnet.pipelines.files import canonical_json, read_json, write_whole
from drnet.pipelines.run import CONFIG, GO_BACK, METRICS, STATE, RunError, run_folder

ON_THE_WAY = (METRICS, "tensorboard", "samples", "wandb", "wandb.json")  # what training writes before a checkpoint
CHANGED = (CONFIG, METRICS)  # of these, what a start changes where they are there
GROWN = ("tensorboard", "samples")  # folders of these that a start adds files to


@dataclass(frozen=True)
class _Before:
    """What a run folder held: the content of files that a start changes, which names were there, and which files."""

    existed: bool
    contents: Mapping[str, bytes]
    names: frozenset[str]
    files: frozenset[Path]


@contextmanager
def session(run: Path, trained: Callable[[], bool]) -> Iterator[None]:
    """Hold a run's folder, made where it is missing, for this process; see `drnet.pipelines.run.run_folder`.

    Where an error ends it before anything was trained, the folder is left as it was found: the corrected command then
    neither takes its settings from the failed one, nor is refused because of it.

    Args:
        run: the run folder.
        trained: whether anything was.

    Raises:
        RunError: where another process trains into it.
    """
    existed = run.exists()
    with run_folder(run):
        before = _look(run, existed)
        try:
            yield
        except BaseException:
            if not trained():
                _undo(run, before)
            raise


def _look(run: Path, existed: bool) -> _Before:
    return _Before(
        existed,
        {name: (run / name).read_bytes() for name in CHANGED if (run / name).exists()},
        frozenset(name for name in (CONFIG, *ON_THE_WAY) if (run / name).exists()),
        frozenset(_grown(run)),
    )


def _grown(run: Path) -> Iterator[Path]:
    """Yield the files of the folders that grow."""
    for name in GROWN:
        yield from (path for path in (run / name).rglob("*") if not path.is_dir())


def _undo(run: Path, before: _Before) -> None:
    """Put back what a start changed, delete the new files that it may have made, and the folder if new and empty."""
    for name, content in before.contents.items():
        if not (run / name).exists() or (run / name).read_bytes() != content:  # a full disk has no room for a copy
            write_whole(run / name, content)
    new = [run / name for name in (CONFIG, *ON_THE_WAY) if name not in before.names]
    for path in [*new, *(path for path in _grown(run) if path not in before.files)]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    if not before.existed and not any(run.iterdir()):
        run.rmdir()


def cut_metrics(run: Path, step: int) -> None:
    """Drop logged lines after a step, what stopping there added, and a line that was cut short: the run goes on from there.

    The lines are then those of a run that was never stopped.
    """
    path = run / METRICS
    if not path.exists():
        return
    added, kept = _added(run, step), []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            row = json.loads(line)
            if not line.endswith(b"\n") or row["step"] > step:
                break
            if added and row["step"] == step:
                row = {name: value for name, value in row.items() if name not in added}
                line = canonical_json(row) + b"\n" if len(row) > 1 else b""
        except (ValueError, KeyError, TypeError, RecursionError):
            break
        kept.append(line)
    write_whole(path, b"".join(kept))


def _added(run: Path, step: int) -> set[str]:
    """Return the metrics that a line has only because a session ended at its step; its checkpoint lists them."""
    path = run / "checkpoints" / f"{step:08d}" / STATE
    found = read_json(path, "the checkpoint's state").get("added", []) if path.exists() else []
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise RunError(f"{path}: damaged; {GO_BACK}")
    return set(found)
