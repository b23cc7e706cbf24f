"""What experiments are made from: data sets, trained runs, their predictors and features, each made once and kept.

OUT/data/NAME, OUT/runs/NAME (with the predictor inside), OUT/features/NAME.h5. What is there is recognised by what it
says of itself (build id, checkpoint's step and hash), so that any interruption is continued. OUT/seconds.json adds up how
long each part has taken, over all calls.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drnet.datasets.contract import DataError
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.export import export_features, load_features
from drnet.pipelines.files import pretty_json, read_json, write_whole
from drnet.pipelines.prediction.rollout import FOLDER, check_belongs
from drnet.pipelines.prediction.train import train_predictor
from drnet.pipelines.progress import Progress
from drnet.pipelines.reproduction.scales import Scale
from drnet.pipelines.reproduction.sources import Chosen, choose
from drnet.pipelines.run import CONFIG, RunError, choose_checkpoint, latest_checkpoint, read_config
from drnet.pipelines.shards.manifest import MANIFEST, Manifest, read_manifest
from drnet.pipelines.train import train

SECONDS = "seconds.json"
Stoppable = Callable[[], AbstractContextManager[threading.Event]]


class Halted(Exception):  # noqa: N818 - nothing went wrong
    """A signal asked training to stop; its checkpoint is written."""


@dataclass
class Workshop:
    """Makes what experiments need, and remembers what it has made, or why it could not.

    Attributes:
        out: folder of the reproduction.
        scale: how much is done.
        root: folder of the originals, or None.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        workers: processes that build.
        progress: told of everything.
        stoppable: entered while it trains; when the event it gives is set, training ends with a checkpoint.
    """

    out: Path
    scale: Scale
    root: Path | None
    device: str
    workers: int
    progress: Progress
    stoppable: Stoppable
    _made: dict[str, Path | Exception] = field(default_factory=dict)
    _chosen: dict[str, Chosen | Exception] = field(default_factory=dict)

    def chosen(self, role: str) -> Chosen:
        """Return the data for a role."""
        if role not in self._chosen:
            files = self.out / "data" / "norb-miniature-files"
            try:
                self._chosen[role] = choose(role, self.root, files, self.scale.data[role])
            except DataError as error:
                self._chosen[role] = error
        found = self._chosen[role]
        if isinstance(found, Exception):
            raise found
        return found

    def shards(self, role: str) -> Path:
        """Return the folder of a role's data set, built."""
        return self._once(f"data/{self.chosen(role).name}", lambda folder: self._build(folder, self.chosen(role)))

    def manifest(self, role: str) -> Manifest:
        """Return the manifest of a role's data set, which is built."""
        return read_manifest(self.out / "data" / self.chosen(role).name)

    def run(self, role: str, variant: str = "", seed: int = 0) -> Path:
        """Return the folder of a run, trained to its plan's last step."""
        shards = self.shards(role)
        return self._once(
            self._run_name(role, variant, seed), lambda run: self._train(run, shards, role, variant, seed)
        )

    def predictor(self, role: str, variant: str = "") -> Path:
        """Return the folder of a run whose predictor is trained."""
        run, steps = self.run(role, variant), self.scale.plan(role, variant).predictor
        self._once(
            f"{self._run_name(role, variant, 0)}/{FOLDER}", lambda _: self._predictor(run, self.shards(role), steps)
        )
        return run

    def features(self, role: str, variant: str = "", seed: int = 0) -> Path:
        """Return the features file of a run."""
        run = self.run(role, variant, seed)
        return self._once(f"features/{run.name}.h5", lambda path: self._export(path, run, self.shards(role)))

    def seconds(self, *parts: str) -> dict[str, float]:
        """Return how long parts have taken, over all calls; `parts` are their paths below the folder."""
        kept = seconds_of(self.out)
        return {part: kept[part] for part in parts if part in kept}

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the time that the block takes to a part's, however it ends."""
        began = time.monotonic()
        try:
            yield
        finally:
            kept = seconds_of(self.out)
            kept[part] = round(kept.get(part, 0.0) + time.monotonic() - began, 2)
            write_whole(self.out / SECONDS, pretty_json(kept))

    def _run_name(self, role: str, variant: str, seed: int) -> str:
        name = self.chosen(role).name + (f"-{variant}" if variant else "") + (f"-seed{seed}" if seed else "")
        return f"runs/{name}"

    def _once(self, name: str, make: Callable[[Path], None]) -> Path:
        """Make a part, once in this process; what failed fails again at once."""
        if name not in self._made:
            path = self.out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with self.timed(name):
                    make(path)
                self._made[name] = path
            except Halted:
                raise
            except Exception as error:
                self._made[name] = error
        found = self._made[name]
        if isinstance(found, Exception):
            raise found
        return found

    def _build(self, folder: Path, chosen: Chosen) -> None:
        built = (folder / MANIFEST).exists()
        if built and chosen.fixed:
            return
        plan = plan_build(chosen.make(), "zstd", progress=self.progress)
        if built and read_manifest(folder).build == plan.build:
            return
        report = build(plan, folder, self.workers, self.progress)
        if report.failed:
            self.progress.note(report.line or f"{report.failed} items of {chosen.name} failed")

    def _train(self, run: Path, shards: Path, role: str, variant: str, seed: int) -> None:
        plan = self.scale.plan(role, variant)
        changes = {**plan.changes, **self.chosen(role).changes, "horizon": plan.steps, "seed": seed}
        with self.stoppable() as stop:
            report = train(
                shards, run, plan.preset, plan.steps, self.device, changes, self.scale.logging, self.progress, stop
            )
        if report.stopped:
            raise Halted

    def _predictor(self, run: Path, shards: Path, steps: int) -> None:
        folder, anew = run / FOLDER, False
        if (folder / CONFIG).exists():
            try:
                check_belongs(run, read_config(folder), choose_checkpoint(run))
                latest = latest_checkpoint(folder)
                if latest is not None and latest.step >= steps:
                    return
            except RunError:  # of weights that the run had before
                anew = True
        changes = {**self.scale.predictor, "horizon": steps}
        with self.stoppable() as stop:
            report = train_predictor(
                run, shards, steps, self.device, changes, self.scale.logging, self.progress, stop, anew
            )
        if report.stopped:
            raise Halted

    def _export(self, path: Path, run: Path, shards: Path) -> None:
        wanted = {"checkpoint_sha256": choose_checkpoint(run).sha256, "manifest_build": read_manifest(shards).build}
        if path.exists():
            try:
                found = load_features(path).attributes
            except DataError:
                found = {}
            if all(found.get(name) == value for name, value in wanted.items()):
                return
        export_features(run, shards, path, self.device, self.progress)


def seconds_of(out: Path) -> dict[str, float]:
    """Return how long each part of a folder of results has taken, over all calls."""
    path = out / SECONDS
    found = read_json(path, "the times of parts", "delete it") if path.exists() else {}
    return {str(name): float(value) for name, value in found.items()} if isinstance(found, dict) else {}


def facts_of(run: Path, out: Path) -> dict[str, Any]:
    """Return what a result says of a run that it was made from."""
    config, checkpoint = read_config(run), choose_checkpoint(run)
    found: dict[str, Any] = {
        "folder": str(run.relative_to(out)),
        "preset": config["preset"],
        "seed": config["train"]["seed"],
        "step": checkpoint.step,
        "sha256": checkpoint.sha256,
        "data_build": config["data"].get("build"),
        "config": {"model": config["model"], "train": config["train"]},
    }
    predictor = latest_checkpoint(run / FOLDER) if (run / FOLDER / CONFIG).exists() else None
    if predictor is not None:
        own = read_config(run / FOLDER)
        found["predictor"] = {
            "step": predictor.step,
            "sha256": predictor.sha256,
            "config": {"model": own["model"], "train": own["train"]},
        }
    return found
