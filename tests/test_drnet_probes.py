"""Probes: they find what is there, and do not find what is not."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from drnet.probes import _fit, logistic, mlp, r2, ridge, standardise


def rows(count: int, seed: int, width: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def test_columns_are_standardised_by_the_training_rows_alone() -> None:
    train, test = 3 + 5 * rows(500, 0), 100 + rows(50, 1)
    train[:, 2] = 7  # a constant column stays finite
    test[:, 2] = 8
    scaled, scaled_test = standardise(train, test)
    assert np.allclose(scaled.mean(0), 0, atol=1e-5)
    assert np.allclose(np.delete(scaled.std(0), 2), 1, atol=1e-5)
    assert np.allclose(scaled_test[:, 0], (test[:, 0] - train[:, 0].mean()) / train[:, 0].std(), rtol=1e-4)
    assert np.isfinite(scaled_test).all()
    assert scaled.dtype == scaled_test.dtype == np.float32


def test_r2_is_1_for_the_truth_0_for_its_mean_and_below_for_worse() -> None:
    truth = rows(100, 0, 3).astype(np.float64)
    assert r2(truth, truth).tolist() == [1, 1, 1]
    assert np.allclose(r2(truth, np.broadcast_to(truth.mean(0), truth.shape)), 0)
    assert (r2(truth, -truth) < -1).all()
    from sklearn.metrics import r2_score

    guess = truth + rows(100, 1, 3)
    assert np.allclose(r2(truth, guess), r2_score(truth, guess, multioutput="raw_values"))


def test_a_linear_probe_finds_linear_numbers_and_an_mlp_curved_ones() -> None:
    x, x_test = rows(1500, 0), rows(300, 1)

    def truth(x: np.ndarray) -> np.ndarray:
        return np.stack([2 * x[:, 0] - x[:, 3] + 5, np.abs(x[:, 1])], 1).astype(np.float32)

    groups = np.arange(len(x))
    linear = r2(truth(x_test), ridge(x, truth(x), x_test))
    strong = r2(truth(x_test), mlp(x, truth(x), x_test, 0, groups))
    assert linear[0] > 0.999
    assert abs(linear[1]) < 0.1
    assert (strong > 0.9).all()


def test_noise_tells_nothing() -> None:
    x, x_test = rows(800, 0), rows(800, 1)
    y, y_test = rows(800, 2, 2), rows(800, 3, 2)
    assert (np.abs(r2(y_test, ridge(x, y, x_test))) < 0.05).all()
    assert (np.abs(r2(y_test, mlp(x, y, x_test, 0, np.arange(800)))) < 0.2).all()
    classes = np.random.default_rng(4).integers(0, 4, 1600)
    for guess in (logistic(x, classes[:800], x_test), mlp(x, classes[:800], x_test, 0, np.arange(800))):
        assert (guess == classes[800:]).mean() == pytest.approx(0.25, abs=0.07)


def test_categories_are_told_linearly_and_by_the_mlp() -> None:
    x, x_test = rows(1500, 0), rows(400, 1)

    def lines(x: np.ndarray) -> np.ndarray:
        return 2 * (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 0)

    def quadrants(x: np.ndarray) -> np.ndarray:
        return ((x[:, 0] > 0) ^ (x[:, 1] > 0)).astype(np.int64)

    assert (logistic(x, lines(x), x_test) == lines(x_test)).mean() > 0.95
    assert (logistic(x, quadrants(x), x_test) == quadrants(x_test)).mean() < 0.65
    assert (mlp(x, quadrants(x), x_test, 0, np.arange(1500)) == quadrants(x_test)).mean() > 0.9


def test_classes_may_have_gaps() -> None:
    x = rows(300, 0)
    classes = np.where(x[:, 0] > 0, 7, 2)
    assert set(logistic(x, classes, x).tolist()) == {2, 7}
    assert set(mlp(x, classes, x, 0, np.arange(300)).tolist()) <= {2, 7}


def test_a_seed_fixes_an_mlp_and_leaves_the_global_generator_alone() -> None:
    import torch

    x, y = rows(200, 0), rows(200, 1, 1)
    torch.manual_seed(5)
    first = mlp(x, y, x, 1, np.arange(200))
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), after)
    assert np.array_equal(first, mlp(x, y, x, 1, np.arange(200)))
    assert not np.array_equal(first, mlp(x, y, x, 2, np.arange(200)))


def test_early_stopping_keeps_the_frames_of_a_clip_together(monkeypatch: pytest.MonkeyPatch) -> None:
    from drnet import probes

    seen = []
    monkeypatch.setattr(probes, "_fit", lambda net, x, y, x_held, y_held, *_: seen.append((x, x_held)))
    groups = np.repeat(np.arange(30), 8)
    x = np.repeat(np.arange(30, dtype=np.float32), 8)[:, None]
    mlp(x, x, x, 0, groups)
    ((fit, held),) = seen
    assert len(held) == 3 * 8
    assert not set(fit[:, 0].tolist()) & set(held[:, 0].tolist())


def test_one_clip_is_enough_to_fit_on() -> None:
    x = rows(20, 0)
    assert np.isfinite(mlp(x, x[:, :1], x, 0, np.zeros(20, np.int64))).all()


def test_the_weights_with_the_least_loss_on_held_out_rows_stay() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(40, 3), torch.randn(40, 1)  # nothing to learn: the held-out loss soon rises
    net, seen = torch.nn.Linear(3, 1), []

    def loss_of(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        loss = F.mse_loss(found, wanted) * (30 if len(found) == 30 else 1)
        if not torch.is_grad_enabled():
            seen.append(float(loss))
        return loss

    _fit(net, x[:30], y[:30], x[30:], y[30:], loss_of, torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert float(loss_of(net(x[30:]), y[30:])) == min(seen)
    assert seen[-2] > min(seen)
