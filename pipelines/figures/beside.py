"""Further runs in the same figure: another DrNet, an autoencoder; and the places of methods that are not here yet."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from drnet.datasets.contract import DataError
from drnet.model import DrNet
from drnet.pipelines.run import Checkpoint, data_error_if_size_differs, load_run

NOT_YET = "not implemented yet"


@dataclass(frozen=True)
class Beside:
    """A further run.

    Attributes:
        name: as the figure shows it.
        run: its folder.
        model: in evaluation mode.
        checkpoint: that it comes from.
    """

    name: str
    run: Path
    model: DrNet
    checkpoint: Checkpoint

    def origin(self) -> dict[str, Any]:
        """Return what it is made from, as JSON values."""
        step = self.checkpoint.step
        return {"name": self.name, "run": str(self.run), "checkpoint_sha256": self.checkpoint.sha256, "step": step}


def runs_beside(words: Iterable[str], shape: tuple[int, int, int], device: torch.device) -> list[Beside]:
    """Load the runs that were named, each as `NAME=RUN`.

    Args:
        words: from the command line.
        shape: (H, W, C) of the frames they must take.
        device: where they go.

    Raises:
        ValueError: for words of another form, and runs that are not there or take other frames.
    """
    found = []
    for word in words:
        name, mark, folder = word.partition("=")
        if not (mark and name.strip() and folder.strip()):
            raise DataError(f"--beside {word!r} is not understood; write NAME=RUN, for example AE-LSTM=runs/ae")
        run = Path(folder.strip())
        model, checkpoint, config = load_run(run, str(device))
        data_error_if_size_differs(config, shape)
        found.append(Beside(name.strip(), run, model, checkpoint))
    return found
