"""Runs that fail in one way each, measured as training does: exactly that alarm, and none of a run that is well."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from drnet.datasets.contract import About, Clip, Label, SourceFile, Split
from drnet.model import DrNet, DrNetConfig
from drnet.networks import SceneDiscriminator
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.loader import to_device
from drnet.pipelines.source import open_shards
from drnet.pipelines.training.health import CLIPS, FRAMES, Health, choose, health_line, spread_clips
from drnet.trainer import TrainConfig, Trainer

CPU = torch.device("cpu")
STEP = 10_000  # by then everything is expected of a run
BATCH = 16


class Squares:
    """A square in a colour of its clip's own that moves and bounces.

    Args:
        train, test: clips of the splits.
        speed: pixels a frame.
        ground: whether the ground has a colour too, the opposite one.
    """

    about = About("squares", 1, "squares that bounce", "MIT", "drnet", "number", "number")
    labels: Mapping[str, Label] = {"number": Label("number", unit="id")}

    def __init__(self, train: int = 128, test: int = 32, speed: int = 3, ground: bool = False) -> None:
        self.sizes: dict[str, int] = {"train": train, "test": test}
        self.speed, self.ground = speed, ground

    def parameters(self) -> dict[str, Any]:
        return {**self.sizes, "speed": self.speed, "ground": self.ground}

    def sources(self) -> list[SourceFile]:
        return []

    def frame_shape(self) -> tuple[int, int, int]:
        return 32, 32, 3

    def count(self, split: Split) -> int:
        return self.sizes[split]

    def item(self, split: Split, index: int) -> str:
        return f"{split}-{index:06d}"

    def clips(self, split: Split, index: int) -> Iterator[Clip]:
        draw = np.random.default_rng([index, split == "test"])
        colour, place = draw.integers(50, 256, 3), draw.integers(0, 21, 2)
        step = self.speed * draw.choice([-1, 1], 2)
        frames = np.empty((8, 32, 32, 3), np.uint8)
        frames[:] = 255 - colour if self.ground else 0
        for frame in frames:
            frame[place[0] : place[0] + 12, place[1] : place[1] + 12] = colour
            place = place + step
            step = np.where((place < 0) | (place > 20), -step, step)
            place = place.clip(0, 20)
        yield Clip(self.item(split, index), frames, {"number": index})


def built(folder: Path, **squares: Any) -> Path:
    """Build squares into a folder, and return it."""
    build(plan_build(Squares(**squares), "raw", 16), folder)
    return folder


class Run:
    """A small model, trained for real on a folder of squares.

    Args:
        folder: the data set.
        reach: largest distance of two frames.
        settings: of the model.
    """

    def __init__(self, folder: Path, reach: int = 7, **settings: Any) -> None:
        self.folder, training = folder, open_shards(folder)
        self.frames = np.stack([training.frames(number) for number in range(len(training))])
        self.config = TrainConfig(batch_size=BATCH, max_offset=reach)
        few: dict[str, Any] = {"size": 32, "width": 4, "content_dim": 8, "pose_dim": 4, "initialisation": "torch"}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = DrNet(DrNetConfig(**{**few, "centred": "both", "alpha": 0.1, "beta": 0.01, **settings}))
        self.health = Health(folder, training, self.config, self.model.config)
        self.draw = np.random.default_rng(0)

    def train(self, steps: int = 80, lr: float = 0.005) -> "Run":
        """Train; what is logged is of the last 20 steps, and of held-out clips afterwards."""
        trainer = Trainer(self.model, replace(self.config, lr=lr), CPU)
        for left in range(steps, 0, -1):
            if left == 20:
                trainer.take_metrics()
            trainer.train_step(to_device(self.pairs(), CPU))
        self.metrics = {**trainer.take_metrics(), **self.measured()}
        return self

    def pairs(self) -> NDArray[np.uint8]:
        """Draw two frames of each clip of a batch."""
        clips = np.resize(self.draw.permutation(len(self.frames)), BATCH)
        offset = self.draw.integers(0, self.config.max_offset + 1, BATCH)
        first = (self.draw.random(BATCH) * (8 - offset)).astype(int)
        return np.stack([self.frames[clips, first], self.frames[clips, first + offset]], 1)

    def measured(self) -> dict[str, float]:
        """Measure held-out clips."""
        return self.health.measure(self.model, CPU)

    def broken(self, change: Callable[[DrNet], object]) -> "Run":
        """Return a copy of this run in which something breaks, and which goes on."""
        run = Run(self.folder, self.config.max_offset, **self.model.config.to_json())
        run.model.load_state_dict(self.model.state_dict())
        with torch.no_grad():
            change(run.model)
        held_out = run.measured()
        run.train(1)  # its metrics are of before its update
        run.metrics |= held_out
        return run


@pytest.fixture(scope="module")
def well(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that is well."""
    return Run(built(tmp_path_factory.mktemp("well") / "data"), similarity="whitened").train()


def assert_told(run: Run, *texts: str) -> None:
    """Assert that a run raises one alarm, with these texts, and does not repeat it."""
    (line,) = run.health.lines(STEP, run.metrics)
    assert line.startswith(f"alarm at step {STEP}: ")
    assert [text for text in texts if text not in line] == []
    assert run.health.lines(STEP + 1, run.metrics) == []


def test_a_run_that_is_well_raises_no_alarm(well: Run) -> None:
    assert well.health.lines(STEP, well.metrics) == []
    assert well.metrics["held_out/reconstruction"] < 0.7 * well.metrics["held_out/mean_frame"]


def test_a_pose_that_is_constant(well: Run) -> None:
    run = well.broken(lambda model: [p.zero_() for p in model.pose_encoder.last.parameters()])
    assert run.metrics["discriminator/bce"] == pytest.approx(0.693, abs=0.03)  # it looks fine
    assert_told(run, "the pose is nearly constant (variance 0.0e+00)", "no good sign", "try a smaller --beta")


def test_a_content_that_is_constant(well: Run) -> None:
    run = well.broken(lambda model: [p.zero_() for p in model.content_encoder.last.parameters()])
    assert run.metrics["loss/similarity"] == 0  # it looks fine
    assert_told(run, "the content is nearly constant", "try a smaller --alpha")


def test_contents_that_lie_on_one_line(well: Run) -> None:
    run = Run(well.folder, similarity="mean").train()
    assert run.metrics["variance/content"] == pytest.approx(1, abs=0.1)  # it looks fine
    assert run.metrics["held_out/reconstruction"] < 0.7 * run.metrics["held_out/mean_frame"]
    assert run.metrics["participation/content"] < 1.3 < 4 < well.metrics["participation/content"]
    assert_told(
        run, "the contents of all clips lie nearly on one line (1.", "try a smaller --alpha", "--similarity whitened"
    )


def test_frames_no_better_than_the_mean_frame(well: Run) -> None:
    run = Run(well.folder).train(30, lr=3.0)
    assert_told(run, "training frames come out no better", "than as the mean frame", "try a lower --lr")


def test_running_statistics_that_are_wrong(well: Run) -> None:
    run = well.broken(lambda model: model.decoder.layers[1].running_var.mul_(0.01))
    assert run.metrics["loss/reconstruction"] < run.metrics["baseline/mean_frame"]  # it looks fine
    assert_told(run, "times worse with BatchNorm's running statistics", "try a larger --batch-size")


def test_training_clips_that_are_known_by_heart(tmp_path: Path) -> None:
    run = Run(built(tmp_path / "data", train=2)).train(lr=0.01)
    assert_told(run, "held-out frames come out no better", "by heart; try more clips")


def test_skips_that_bypass_the_pose(tmp_path: Path) -> None:
    run = Run(built(tmp_path / "data", speed=1), reach=1, skips=True, beta=0.0).train()
    assert_told(run, "the decoder ignores the pose", "as when skips", "try a larger --max-offset")


def test_a_content_that_is_ignored(well: Run) -> None:
    run = Run(well.folder, alpha=1e4, centred="none").train()
    assert_told(run, "the decoder ignores the content", "try a smaller --pose-dim")


def test_frames_no_better_than_copies(tmp_path: Path) -> None:
    run = Run(built(tmp_path / "data", speed=1), reach=1, beta=0.0).train()
    assert_told(run, "held-out frames come out no better", "than as a copy", "try a larger --max-offset")


def test_a_discriminator_that_wins(tmp_path: Path) -> None:
    run = Run(built(tmp_path / "data", train=16), reach=0, beta=1e-12).train(100)
    assert_told(run, "the discriminator knows a clip by its pose", "try a larger --beta")


class WithContent(nn.Module):
    """A pose encoder whose poses carry the content besides."""

    def __init__(self, pose: nn.Module, content: nn.Module) -> None:
        super().__init__()
        self.pose, self.content = pose, content

    def forward(self, frames: Tensor) -> Tensor:
        return torch.cat([self.pose(frames), self.content(frames)], 1)


class FirstNumbers(nn.Module):
    """A decoder that takes the first numbers of a pose."""

    def __init__(self, decoder: nn.Module, numbers: int) -> None:
        super().__init__()
        self.decoder, self.numbers = decoder, numbers

    def forward(self, content: Tensor, pose: Tensor) -> Tensor:
        return self.decoder(content, pose[:, : self.numbers])


def test_content_that_leaks_into_the_pose(well: Run) -> None:
    def leak(model: DrNet) -> None:
        model.pose_encoder = WithContent(model.pose_encoder, model.content_encoder)
        model.decoder = FirstNumbers(model.decoder, model.config.pose_dim)
        model.discriminator = SceneDiscriminator(model.config.pose_dim + model.config.content_dim)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        run = well.broken(leak)
    assert run.metrics["discriminator/bce"] == pytest.approx(0.693, abs=0.03)  # it looks fine
    assert_told(run, "held-out poses tell the content", "try a larger --beta")


def test_pose_that_leaks_into_the_content(well: Run) -> None:
    run = Run(well.folder, alpha=1e-9).train()
    assert_told(run, "held-out contents tell the pose", "try a larger --alpha")


def test_measuring_changes_nothing_of_the_training_that_follows(well: Run) -> None:
    runs = [Run(well.folder, skips=True) for _ in range(2)]
    for number, run in enumerate(runs):
        trainer = Trainer(run.model, run.config, CPU)
        for _ in range(3):
            trainer.train_step(to_device(run.pairs(), CPU))
            if number:
                run.measured()
    one, other = (run.model.state_dict() for run in runs)
    assert all(value.equal(other[name]) for name, value in one.items())


def test_bfloat16_measures_nearly_the_same(well: Run) -> None:
    autocast = Trainer(well.model, replace(well.config, precision="bf16"), CPU).autocast
    rounded, exact = well.health.measure(well.model, CPU, autocast), well.measured()
    assert rounded.keys() == exact.keys()
    assert rounded != exact
    assert rounded["held_out/reconstruction"] == pytest.approx(exact["held_out/reconstruction"], rel=0.05)


def test_a_run_of_few_held_out_clips_is_told_so_once(tmp_path: Path) -> None:
    run = Run(built(tmp_path / "data", train=16, test=5)).train(1)
    assert run.metrics.keys() >= {"held_out/reconstruction", "held_out/pose_used"}
    assert not run.metrics.keys() & {"held_out/bn_gap", "held_out/content_from_pose", "held_out/pose_from_content"}
    (note,) = run.health.lines(1, run.metrics)
    assert "that takes 24 held-out clips, and there are 5; build the data set with more test clips" in note
    assert run.health.lines(2, run.metrics) == []


def test_without_a_test_split_training_clips_are_measured_and_this_is_said(tmp_path: Path) -> None:
    run = Run(built(tmp_path / "data", train=32, test=0)).train(1)
    assert "held_out/content_from_pose" in run.metrics
    assert run.health.lines(1, run.metrics) == ["no held-out clips are at hand: health is measured on training clips"]


def test_one_held_out_clip_is_not_measured(tmp_path: Path) -> None:
    run = Run(built(tmp_path / "data", train=16, test=1)).train(1)
    assert not any(name.startswith("held_out/") for name in run.metrics)
    assert run.health.lines(1, run.metrics)[0].startswith("held-out frames are not measured: that takes 24")


def test_damaged_held_out_clips_are_counted(tmp_path: Path) -> None:
    folder = built(tmp_path / "data", train=16, test=32)
    shard = open_shards(folder, ["test"]).locate(3)[0]
    with shard.path.open("r+b") as file:
        file.seek(shard.sidecar.samples[3].frames[0] + 200)
        file.write(b"\xff" * 24_000)
    chosen = choose(folder, open_shards(folder), TrainConfig())
    assert chosen.notes == ("1 held-out clips cannot be read: health is measured without them",)
    assert chosen.frames.shape == (31, FRAMES, 32, 32, 3)


def test_chosen_frames_are_the_same_every_time_and_as_far_apart_as_in_training(well: Run) -> None:
    collection = open_shards(well.folder, ["test"])
    for reach, cyclic in ((7, False), (3, False), (5, True), (0, False)):
        train = TrainConfig(max_offset=reach, cyclic=cyclic)
        chosen = choose(well.folder, open_shards(well.folder), train)
        assert np.array_equal(chosen.frames, choose(well.folder, open_shards(well.folder), train).frames)
        for clip, frames in enumerate(chosen.frames):
            times = [np.flatnonzero((collection.frames(clip) == frame).all((1, 2, 3))) for frame in frames]
            ends = {(last - first) % 8 if cyclic else last - first for first in times[0] for last in times[-1]}
            assert reach in ends


def test_clips_are_spread_over_all_of_a_collection(well: Run) -> None:
    training = open_shards(well.folder)
    chosen = spread_clips(training)
    assert len(set(chosen)) == CLIPS
    assert (chosen[0], chosen[-1]) == (0, len(training) - 1)
    assert chosen == sorted(chosen)
    assert spread_clips(open_shards(well.folder, ["test"])) == list(range(32))


def test_a_report_says_how_it_goes_and_which_alarms_stand(well: Run) -> None:
    health = Health(well.folder, open_shards(well.folder), well.config, well.model.config)
    assert health.lines(7, {"loss/reconstruction": 0.01, "baseline/mean_frame": 0.04}, report=True) == [
        "step 7: reconstruction 0.0100 (0.25 of the mean frame's)"
    ]
    told, alarm = health.lines(STEP, well.metrics | {"variance/pose": 1e-7}, report=True)
    assert "discriminator accuracy 0." in told
    assert "(chance 0.693)" in told
    assert told.endswith(", alarms that stand: pose constant")
    assert alarm.startswith(f"alarm at step {STEP}: the pose is nearly constant")
    assert health_line(3, {}) == "step 3"


def test_a_loss_that_is_a_sum_over_the_pixels_is_told_for_each(well: Run) -> None:
    health = Health(well.folder, open_shards(well.folder), well.config, DrNetConfig(size=32, reconstruction="sum"))
    metrics = {"loss/reconstruction": 0.01 * 32 * 32 * 3, "baseline/mean_frame": 0.04}
    (line,) = health.lines(STEP, metrics, report=True)
    assert "reconstruction 0.0100 (0.25 of the mean frame's)" in line
