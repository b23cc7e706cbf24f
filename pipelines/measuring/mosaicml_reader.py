"""Reads clips with mosaicml-streaming, in the environment of another Python: that package does not live beside drnet's.

`serve` runs there, without drnet: it copies the clips of raw shards into a folder in that package's own format, tells how
many there are, and then for each line it gets, `whole` or `asked`, reads them all once and tells its seconds of processor
time. `Mosaicml` is this side of it.
"""

import importlib
import io
import json
import os
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BEGIN = (
    "import importlib.util as u; s = u.spec_from_file_location('reader', {path!r}); m = u.module_from_spec(s); "
    "s.loader.exec_module(m); m.serve({folder!r}, {tars!r}, {asked}, {told})"
)


def clips_of(tars: list[str]) -> Iterator[tuple[NDArray[np.uint8], dict[str, Any]]]:
    """Yield frames (T, H, W, C) uint8 and labels of every clip of raw shards."""
    for name in tars:
        with tarfile.open(name) as archive:
            frames = np.empty(0, np.uint8)
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None, "shards hold plain files"
                data = file.read()
                if member.name.endswith(".npy"):
                    frames = np.load(io.BytesIO(data), allow_pickle=False)
                else:
                    yield frames, json.loads(data)


def convert(folder: Path, tars: list[str]) -> int:
    """Write clips in mosaicml-streaming's format; return how many."""
    streaming = importlib.import_module("streaming")
    count, writer = 0, None
    for frames, labels in clips_of(tars):
        if writer is None:
            shape = ",".join(map(str, frames.shape))
            columns = {"frames": f"ndarray:uint8:{shape}", "labels": "json"}
            writer = streaming.MDSWriter(out=str(folder), columns=columns)
        writer.write({"frames": frames, "labels": labels})
        count += 1
    assert writer is not None, "there are clips"
    writer.finish()
    return count


def serve(folder: str, tars: list[str], asked: int, told: int) -> None:
    """Convert once, then read as often as asked.

    Args:
        folder: for the copy; made here.
        tars: the shards.
        asked: open descriptor of the requests, a line each.
        told: open descriptor of the answers.
    """
    count = convert(Path(folder), tars)
    streaming = importlib.import_module("streaming")
    data = streaming.StreamingDataset(local=folder, shuffle=False, batch_size=100)
    draw = np.random.default_rng(0)
    with open(asked) as requests, open(told, "w", buffering=1) as answers:
        answers.write(f"{count}\n")
        for line in requests:
            began = time.process_time()
            for number in range(count):
                frames = data[number]["frames"]
                if line.strip() == "asked":
                    np.ascontiguousarray(frames[np.sort(draw.integers(len(frames), size=2))])
            answers.write(f"{time.process_time() - began}\n")


class Mosaicml:
    """A process of another Python that reads clips with mosaicml-streaming.

    Args:
        python: path of an interpreter that has the package.
        tars: raw shards, each clip of the same shape.

    Raises:
        OSError: where it cannot be started.
        ValueError: where it ends without a word; its own standard error says why.
    """

    def __init__(self, python: str, tars: list[Path]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="drnet-mosaicml-")
        asked, self._asked = os.pipe()
        self._told, told = os.pipe()
        folder, names = f"{self._folder.name}/mds", [str(path.absolute()) for path in tars]
        code = BEGIN.format(path=str(Path(__file__).absolute()), folder=folder, tars=names, asked=asked, told=told)
        try:
            self._process = subprocess.Popen([python, "-W", "ignore", "-c", code], pass_fds=(asked, told))
        finally:
            os.close(asked)
            os.close(told)
        self._requests = os.fdopen(self._asked, "w", buffering=1)
        self._answers = os.fdopen(self._told)
        self.clips = int(self._answer())

    def _answer(self) -> str:
        line = self._answers.readline()
        if not line:
            raise ValueError("the Python of --mosaicml-python ended without reading a clip; what it said is above")
        return line

    def read(self, what: str) -> float:
        """Read all clips once; return its seconds of processor time. `what` is `whole` or `asked`."""
        self._requests.write(f"{what}\n")
        return float(self._answer())

    def close(self) -> None:
        """End the process and remove its copy."""
        self._requests.close()
        self._answers.close()
        self._process.wait()
        self._folder.cleanup()
