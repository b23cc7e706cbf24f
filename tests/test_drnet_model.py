"""The losses of Eq. 1 to 5: their values by hand, and whom each one moves."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from drnet.model import DrNet, DrNetConfig, whitened_distance
from drnet.presets import PAPER, preset

SMALL: dict[str, Any] = {"size": 32, "width": 4, "content_dim": 6, "pose_dim": 3, "initialisation": "torch"}


def model_of(**settings: Any) -> DrNet:
    torch.manual_seed(0)
    return DrNet(DrNetConfig(**(SMALL | settings))).train()


def pairs(batch: int = 5) -> Tensor:
    return torch.rand(batch, 2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def both(model: DrNet, frames: Tensor, step: int = 0) -> dict[str, Tensor]:
    return {name: loss for name, loss, _ in model.losses(frames, step)}


def moved(model: DrNet) -> set[str]:
    """Names of the model's parts that hold a gradient which is not zero."""
    return {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}


def cross_entropy(logits: Tensor, same: float) -> float:
    probability = 1 / (1 + np.exp(-logits.detach().double().numpy()))
    return float(-(same * np.log(probability) + (1 - same) * np.log(1 - probability)).mean())


def test_the_losses_are_the_papers_equations() -> None:
    model, frames = model_of(alpha=0.7, beta=0.3), pairs()
    first, second = frames[:, 0], frames[:, 1]
    found = both(model, frames)
    content, target = model.content_encoder(first), model.content_encoder(second)
    pose_first, pose_second = model.pose_encoder(first), model.pose_encoder(second)
    reconstruction = (model.decoder(content, pose_second) - second).square().mean().item()  # Eq. 1
    similarity = (content - target).square().mean().item()  # Eq. 2
    same = model.discriminator(pose_first, pose_second)
    others = torch.stack([pose_second[(i - 1) % 5] for i in range(5)])
    other = model.discriminator(pose_first, others)
    discriminator = 0.5 * (cross_entropy(same, 1) + cross_entropy(other, 0))  # Eq. 3
    adversarial = 0.5 * (cross_entropy(same, 1) + cross_entropy(same, 0))  # Eq. 4
    assert found["discriminator"].item() == pytest.approx(discriminator, rel=1e-5)
    assert found["main"].item() == pytest.approx(reconstruction + 0.7 * similarity + 0.3 * adversarial, rel=1e-5)


def test_the_metrics_are_the_parts_of_the_losses() -> None:
    model, frames = model_of(alpha=0.7, beta=0.3), pairs()
    metrics: dict[str, Tensor] = {}
    losses = {}
    for name, loss, part in model.losses(frames, 0):
        losses[name] = loss
        metrics |= part
    parts = metrics["loss/reconstruction"] + 0.7 * metrics["loss/similarity"] + 0.3 * metrics["loss/adversarial"]
    assert torch.allclose(losses["main"], parts)
    assert torch.allclose(losses["discriminator"], metrics["discriminator/bce"])
    assert 0 <= float(metrics["discriminator/accuracy"]) <= 1
    second = frames[:, 1]
    assert float(metrics["baseline/mean_frame"]) == pytest.approx(float(second.var(0, correction=0).mean()), rel=1e-5)
    assert float(metrics["variance/pose"]) > 0
    assert not any(value.requires_grad for value in metrics.values())


def test_summed_similarity_is_the_mean_times_the_contents_length() -> None:
    frames = pairs()
    found = {}
    for kind in ("mean", "sum"):
        *_, (_, _, metrics) = model_of(similarity=kind).losses(frames, 0)
        found[kind] = float(metrics["loss/similarity"])
    assert found["sum"] == pytest.approx(6 * found["mean"], rel=1e-5)


@pytest.mark.parametrize(("clips", "dim", "told"), [(8, 6, True), (7, 6, False), (2, 6, False), (8, 1, False)])
def test_directions_of_content_are_told_only_where_there_can_be_several(clips: int, dim: int, told: bool) -> None:
    *_, (_, _, metrics) = model_of(content_dim=dim).losses(pairs(clips), 0)
    assert ("participation/content" in metrics) == told


def test_the_discriminators_loss_moves_the_discriminator_alone() -> None:
    model = model_of()
    name, loss, _ = next(model.losses(pairs(), 0))
    loss.backward()
    assert name == "discriminator"
    assert moved(model) == {"discriminator"}


def test_the_main_loss_moves_everything_but_the_discriminator() -> None:
    model = model_of(beta=10.0)
    both(model, pairs())["main"].backward()
    assert moved(model) == {"content_encoder", "pose_encoder", "decoder"}
    assert all(parameter.grad is None for parameter in model.discriminator.parameters())


def test_the_groups_are_all_parameters_once_and_the_losses_update_them() -> None:
    model = model_of()
    groups = model.groups()
    assert list(groups) == [name for name, _, _ in model.losses(pairs(), 0)]
    numbers = [id(p) for group in groups.values() for p in group]
    assert sorted(numbers) == sorted(id(p) for p in model.parameters())


@pytest.mark.parametrize("name", PAPER)
def test_each_update_of_a_step_changes_its_own_part_of_every_model_of_the_paper(name: str) -> None:
    torch.manual_seed(0)
    model = DrNet(dataclasses.replace(preset(name).model, size=32, width=4, channels=1, beta=0.1)).train()
    optimizers = {group: torch.optim.Adam(parameters) for group, parameters in model.groups().items()}
    frames = torch.rand(4, 2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    changed = {}
    for group, loss, _ in model.losses(frames, 0):
        before = {part: parameter.detach().clone() for part, parameter in model.named_parameters()}
        optimizers[group].zero_grad()
        loss.backward()
        optimizers[group].step()
        now = dict(model.named_parameters())
        changed[group] = {part for part, value in before.items() if not torch.equal(value, now[part])}
    everything = {part for part, _ in model.named_parameters()}
    ours = {part for part in everything if part.startswith("discriminator.")}
    assert changed["discriminator"] == ours
    assert changed["main"] == everything - ours


class Recorder(torch.nn.Module):
    """Keeps the vectors that an encoder returns for the first and for the second frames, with their gradients."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.seen: dict[str, Tensor] = {}

    def forward(self, frames: Tensor) -> Tensor:
        vector = self.encoder(frames)
        if vector.requires_grad:
            vector.retain_grad()
        self.seen["first" if torch.equal(frames, pairs()[:, 0]) else "second"] = vector
        return vector


def recorded(model: DrNet, part: str) -> tuple[Tensor, Tensor]:
    recorder = Recorder(getattr(model, part))
    setattr(model, part, recorder)
    both(model, pairs())["main"].backward()
    return recorder.seen["first"], recorder.seen["second"]


def test_both_poses_receive_the_adversarial_gradient() -> None:
    with_it = recorded(model_of(beta=0.5), "pose_encoder")
    without = recorded(model_of(beta=0.0), "pose_encoder")
    assert with_it[0].grad is not None
    assert bool(with_it[0].grad.any())
    assert without[0].grad is None  # only Eq. 4 needs the first frame's pose
    assert without[1].grad is not None
    assert not torch.allclose(with_it[1].grad, without[1].grad)


def test_the_adversarial_gradient_leads_to_one_half() -> None:
    model = model_of()
    logits = torch.tensor([3.0, -2.0, 0.0], requires_grad=True)
    model.discriminator.forward = lambda first, second: logits  # type: ignore[method-assign]
    loss = model._confusion(torch.zeros(3, 3), torch.zeros(3, 3))
    loss.backward()
    assert torch.equal(logits.grad.sign(), torch.tensor([1.0, -1.0, 0.0]))
    with torch.no_grad():
        assert float(model._confusion(torch.zeros(3, 3), torch.zeros(3, 3))) > math.log(2)


def test_the_first_pose_is_detached_only_on_request() -> None:
    first, second = recorded(model_of(beta=0.5, detach_first_pose=True), "pose_encoder")
    assert first.grad is None
    assert second.grad is not None


def test_each_frame_is_encoded_once_a_step() -> None:
    model, calls = model_of(), {"content_encoder": 0, "pose_encoder": 0}
    for name in calls:

        def counted(*_: object, name: str = name) -> None:
            calls[name] += 1

        getattr(model, name).register_forward_hook(counted)
    both(model, pairs())
    assert calls == {"content_encoder": 2, "pose_encoder": 2}


@pytest.mark.parametrize("detached", [True, False])
def test_the_target_of_the_similarity_is_detached_only_on_request(detached: bool) -> None:
    first, second = recorded(model_of(detach_target=detached), "content_encoder")
    assert first.grad is not None
    assert (second.grad is None) == detached


def test_the_main_loss_sees_the_discriminator_that_was_just_updated() -> None:
    model, frames = model_of(beta=1.0), pairs()
    losses = model.losses(frames, 0)
    next(losses)
    with torch.no_grad():
        for parameter in model.discriminator.parameters():
            parameter.zero_()
        model.discriminator.layers[4].bias.fill_(4.0)  # now it answers "same" with a logit of 4 to everything
    _, _, metrics = next(losses)
    expected = 0.5 * (math.log1p(math.exp(-4)) + math.log1p(math.exp(4)))
    assert float(metrics["loss/adversarial"]) == pytest.approx(expected, rel=1e-5)


def test_the_negative_is_another_position_of_the_batch() -> None:
    model = model_of()
    asked: list[tuple[Tensor, Tensor]] = []
    original = model.discriminator.forward

    def spy(first: Tensor, second: Tensor) -> Tensor:
        asked.append((first, second))
        return original(first, second)

    model.discriminator.forward = spy  # type: ignore[method-assign]
    next(model.losses(pairs(), 0))
    (first, second), (again, other) = asked
    assert torch.equal(first, again)
    assert torch.equal(other, second[[4, 0, 1, 2, 3]])


def test_the_whitened_distance_is_blind_to_scale_1_for_strangers_and_0_for_equals() -> None:
    draw = torch.Generator().manual_seed(0)
    first, second = torch.randn(4000, 5, generator=draw), torch.randn(4000, 5, generator=draw)
    stretch = torch.diag(torch.tensor([1.0, 5.0, 0.3, 2.0, 1.0]))
    assert whitened_distance(first, second).item() == pytest.approx(1, abs=0.05)
    assert whitened_distance(3 + first @ stretch, 3 + second @ stretch).item() == pytest.approx(1, abs=0.05)
    assert whitened_distance(first, first).item() == 0
    assert whitened_distance(first, first + 0.1 * second).item() < 0.02
    assert math.isnan(whitened_distance(first, second * math.nan).item())


@pytest.mark.parametrize(("centred", "content", "pose"), [("none", 1, 1), ("content", 0, 1), ("both", 0, 0)])
def test_centred_vectors_point_everywhere(centred: str, content: int, pose: int) -> None:
    model, frames = model_of(centred=centred), pairs(64)[:, 0]
    for encoder in (model.content_encoder, model.pose_encoder):
        torch.nn.init.constant_(encoder.last.bias, 20)  # without centring, all vectors point the same way
    for vectors, expected in zip(model.encode(frames), (content, pose), strict=True):
        assert torch.allclose(vectors.norm(dim=1), torch.ones(64), atol=1e-5)
        assert vectors.mean(0).norm().item() == pytest.approx(expected, abs=0.25)


def test_weights_warm_up_over_absolute_steps() -> None:
    config = DrNetConfig(alpha=1.0, alpha_start=0.01, alpha_warmup=100, beta=0.4, beta_warmup=200)
    assert [config.alpha_at(step) for step in (0, 50, 100, 9999)] == pytest.approx([0.01, 0.1, 1.0, 1.0])
    assert [config.beta_at(step) for step in (0, 50, 200, 9999)] == pytest.approx([0.0, 0.1, 0.4, 0.4])
    assert DrNetConfig(beta=0.4).beta_at(0) == 0.4


def test_encoding_and_decoding_agree_with_the_parts() -> None:
    model = model_of().eval()
    frames = pairs()[:, 0]
    content, pose = model.encode(frames)
    assert torch.equal(content, model.content_encoder(frames))
    assert torch.equal(pose, model.pose_encoder(frames))
    assert model.decode(content, pose).shape == frames.shape


@pytest.mark.parametrize(
    "wrong",
    [
        {"pose_dim": 0},
        {"content_dim": -1},
        {"width": 0},
        {"channels": 0},
        {"alpha": -1.0},
        {"beta": math.nan},
        {"beta": math.inf},
        {"similarity": "median"},
        {"centred": "everything"},
        {"initialisation": "zeros"},
        {"alpha_warmup": 10},
    ],
    ids=str,
)
def test_a_value_that_is_not_allowed_is_named_in_one_line(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is not allowed") as raised:
        DrNetConfig(**wrong)
    assert next(iter(wrong)).split("_")[0] in str(raised.value)
    assert "\n" not in str(raised.value)


def test_settings_survive_json() -> None:
    config = DrNetConfig(size=32, pose_dim=7, detach_target=True, alpha_start=0.5, alpha_warmup=3)
    assert DrNetConfig(**config.to_json()) == config
