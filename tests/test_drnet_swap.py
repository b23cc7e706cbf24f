"""Swaps: the content of one frame in the pose of another."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from drnet.model import DrNet, DrNetConfig
from drnet.swap import swap


def readable() -> Any:
    """A model whose content is a frame's first pixel, whose pose is its last one, and whose frames show both sums."""
    return SimpleNamespace(
        config=SimpleNamespace(pose_dim=3),
        content_encoder=lambda frames: frames[..., 0, 0],
        pose_encoder=lambda frames: frames[..., -1, -1],
        decode=lambda content, pose: (content + 100 * pose)[:, :, None, None].expand(-1, -1, 2, 2),
    )


def frames(*shape: int) -> Tensor:
    return torch.rand(*shape, 3, 4, 4, generator=torch.Generator().manual_seed(len(shape)))


def shown(content: Tensor, pose: Tensor) -> Tensor:
    return (content[:, 0, 0] + 100 * pose[:, -1, -1])[:, None, None].expand(-1, 2, 2)


def test_each_cell_has_its_rows_content_and_its_columns_pose() -> None:
    contents, poses = frames(2), frames(3)
    grid = swap(readable(), contents, poses)
    assert grid.shape == (2, 3, 3, 2, 2)
    for row in range(2):
        for column in range(3):
            assert torch.equal(grid[row, column], shown(contents[row], poses[column]))


def test_each_row_may_have_poses_of_its_own() -> None:
    contents, poses = frames(2), frames(2, 4)
    grid = swap(readable(), contents, poses)
    assert grid.shape == (2, 4, 3, 2, 2)
    for row in range(2):
        for column in range(4):
            assert torch.equal(grid[row, column], shown(contents[row], poses[row, column]))


def test_a_frame_swapped_with_itself_is_its_reconstruction() -> None:
    torch.manual_seed(0)
    config = DrNetConfig(size=32, width=4, content_dim=6, pose_dim=3, initialisation="torch")
    net, batch = DrNet(config).eval(), torch.rand(3, 3, 32, 32)
    grid = swap(net, batch, batch)
    with torch.no_grad():
        drawn = net.decode(*net.encode(batch))
    assert torch.allclose(grid[range(3), range(3)], drawn, atol=1e-6)
    assert not grid.requires_grad
