"""Poses on the straight line between two, and the frames decoded from them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from drnet.interpolate import between, interpolate
from drnet.model import DrNet, DrNetConfig


def unit(seed: int, count: int = 3, dim: int = 4) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 9), st.booleans())
def test_the_ends_are_the_poses_themselves_and_all_have_their_norm(seed: int, steps: int, unit_norm: bool) -> None:
    first, second = unit(seed), unit(seed + 1)
    poses = between(first, second, steps, unit_norm)
    assert poses.shape == (3, steps, 4)
    torch.testing.assert_close(poses[:, 0], first)
    torch.testing.assert_close(poses[:, -1], second)
    if unit_norm:
        torch.testing.assert_close(poses.norm(dim=2), torch.ones(3, steps))
    else:
        torch.testing.assert_close(poses.mean(1), (first + second) / 2)


def test_opposite_poses_give_no_nan() -> None:
    first = unit(0)
    assert torch.isfinite(between(first, -first, 3, True)).all()


def test_one_step_is_refused() -> None:
    with pytest.raises(ValueError, match="1 steps are not allowed; the two ends are 2"):
        between(unit(0), unit(1), 1, True)


@pytest.mark.parametrize("skips", [False, True])
def test_the_ends_are_decoded_from_the_two_poses_and_the_content_of_the_first(skips: bool) -> None:
    torch.manual_seed(0)
    model = DrNet(DrNetConfig(size=32, width=4, skips=skips, initialisation="torch")).eval()
    content, first, second = torch.rand(3, 2, 3, 32, 32)
    frames = interpolate(model, content, first, second, 5)
    assert frames.shape == (2, 5, 3, 32, 32)
    with torch.no_grad():
        for step, ending in ((0, first), (4, second)):
            wanted = model.decode(model.content_encoder(content), model.pose_encoder(ending))
            torch.testing.assert_close(frames[:, step], wanted)
