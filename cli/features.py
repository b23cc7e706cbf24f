"""`drnet export-features` and `drnet probe`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from drnet.cli import console
from drnet.cli.options import Checkpoint


def export_features(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of a trained model.")],
    shards: Annotated[str, typer.Option(metavar="S", help="Folder of a data set, pattern of tars, or URL.")],
    out: Annotated[Path, typer.Option(metavar="F.h5", help="HDF5 file.")] = Path("features.h5"),
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to encode.")] = "auto",
    checkpoint: Checkpoint = "last",
) -> None:
    """Write content and pose of every frame, with all labels, to an HDF5 file.

    Example: drnet export-features runs/mnist --shards data/mnist --out features.h5
    """
    console.check_ending(out, ".h5", ".hdf5")
    from drnet.pipelines.export import export_features as export

    counts = export(run, shards, out, device, console.Bar(), checkpoint)
    console.say(", ".join(f"{number} {split}" for split, number in counts.items() if number) + f" clips: {out}")
    if all(counts.values()):
        console.say(f"next: drnet probe {shlex.quote(str(out))}")
    else:
        console.say("only one split is in it; a probe needs both: export from the data set's folder for that")


def probe(
    features: Annotated[Path, typer.Argument(metavar="F.h5", help="From drnet export-features.")],
    out: Annotated[Path | None, typer.Option(metavar="F.json", help="Write the scores as JSON too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of the table.")] = False,
) -> None:
    """Measure how well content and pose each tell every label, on unseen clips.

    Example: drnet probe features.h5 --out probe.json
    """
    if out is not None:
        console.check_ending(out, ".json")
    if not features.exists():
        raise ValueError(f"{features}: no such file; `drnet export-features RUN --shards S --out {features}` writes it")
    from drnet.pipelines.files import pretty_json, write_whole
    from drnet.pipelines.probe import SCORES, score_rows
    from drnet.pipelines.probe import probe as run_probe

    found = run_probe(features, console.Bar())
    if out is not None:
        write_whole(out, pretty_json(found))
    if as_json:
        return console.say_json(found)
    console.say_table(
        f"{features}: fitted on {found['clips']['fit']} train clips, scored on unseen ones", SCORES, score_rows(found)
    )
    for name, reason in found["left_out"].items():
        console.say(f"{name}: not probed, it {reason}")
    if out is not None:
        console.say(f"wrote {out}")
