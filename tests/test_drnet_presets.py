"""The table of presets: the paper's settings under its names, and every row usable."""

import dataclasses

import pytest
import torch

from drnet.model import DrNet
from drnet.presets import PRESETS, preset


def test_mnist_is_the_papers_setting() -> None:
    chosen = preset("mnist")
    assert (chosen.model.content_dim, chosen.model.pose_dim) == (128, 5)
    assert (chosen.model.alpha, chosen.model.beta) == (1.0, 0.1)
    assert (chosen.train.lr, chosen.train.schedule) == (0.002, "constant")
    assert chosen.sizes == (64,)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_builds_a_model_for_each_of_its_sizes(name: str) -> None:
    chosen = preset(name)
    assert chosen.sizes
    for size in chosen.sizes:
        with torch.device("meta"):
            model = DrNet(dataclasses.replace(chosen.model, size=size))
            content, pose = model.encode(torch.empty(2, 3, size, size))
        assert content.shape == (2, chosen.model.content_dim)
        assert pose.shape == (2, chosen.model.pose_dim)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_in_one_line_what_it_is_and_what_it_must_reproduce(name: str) -> None:
    chosen = preset(name)
    for text in (chosen.title, chosen.reproduces):
        assert text
        assert "\n" not in text


@pytest.mark.parametrize("name", PRESETS)
def test_a_presets_schedules_end_before_its_horizon(name: str) -> None:
    chosen = preset(name)
    assert chosen.train.warmup < chosen.train.horizon
    assert max(chosen.model.alpha_warmup, chosen.model.beta_warmup) <= chosen.train.horizon


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="preset 'mnits' is not known; there are mnist, ") as raised:
        preset("mnits")
    assert all(name in str(raised.value) for name in PRESETS)
    assert "\n" not in str(raised.value)
