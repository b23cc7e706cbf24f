"""Paper and authors' code: each row of the table of differences, as what the settings do in a training step."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from drnet.model import DrNet, DrNetConfig
from drnet.presets import PAPER, PRESETS, preset, variant_settings
from drnet.trainer import TrainConfig, Trainer
from drnet.variants import DIFFERENCES

FIELDS = DrNetConfig().to_json().keys()
SMALL = {"size": 32, "width": 4, "channels": 1}


def settings(name: str, variant: str) -> dict[str, Any]:
    """All settings of a preset in a variant, of model and training."""
    row = preset(name)
    return row.model.to_json() | row.train.to_json() | variant_settings(name, variant)


def model_of(name: str, variant: str, **changes: Any) -> DrNet:
    """A narrow model of a preset in a variant."""
    chosen = {key: value for key, value in settings(name, variant).items() if key in FIELDS}
    torch.manual_seed(0)
    return DrNet(DrNetConfig(**(chosen | SMALL | changes))).train()


def frames(count: int = 2, batch: int = 6) -> Tensor:
    return torch.rand(batch, count, 1, 32, 32, generator=torch.Generator().manual_seed(1))


class Recorder(nn.Module):
    """Keeps what an encoder was given and what it returned, with its gradient."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, given: Tensor) -> Any:
        found = self.encoder(given)
        vector = getattr(found, "vector", found)
        if vector.requires_grad:
            vector.retain_grad()
        self.seen.append((given, vector))
        return found

    def of(self, given: Tensor) -> Tensor:
        """Return the vector of some frames."""
        return next(vector for frames, vector in self.seen if torch.equal(frames, given))


def recorded(model: DrNet, given: Tensor) -> tuple[Recorder, Recorder]:
    """Run a main loss backwards; returns the recorders of content and pose."""
    content, pose = Recorder(model.content_encoder), Recorder(model.pose_encoder)
    model.content_encoder, model.pose_encoder = content, pose  # type: ignore[assignment]
    *_, (_, loss, _) = model.losses(given, 0)
    loss.backward()
    return content, pose


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_rows_are_the_variant_paper(name: str) -> None:
    row = preset(name)
    found = row.model.to_json() | row.train.to_json()
    for difference in DIFFERENCES:
        assert {key: found[key] for key in difference.paper} == dict(difference.paper), difference.item
    assert settings(name, "paper") == found


@pytest.mark.parametrize("name", PAPER)
@pytest.mark.parametrize("variant", ["paper", "authors"])
def test_every_row_is_usable_in_either_variant(name: str, variant: str) -> None:
    chosen = settings(name, variant)
    train = TrainConfig(**{key: value for key, value in chosen.items() if key not in FIELDS})
    model = model_of(name, variant)
    count = 2 if train.frames == "pair" else 4
    for _, loss, _ in model.losses(frames(count), 0):
        assert loss.isfinite()
    assert all(difference.reason and "\n" not in difference.reason for difference in DIFFERENCES)


def test_a_tuned_preset_and_an_unknown_variant_are_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"^variant 'authors' is not allowed with preset mnist-small, a tuned one; "):
        variant_settings("mnist-small", "authors")
    with pytest.raises(ValueError, match=r"^variant 'nature' is not known; there are paper and authors$"):
        variant_settings("mnist", "nature")
    assert set(PRESETS) - set(PAPER) == {
        "mnist-small",
        "mnist-medium",
        "chairs-small",
        "kth-small",
        "kth-autoencoder",
        "kth-small-autoencoder",
    }


@pytest.mark.parametrize("variant", ["paper", "authors"])
def test_losses_are_means_in_either_variant_and_sums_12288_times_larger_on_request(variant: str) -> None:
    found = {}
    for kind in ("mean", "sum"):
        model = model_of("mnist", variant, size=64, channels=3, reconstruction=kind, skips=False)
        given = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        *_, (_, _, metrics) = model.losses(given, 0)
        found[kind] = float(metrics["loss/reconstruction"])
        if kind == "mean":
            assert settings("mnist", variant)["reconstruction"] == "mean"
    assert found["sum"] == pytest.approx(12_288 * found["mean"], rel=1e-4)


@pytest.mark.parametrize(("variant", "held"), [("paper", False), ("authors", True)])
def test_the_target_of_the_similarity_is_held_by_the_authors_alone(variant: str, held: bool) -> None:
    given = frames()
    content, _ = recorded(model_of("mnist", variant), given)
    assert content.of(given[:, 0]).grad is not None
    assert (content.of(given[:, 1]).grad is None) == held


@pytest.mark.parametrize(("variant", "both"), [("paper", True), ("authors", False)])
def test_both_poses_get_the_adversarial_gradient_or_that_of_the_drawn_frame_alone(variant: str, both: bool) -> None:
    count = 2 if variant == "paper" else 4
    drawn, partner = (1, 0) if variant == "paper" else (2, 3)
    given = frames(count)
    _, with_it = recorded(model_of("mnist", variant, beta=0.5), given)
    _, without = recorded(model_of("mnist", variant, beta=0.0), given)
    assert (with_it.of(given[:, partner]).grad is not None) == both
    assert without.of(given[:, partner]).grad is None
    one, other = (recorder.of(given[:, drawn]).grad for recorder in (with_it, without))
    assert one is not None
    assert other is not None
    assert not torch.allclose(one, other, rtol=1e-3, atol=0)


def gradient_of_discriminator(model: DrNet) -> Tensor:
    _, loss, metrics = next(model.losses(frames(), 0))
    loss.backward()
    assert float(metrics["discriminator/bce"]) == pytest.approx(math.log(2), abs=0.01)  # told without its weight
    return torch.cat([parameter.grad.flatten() for parameter in model.discriminator.parameters()])


def test_beta_weighs_the_discriminators_own_loss_in_the_paper_and_not_in_the_code() -> None:
    weighed = gradient_of_discriminator(model_of("mnist", "paper"))
    plain = gradient_of_discriminator(model_of("mnist", "paper", discriminator_beta=False))
    assert torch.allclose(weighed, 0.1 * plain, rtol=1e-4)
    assert not settings("mnist", "authors")["discriminator_beta"]
    without = gradient_of_discriminator(model_of("mnist", "paper", beta=0.0))
    assert torch.equal(without, plain)  # it then only measures


def test_adam_is_nearly_blind_to_that_weight() -> None:
    after = []
    for weighed in (True, False):
        model = model_of("mnist", "paper", discriminator_beta=weighed, initialisation="torch")
        before = [parameter.detach().clone() for parameter in model.discriminator.parameters()]
        trainer = Trainer(model, TrainConfig(), torch.device("cpu"))
        for _ in range(3):
            trainer.train_step(frames())
        moves = [now.detach() - then for now, then in zip(model.discriminator.parameters(), before, strict=True)]
        after.append(torch.cat([move.flatten() for move in moves]))
    assert float((after[0] - after[1]).abs().mean() / after[1].abs().mean()) < 0.02


class Asked(nn.Module):
    """Stands for the discriminator: keeps the pairs that it is asked about and answers with a number of its own."""

    def __init__(self, logit: float) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(logit))
        self.pairs: list[tuple[Tensor, Tensor]] = []

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        self.pairs.append((first, second))
        return self.logit.expand(len(first))


def negatives_of(variant: str, step: int, batch: int = 6) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return the places of the pairs of one clip, and of those of different clips, of a step."""
    model = model_of("mnist", variant, skips=False)
    poses = torch.eye(batch)  # pose p of place p: both frames of a clip have the same
    model.discriminator = Asked(0.0)  # type: ignore[assignment]
    model._discriminator_loss(poses, poses, step, None)
    same, other = (
        [(int(a.argmax()), int(b.argmax())) for a, b in zip(first, second, strict=True)]
        for first, second in model.discriminator.pairs
    )
    return same, other


def test_the_papers_negatives_are_the_whole_batch_shifted_and_never_false() -> None:
    same, other = negatives_of("paper", 0)
    assert same == [(place, place) for place in range(6)]
    assert other == [(place, (place - 1) % 6) for place in range(6)]


def test_the_authors_negatives_are_half_a_batch_permuted_and_sometimes_false() -> None:
    false = 0
    for step in range(40):
        same, other = negatives_of("authors", step)
        assert same == [(3, 3), (4, 4), (5, 5)]
        assert sorted(second for _, second in other) == [first for first, _ in other] == [0, 1, 2]
        false += sum(first == second for first, second in other)
    assert false / 40 == pytest.approx(1, abs=0.5)  # one fixed point on average


@pytest.mark.parametrize(("variant", "sign"), [("paper", 1), ("authors", -1)])
def test_the_authors_label_different_clips_1_which_the_adversary_cannot_tell(variant: str, sign: int) -> None:
    model = model_of("mnist", variant, skips=False)
    losses = {}
    for logit in (-3.0, 3.0):
        model.discriminator = Asked(logit)  # type: ignore[assignment]
        one = torch.ones(6, 5)
        _, _, metrics = model._discriminator_loss(one, one, 0, None)
        assert float(metrics["discriminator/accuracy"]) == 0.5
        losses[logit] = float(model._confusion(one, one))
    assert losses[3.0] == pytest.approx(losses[-3.0])  # Eq. 4 aims at 1/2
    informed = nn.Module()
    informed.forward = lambda first, second: sign * (8 * (first == second).all(1).float() - 4)  # type: ignore[method-assign]
    model.discriminator = informed  # type: ignore[assignment]
    step = next(n for n in range(99) if variant == "paper" or not any(a == b for a, b in negatives_of(variant, n)[1]))
    _, loss, metrics = model._discriminator_loss(torch.eye(6), torch.eye(6), step, None)
    assert float(metrics["discriminator/accuracy"]) == 1
    weight = 0.1 if variant == "paper" else 1
    assert loss.item() == pytest.approx(weight * math.log1p(math.exp(-4)), rel=1e-4)


def test_negatives_of_other_content_need_keys_and_leave_out_who_finds_none() -> None:
    model = model_of("mnist", "paper", negatives="other-content", discriminator_beta=False)
    poses = torch.eye(6)
    with pytest.raises(ValueError, match="negatives 'other-content' are not allowed without content keys; "):
        model._discriminator_loss(poses, poses, 0, None)
    model.discriminator = Asked(1.0)  # type: ignore[assignment]
    keys = torch.tensor([7, 7, 7, 9, 9, 9])
    _, loss, metrics = model._discriminator_loss(poses, poses, 0, keys)
    assert float(metrics["discriminator/same_content"]) == 0
    assert loss.item() == pytest.approx(0.5 * (math.log1p(math.exp(-1)) + math.log1p(math.exp(1))), rel=1e-5)
    _, loss, metrics = model._discriminator_loss(poses, poses, 0, torch.zeros(6, dtype=torch.int64))
    assert loss.item() == pytest.approx(0.5 * math.log1p(math.exp(-1)), rel=1e-5)  # no negative at all
    shift = model_of("mnist", "paper")
    _, _, metrics = shift._discriminator_loss(torch.rand(6, 5), torch.rand(6, 5), 0, keys)
    assert float(metrics["discriminator/same_content"]) == pytest.approx(4 / 6)  # told where keys are known


def test_keys_reach_the_model_through_the_trainer() -> None:
    trainer = Trainer(model_of("mnist", "paper", negatives="other-content"), TrainConfig(), torch.device("cpu"))
    trainer.train_step(frames(), torch.tensor([0, 0, 1, 1, 2, 2]))
    assert trainer.take_metrics()["discriminator/same_content"] == 0


def test_of_four_frames_the_first_gives_the_content_and_the_third_is_drawn() -> None:
    model, given = model_of("mnist", "authors", skips=False, alpha=0.5, beta=0.25), frames(4)
    found = {name: (loss, metrics) for name, loss, metrics in model.losses(given, 0)}
    content, target, drawn, partner = given.unbind(1)
    with torch.no_grad():
        h_content, h_target = model.content_encoder(content), model.content_encoder(target)
        h_drawn, h_partner = model.pose_encoder(drawn), model.pose_encoder(partner)
        reconstruction = (model.decoder(h_content, h_drawn) - drawn).square().mean()
        similarity = (h_content - h_target).square().mean()
        logit = model.discriminator(h_partner, h_drawn)
        adversarial = 0.5 * (nn.functional.softplus(logit) + nn.functional.softplus(-logit)).mean()
    assert found["main"][0].item() == pytest.approx(
        float(reconstruction + 0.5 * similarity + 0.25 * adversarial), rel=1e-5
    )
    model.pose_encoder = Recorder(model.pose_encoder)  # type: ignore[assignment]
    asked = Asked(0.0)
    model.discriminator = asked  # type: ignore[assignment]
    next(model.losses(given, 0))
    (first, second), _ = asked.pairs  # the discriminator learns from the first two frames
    assert torch.equal(first, model.pose_encoder.of(content)[3:])
    assert torch.equal(second, model.pose_encoder.of(target)[3:])


def test_frames_and_distances_are_each_variants_own() -> None:
    assert [settings(name, "paper")["frames"] for name in PAPER] == ["pair"] * 5
    assert [settings(name, "paper")["max_offset"] for name in PAPER] == [11, 17, 35, 11, 11]
    assert [settings(name, "authors")["frames"] for name in PAPER] == ["window"] * 3 + ["clip"] * 2
    assert {settings(name, "authors")["max_offset"] for name in PAPER} == {11}  # the Lua code's clips of 12


def test_adams_beta1_beta_and_what_both_agree_on() -> None:
    for name in PAPER:
        paper, authors = settings(name, "paper"), settings(name, "authors")
        assert (paper["adam_beta1"], authors["adam_beta1"]) == (0.9, 0.5)
        assert paper["beta"] == (0.0001 if name.startswith("kth") else 0.1)
        assert authors["beta"] == 0.0001
        for chosen in (paper, authors):
            assert (chosen["lr"], chosen["batch_size"], chosen["horizon"], chosen["alpha"]) == (0.002, 100, 120_000, 1)
    trainer = Trainer(model_of("mnist", "authors"), TrainConfig(adam_beta1=0.5), torch.device("cpu"))
    assert {optimizer.defaults["betas"] for optimizer in trainer.optimizers.values()} == {(0.5, 0.999)}


@pytest.mark.parametrize("name", ["mnist", "norb", "kth"])
def test_the_last_layer_is_the_unit_norm_or_batchnorm_and_tanh(name: str) -> None:
    given = torch.rand(16, 1, 32, 32)
    with torch.no_grad():
        for vectors in model_of(name, "paper").encode(given):
            assert torch.allclose(vectors.norm(dim=1), torch.ones(16), atol=1e-5)
        for vectors in model_of(name, "authors").encode(given):
            assert float(vectors.abs().max()) < 1
            assert torch.allclose(torch.atanh(vectors).mean(0), torch.zeros(vectors.shape[1]), atol=1e-3)


def test_skips_are_kths_alone_in_the_paper_and_every_dcgans_in_the_code() -> None:
    assert [settings(name, "paper")["skips"] for name in PAPER] == [False, False, False, True, True]
    assert [settings(name, "authors")["skips"] for name in PAPER] == [True, False, False, True, True]


def spreads(model: DrNet) -> dict[str, float]:
    """Standard deviation of the weights of each large convolution, by name."""
    return {
        name: float(part.weight.detach().std())
        for name, part in model.named_modules()
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d) and part.weight.numel() > 4000
    }


@pytest.mark.parametrize("name", ["norb", "kth"])
def test_weights_are_drawn_by_fan_out_in_the_paper_and_from_one_spread_in_the_code(name: str) -> None:
    model = model_of(name, "paper", width=16)
    modules = dict(model.named_modules())
    for part, spread in spreads(model).items():
        own = ".last" not in part and (".features." in part or ".stages." in part)
        weight = modules[part].weight
        expected = (2 / (weight.shape[0] * weight.shape[2] * weight.shape[3])) ** 0.5
        if own and (part.startswith(("pose", "content")) or name == "kth"):
            assert spread == pytest.approx(expected, rel=0.1), part
        else:
            assert spread == pytest.approx(0.02, rel=0.1), part
    assert all(
        spread == pytest.approx(0.02, rel=0.1) for spread in spreads(model_of(name, "authors", width=16)).values()
    )


def test_the_weights_of_dcgan_networks_are_the_same_in_both() -> None:
    one, other = model_of("mnist", "paper"), model_of("mnist", "paper", initialisation="dcgan")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert all(spread == pytest.approx(0.02, rel=0.1) for spread in spreads(one).values())


@pytest.mark.parametrize(("variant", "stages"), [("paper", 4), ("authors", 5)])
def test_resnet_at_128_has_a_fifth_stage_in_the_code_alone(variant: str, stages: int) -> None:
    chosen = {key: value for key, value in settings("kth", variant).items() if key in FIELDS}
    with torch.device("meta"):
        model = DrNet(DrNetConfig(**chosen))
        pose = model.pose_encoder(torch.empty(2, 1, 128, 128))
        small = DrNet(dataclasses.replace(model.config, size=64))
    assert len(model.pose_encoder.features) == 4 + 2 * stages
    assert len(small.pose_encoder.features) == 4 + 2 * 4
    assert pose.shape == (2, 5)


def test_the_discriminator_has_two_hidden_layers_of_100_relus_in_both() -> None:
    for variant in ("paper", "authors"):
        layers = list(model_of("kth-actions", variant).discriminator.layers)
        assert [type(layer) for layer in layers] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
        assert [(layer.in_features, layer.out_features) for layer in layers[::2]] == [(48, 100), (100, 100), (100, 1)]
