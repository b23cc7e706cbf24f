"""`drnet export-model`."""

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from drnet.cli import console
from drnet.cli.options import Checkpoint


class FormatName(StrEnum):
    """Values of --format."""

    safetensors = "safetensors"
    torch_export = "torch-export"
    onnx = "onnx"


def export_model(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of a trained model.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder, or one with the same model.")],
    kind: Annotated[
        FormatName, typer.Option("--format", help="Weights for drnet, or graphs that need no drnet.")
    ] = FormatName.safetensors,
    checkpoint: Checkpoint = "last",
    licence: Annotated[
        str | None, typer.Option(metavar="ID", help="Of the weights: mit, cc-by-4.0, ...  [default: the data set's]")
    ] = None,
    shards: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The data set, for its title, licence and citation.")
    ] = None,
) -> None:
    """Write a trained model for others, with a model card, as the Hugging Face hub wants it.

    A folder may hold several formats: run the command once for each. drnet.from_pretrained("DIR") loads safetensors.

    Example: drnet export-model runs/mnist --shards data/mnist --out models/mnist
    """
    from drnet.pipelines.sharing.export_model import export_model as export

    done = export(run, out, kind.value, checkpoint, licence, shards, console.Bar())
    console.say(f"step {done.checkpoint.step}: {', '.join(done.files)}, config.json and README.md in {out}")
    console.say(f"next: hf upload USER/NAME {shlex.quote(str(out))}")
