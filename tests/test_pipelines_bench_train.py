"""The benchmark of training compares like with like, and its command shows what it found."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from drnet.datasets.contract import DataError
from drnet.model import DrNet, DrNetConfig
from drnet.pipelines.measuring.bench_plain import PlainTrainer
from drnet.trainer import TrainConfig, Trainer

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"size": 32, "width": 4, "content_dim": 6, "pose_dim": 3, "initialisation": "own"}
KTH = {
    "channels": 1,
    "content_network": "vgg16",
    "pose_network": "resnet18",
    "decoder_network": "vgg16",
    "skips": True,
    "beta": 0.0001,
    "discriminator_beta": True,
}
AUTHORS = {"detach_target": True, "detach_first_pose": True, "negatives": "permuted", "inverted_labels": True}
TUNED = {"similarity": "whitened", "centred": "content", "content_pooled": True, "alpha_start": 0.02, "alpha_warmup": 9}


def both(frames_of_a_clip: int, **settings: Any) -> tuple[Trainer, PlainTrainer, Tensor]:
    """Return the product, the plain style, both from one state, and a batch.

    Adam divides gradients by their size, and so shows rounding alone where one is nearly 0: not with this epsilon.
    """
    config = DrNetConfig(**SMALL | settings)
    torch.manual_seed(0)
    model, plain = DrNet(config), DrNet(config)
    plain.load_state_dict(model.state_dict())
    train = TrainConfig(schedule="cosine", warmup=2, horizon=50)
    ours, theirs = Trainer(model, train, CPU), PlainTrainer(plain, train, CPU)
    for optimizer in (*ours.optimizers.values(), *theirs.main, theirs.judge):
        optimizer.param_groups[0]["eps"] = 1e-3
    for optimizer in (ours.optimizers["discriminator"], theirs.judge):  # its gradients are smaller by beta
        optimizer.param_groups[0]["eps"] *= config.beta if config.discriminator_beta else 1
    return ours, theirs, torch.rand(6, frames_of_a_clip, config.channels, 32, 32)


@pytest.mark.parametrize(
    ("drawn", "settings"),
    [
        (2, {"discriminator_beta": True}),
        (2, KTH),
        (2, {"beta": 0.0}),
        (2, {"reconstruction": "sum", "similarity": "sum", "alpha": 0.01, "beta_warmup": 4}),
        (2, TUNED),
        (4, AUTHORS),
        (4, {"unit_norm": False, "skips": True}),
    ],
    ids=["mnist", "kth", "beta 0", "sums", "tuned", "authors", "four frames"],
)
def test_the_plain_style_ends_a_step_with_the_weights_of_the_product(drawn: int, settings: dict[str, Any]) -> None:
    ours, theirs, frames = both(drawn, **settings)
    before = {name: value.detach().clone() for name, value in ours.model.named_parameters()}
    ours.train_step(frames)
    theirs.train_step(frames)
    held = dict(theirs.model.named_parameters())
    for name, value in ours.model.named_parameters():
        torch.testing.assert_close(value, held[name], rtol=0, atol=2e-6, msg=lambda text, name=name: f"{name}: {text}")
    moved = {
        name
        for name, value in ours.model.named_parameters()
        if float((value.detach() - before[name]).abs().max()) > 2e-5
    }
    parts = {name.split(".")[0] for name in moved}
    assert parts == {"content_encoder", "pose_encoder", "decoder", "discriminator"}


def test_the_plain_style_follows_the_product_over_steps() -> None:
    ours, theirs, frames = both(2)
    for step in range(3):
        batch = frames.roll(step, 0)
        ours.train_step(batch)
        found = theirs.train_step(batch)
        told = ours.take_metrics()
        assert {name: pytest.approx(value, rel=1e-4) for name, value in found.items()} == {
            name: told[name] for name in found
        }


def test_the_plain_style_computes_the_poses_twice_and_in_the_usual_memory_order() -> None:
    ours, theirs, frames = both(2)
    calls: dict[str, list[bool]] = {"ours": [], "theirs": []}
    for name, trainer in (("ours", ours), ("theirs", theirs)):
        trainer.model.pose_encoder.register_forward_pre_hook(
            lambda _, given, name=name: calls[name].append(given[0].is_contiguous())
        )
        trainer.train_step(frames)
    assert calls == {"ours": [False] * 2, "theirs": [True] * 4}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    from drnet.pipelines.measuring.bench_train import bench_train

    return bench_train("mnist", "cpu", {"width": 4, "batch_size": 4}, size=32, steps=1, rounds=2)


def test_the_product_is_measured_beside_the_plain_style_and_a_batch_in_memory(found: dict[str, Any]) -> None:
    assert list(found["steps"]) == ["drnet", "drnet, batch in memory", "plain style, fp32"]
    assert all(len(row["rounds"]) == 2 for row in found["ratios"].values())
    assert set(found["ratios"]) == {"drnet, batch in memory", "plain style, fp32"}
    assert found["pairs"]["drnet"] == pytest.approx(4 * found["steps"]["drnet"])
    assert found["horizon_seconds"] == pytest.approx(120_000 / found["steps"]["drnet"])
    assert 0 <= found["stall"] < 1
    assert found["what"].startswith("mnist, batches of 4 of 32x32x3, fp32")


def test_the_flop_of_a_step_are_those_of_its_convolutions_and_products(found: dict[str, Any]) -> None:
    """The plain style runs the pose encoder forwards twice more, and takes gradients of C that nothing uses."""
    config = DrNetConfig(size=32, width=4)  # content and pose of the preset's length
    pose, pairs = encoder_flop(config, config.pose_dim), 2.0 * 4 * (10 * 100 + 100 * 100 + 100)
    assert found["flop"]["plain style, fp32"] - found["flop"]["drnet"] == 2 * pose + pairs
    forwards = 2 * (pose + encoder_flop(config, config.content_dim))
    assert 2.5 * forwards < found["flop"]["drnet"] < 6 * forwards  # backwards is twice that; and there is a decoder


def encoder_flop(config: DrNetConfig, dim: int, batch: int = 4) -> float:
    """FLOP of a pass through a DCGAN encoder, by hand: two for each product of its 4x4 kernels."""
    widths = [config.channels, *(config.width * factor for factor in (1, 2, 4))]
    sides = [config.size >> level for level in range(1, 4)]
    inner = sum(before * after * side**2 for before, after, side in zip(widths, widths[1:], sides, strict=False))
    return 2.0 * batch * 16 * (inner + widths[-1] * dim)


def test_shares_are_of_the_products_rate_by_one_clock(found: dict[str, Any]) -> None:
    share, flop = found["share"], found["flop"]
    ratio = found["ratios"]["plain style, fp32"]["ratio"]
    assert share["drnet"] / share["plain style, fp32"] == pytest.approx(
        ratio * flop["drnet"] / flop["plain style, fp32"]
    )
    assert 0 < share["drnet"] < 1.5


def test_a_size_is_for_generated_frames_alone(digits: Path) -> None:
    from drnet.pipelines.measuring.bench_train import bench_train

    with pytest.raises(DataError, match="size 32 is not allowed with --data"):
        bench_train("mnist", "cpu", {}, data=str(digits), size=32)


def test_the_command_shows_a_table_and_writes_json(digits: Path, tmp_path: Path) -> None:
    words = ["--preset", "mnist-small", "--data", digits, "--batch-size", 4, "--width", 4, "--steps", 1, "--rounds", 1]
    words += ["--device", "cpu", "--precision", "fp32", "--out", tmp_path / "found.json"]
    call = [
        sys.executable,
        "-m",
        "drnet",
        "bench",
        "train",
        *map(str, words),
    ]  # this process may keep memory freed before
    shown = subprocess.run(call, capture_output=True, text=True, timeout=120, env={**os.environ, "COLUMNS": "200"})
    assert shown.returncode == 0, shown.stderr
    for text in ("plain style, fp32", "frame pairs/s", "waiting for the loader", "all 12,000 steps of mnist-small"):
        assert text in shown.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["settings"]["train"]["batch_size"] == 4
    assert found["device"]["type"] == "cpu"
    assert found["peak"]["drnet"] > 0


def test_a_preset_that_is_not_there_is_told_in_one_line(command: Callable[..., Any]) -> None:
    shown = command("bench", "train", "--preset", "minst")
    assert shown.code == 1
    assert "preset 'minst' is not known" in shown.err
    assert len(shown.err.strip().splitlines()) == 1
