"""Swap grids and swap errors on held-out clips."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from drnet.datasets.contract import DataError
from drnet.datasets.mnist import BouncingDigits
from drnet.model import DrNet, DrNetConfig
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.looking.swaps import (
    held_out,
    held_out_clips,
    held_out_frames,
    mean_frame,
    save_driven,
    swap_errors,
)
from drnet.pipelines.looking.truth import truth_of
from drnet.pipelines.source import Collection, open_shards

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


class EchoPose(torch.nn.Module):
    """Decodes to the frame that the pose was taken from, whatever the content."""

    def content_encoder(self, frames: Tensor) -> Tensor:
        return frames.flatten(1)

    def pose_encoder(self, frames: Tensor) -> Tensor:
        return frames.flatten(1)

    def decode(self, content: Tensor, pose: Tensor) -> Tensor:
        return pose.reshape(-1, 3, 32, 32)


def test_errors_are_measured_against_the_content_of_one_clip_in_the_pose_of_the_other(collection: Collection) -> None:
    asked: list[tuple[int, int, int]] = []
    drawn = truth_of(collection)
    assert drawn is not None

    def truth(content: int, pose: int, time: int) -> NDArray[np.uint8]:
        asked.append((content, pose, time))
        return drawn(content, pose, time)

    errors = swap_errors(EchoPose(), collection, truth, CPU, pairs=32)  # type: ignore[arg-type]
    assert errors.own_pose == 0  # the truth itself gave the pose
    assert all(content != pose for content, pose, _ in asked)
    frames = [collection.frames(pose)[time] / 255 - drawn(content, pose, time) / 255 for content, pose, time in asked]
    assert errors.other_pose == pytest.approx(float(np.square(frames).mean()), rel=1e-4)
    truths = np.stack([drawn(*which) for which in asked]) / 255
    assert errors.mean_frame == pytest.approx(float(np.square(truths - mean_frame(collection)).mean()), rel=1e-4)
    assert errors == swap_errors(EchoPose(), collection, drawn, CPU, pairs=32)  # type: ignore[arg-type]


def test_one_clip_cannot_be_swapped(collection: Collection) -> None:
    one = Collection([replace(collection.places[0], clips=1)], collection.manifest)
    with pytest.raises(DataError, match="1 held-out clip is not enough to swap"):
        swap_errors(EchoPose(), one, lambda *which: one.frames(0)[0], CPU)  # type: ignore[arg-type]


def test_the_mean_frame_is_the_mean_of_all_frames(collection: Collection) -> None:
    frames = np.concatenate([collection.frames(number) for number in range(len(collection))])
    np.testing.assert_allclose(mean_frame(collection), frames.mean(0) / 255, atol=1e-6)


def test_an_animation_has_a_picture_for_every_frame_of_the_driver(
    collection: Collection, model: DrNet, tmp_path: Path
) -> None:
    save_driven(tmp_path / "driven.gif", model, collection, CPU, rows=2)
    with Image.open(tmp_path / "driven.gif") as image:
        assert image.n_frames == 6  # type: ignore[attr-defined]


def test_the_truth_below_a_driven_clip_is_its_own_content_in_the_drivers_pose(
    collection: Collection, model: DrNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int, int]] = []
    drawn = truth_of(collection)
    assert drawn is not None
    monkeypatch.setattr("drnet.pipelines.looking.swaps.truth_of", lambda clips: lambda *w: asked.append(w) or drawn(*w))
    save_driven(tmp_path / "driven.gif", model, collection, CPU, rows=2)
    assert asked == [(clip, 0, time) for time in range(6) for clip in (1, 2)]


def test_without_the_test_shards_pictures_show_training_clips(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "data")
    for path in (tmp_path / "data").glob("test-*"):
        path.unlink()
    training = open_shards(tmp_path / "data")
    np.testing.assert_array_equal(held_out_frames(tmp_path / "data", training).content[0], training.frames(0)[0])
    test = open_shards(folder, ["test"])
    np.testing.assert_array_equal(held_out_frames(folder, training).content[0], test.frames(0)[0])
