"""Probes: how well a vector tells a label, on clips the probe has not seen.

A probe standardises its input by the training rows; it is linear (ridge regression for numbers, logistic regression for
categories) or a multilayer perceptron of 256 hidden units, stopped early on a tenth of the training rows.
Axes: R rows, D numbers in a vector, L labels.
"""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from torch import nn
from torch.nn import functional as F

HIDDEN = 256
EPOCHS = 60
PATIENCE = 6
BATCH = 512

Floats = NDArray[np.float32]


def standardise(train: Floats, test: Floats) -> tuple[Floats, Floats]:
    """Scale each column to mean 0 and variance 1 over the training rows."""
    mean, spread = train.mean(0), train.std(0)
    spread = np.where(spread > 1e-12, spread, 1)
    return ((train - mean) / spread).astype(np.float32), ((test - mean) / spread).astype(np.float32)


def r2(truth: NDArray[np.floating], predicted: NDArray[np.floating]) -> NDArray[np.float64]:
    """Coefficient of determination of each column: 1 is perfect, 0 is no better than the mean. (R, L) -> (L,)."""
    residual = np.square(truth - predicted).sum(0, dtype=np.float64)
    total = np.square(truth - truth.mean(0)).sum(0, dtype=np.float64)
    return 1 - residual / np.maximum(total, 1e-12)


def ridge(train: Floats, targets: Floats, test: Floats) -> Floats:
    """Ridge regression with penalty 1. Inputs standardised; (R, D), (R, L), (R', D) -> (R', L)."""
    return np.asarray(Ridge(alpha=1.0).fit(train, targets).predict(test), np.float32).reshape(len(test), -1)


def logistic(train: Floats, classes: NDArray[np.int64], test: Floats) -> NDArray[np.int64]:
    """Multinomial logistic regression. Inputs standardised; (R, D), (R,), (R', D) -> (R',) classes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a few hundred iterations are enough for a probe
        return np.asarray(LogisticRegression(max_iter=300).fit(train, classes).predict(test), np.int64)


def mlp(train: Floats, targets: NDArray, test: Floats, seed: int, groups: NDArray[np.int64]) -> NDArray:
    """Multilayer perceptron of 256 hidden units, Adam, early stopping on the rows of a tenth of the groups.

    Args:
        train: (R, D) standardised. test: (R', D).
        targets: (R,) integer classes, or (R, L) numbers.
        seed: of the weights, the batches and the validation groups.
        groups: (R,) the clip each row is from, so that no clip is on both sides.

    Returns:
        (R',) classes or (R', L) numbers.
    """
    category = targets.ndim == 1
    generator = torch.Generator().manual_seed(seed)
    clips = np.unique(groups)
    chosen = clips[torch.randperm(len(clips), generator=generator).numpy()[: max(1, len(clips) // 10)]]
    held = np.isin(groups, chosen) if len(clips) > 1 else np.zeros(len(groups), bool)
    x, y = torch.from_numpy(train), torch.from_numpy(targets if category else targets.astype(np.float32))
    scale = (y.mean(0), y.std(0).clamp_min(1e-6)) if not category else None
    if scale:
        y = (y - scale[0]) / scale[1]
    outputs = int(y.max()) + 1 if category else y.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(x.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, outputs))
    _fit(net, x[~held], y[~held], x[held], y[held], F.cross_entropy if category else F.mse_loss, generator)
    with torch.no_grad():
        result = net(torch.from_numpy(test))
    if scale:
        return (result * scale[1] + scale[0]).numpy()
    return result.argmax(1).numpy()


def _fit(net: nn.Module, x, y, x_held, y_held, loss_of, generator: torch.Generator) -> None:  # type: ignore[no-untyped-def]
    """Train until the held-out loss has not improved for `PATIENCE` epochs; the best weights stay."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=1e-5)
    best, best_loss, waited = {k: v.clone() for k, v in net.state_dict().items()}, float("inf"), 0
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x), generator=generator).split(BATCH):
            optimizer.zero_grad(set_to_none=True)
            loss_of(net(x[rows]), y[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            loss = float(loss_of(net(x_held), y_held)) if len(x_held) else 0.0
        if loss < best_loss:
            best, best_loss, waited = {k: v.clone() for k, v in net.state_dict().items()}, loss, 0
        else:
            waited += 1
        if waited >= PATIENCE:
            break
    net.load_state_dict(best)
