"""A trained DrNet for those who only use it: frames as they are kept go in, vectors come out, and back.

Axes: B batch, H height, W width, C channels (1 grey; 3 red, green, blue), as stored frames have them. The model inside
has (B, C, H, W).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drnet.config import DrNetConfig
from drnet.model import DrNet, vector_of
from drnet.networks import Content

Frames = Tensor | NDArray[Any]
AT_ONCE = 256  # frames in the networks at a time: memory does not grow with B
LARGEST = (1 << 53) - 1  # of a setting


class Pretrained:
    """A trained model in evaluation mode: BatchNorm uses the statistics of training, so a frame's vectors are its own.

    Args:
        model: the networks; to train them further, use `Pretrained.model` itself.
        facts: what the model's `config.json` says: settings, data set, step.

    Attributes:
        model, facts: as given.
        config: the model's settings: `size`, `channels`, `content_dim`, `pose_dim` and more.
    """

    def __init__(self, model: DrNet, facts: Mapping[str, Any] | None = None) -> None:
        self.model, self.facts, self.config = model.eval(), dict(facts or {}), model.config

    @property
    def device(self) -> torch.device:
        """Where the model is, and its results."""
        return next(self.model.parameters()).device

    def to(self, device: str | torch.device) -> "Pretrained":
        """Move the model; returns itself."""
        self.model.to(device)
        return self

    @overload
    def encode(self, frames: Frames, skips: Literal[False] = False) -> tuple[Tensor, Tensor]: ...

    @overload
    def encode(self, frames: Frames, skips: bool) -> tuple[Tensor | Content, Tensor]: ...

    @torch.no_grad()
    def encode(self, frames: Frames, skips: bool = False) -> tuple[Tensor | Content, Tensor]:
        """Return what each frame shows, and how it stands.

        Args:
            frames: (B, H, W, C), H = W = `config.size`, C = `config.channels`: uint8, or floats in [0, 1]; a tensor on
                any device, or an array.
            skips: whether the content of a model with skips is a `Content`, which has their maps beside its vectors:
                what `decode` needs. A model without skips (`config.skips`) returns the vectors in either case.

        Returns:
            Content (B, content_dim) and pose (B, pose_dim), float32, on the model's device.

        Raises:
            ValueError: for frames of another shape, type or range.
        """
        frames = torch.from_numpy(frames.copy()) if isinstance(frames, np.ndarray) else frames
        self._check_shape(frames)
        contents, poses = [], []
        for part in frames.split(AT_ONCE):
            inside = self._inside(part)
            content = self.model.content_encoder(inside)
            contents.append(content if skips else vector_of(content))
            poses.append(self.model.pose_encoder(inside))
        return _joined(contents), torch.cat(poses)

    @torch.no_grad()
    def decode(self, content: Tensor | Content, pose: Tensor) -> Tensor:
        """Return the frames of vectors; content of one frame with pose of another swaps them.

        Args:
            content: (B, content_dim) floats; of a model with skips, what `encode(frames, skips=True)` returned.
            pose: (B, pose_dim) floats.

        Returns:
            Frames (B, H, W, C), float32 in [0, 1], on the model's device.

        Raises:
            ValueError: for vectors of another shape, or without the skips that the model needs.
        """
        if self.config.skips and not isinstance(content, Content):
            raise ValueError("content vectors alone are not allowed; this model takes encode(frames, skips=True)")
        shapes = [tuple(vectors.shape) for vectors in (vector_of(content), pose)]
        expected = [(len(pose), self.config.content_dim), (len(pose), self.config.pose_dim)]
        if shapes != expected:
            found = f"content {shapes[0]} and pose {shapes[1]}"
            raise ValueError(
                f"{found} are not allowed; this model takes (B, {expected[0][1]}) and (B, {expected[1][1]})"
            )
        frames = []
        for first in range(0, len(pose), AT_ONCE):
            part = slice(first, first + AT_ONCE)
            content_here, pose_here = _moved(content[part], self.device), _moved(pose[part], self.device)
            frames.append(self.model.decode(content_here, pose_here))  # (B, C, H, W)
        size, channels = self.config.size, self.config.channels
        if not frames:
            return torch.zeros((0, size, size, channels), device=self.device)
        return torch.cat(frames).movedim(1, -1).contiguous()

    def _check_shape(self, frames: Tensor) -> None:
        shape = (self.config.size, self.config.size, self.config.channels)
        if frames.ndim != 4 or tuple(frames.shape[1:]) != shape:
            height, width, channels = shape
            wanted = f"(B, {height}, {width}, {channels}), height, width and channels last"
            raise ValueError(f"frames {tuple(frames.shape)} are not allowed; this model takes {wanted}")
        if frames.dtype != torch.uint8 and not frames.is_floating_point():
            raise ValueError(f"frames of {frames.dtype} are not allowed; give uint8, or floats in [0, 1]")

    def _inside(self, frames: Tensor) -> Tensor:
        """(B, H, W, C) of any allowed type, anywhere -> (B, C, H, W) float32 in [0, 1] where the model is."""
        moved = frames.to(self.device).movedim(-1, 1)
        if frames.dtype == torch.uint8:
            return moved.float().div(255)
        moved = moved.float()
        if moved.numel() and not bool(((moved >= 0) & (moved <= 1)).all()):  # NaN is in no range
            low, high = (float(value) for value in moved.aminmax())
            raise ValueError(f"frames from {low:g} to {high:g} are not allowed; floats lie in [0, 1], or give uint8")
        return moved


def _joined(contents: Sequence[Tensor | Content]) -> Tensor | Content:
    """Return the contents of parts of a batch as one."""
    vectors = torch.cat([vector_of(content) for content in contents])
    maps = [content.skips for content in contents if isinstance(content, Content)]
    return Content(vectors, tuple(torch.cat(parts) for parts in zip(*maps, strict=True))) if maps else vectors


@overload
def _moved(content: Tensor, device: torch.device) -> Tensor: ...


@overload
def _moved(content: Tensor | Content, device: torch.device) -> Tensor | Content: ...


def _moved(content: Tensor | Content, device: torch.device) -> Tensor | Content:
    """Return float32 vectors, and their skips, on a device."""
    if isinstance(content, Content):
        return Content(_moved(content.vector, device), tuple(_moved(skip, device) for skip in content.skips))
    return content.to(device, torch.float32)


def checked_settings(found: Any) -> DrNetConfig:
    """Return a model's settings from a stranger's JSON; those that a later version added take their defaults.

    Raises:
        ValueError: naming a setting that is not known, of another type or not allowed.
    """
    if not isinstance(found, Mapping):
        raise ValueError("the model's settings are no JSON object")
    defaults = DrNetConfig().to_json()
    if unknown := sorted(found.keys() - defaults.keys()):
        raise ValueError(f"setting {ascii(unknown[0])[:80]} is not known")
    for name, value in found.items():
        kinds = (int, float) if isinstance(defaults[name], float) else (type(defaults[name]),)
        if type(value) not in kinds or (isinstance(value, int | float) and not abs(value) <= LARGEST):
            raise ValueError(f"{name} {ascii(value)[:80]} is of another type, or too large")
    return DrNetConfig(**found)


def model_of(config: DrNetConfig, weights: Mapping[str, Tensor]) -> DrNet:
    """Return the model that weights belong to, in evaluation mode; no memory is taken beyond theirs, nothing is drawn.

    Args:
        config: the model's settings.
        weights: every tensor of `DrNet.state_dict`, and no other; the model holds them themselves, not copies.

    Raises:
        ValueError: naming the first tensor that is missing, not known, or of another shape or type.
    """
    try:
        with torch.device("meta"):
            model = DrNet(config)
    except RuntimeError as error:  # sizes beyond 64 bits
        raise ValueError(f"its settings make no model ({str(error).splitlines()[0][:80]})") from None
    expected = model.state_dict()
    for name in sorted(expected.keys() | weights.keys()):
        if name not in weights or name not in expected:
            raise ValueError(f"tensor {ascii(name)[:80]} is {'not known' if name in weights else 'missing'}")
        wanted, found = expected[name], weights[name]
        if (wanted.shape, wanted.dtype) != (found.shape, found.dtype):
            shapes = f"{found.dtype} {tuple(found.shape)}, not {wanted.dtype} {tuple(wanted.shape)}"
            raise ValueError(f"tensor {name} is {shapes}")
    model.load_state_dict(dict(weights), strict=True, assign=True)
    return model.eval()
