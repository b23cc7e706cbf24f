"""One stretch of training in a run folder: where its metrics go on, and what it leaves where nothing was trained."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from drnet.pipelines.files import canonical_json, read_json, write_whole
from drnet.pipelines.run import CONFIG, GO_BACK, METRICS, STATE, RunError, run_folder

ON_THE_WAY = (METRICS, "tensorboard", "samples", "wandb", "wandb.json")  # what training writes before a checkpoint


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
        config = (run / CONFIG).read_bytes() if (run / CONFIG).exists() else None
        new = [name for name in ON_THE_WAY if not (run / name).exists()]
        try:
            yield
        except BaseException:
            if not trained():
                _undo(run, config, new, existed)
            raise


def _undo(run: Path, config: bytes | None, new: Sequence[str], existed: bool) -> None:
    """Put a run's settings back, delete new files by name, and the folder where it is new and empty."""
    if config is None:
        new = [*new, CONFIG]
    else:
        write_whole(run / CONFIG, config, keep_same=True)
    for path in (run / name for name in new):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    if not existed and not any(run.iterdir()):
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
