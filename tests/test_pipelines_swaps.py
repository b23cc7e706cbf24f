"""Swap grids and swap errors on held-out clips."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from drnet.datasets.mnist import BouncingDigits
from drnet.model import DrNet, DrNetConfig
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.source import Collection, open_shards
from drnet.pipelines.swaps import held_out, held_out_clips, mean_frame, save_driven, swap_errors
from drnet.pipelines.truth import truth_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("digits") / "data"
    build(plan_build(BouncingDigits("optdigits", clips=6, test_clips=5, frames=6, size=32), "zstd"), out)
    return out


@pytest.fixture(scope="module")
def collection(folder: Path) -> Collection:
    return open_shards(folder, ["test"])


@pytest.fixture(scope="module")
def model() -> DrNet:
    torch.manual_seed(0)
    return DrNet(DrNetConfig(size=32, width=4, initialisation="torch")).eval()


def test_the_test_clips_of_training_shards_are_found(folder: Path) -> None:
    for spec in (folder, folder / "train-000000.tar"):
        clips = held_out_clips(spec, open_shards(spec))
        assert {place.split for place in clips.places} == {"test"}


def test_a_grid_leaves_the_models_mode_and_statistics_as_they_were(collection: Collection, model: DrNet) -> None:
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sheet = held_out(collection, 2, 3).grid(model, CPU)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert sheet.shape[0] > 5 * 32  # a row of poses, and for two contents a swapped and a true row each
    model.eval()


def test_errors_are_those_of_the_frames_drawn(collection: Collection, model: DrNet) -> None:
    truth = truth_of(collection)
    assert truth is not None
    errors = swap_errors(model, collection, truth, CPU, pairs=32)
    assert errors.pairs == 32
    assert errors == swap_errors(model, collection, truth, CPU, pairs=32)
    constant = mean_frame(collection)
    assert constant.shape == (32, 32, 3)
    assert 0 < errors.mean_frame < 0.2
    model_that_draws_black = DrNet(model.config).eval()
    with torch.no_grad():
        model_that_draws_black.decoder.layers[-1].weight.zero_()
        model_that_draws_black.decoder.layers[-1].bias.fill_(-100)
    black = swap_errors(model_that_draws_black, collection, truth, CPU, pairs=32)
    assert black.own_pose == black.other_pose > errors.mean_frame


def test_the_mean_frame_is_the_mean_of_all_frames(collection: Collection) -> None:
    frames = np.concatenate([collection.frames(number) for number in range(len(collection))])
    np.testing.assert_allclose(mean_frame(collection), frames.mean(0) / 255, atol=1e-6)


def test_an_animation_has_a_picture_for_every_frame_of_the_driver(
    collection: Collection, model: DrNet, tmp_path: Path
) -> None:
    save_driven(tmp_path / "driven.gif", model, collection, CPU, rows=2)
    with Image.open(tmp_path / "driven.gif") as image:
        assert image.n_frames == 6  # type: ignore[attr-defined]
