"""The baseline: one encoder whose code is the pose, and nothing else for the decoder; everything else takes it as a DrNet."""

from pathlib import Path

import pytest
import torch

from drnet.autoencoder import Autoencoder, AutoencoderConfig
from drnet.pipelines.export import export_features, load_features
from drnet.pipelines.probe import probe
from drnet.pipelines.run import load_run, read_config, read_metrics
from drnet.pipelines.train import train
from drnet.pipelines.training.loop import Logging
from drnet.presets import PRESETS, preset
from drnet.swap import swap
from drnet.trainer import TrainConfig, Trainer

CPU = torch.device("cpu")


def small(**settings: object) -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(AutoencoderConfig(**({"size": 32, "width": 4, "pose_dim": 6} | settings)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("network", "decoder", "size", "channels"),
    [("dcgan", "dcgan", 32, 3), ("resnet18", "dcgan", 64, 1), ("vgg16", "vgg16", 64, 1)],
)
def test_a_frame_becomes_a_code_and_a_frame_again(network: str, decoder: str, size: int, channels: int) -> None:
    model = small(network=network, decoder_network=decoder, size=size, channels=channels).eval()
    frames = torch.rand(3, channels, size, size)
    content, code = model.encode(frames)
    assert content.shape == (3, 0)
    assert code.shape == (3, 6)
    assert code.norm(dim=1).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    assert model.decode(content, code).shape == frames.shape


def test_its_loss_is_the_squared_error_of_every_frame() -> None:
    model = small()
    frames = torch.rand(4, 2, 3, 32, 32)
    ((group, loss, metrics),) = model.losses(frames, 0)
    flat = frames.flatten(0, 1)
    again = model.decode(*model.encode(flat))
    assert group == "main"
    torch.testing.assert_close(loss, (again - flat).square().mean())
    torch.testing.assert_close(metrics["baseline/mean_frame"], (flat - flat.mean(0)).square().mean())
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_it_learns_frames_that_differ_in_one_place() -> None:
    frames = torch.zeros(8, 2, 3, 32, 32)
    for clip in range(8):
        frames[clip, :, :, 4 * clip : 4 * clip + 4] = 1
    trainer = Trainer(small(initialisation="torch"), TrainConfig(batch_size=8, lr=0.005), CPU)
    for _ in range(60):
        trainer.train_step(frames)
    trainer.take_metrics()
    trainer.train_step(frames)
    metrics = trainer.take_metrics()
    assert metrics["loss/reconstruction"] < 0.3 * metrics["baseline/mean_frame"]


def test_a_swap_shows_the_frame_of_the_pose_alone() -> None:
    model = small().eval()
    frames = swap(model, torch.rand(2, 3, 32, 32), torch.rand(3, 3, 32, 32))  # type: ignore[arg-type]
    torch.testing.assert_close(frames[0], frames[1])


@pytest.mark.parametrize(
    "wrong", [{"network": "alexnet"}, {"pose_dim": 0}, {"size": 33}, {"decoder_network": "resnet18"}]
)
def test_a_setting_that_is_not_allowed_is_told_in_one_line(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*(not allowed)[^\n]*$"):
        small(**wrong)


def test_it_is_trained_continued_exported_and_probed_as_a_drnet(digits: Path, tmp_path: Path) -> None:
    run, features = tmp_path / "run", tmp_path / "features.h5"
    changes = {"width": 4, "batch_size": 8, "pose_dim": 7}
    logging = Logging(2, 2, 4)
    train(digits, run, "kth-small-autoencoder", 2, "cpu", changes, logging)
    report = train(digits, run, None, 4, "cpu", None, logging)
    assert (report.start, report.checkpoint.step) == (2, 4)
    assert read_config(run)["kind"] == "autoencoder"
    assert [line["step"] for line in read_metrics(run)] == [2, 4]
    model, _, _ = load_run(run)
    assert isinstance(model, Autoencoder)
    export_features(run, digits, features, "cpu")
    exported = load_features(features)
    assert exported.content.shape == (64, 8, 0)
    assert exported.pose.shape == (64, 8, 7)
    assert "pose" in str(probe(features))


def test_its_presets_share_the_networks_of_the_rows_they_stand_beside() -> None:
    names = [name for name in PRESETS if isinstance(PRESETS[name].model, AutoencoderConfig)]
    assert names == ["kth-autoencoder", "kth-small-autoencoder"]
    for name in names:
        beside = preset(name.replace("-autoencoder", "-actions" if name == "kth-autoencoder" else ""))
        model, other = preset(name).model, beside.model
        assert isinstance(model, AutoencoderConfig)
        assert (model.network, model.decoder_network) == (other.content_network, other.decoder_network)  # type: ignore[union-attr]
        assert (model.size, model.channels, model.width) == (other.size, other.channels, other.width)
        assert model.pose_dim == 24
