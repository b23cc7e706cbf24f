"""A scale of a few training steps, for tests that go the true path of `drnet reproduce`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from drnet.pipelines.evaluation import classify, judge
from drnet.pipelines.evaluation.classifier import ClassifierConfig
from drnet.pipelines.evaluation.evaluate import SECTIONS
from drnet.pipelines.reproduction import sources
from drnet.pipelines.reproduction.reproduce import Reproduction, reproduce
from drnet.pipelines.reproduction.scales import SCALES, RunPlan, Scale
from drnet.pipelines.training.loop import Logging

SMALLEST: dict[str, Any] = {"width": 4, "batch_size": 8, "precision": "fp32"}
MINIATURE: dict[str, Any] = {"train": (4, 6), "test": (0,), "elevations": (1,), "lightings": (0,)}
ATOM = replace(
    SCALES["tiny"],
    data={
        "digits": {"clips": 16, "test_clips": 6, "size": 32, "frames": 8},
        "chairs": {"clips": 8, "test_clips": 2, "size": 32},
        "toys": {"size": 32},
        "classes": {"size": 32},
        "kth": {"size": 32},
    },
    runs={
        "digits": RunPlan("mnist-small", 4, SMALLEST, predictor=2),
        "chairs": RunPlan("chairs-small", 3, SMALLEST),
        "turns": RunPlan("chairs-small", 3, SMALLEST),
        "turns-beta0": RunPlan("chairs-small", 3, SMALLEST | {"beta": 0.0}),
    },
    predictor={"hidden": 8, "batch_size": 8, "observe": 5, "predict": 2},
    logging=Logging(2, 2, 4),
    far_digits=33,
    scored=3,
    sections=SECTIONS[:5],
    fits=2,
)


@contextmanager
def miniature(cache: Path) -> Iterator[None]:
    """Make the generated toys fewer, the training of judge and classifiers short, and the cache empty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "MINIATURE", MINIATURE)
        patch.setattr(judge, "ClassifierConfig", lambda: ClassifierConfig(steps=4, batch_size=8, width=4))
        patch.setattr(classify, "ClassifierConfig", partial(classify.ClassifierConfig, most_steps=50, check_every=10))
        patch.setenv("DRNET_CACHE", str(cache))
        yield


def run(out: Path, *ids: str, scale: Scale = ATOM, **more: Any) -> Reproduction:
    """Make experiments."""
    return reproduce(ids, out, scale, device="cpu", workers=1, **more)
