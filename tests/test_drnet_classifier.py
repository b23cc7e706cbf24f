"""The two-layer classifier: its shape by hand, what it learns, and when it stops."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from drnet.classifier import ClassifierConfig, Fitted, TwoLayerClassifier, batches, fit_classifier, score, tell

CPU = torch.device("cpu")
SMALL = ClassifierConfig(hidden=32, dropout=0.2, most_steps=160, check_every=10, patience=5, least=0.0, batch_size=64)
Rows = tuple[NDArray[np.float32], NDArray[np.int64]]


def corners(rows: int, seed: int) -> Rows:
    """Return points around the four corners of a square, with the same class for opposite ones: no line parts them."""
    draw = np.random.default_rng(seed)
    signs = draw.choice([-1.0, 1.0], (rows, 2))
    x = signs + 0.2 * draw.normal(size=(rows, 2))
    return x.astype(np.float32), (signs.prod(1) > 0).astype(np.int64)


def noise(rows: int, seed: int, classes: int = 4) -> Rows:
    draw = np.random.default_rng(seed)
    return draw.normal(size=(rows, 8)).astype(np.float32), draw.integers(0, classes, rows)


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    return fit_classifier(corners(300, 0), corners(100, 1), 2, SMALL, 0, CPU)


def test_the_parameters_are_those_of_the_papers_kth_classifier() -> None:
    model = TwoLayerClassifier(24 * 24, 6, ClassifierConfig(hidden=1200))
    first, second, last = 576 * 1200 + 1200, 1200 * 1200 + 1200, 1200 * 6 + 6
    assert sum(p.numel() for p in model.parameters()) == first + second + last + 2 * 2 * 1200
    assert model(torch.zeros(3, 576)).shape == (3, 6)


@pytest.mark.parametrize("layers", [1, 2])
def test_every_hidden_layer_is_normalised_leaky_and_dropped_out(layers: int) -> None:
    model = TwoLayerClassifier(5, 3, ClassifierConfig(hidden=7, layers=layers, slope=0.1, dropout=0.4))
    kinds = [type(layer) for layer in model.layers]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.LeakyReLU, nn.Dropout] * layers + [nn.Linear]
    assert {layer.negative_slope for layer in model.layers if isinstance(layer, nn.LeakyReLU)} == {0.1}
    assert {layer.p for layer in model.layers if isinstance(layer, nn.Dropout)} == {0.4}


def test_its_loss_is_the_cross_entropy_and_reaches_the_first_and_the_last_layer() -> None:
    torch.manual_seed(0)
    model = TwoLayerClassifier(8, 4, ClassifierConfig(hidden=16, dropout=0.0))
    x, y = (torch.from_numpy(part) for part in noise(32, 0))
    ((name, loss, metrics),) = model.losses(x, 0, y)
    chances = model(x).softmax(1)[torch.arange(32), y]
    assert loss.item() == pytest.approx(-chances.log().mean().item(), rel=1e-5)
    assert metrics["accuracy"].item() == (model(x).argmax(1) == y).float().mean().item()
    assert not metrics["cross_entropy"].requires_grad
    loss.backward()  # type: ignore[no-untyped-call]
    assert set(model.groups()) == {name}
    assert len(model.groups()[name]) == len(list(model.parameters())) == 10
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in (model.layers[0].weight, model.layers[-1].bias))


def test_it_learns_what_no_line_can_part(fitted: Fitted) -> None:
    x, y = corners(400, 2)
    assert (tell(fitted.model, x) == y).mean() > 0.97
    assert fitted.accuracy > 0.95


def test_noise_is_told_at_chance_and_training_stops_early() -> None:
    found = fit_classifier(noise(200, 0), noise(100, 1), 4, SMALL, 0, CPU)
    x, y = noise(1000, 2)
    assert abs((tell(found.model, x) == y).mean() - 0.25) < 0.06
    assert found.steps + SMALL.patience * SMALL.check_every <= SMALL.most_steps
    assert found.loss < 1.15 * math.log(4)  # later weights, sure of what they learned by heart, are far worse


def test_the_weights_kept_are_those_of_the_lowest_held_out_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, float]] = []

    def record(*arguments: object) -> tuple[float, float]:
        seen.append(score(*arguments))  # type: ignore[arg-type]
        return seen[-1]

    monkeypatch.setattr("drnet.classifier.score", record)
    held = noise(100, 1)
    found = fit_classifier(noise(200, 0), held, 4, SMALL, 0, CPU)
    best = min(range(len(seen)), key=lambda number: seen[number])
    assert (found.loss, found.accuracy) == seen[best]
    assert found.steps == (best + 1) * SMALL.check_every
    assert len(seen) == best + 1 + SMALL.patience
    again = score(found.model, torch.from_numpy(held[0]), torch.from_numpy(held[1]))
    assert again == pytest.approx(seen[best])
    assert not found.model.training


def test_a_loss_that_falls_too_little_is_kept_but_not_waited_for() -> None:
    eager, calm = (
        fit_classifier(corners(300, 0), corners(100, 1), 2, replace(SMALL, patience=2, least=least), 0, CPU)
        for least in (0.0, 0.5)
    )
    assert calm.steps < eager.steps == SMALL.most_steps
    assert calm.steps > SMALL.check_every  # later ones than the last large fall
    assert eager.loss < calm.loss


def test_a_seed_gives_the_same_classifier_and_leaves_other_randomness_alone(fitted: Fitted) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    same, other = (fit_classifier(corners(300, 0), corners(100, 1), 2, SMALL, seed, CPU) for seed in (0, 1))
    assert torch.equal(torch.rand(3), expected)
    ours, theirs = fitted.model.state_dict(), same.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not torch.equal(ours["layers.0.weight"], other.model.state_dict()["layers.0.weight"])


def test_what_a_row_is_told_to_be_does_not_depend_on_the_others(fitted: Fitted) -> None:
    x, _ = corners(50, 3)
    assert tell(fitted.model, x).tolist() == [int(tell(fitted.model, row[None])[0]) for row in x]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 9))
def test_batches_go_through_all_rows_before_any_comes_again(rows: int, size: int, seed: int) -> None:
    drawn = list(itertools.islice(batches(rows, size, torch.Generator().manual_seed(seed)), 3 * rows))
    assert {len(batch) for batch in drawn} == {size}
    flat = torch.cat(drawn)
    for first in range(0, len(flat) - rows + 1, rows):
        assert sorted(flat[first : first + rows].tolist()) == list(range(rows))


@pytest.mark.parametrize(("train", "held"), [(1, 5), (5, 0)])
def test_too_few_rows_are_refused(train: int, held: int) -> None:
    with pytest.raises(ValueError, match=f"{train} rows to train on and {held} held out are too few"):
        fit_classifier(noise(train, 0), noise(held, 1), 4, SMALL, 0, CPU)


def test_two_rows_are_enough_for_a_batch() -> None:
    found = fit_classifier(noise(2, 0), noise(5, 1), 4, ClassifierConfig(hidden=4, most_steps=3), 0, CPU)
    assert tell(found.model, noise(3, 2)[0]).shape == (3,)


@pytest.mark.parametrize("wrong", [{"hidden": 0}, {"layers": 0}, {"patience": 0}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="is not allowed; it must"):
        ClassifierConfig(**wrong)  # type: ignore[arg-type]
