"""What lies at a path where something else was asked for, and which command takes it: for errors of one line."""

from collections.abc import Iterator
from pathlib import Path

DATA = "a data set: its folder, a pattern of its .tar files, or a URL"
RUN = "a run: the folder that `drnet train --out` made"
FEATURES = "features: the .h5 file that `drnet export-features --out` wrote"
NEW_RUN = "an empty or new folder, or the run that is to be continued"
HDF5 = b"\x89HDF\r\n\x1a\n"


def mistaken(path: Path, wanted: str) -> str:
    """Return a line that says what lies at a path, who takes that, and what is needed instead.

    Args:
        path: that was given.
        wanted: what is needed, such as `DATA`.

    Returns:
        The line; empty where nothing lies there, or a folder that drnet did not make.
    """
    found = next(_seen(path), "")
    return f"{path} is {found}; needed here is {wanted}" if found else ""


def _seen(path: Path) -> Iterator[str]:
    """Yield what a path can be taken for, the likeliest first."""
    try:
        yield from _folder(path) if path.is_dir() else _file(path) if path.is_file() else ()
    except OSError:
        return


def _folder(path: Path) -> Iterator[str]:
    if _is_run(path):
        yield "a run, which is the RUN of `drnet evaluate RUN --shards S` and others"
    if (path / "manifest.json").is_file():
        yield "a data set, which --shards takes"
    if run := _run_around(path):
        yield f"a part of the run {run}"
    if (path / "config.json").is_file() and (path / "model.safetensors").is_file():
        yield "an exported model, which drnet.from_pretrained loads in Python"
    if any(path.glob("*.tar")):
        yield "a folder of shards, which --shards takes"


def _file(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        head = file.read(len(HDF5))
    if head == HDF5:
        yield "an .h5 file, such as the features that `drnet probe` and `drnet classify` take"
    if run := _run_around(path):
        yield f"a file of the run {run}"
    if path.suffix == ".tar":
        yield "a shard, which --shards takes"
    if (path.parent / "manifest.json").is_file():
        yield f"a file of the data set {path.parent}"
    if path.suffix in (".safetensors", ".pt", ".pth"):
        yield "a file of weights, and of no run"
    yield "a file"


def _is_run(path: Path) -> bool:
    return (path / "config.json").is_file() and any((path / name).exists() for name in ("checkpoints", "metrics.jsonl"))


def _run_around(path: Path) -> Path | None:
    """Return the run that a path lies in: as its file, its checkpoint, or a file of one."""
    return next((folder for folder in list(path.absolute().parents)[:3] if _is_run(folder)), None)
