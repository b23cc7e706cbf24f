"""The paper's classifier of features: two fully connected layers, stopped early on rows that are held out.

Denton & Birodkar 2017, Sec. 3.2 and appendix D: "a two layer fully connected network with 256 hidden units" (NORB; 1200
for KTH), "Leaky ReLU's, batch normalization and dropout were used in every layer. We trained with ADAM as used early
stopping on a validation set". The slope, the rates and the batch size are not given.
Axes: R rows, D numbers in a row, K classes.
"""

import copy
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from drnet.settings import check_least
from drnet.trainer import TrainConfig, Trainer, Update

ROWS_AT_ONCE = 8192  # rows told in one go


@dataclass(frozen=True)
class ClassifierConfig:
    """The classifier's size, and how it is trained.

    Attributes:
        hidden: units of a hidden layer: 256 for NORB, 1200 for KTH (appendix D).
        layers: hidden layers before the output. An output layer has no LeakyReLU, so "two layer" with one "in every
            layer" is read as two hidden ones; 1 is the other reading.
        slope: of the LeakyReLU below 0, as in the authors' networks.
        dropout: share of each hidden layer's units that a step leaves out.
        lr: Adam's learning rate.
        batch_size: rows of a step; all of them where there are fewer.
        most_steps: the end, where no early stopping came before.
        check_every: steps between two looks at the held-out rows.
        least: nats by which the loss must have fallen to be worth more patience; without it, rows that are easy to
            part would be trained on to the end.
        patience: looks without such a fall after which training stops; the best weights are kept.
    """

    hidden: int = 256
    layers: int = 2
    slope: float = 0.2
    dropout: float = 0.5
    lr: float = 0.001
    batch_size: int = 128
    most_steps: int = 10_000
    check_every: int = 25
    least: float = 0.002
    patience: int = 20

    def __post_init__(self) -> None:
        check_least(self, dict.fromkeys(("hidden", "layers", "most_steps", "check_every", "patience"), 1))
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout {self.dropout} is not allowed; it must lie in [0, 1)")


class TwoLayerClassifier(nn.Module):
    """Linear, batch normalisation, LeakyReLU and dropout in every hidden layer, and a linear output (Sec. 3.2's S).

    Args:
        inputs: D.
        classes: K.
        config: the size.
    """

    def __init__(self, inputs: int, classes: int, config: ClassifierConfig) -> None:
        super().__init__()
        sizes = [inputs] + [config.hidden] * config.layers
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes):
            layers += [nn.Linear(before, after), nn.BatchNorm1d(after)]
            layers += [nn.LeakyReLU(config.slope), nn.Dropout(config.dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], classes))

    def forward(self, vectors: Tensor) -> Tensor:
        """Return the classes' logits: (R, D) standardised -> (R, K)."""
        return cast(Tensor, self.layers(vectors))

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters by the name of the loss that updates them."""
        return {"classifier": list(self.parameters())}

    def losses(self, vectors: Tensor, step: int, classes: Tensor) -> Iterator[Update]:
        """Yield the cross entropy of a batch, (R, D) and its classes (R,) int64, at any step."""
        logits = self(vectors)
        loss = F.cross_entropy(logits, classes)
        hits = (logits.detach().argmax(1) == classes).float().mean()
        yield "classifier", loss, {"cross_entropy": loss.detach(), "accuracy": hits}


@dataclass(frozen=True)
class Fitted:
    """A classifier with the weights that did best on the held-out rows.

    Attributes:
        model: in evaluation mode.
        steps: after how many steps it had these weights.
        loss: cross entropy on the held-out rows, in nats.
        accuracy: share of the held-out rows told right.
    """

    model: TwoLayerClassifier
    steps: int
    loss: float
    accuracy: float


def batches(rows: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield row numbers for ever, permutation after permutation, in batches of one size.

    A batch may span two permutations, so none is left with a single row, of which batch normalisation has no variance.
    """
    rest = torch.empty(0, dtype=torch.int64)
    while True:
        while len(rest) < size:
            rest = torch.cat([rest, torch.randperm(rows, generator=generator)])
        yield rest[:size]
        rest = rest[size:]


def fit_classifier(
    train: tuple[NDArray[np.float32], NDArray[np.int64]],
    held_out: tuple[NDArray[np.float32], NDArray[np.int64]],
    classes: int,
    config: ClassifierConfig,
    seed: int,
    device: torch.device,
) -> Fitted:
    """Train a classifier until the held-out loss has not fallen for a while.

    Args:
        train: vectors (R, D), standardised, and their classes (R,) in [0, K).
        held_out: the same, of rows whose groups are not in `train`.
        classes: K.
        config: size and training.
        seed: of the weights, the batches and the dropout.
        device: where to train.

    Raises:
        ValueError: fewer than two rows to train on, or none held out.
    """
    if len(train[0]) < 2 or not len(held_out[0]):
        raise ValueError(
            f"{len(train[0])} rows to train on and {len(held_out[0])} held out are too few; give at least 2 and 1"
        )
    (x, y), held = (tuple(torch.from_numpy(part).to(device) for part in pair) for pair in (train, held_out))
    size = max(2, min(config.batch_size, len(x)))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        model = TwoLayerClassifier(x.shape[1], classes, config)
        plan = TrainConfig(batch_size=size, lr=config.lr, horizon=config.most_steps, seed=seed)
        trainer = Trainer(model, plan, device)
        best = Fitted(model, 0, math.inf, 0.0)
        waited, level = 0, math.inf
        for step, rows in enumerate(batches(len(x), size, torch.Generator().manual_seed(seed)), 1):
            trainer.train_step(x[rows.to(device)], y[rows.to(device)])
            if step % config.check_every and step < config.most_steps:
                continue
            loss, accuracy = score(model, held[0], held[1])
            waited += 1
            if loss < best.loss:
                best = Fitted(copy.deepcopy(model), step, loss, accuracy)
            if loss < level - config.least:
                level, waited = loss, 0
            if waited >= config.patience or step >= config.most_steps:
                break
    best.model.eval()
    return best


@torch.no_grad()
def score(model: TwoLayerClassifier, vectors: Tensor, classes: Tensor) -> tuple[float, float]:
    """Return cross entropy and accuracy on rows (R, D) and their classes (R,), in evaluation mode."""
    logits = _logits(model, vectors)
    loss, hits = F.cross_entropy(logits, classes), (logits.argmax(1) == classes).float().mean()
    return float(loss), float(hits)


@torch.no_grad()
def tell(model: TwoLayerClassifier, vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the class that the model gives each row: (R, D) standardised -> (R,)."""
    device = next(model.parameters()).device
    return _logits(model, torch.from_numpy(vectors).to(device)).argmax(1).cpu().numpy()


def _logits(model: TwoLayerClassifier, vectors: Tensor) -> Tensor:
    model.eval()
    return torch.cat([model(part) for part in vectors.split(ROWS_AT_ONCE)])
