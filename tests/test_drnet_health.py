"""Measurements of a model on held-out frames: what they say, and that the model is left as it was."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drnet.autoencoder import Autoencoder, AutoencoderConfig
from drnet.health import PROBED_CLIPS, batch_statistics, explained, measure
from drnet.model import DrNet, DrNetConfig, participation

TINY = {"size": 32, "width": 4, "content_dim": 6, "pose_dim": 3, "initialisation": "torch"}
WITHOUT_CONTENT = {
    "content_used",
    "content_from_pose",
    "pose_from_content",
    "variance_content",
    "participation_content",
}
MANY_CLIPS = {"bn_gap", "reconstruction_batch", "content_from_pose", "pose_from_content"}  # that take `PROBED_CLIPS`
ALL = (
    WITHOUT_CONTENT
    | MANY_CLIPS
    | {"reconstruction", "copy", "mean_frame", "variance_pose", "participation_pose", "pose_used"}
)


def model_of(**settings: object) -> DrNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DrNet(DrNetConfig(**{**TINY, **settings}))  # type: ignore[arg-type]


def clips_of(clips: int = PROBED_CLIPS, frames: int = 4, channels: int = 3) -> Tensor:
    """Noise that changes from frame to frame: half of each frame is its clip's, half its own."""
    draw = torch.Generator().manual_seed(1)
    shape = (channels, 32, 32)
    own = torch.rand(clips, 1, *shape, generator=draw)
    return 0.5 * own + 0.5 * torch.rand(clips, frames, *shape, generator=draw)


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Assert that weights, statistics, gradients, modes, and the random states stay as they are, bit for bit."""
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    places = {name: value.data_ptr() for name, value in model.state_dict().items()}
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    modes = [part.training for part in model.modules()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    yield
    assert all(value.equal(tensors[name]) for name, value in model.state_dict().items())
    assert {name: value.data_ptr() for name, value in model.state_dict().items()} == places
    for p, before in zip(model.parameters(), gradients, strict=True):
        assert before is None if p.grad is None else before is not None and p.grad.equal(before)
    assert [part.training for part in model.modules()] == modes
    assert torch.get_rng_state().equal(states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])  # type: ignore[index]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"skips": True},
        {"centred": "both"},
        {"unit_norm": False},
        {"content_network": "vgg16", "decoder_network": "vgg16", "pose_network": "resnet18", "skips": True},
    ],
    ids=["plain", "skips", "centred", "batch-norm", "vgg"],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_model_is_left_as_it_was(settings: dict[str, object], precision: str) -> None:
    model, frames = model_of(**settings), clips_of()
    model.train()
    model.decoder.eval()  # a part may be in a mode of its own
    next(losses for name, losses, _ in model.losses(frames[:4, :2], 0) if name == "main").backward()
    autocast = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
    with untouched(model):
        found = measure(model, frames, 8, autocast)
    assert found.keys() == ALL


def test_a_model_that_fails_is_left_as_it_was() -> None:
    model = model_of()
    model.train()
    with untouched(model), pytest.raises(RuntimeError):
        measure(model, clips_of(channels=1), 8)


def test_compiled_parts_are_measured_uncompiled_and_stay_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    model, frames = model_of(), clips_of(4)
    plain = measure(model, frames, 4)

    def compiled(*inputs: Tensor) -> Tensor:
        raise AssertionError("was called")

    monkeypatch.setattr(model.pose_encoder, "_compiled_call_impl", compiled)
    assert measure(model, frames, 4) == plain
    assert model.pose_encoder._compiled_call_impl is compiled


def test_the_same_is_measured_twice() -> None:
    model, frames = model_of(skips=True), clips_of()
    assert measure(model, frames, 8) == measure(model, frames, 8)


def test_errors_are_those_of_decoding_the_later_frames_from_the_first_ones_content() -> None:
    model, frames = model_of().eval(), clips_of()
    found = measure(model, frames, 8)
    with torch.no_grad():
        content, _ = model.encode(frames[:, 0])
        decoded = torch.stack([model.decode(content, model.encode(frames[:, time])[1]) for time in (1, 2, 3)], 1)
        poses = torch.stack([model.encode(frames[:, time])[1] for time in range(4)], 1)
    later = frames[:, 1:]
    assert found["reconstruction"] == pytest.approx(float(F.mse_loss(decoded, later)), rel=1e-4)
    assert found["copy"] == pytest.approx(float(F.mse_loss(frames[:, :1].expand_as(later), later)), rel=1e-5)
    assert found["mean_frame"] == pytest.approx(float((later - frames.mean((0, 1))).square().mean()), rel=1e-5)
    assert found["variance_pose"] == pytest.approx(float(poses.reshape(-1, 3).var(0).sum()), rel=1e-3)


def test_the_statistics_of_the_batch_are_those_of_training() -> None:
    model, frames = model_of(centred="both"), clips_of(8)
    with batch_statistics(model.eval()), torch.no_grad():
        mine = model.encode(frames[:, 0])
    theirs = model.train().encode(frames[:, 0])
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(mine, theirs, strict=True))


def test_a_gap_shows_where_running_statistics_are_wrong_and_only_there() -> None:
    model, frames = model_of(), clips_of()
    model.train()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None  # running statistics are then the mean of all batches
            part.reset_running_stats()
    for time in (1, 2, 3):
        model.decode(model.content_encoder(frames[:, 0]), model.pose_encoder(frames[:, time]))
    well = measure(model, frames, PROBED_CLIPS)
    assert well["bn_gap"] == pytest.approx(1, abs=0.01)
    model.decoder.layers[1].running_mean += 2
    spoiled = measure(model, frames, PROBED_CLIPS)
    assert spoiled["reconstruction_batch"] == well["reconstruction_batch"]
    assert spoiled["reconstruction"] != pytest.approx(well["reconstruction"], rel=1e-3)


class Codes(nn.Module):
    """Content: the mean of a frame's upper half; pose: of its lower half; decodes to both halves, as far as it is told to."""

    def __init__(self, uses_content: bool = True, uses_pose: bool = True) -> None:
        super().__init__()
        self.uses = uses_content, uses_pose

    def content_encoder(self, frames: Tensor) -> Tensor:
        return frames[:, :, :16].mean((2, 3))

    def pose_encoder(self, frames: Tensor) -> Tensor:
        return frames[:, :, 16:].mean((2, 3))

    def decode(self, content: Tensor, pose: Tensor) -> Tensor:
        halves = [code * used for code, used in zip((content, pose), self.uses, strict=True)]
        return torch.cat([half[:, :, None, None].expand(-1, -1, 16, 32) for half in halves], 2)


def halves(clips: int = PROBED_CLIPS) -> Tensor:
    """(N, 4, 3, 32, 32): the upper half of a frame is its clip's, the lower half its own."""
    draw = torch.Generator().manual_seed(2)
    upper = torch.rand(clips, 1, 3, 1, 1, generator=draw).expand(-1, 4, -1, 16, 32)
    return torch.cat([upper, torch.rand(clips, 4, 3, 1, 1, generator=draw).expand(-1, -1, -1, 16, 32)], 3)


def test_a_decoder_that_uses_both_vectors_changes_its_frames_as_far_as_it_should() -> None:
    found = measure(Codes(), halves(), 8)
    assert found["reconstruction"] == pytest.approx(0, abs=1e-9)
    assert found["pose_used"] == pytest.approx(1, abs=1e-4)
    assert 0.2 < found["content_used"] < 0.8  # of two clips' frames the lower halves differ too
    assert measure(Codes(uses_pose=False), halves(), 8)["pose_used"] == 0
    assert measure(Codes(uses_content=False), halves(), 8)["content_used"] == 0


def test_vectors_that_know_nothing_of_each_other_explain_nothing() -> None:
    found = measure(Codes(), halves(128), 64)
    assert found["content_from_pose"] < 0.1
    assert found["pose_from_content"] < 0.1


def test_vectors_differ_in_as_many_directions_as_their_variance_is_spread_over() -> None:
    draw = torch.Generator().manual_seed(5)
    numbers = torch.randn(4096, 8, generator=draw)
    assert float(participation(numbers)) == pytest.approx(8, rel=0.02)
    assert float(participation(numbers[:, :1] @ torch.ones(1, 8) + 3)) == pytest.approx(1, abs=1e-4)
    turned = torch.linalg.qr(torch.randn(8, 8, generator=draw))[0]
    few = numbers * torch.tensor([2.0, 2, 2, 0, 0, 0, 0, 0])
    assert float(participation(few)) == pytest.approx(3, rel=0.02)
    assert float(participation(1e-3 * few @ turned + 1)) == pytest.approx(float(participation(few)), rel=0.01)
    assert float(participation(torch.ones(16, 8))) == 0


def test_vectors_that_are_the_same_explain_each_other() -> None:
    model, frames = Codes(), halves()
    model.pose_encoder = model.content_encoder  # type: ignore[method-assign]
    assert measure(model, frames, 8)["content_from_pose"] > 0.95
    model = Codes()
    model.content_encoder = model.pose_encoder  # type: ignore[method-assign]
    assert 0.65 < measure(model, frames, 8)["pose_from_content"] < 0.8  # the mean of its clip is known to no frame


def test_a_probe_is_scored_on_clips_that_it_was_not_fitted_on() -> None:
    draw = torch.Generator().manual_seed(3)
    names = torch.eye(32, dtype=torch.float64)[:, None].expand(-1, 4, -1)  # tell the clip, and so anything of it
    values = torch.randn(32, 1, 5, generator=draw, dtype=torch.float64).expand(-1, 4, -1)
    assert explained(names, values) < 0.05
    assert explained(values @ torch.randn(5, 7, generator=draw, dtype=torch.float64), values) > 0.95


def test_the_scale_of_a_vector_does_not_matter_to_a_probe() -> None:
    draw = torch.Generator().manual_seed(4)
    inputs = torch.randn(32, 4, 3, generator=draw, dtype=torch.float64)
    targets = inputs @ torch.randn(3, 2, generator=draw, dtype=torch.float64) + inputs.square()[..., :2]
    score = explained(inputs, targets)
    assert 0.2 < score < 0.9
    assert explained(1e-4 * inputs + 1, 1e3 * targets) == pytest.approx(score, abs=1e-6)


def test_what_takes_many_clips_is_left_out_with_few() -> None:
    assert measure(model_of(), clips_of(PROBED_CLIPS - 1), 8).keys() == ALL - MANY_CLIPS
    assert measure(model_of(), clips_of(2), 8).keys() == ALL - MANY_CLIPS


def test_a_model_without_content_is_measured_as_far_as_it_goes() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Autoencoder(AutoencoderConfig(size=32, width=4, pose_dim=3, initialisation="torch"))
    model.train()
    with untouched(model):
        assert measure(model, clips_of(), 8).keys() == ALL - WITHOUT_CONTENT


def test_clips_that_stand_still_do_not_tell_whether_the_pose_is_used() -> None:
    still = clips_of()[:, :1].expand(-1, 4, -1, -1, -1)
    assert "pose_used" not in measure(model_of(), still, 8)


def test_weights_that_are_not_finite_give_no_numbers_that_are_not() -> None:
    model = model_of()
    with torch.no_grad():
        model.pose_encoder.last.weight.fill_(float("nan"))
    assert measure(model, clips_of(), 8).keys() == {
        "copy",
        "mean_frame",
        "variance_content",
        "participation_content",
    }


@pytest.mark.parametrize(("clips", "at_once"), [(24, 1), (24, 7), (24, 100), (3, 2), (2, 2)])
def test_no_batch_is_of_one_clip_and_all_clips_count(clips: int, at_once: int) -> None:
    sizes: list[int] = []

    class Counted(Codes):
        def pose_encoder(self, frames: Tensor) -> Tensor:
            sizes.append(len(frames))
            return super().pose_encoder(frames)

    found, whole = measure(Counted(), halves(clips), at_once), measure(Codes(), halves(clips), clips)
    assert min(sizes) >= 2
    assert max(sizes) < 2 * max(2, at_once)
    assert {k: v for k, v in found.items() if k != "content_used"} == pytest.approx(
        {k: v for k, v in whole.items() if k != "content_used"}, rel=1e-4, abs=1e-8
    )
