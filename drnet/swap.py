"""Swap content and pose between frames: the grids of Fig. 3 to 5.

Axes: R rows (content), K columns (pose), C channels, H height, W width; frames are float32 in [0, 1].
"""

import torch
from torch import Tensor

from drnet.model import DrNet


@torch.no_grad()
def swap(model: DrNet, content_frames: Tensor, pose_frames: Tensor) -> Tensor:
    """Decode the content of each row's frame in the pose of each column's frame.

    Args:
        model: in evaluation mode.
        content_frames: (R, C, H, W).
        pose_frames: (K, C, H, W), or (R, K, C, H, W) where each row has its own.

    Returns:
        (R, K, C, H, W) float32.
    """
    rows = len(content_frames)
    columns = pose_frames.shape[-4]
    content = model.content_encoder(content_frames)  # (R, content_dim)
    pose = model.pose_encoder(pose_frames.reshape(-1, *pose_frames.shape[-3:])).reshape(
        -1, columns, model.config.pose_dim
    )
    pose = pose.expand(rows, -1, -1).reshape(rows * columns, -1)
    frames = model.decode(content.repeat_interleave(columns, 0), pose)
    return frames.reshape(rows, columns, *frames.shape[1:]).float()
