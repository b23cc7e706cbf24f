"""Frames that follow observed ones: the predictor of a run, and its rollouts as pictures.

Axes: B clips, H height, W width, C channels.
"""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drnet.model import DrNet, vector_of
from drnet.pipelines.loader import to_device
from drnet.pipelines.looking.pictures import unit_to_uint8
from drnet.pipelines.run import (
    CONFIG,
    Checkpoint,
    RunError,
    choose_checkpoint,
    latest_checkpoint,
    load_run,
    read_config,
)
from drnet.predictor import PosePredictor

FOLDER = "predictor"  # of a run folder


def load_predictor(run: Path, device: str = "cpu", weights: Checkpoint | None = None) -> PosePredictor:
    """Return the predictor that was trained on some weights of a run, in evaluation mode.

    Args:
        run: the run folder of the DrNet; the predictor is a run in its folder `predictor`.
        device: where it goes.
        weights: the run's checkpoint that was chosen; None: it is always the newest.

    Raises:
        RunError: where there is none, or it was trained on other weights of the run.
    """
    folder = run / FOLDER
    if not (folder / CONFIG).exists() or latest_checkpoint(folder) is None:
        raise RunError(f"{run}: has no predictor yet; train one with `drnet train-predictor {_word(run)} --shards S`")
    check_belongs(run, read_config(folder), weights or choose_checkpoint(run), choosable=weights is not None)
    return cast(PosePredictor, load_run(folder, device, kinds=("predictor",))[0])


def check_belongs(run: Path, config: Mapping[str, Any], weights: Checkpoint, choosable: bool = False) -> None:
    """Raise RunError where a predictor's settings are not those of one trained on some weights of a run.

    Args:
        run: the run folder of the DrNet.
        config: of the predictor.
        weights: of the run.
        choosable: whether other weights of the run can be chosen instead, with `--checkpoint`.
    """
    if config["kind"] != "predictor":
        raise RunError(f"{run / FOLDER}: a run of kind {config['kind']}, and no predictor; move it elsewhere")
    origin = config.get("drnet")
    origin = origin if isinstance(origin, Mapping) else {}
    if origin.get("sha256") == weights.sha256:
        return
    step, newest = origin.get("step", "unknown"), latest_checkpoint(run)
    is_newest = newest is None or newest.sha256 == weights.sha256
    anew = f"train it anew with `drnet train-predictor {_word(run)} --shards S --anew`"
    if choosable and _is_there(run, origin):
        way_out = f"take --checkpoint {step}" + (f", or {anew}" if is_newest else "")
    else:
        way_out = anew + ("" if is_newest else " and take --checkpoint last")
    where = f"which is now at step {weights.step}" if is_newest else f"not of step {weights.step}"
    raise RunError(f"{run / FOLDER}: trained on the run's weights of step {step}, {where}; {way_out}")


def _is_there(run: Path, origin: Mapping[str, Any]) -> bool:
    """Return whether a run still has the weights that a predictor was trained on."""
    try:
        return choose_checkpoint(run, str(origin.get("step"))).sha256 == origin.get("sha256")
    except RunError:
        return False


def _word(path: Path) -> str:
    return shlex.quote(str(path))


@torch.no_grad()
def predicted_frames(
    model: DrNet, predictor: PosePredictor, frames: NDArray[np.uint8], steps: int
) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames that a model expects after observed ones, a step at a time; memory does not grow with the steps.

    Args:
        model: in evaluation mode.
        predictor: of that model.
        frames: (B, observed, H, W, C) uint8, the observed frames, in a row.
        steps: how many to predict.

    Yields:
        (B, H, W, C) uint8, of each step in turn.
    """
    device = predictor.centre.device

    def seen(time: int) -> Tensor:
        frame = to_device(np.array(frames[:, time]), device)  # a copy: clips are read-only
        return frame.contiguous(memory_format=torch.channels_last)

    content = model.content_encoder(seen(-1))  # of the last observed frame, for all steps (Sec. 3.1)
    poses = torch.stack([model.pose_encoder(seen(time)) for time in range(frames.shape[1])], 1)  # (B, observed, P)
    for pose in predictor.rollout(vector_of(content).float(), poses.float(), steps):
        decoded = model.decode(content, pose)  # (B, C, H, W)
        yield unit_to_uint8(decoded.float().movedim(-3, -1).cpu().numpy())
