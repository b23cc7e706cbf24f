"""`drnet evaluate`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from drnet.cli import console
from drnet.cli.options import Checkpoint


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder; its predictor is used where it is trained.")],
    shards: Annotated[str, typer.Option(metavar="S", help="Folder of a data set, or URL; its test split is scored.")],
    out: Annotated[Path, typer.Option(metavar="F.json", help="The numbers; the curves go beside it as F.png.")] = Path(
        "metrics.json"
    ),
    protocol: Annotated[
        str,
        typer.Option(
            metavar="drnet|mcnet|svg",
            help="drnet: 10 frames, then 100 (digits: 5, then 500); mcnet: 10, then 20, its windows of KTH; svg: 10, "
            "then 30, 64x64.",
        ),
    ] = "drnet",
    observe: Annotated[
        int | None, typer.Option(metavar="N", help="Observed frames, instead of the protocol's.")
    ] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", help="Predicted frames, instead of the protocol's.")] = None,
    section: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Only this: frames, swap, position, disentanglement, identity or inception; may be repeated. Where one "
            "that is asked for so cannot be computed at all, the command ends with exit code 1, after the others.",
        ),
    ] = None,
    position_step: Annotated[
        list[int] | None,
        typer.Option(metavar="N", help="Look for digits at this step; may be repeated.  [default: 1 2 5 10 95 500]"),
    ] = None,
    clips: Annotated[
        str | None,
        typer.Option(
            metavar="N|KEY,...",
            help="Clips of frames, swap and position: so many, evenly spread, or these; KEY:FRAME is observed from there, "
            "from 1.  [default: all; digits: 100]",
        ),
    ] = None,
    lpips: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="LPIPS too, with these weights: torchvision's of AlexNet or VGG-16."),
    ] = None,
    fvd: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="FVD too, with these weights: of I3D (RGB, Kinetics-400), a state dict."),
    ] = None,
    checkpoint: Checkpoint = "last",
    seed: Annotated[int, typer.Option(metavar="N", help="Of everything that is drawn.")] = 0,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the JSON instead of the tables.")] = False,
) -> None:
    """Score a run on held-out clips, next to copying the last frame, with 95% intervals over clips.

    PSNR and SSIM of every predicted step; on generated data also swaps and the digits' positions against the truth;
    what content and pose tell of the labels; identity as a judge sees it; the Inception Score of actions. What cannot
    be computed is named, with the reason; that is an error only where --section asks for it.

    Example: drnet evaluate runs/mnist --shards data/mnist --out results/metrics.json

    Example: drnet evaluate runs/kth --shards data/kth --protocol mcnet --section frames
    """
    console.check_ending(out, ".json")
    from drnet.pipelines.evaluation.evaluate import SECTIONS, STEPS, save_report
    from drnet.pipelines.evaluation.evaluate import evaluate as run_evaluation
    from drnet.pipelines.looking.clips import asked_clips

    report = run_evaluation(
        run,
        shards,
        protocol,
        observe,
        steps,
        section or SECTIONS,
        position_step or STEPS,
        None if clips is None else asked_clips(clips),
        seed,
        device,
        console.Bar(),
        lpips,
        fvd,
        checkpoint,
    )
    picture = save_report(out, report)
    if as_json:
        console.say_json(report)
    else:
        say_report(report)
        console.say(f"wrote {out}" + (f" and {picture}" if picture else ""))
    absent = [name for name in dict.fromkeys(section or ()) if "not_computed" in report[name]]
    for name in absent:
        console.err.print(f"drnet: error: section {name} not computed: {report[name]['not_computed']}", markup=False)
    if absent:
        raise typer.Exit(1)


def say_report(report: Mapping[str, Any]) -> None:
    """Print an evaluation: its tables, what they are made of, and what there is not."""
    kind, run = report["protocol"], report["run"]
    console.say(f"preset {run['preset']}, step {run['step']:,}")
    console.say(f"protocol {kind['name']}: {kind['about']}")
    for line in kind["differences"]:
        console.say(f"differs: {line}")
    say = {
        "frames": say_frames,
        "swap": say_swaps,
        "position": say_positions,
        "disentanglement": say_disentanglement,
        "identity": say_identity,
        "inception": say_inception,
    }
    for name in say:
        section = report.get(name)
        if section is None:
            continue
        if "not_computed" not in section:
            say[name](name, section)
        for line in section.get("notes", ()):
            console.say(f"{name}: {line}")
        for what, part in {"": section, **section}.items():
            if isinstance(part, Mapping) and "not_computed" in part:
                console.say(f"{name}{what and f', {what}'}: not computed: {part['not_computed']}")
    for name, part in report["extras"].items():
        if "not_computed" in part:
            console.say(f"{name}: not computed: {part['not_computed']}")
        if "lengths" in part:
            say_videos(name, part)


def say_frames(_: str, section: Mapping[str, Any]) -> None:
    """Print PSNR and SSIM of some steps, and the means with their intervals."""
    from drnet.pipelines.evaluation.frames import shown_steps

    steps = shown_steps(section["steps"])
    counts = ["clips", *(str(section["clips_at_step"][step - 1]) for step in steps), *[""] * len(section["means"])]
    for metric, unit, digits in (("psnr", "PSNR, dB", 2), ("ssim", "SSIM", 4), ("lpips", "LPIPS", 4)):
        if metric not in section:
            continue
        columns = [unit, *(f"step {step}" for step in steps), *(f"mean 1-{m['steps'][1]}" for m in section["means"])]
        rows = []
        for row, curve in section[metric].items():
            cells = [number(curve["mean"][step - 1], digits) for step in steps]
            rows.append([row, *cells, *(with_interval(mean[metric][row], digits) for mean in section["means"])])
        title = f"{section['windows']} windows of {section['clips']} clips, {section['settings']['implementation']}"
        console.say_table(title if metric == "psnr" else "", columns, [*rows, counts])
    if section["too_short"]:
        console.say(f"frames: {section['too_short']} clips are too short and left out")


def say_videos(_: str, part: Mapping[str, Any]) -> None:
    """Print the distance of predicted videos from true ones."""
    names = [name for name in ("predicted", "true_pose", "copy_last") if any(name in row for row in part["lengths"])]
    rows = [
        [f"{row['frames']} frames", str(row["videos"]), *(number(row[n], 1) for n in names)] for row in part["lengths"]
    ]
    if rows:
        console.say_table(f"FVD, {part['network']}", ["of", "videos", *names], rows)
    for line in part["notes"]:
        console.say(f"fvd: {line}")


def say_swaps(_: str, section: Mapping[str, Any]) -> None:
    """Print PSNR and SSIM of swaps against the truth."""
    rows = [
        [row, with_interval(section["psnr"][row], 2), with_interval(section["ssim"][row], 4)] for row in section["rows"]
    ]
    console.say_table(f"{section['pairs']} swaps against the truth", ["swap", "PSNR, dB", "SSIM"], rows)


def say_positions(_: str, section: Mapping[str, Any]) -> None:
    """Print how far from their true place digits are, and how many are not found."""
    rows = []
    for row, found in section["errors"].items():
        means = found["error"]
        each = zip(means["mean"], means["low"], means["high"], found["not_found"], strict=True)
        rows.append(
            [
                row,
                *(
                    f"{with_interval({'mean': mean, 'low': low, 'high': high}, 2)} {_lost(lost)}".rstrip()
                    for mean, low, high, lost in each
                ),
            ]
        )
    title = (
        f"position error of {section['digits']} digits in pixels of {section['frame']} (in round brackets: not found)"
    )
    console.say_table(title, ["position", *(f"step {step}" for step in section["steps"])], rows)


def _lost(share: float | None) -> str:
    return "" if not share else f"({share:.1%})"


def say_disentanglement(_: str, section: Mapping[str, Any]) -> None:
    """Print what content and pose tell of each factor."""
    from drnet.pipelines.evaluation.disentanglement import COLUMNS, factor_rows

    console.say_table("what content and pose tell of each factor", COLUMNS, factor_rows(dict(section)))
    say_numbers("disentanglement", {name: section[name] for name in ("leakage", "dci", "mig") if name in section})


def say_identity(_: str, section: Mapping[str, Any]) -> None:
    """Print whether a judge still sees what the content's clip shows."""
    from drnet.pipelines.evaluation.judge import COLUMNS, identity_rows

    rows = {name: part for name, part in section.items() if not (name == "rollout" and "not_computed" in part)}
    console.say_table("identity as an independent judge reads it", COLUMNS, identity_rows(rows))


def say_inception(_: str, section: Mapping[str, Any]) -> None:
    """Print the Inception Score at each offset."""
    from drnet.pipelines.evaluation.inception import COLUMNS, inception_rows

    console.say_table(f"Inception Score of {section['window']} frames", COLUMNS, inception_rows(section))
    say_numbers("inception", {"classifier": section["classifier"]})


def say_numbers(name: str, section: Mapping[str, Any]) -> None:
    """Print the numbers of a section, a line for each part."""
    for part, value in section.items():
        if isinstance(value, Mapping) and "not_computed" in value:
            continue
        for line in lines_of(value):
            console.say(f"{name}, {part}: {line}")


def lines_of(value: Any) -> list[str]:
    """Return a part of a report in lines: a list of tables has one for each, a table names its numbers."""
    if isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value):
        return [line for row in value for line in lines_of(row)]
    return [shown(value)]


def shown(value: Any) -> str:
    """Return a value as a person reads it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {shown(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return " ".join(shown(one) for one in value)
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def number(value: float | None, digits: int) -> str:
    """Return a number with so many decimals."""
    return "-" if value is None else f"{value:.{digits}f}"


def with_interval(found: Mapping[str, float | None], digits: int) -> str:
    """Return a mean and its interval."""
    if found["low"] is None:
        return number(found["mean"], digits)
    return f"{number(found['mean'], digits)} [{number(found['low'], digits)}, {number(found['high'], digits)}]"
