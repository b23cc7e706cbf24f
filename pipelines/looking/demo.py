"""The main job in a few minutes, from nothing to a page of results: build, train, export, probe, look."""

import importlib.util
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from drnet.datasets.chairs import Chairs
from drnet.datasets.contract import DataSet
from drnet.datasets.mnist import BouncingDigits
from drnet.datasets.reading.digits import OPTDIGITS
from drnet.guess import guess
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.claim import refuse_file, refuse_strangers
from drnet.pipelines.export import export_features
from drnet.pipelines.files import pretty_json, write_whole
from drnet.pipelines.looking import page
from drnet.pipelines.looking.pictures import save_curves, save_png
from drnet.pipelines.looking.swaps import SwapErrors, held_out, save_driven, swap_errors
from drnet.pipelines.looking.truth import truth_of
from drnet.pipelines.probe import SCORES, probe, score_rows
from drnet.pipelines.progress import Progress, Silent
from drnet.pipelines.run import load_run, read_metrics
from drnet.pipelines.source import open_shards
from drnet.pipelines.train import train

EXAMPLES = ("auto", "chairs", "digits")


@dataclass(frozen=True)
class Example:
    """A data set and a preset for the demo, small enough for two cores and a few minutes."""

    data: DataSet
    build_words: str
    preset: str
    steps: int | None = None
    horizon: int | None = None  # where the preset's own is too long for a demo

    @property
    def train_words(self) -> str:
        """The options of `drnet train` that this example takes."""
        given = {"preset": self.preset, "steps": self.steps, "horizon": self.horizon}
        return " ".join(f"--{name} {value}" for name, value in given.items() if value is not None)


@dataclass(frozen=True)
class DemoReport:
    """What the demo made."""

    page: Path
    errors: SwapErrors | None  # None: training was stopped, and the page is not written
    seconds: Mapping[str, float]


FILES = {"data", "run", "features.h5", "probe.json", "swap.json", "swap.png", "driven.gif", "losses.png"}
FILES |= {"discriminator.png", "index.html"}


Stoppable = Callable[[], AbstractContextManager[threading.Event]]


@contextmanager
def never_stopped() -> Iterator[threading.Event]:
    """Give an event that nobody sets."""
    yield threading.Event()


def choose_example(name: str, clips: int | None, steps: int | None) -> Example:
    """Return an example by name; `auto` is chairs, or digits where pybullet is missing."""
    if name not in EXAMPLES:
        raise ValueError(f"data {name!r} is not known{guess(name, EXAMPLES)}; supported are auto, chairs and digits")
    if name == "auto":
        name = "chairs" if importlib.util.find_spec("pybullet") else "digits"
    if name == "chairs":
        count = clips or 800
        data = Chairs(clips=count, test_clips=max(2, count // 10))
        return Example(data, f"chairs --clips {count} --test-clips {data.count('test')}", "chairs-small", steps)
    count = clips or 5000
    digits = BouncingDigits(OPTDIGITS, clips=count, test_clips=max(2, count // 10), size=32)
    words = f"mnist --source optdigits --clips {count} --test-clips {digits.count('test')} --size 32"
    return Example(digits, words, "mnist-small", steps, 3000)


def demo(
    out: Path,
    data: str = "auto",
    clips: int | None = None,
    steps: int | None = None,
    workers: int = 2,
    progress: Progress | None = None,
    stoppable: Stoppable = never_stopped,
) -> DemoReport:
    """Build a data set, train a small DrNet on it, export and probe its features, and write `index.html`.

    Each part continues where an earlier demo in the same folder stopped.

    Args:
        out: folder of the demo.
        data: `auto`, `chairs` or `digits` (scikit-learn's).
        clips: of the train split.
        steps: of training; by default the preset's.
        workers: processes that build.
        progress: told of everything.
        stoppable: entered while it trains; when the event it gives is set, training ends after the current step with a
            checkpoint, and the page is not written.
    """
    progress = progress or Silent()
    example = choose_example(data, clips, steps)
    if data == "auto" and example.preset != "chairs-small":
        progress.note("pybullet has no wheel for this platform, so the demo takes handwritten digits instead of chairs")
    refuse_file(out)
    refuse_strangers(out, {path.name for path in out.glob("[!.]*")} - FILES)
    shards, run, features = out / "data", out / "run", out / "features.h5"
    seconds: dict[str, float] = {}
    began = time.monotonic()

    def lap(name: str) -> None:
        nonlocal began
        seconds[name] = time.monotonic() - began
        began = time.monotonic()

    build(plan_build(example.data, "zstd"), shards, workers, progress)
    lap("build")
    changes = {"horizon": example.horizon}
    with stoppable() as stop:
        report = train(shards, run, example.preset, example.steps, "auto", changes, progress=progress, stop=stop)
    lap("train")
    if report.stopped:
        return DemoReport(out / "index.html", None, seconds)
    export_features(run, shards, features, progress=progress)
    lap("export")
    probed = probe(features, progress)
    write_whole(out / "probe.json", pretty_json(probed))
    lap("probe")
    errors = draw(out, shards, run)
    write_page(out, example, errors, probed, seconds)
    lap("pictures")
    return DemoReport(out / "index.html", errors, seconds)


def draw(out: Path, shards: Path, run: Path) -> SwapErrors:
    """Write the demo's pictures, and measure its swaps on held-out clips."""
    model, _, _ = load_run(run)
    collection, device = open_shards(shards, ["test"]), torch.device("cpu")
    truth = truth_of(collection)
    assert truth is not None, "the demo's data sets can draw the truth"
    save_png(out / "swap.png", held_out(collection).grid(model, device))
    save_driven(out / "driven.gif", model, collection, device)
    lines = [line for line in read_metrics(run) if "loss/reconstruction" in line]  # others are of held-out clips alone
    steps = [line["step"] for line in lines]

    def curve(*names: str) -> dict[str, tuple[list[float], list[float]]]:
        return {name.split("/")[-1].replace("_", " "): (steps, [line[name] for line in lines]) for name in names}

    losses = curve("loss/reconstruction", "baseline/mean_frame", "loss/similarity")
    save_curves(out / "losses.png", losses, "Reconstruction (Eq. 1) and similarity (Eq. 2)", "loss")
    save_curves(out / "discriminator.png", curve("discriminator/bce"), "Discriminator (Eq. 3): chance is 0.693", "BCE")
    errors = swap_errors(model, collection, truth, device)
    write_whole(out / "swap.json", pretty_json(asdict(errors)))
    return errors


def write_page(
    out: Path, example: Example, errors: SwapErrors, probed: Mapping[str, Any], seconds: Mapping[str, float]
) -> None:
    """Write `index.html`."""
    count = example.data.count("test")
    columns, rows = SCORES, score_rows(probed)
    where = shlex.quote(str(out))
    run = [
        f"drnet data build {example.build_words} --out {where}/data",
        f"drnet train --shards {where}/data --out {where}/run {example.train_words}",
        f"drnet export-features {where}/run --shards {where}/data --out {where}/features.h5",
        f"drnet probe {where}/features.h5 --out {where}/probe.json",
    ]
    parts = [
        page.paragraph(
            f"{example.data.about.title[0].upper()}{example.data.about.title[1:]}. DrNet learned from video alone, without "
            f"labels, to describe a frame by two vectors: content (what it shows) and pose (how it stands). Everything "
            f"below is of {count} clips that it never saw."
        ),
        page.numbers(
            [
                (f"{errors.other_pose:.4f}", "squared error in another clip's pose"),
                (f"{errors.own_pose:.4f}", "in the clip's own pose"),
                (f"{errors.mean_frame:.4f}", "of the mean frame"),
            ]
        ),
        page.heading("Content of one clip, pose of another"),
        page.picture("swap.png", "Content from the first column, pose from the top row; the truth is under each row."),
        page.heading("One clip drives the others"),
        page.picture(
            "driven.gif", "Left: the clip that drives. Others: their own content in its pose; below: the truth."
        ),
        page.heading("What the two vectors know"),
        page.table(columns, rows),
        page.paragraph(
            "Probes fitted on training clips, scored on unseen ones (mean and spread over three seeds): accuracy for "
            "categories, R2 for numbers, where 0 is a guess and 1 is perfect. Static labels are told from a clip's mean "
            "vector, labels that vary in time from each frame's."
        ),
        page.heading("Training"),
        page.picture("losses.png", "Losses over the steps, on training batches, beside the error of the mean frame."),
        page.picture(
            "discriminator.png", "The discriminator's cross-entropy; at chance the pose says nothing of the clip."
        ),
        page.heading("The commands"),
        page.commands(run),
        page.paragraph("Seconds: " + ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()) + "."),
    ]
    write_whole(out / "index.html", page.page("DrNet in a few minutes", parts))
