"""A trained model for those who only use it: frames as they are kept, one line for what does not fit."""

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from drnet import pretrained as module
from drnet.config import DrNetConfig
from drnet.model import DrNet
from drnet.networks import Content
from drnet.pipelines.loader import to_device
from drnet.presets import PRESETS
from drnet.pretrained import Pretrained, checked_settings, model_of

SMALL = DrNetConfig(size=32, width=3, content_dim=6, pose_dim=2)
SKIPS = DrNetConfig(size=32, width=2, channels=1, content_dim=6, pose_dim=2, skips=True)


def lived_in(config: DrNetConfig) -> DrNet:
    """Return a model whose BatchNorm has seen frames, so that the modes differ."""
    torch.manual_seed(1)
    model = DrNet(config).train()
    frames = torch.rand(8, config.channels, config.size, config.size)
    with torch.no_grad():
        for _ in range(3):
            model.decode(model.content_encoder(frames), model.pose_encoder(frames))
    return model


@pytest.fixture(scope="module")
def small() -> Pretrained:
    return Pretrained(lived_in(SMALL))


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)


def test_bytes_floats_and_arrays_of_the_same_frames_give_the_same_vectors(
    small: Pretrained, frames: np.ndarray
) -> None:
    content, pose = small.encode(frames)
    assert (content.shape, pose.shape, content.dtype, pose.dtype) == ((5, 6), (5, 2), torch.float32, torch.float32)
    same: list[Any] = [
        torch.from_numpy(frames),
        torch.from_numpy(frames).float() / 255,
        frames.astype(np.float64) / 255,
    ]
    readonly = frames.copy()
    readonly.setflags(write=False)
    for other in (*same, readonly, frames[::-1].copy()[::-1], torch.from_numpy(frames).to(torch.float64) / 255):
        again = small.encode(other)
        assert all(torch.allclose(one, two, atol=1e-6) for one, two in zip(again, (content, pose), strict=True))
    halves = small.encode((torch.from_numpy(frames).float() / 255).bfloat16())
    assert all(one.dtype == torch.float32 for one in halves)


def test_vectors_are_those_that_the_model_gives_to_frames_of_the_loader(small: Pretrained, frames: np.ndarray) -> None:
    with torch.no_grad():
        content, pose = small.model.encode(to_device(frames, torch.device("cpu")))
    found = small.encode(frames)
    assert torch.equal(found[0], content)
    assert torch.equal(found[1], pose)


def test_a_frames_vectors_do_not_depend_on_the_other_frames(small: Pretrained, frames: np.ndarray) -> None:
    content, pose = small.encode(frames)
    assert not small.model.training
    for number in range(len(frames)):
        alone = small.encode(frames[number : number + 1])
        assert torch.allclose(alone[0], content[number : number + 1], atol=1e-5)
        assert torch.allclose(alone[1], pose[number : number + 1], atol=1e-5)
    with torch.no_grad():
        training = small.model.train().encode(to_device(frames, torch.device("cpu")))
    small.model.eval()
    assert not torch.allclose(training[0], content, atol=1e-2)  # or the test would say nothing


@given(batch=st.integers(0, 7), at_once=st.integers(1, 4))
def test_any_number_of_frames_is_encoded_and_decoded_in_parts_of_any_size(batch: int, at_once: int) -> None:
    for config in (SMALL, SKIPS):
        model = Pretrained(lived_in(config))
        frames = torch.rand(batch, 32, 32, config.channels)
        whole = model.encode(frames, skips=True)
        back = model.decode(*whole)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "AT_ONCE", at_once)
            content, pose = model.encode(frames, skips=True)
            assert torch.allclose(vectors(content), vectors(whole[0]), atol=1e-5)
            assert torch.allclose(pose, whole[1], atol=1e-5)
            assert torch.allclose(model.decode(content, pose), back, atol=1e-5)
        assert back.shape == frames.shape


def vectors(content: Tensor | Content) -> Tensor:
    return content.vector if isinstance(content, Content) else content


def test_decoded_frames_are_the_models_with_channels_last(small: Pretrained, frames: np.ndarray) -> None:
    content, pose = small.encode(frames)
    back = small.decode(content.double(), pose)
    with torch.no_grad():
        expected = small.model.decode(content, pose)
    assert torch.equal(back, expected.permute(0, 2, 3, 1))
    assert back.is_contiguous()
    assert (float(back.min()) >= 0, float(back.max()) <= 1) == (True, True)
    assert float(back.std()) > 0


def test_a_model_with_skips_decodes_what_it_encoded_with_them() -> None:
    model = Pretrained(lived_in(SKIPS))
    frames = torch.rand(3, 32, 32, 1)
    content, pose = model.encode(frames, skips=True)
    assert isinstance(content, Content)
    with torch.no_grad():
        inside = frames.permute(0, 3, 1, 2)
        expected = model.model.decode(model.model.content_encoder(inside), model.model.pose_encoder(inside))
    assert torch.allclose(model.decode(content, pose), expected.permute(0, 2, 3, 1), atol=1e-6)
    plain, _ = model.encode(frames)
    assert torch.equal(plain, content.vector)
    with pytest.raises(ValueError, match=r"^content vectors alone are not allowed; .*skips=True\)$"):
        model.decode(plain, pose)


def wrong_frames() -> dict[str, tuple[Any, str]]:
    good = torch.zeros(2, 32, 32, 3)
    return {
        "channels first": (
            good.movedim(-1, 1),
            r"frames (2, 3, 32, 32) are not allowed; this model takes (B, 32, 32, 3)",
        ),
        "one frame": (good[0], "frames (32, 32, 3) are not allowed"),
        "another size": (torch.zeros(2, 64, 64, 3), "frames (2, 64, 64, 3) are not allowed"),
        "grey": (good[..., :1], "frames (2, 32, 32, 1) are not allowed"),
        "whole numbers": (good.long(), "frames of torch.int64 are not allowed; give uint8, or floats in [0, 1]"),
        "truths": (good.bool(), "frames of torch.bool are not allowed"),
        "bytes as floats": (good + 255, "frames from 255 to 255 are not allowed; floats lie in [0, 1], or give uint8"),
        "negative": (good - 0.5, "frames from -0.5 to -0.5 are not allowed"),
        "not a number": (good * float("nan"), "frames from nan to nan are not allowed"),
        "one infinite": (np.full((1, 32, 32, 3), np.inf), "frames from inf to inf are not allowed"),
    }


@pytest.mark.parametrize("name", wrong_frames())
def test_frames_that_do_not_fit_are_refused_in_one_line(small: Pretrained, name: str) -> None:
    frames, message = wrong_frames()[name]
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        small.encode(frames)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("content", "pose"), [((3, 6), (2, 2)), ((3, 2), (3, 6)), ((6,), (2,)), ((3, 6), (3, 3))])
def test_vectors_that_do_not_fit_are_refused_in_one_line(
    small: Pretrained, content: tuple[int, ...], pose: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"^content \(.*this model takes \(B, 6\) and \(B, 2\)$"):
        small.decode(torch.zeros(content), torch.zeros(pose))


@pytest.mark.parametrize("name", [name for name, row in PRESETS.items() if isinstance(row.model, DrNetConfig)])
def test_weights_make_the_model_of_every_preset_again(name: str) -> None:
    config = dataclasses.replace(PRESETS[name].model, width=2, size=PRESETS[name].sizes[0])
    model = DrNet(config)
    state, before = model.state_dict(), torch.get_rng_state()
    again = model_of(checked_settings(config.to_json()), state)
    assert torch.equal(torch.get_rng_state(), before)  # nothing was drawn
    assert not again.training
    assert not [name for name, value in again.named_buffers() if value.is_meta]
    found = again.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)
    assert all(parameter.requires_grad for parameter in again.parameters())  # it can be trained on


def test_weights_that_do_not_fit_are_refused_by_the_name_of_the_first() -> None:
    state = DrNet(SMALL).state_dict()
    name = "decoder.layers.0.weight"
    wrong = {
        f"tensor '{name}' is missing": {key: value for key, value in state.items() if key != name},
        "tensor 'more' is not known": state | {"more": torch.zeros(1)},
        f"tensor {name} is torch.float32 (1,), not torch.float32 (8, 12, 4, 4)": state | {name: torch.zeros(1)},
        f"tensor {name} is torch.float16 (8,": state | {name: state[name].half()},
    }
    for message, weights in wrong.items():
        with pytest.raises(ValueError, match=re.escape(message)) as caught:
            model_of(SMALL, weights)
        assert "\n" not in str(caught.value)


def test_a_model_larger_than_its_weights_takes_no_memory() -> None:
    huge = dataclasses.replace(SMALL, width=2**40)
    with pytest.raises(ValueError, match=r"^tensor |^its settings make no model"):
        model_of(huge, DrNet(SMALL).state_dict())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (None, "no JSON object"),
        ([], "no JSON object"),
        ({"wide": 3}, "setting 'wide' is not known"),
        ({"width": "3"}, "width '3' is of another type"),
        ({"width": True}, "width True is of another type"),
        ({"width": 1e3}, "width 1000.0 is of another type"),
        ({"width": 10**30}, "is of another type, or too large"),
        ({"alpha": float("nan")}, "alpha nan is of another type"),
        ({"similarity": ["mean"]}, "similarity ['mean'] is of another type"),
        ({"width": 0}, "width 0 is not allowed"),
        ({"similarity": "most"}, "similarity 'most' is not allowed"),
    ],
)
def test_settings_that_are_not_right_are_refused_by_name(settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        checked_settings(settings)


def test_settings_that_are_missing_take_their_defaults() -> None:
    assert checked_settings({"width": 8, "alpha": 1}) == DrNetConfig(width=8, alpha=1)


def test_a_model_moves_and_says_where_it_is(small: Pretrained) -> None:
    assert small.to("cpu") is small
    assert small.device == torch.device("cpu")
    assert small.config.size == 32
