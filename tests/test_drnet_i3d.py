"""I3D: the names and shapes that files of weights have, padding as in the original, and what it takes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from drnet.i3d import I3D, SHORTEST, Unit, padded


def test_parts_are_those_of_the_ports_of_the_authors_weights() -> None:
    state = I3D().state_dict()
    shapes = {
        "Conv3d_1a_7x7.conv3d.weight": (64, 3, 7, 7, 7),
        "Conv3d_2b_1x1.bn.running_var": (64,),
        "Conv3d_2c_3x3.conv3d.weight": (192, 64, 3, 3, 3),
        "Mixed_3c.b1b.conv3d.weight": (192, 128, 3, 3, 3),
        "Mixed_4f.b0.conv3d.weight": (256, 528, 1, 1, 1),
        "Mixed_5c.b3b.conv3d.weight": (128, 832, 1, 1, 1),
        "logits.conv3d.weight": (400, 1024, 1, 1, 1),
        "logits.conv3d.bias": (400,),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    assert {name.split(".")[0] for name in state} == {
        "Conv3d_1a_7x7",
        "Conv3d_2b_1x1",
        "Conv3d_2c_3x3",
        *(f"Mixed_3{letter}" for letter in "bc"),
        *(f"Mixed_4{letter}" for letter in "bcdef"),
        *(f"Mixed_5{letter}" for letter in "bc"),
        "logits",
    }
    assert sum("conv3d.weight" in name for name in state) == 4 + 9 * 6


@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 3))
def test_windows_fit_the_padded_axis_as_often_as_the_stride_says(length: int, kernel: int, stride: int) -> None:
    maps = torch.ones(1, 1, length, 1, 1)
    found = padded(maps, (kernel, 1, 1), (stride, 1, 1))[0, 0, :, 0, 0]
    windows = found.unfold(0, kernel, stride)
    assert len(windows) == -(-length // stride)
    inside = torch.nonzero(found)[:, 0]
    before, after = int(inside[0]), len(found) - 1 - int(inside[-1])
    assert len(inside) == length
    assert after - before in (0, 1)
    if before + after:
        assert len(windows) == (length + before + after - kernel) // stride + 1
        assert (length + before + after - 1 - kernel) // stride + 1 < len(windows)  # not a zero more than needed


def test_a_unit_normalises_as_its_statistics_say() -> None:
    unit = Unit(2, 3, (3, 3, 3), (2, 2, 2)).eval()
    for name, value in unit.bn.named_buffers():
        if value.is_floating_point():
            value.copy_(torch.rand(3) + ("var" in name))
    maps = torch.randn(1, 2, 5, 6, 7)
    convolved = F.conv3d(F.pad(maps, (1, 1, 0, 1, 1, 1)), unit.conv3d.weight, stride=2)
    mean, variance = (t[:, None, None, None] for t in (unit.bn.running_mean, unit.bn.running_var))
    with torch.no_grad():
        torch.testing.assert_close(unit(maps), ((convolved - mean) / (variance + 1e-3).sqrt()).relu())


def test_nine_frames_are_the_fewest() -> None:
    network = I3D().eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, SHORTEST, 224, 224)).shape == (1, 400)
        with pytest.raises(RuntimeError):
            network(torch.zeros(1, 3, SHORTEST - 1, 224, 224))
