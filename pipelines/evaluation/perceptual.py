"""LPIPS and FVD: distances in the features of networks whose weights the user brings.

A file of weights is a state dict, `.safetensors` or PyTorch's own format, which is read without running what is in it.
"""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchmetrics
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from drnet.datasets.contract import DataError
from drnet.datasets.reading.source_files import sha256_file
from drnet.i3d import CLASSES, I3D, SHORTEST, SIDE
from drnet.lpips import SMALLEST, Backbone, Lpips
from drnet.pipelines.evaluation.frames import Metric
from drnet.pipelines.files import regular_size
from drnet.pipelines.looking.pictures import Frames
from drnet.trainer import computing

MOST_BYTES = 1 << 30  # of a file of weights: VGG-16 with its classifier takes 528 MiB
LONGEST = 100  # frames of a video for FVD: they are kept until the last one has come
AT_ONCE = 4  # videos of 224x224 in the network
TORCHVISION = "the weights of torchvision's alexnet or vgg16, trained on ImageNet"
KINETICS = "the weights of I3D (RGB, Kinetics-400) as a state dict, such as pytorch-i3d's rgb_imagenet.pt"
WAYS = {"lpips": f"give {TORCHVISION}: --lpips FILE", "fvd": f"give {KINETICS}: --fvd FILE"}
Floats = NDArray[np.float64]


def read_state(path: Path, wanted: str) -> dict[str, Tensor]:
    """Return the tensors of a file by name.

    Args:
        path: `.safetensors`, or what `torch.save` made of a state dict.
        wanted: what it should be, for the message.

    Raises:
        DataError: where it is no such file.
    """
    try:
        size = max(regular_size(path), unpacked_size(path))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; give {wanted}") from None
    if size > MOST_BYTES:
        raise DataError(f"{path}: {size:,} bytes, more than the {MOST_BYTES:,} that are read; give {wanted}")
    try:
        safe = path.suffix == ".safetensors"
        found = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of the unpickler, which has many; what is in the file is never run
        reason = next(iter(str(error).split("\n")), "")[:120]
        raise DataError(f"{path}: not a state dict ({type(error).__name__}: {reason}); give {wanted}") from None
    inner = found.get("state_dict", found) if isinstance(found, Mapping) else {}
    rows = inner.items() if isinstance(inner, Mapping) else ()
    tensors = {str(name).removeprefix("module."): value for name, value in rows if isinstance(value, Tensor)}
    if not tensors:
        raise DataError(f"{path}: holds no tensors by name; give {wanted}")
    return tensors


def unpacked_size(path: Path) -> int:
    """Return what the members of a ZIP file, which `torch.save` writes, take unpacked; 0 of another file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(member.file_size for member in archive.infolist())
    except zipfile.BadZipFile:
        return 0


def fill(network: torch.nn.Module, state: Mapping[str, Tensor], path: Path, wanted: str) -> None:
    """Load a network's tensors, to the last one; tensors that it does not have are left.

    Raises:
        DataError: where one is missing, of another shape, or not finite.
    """
    own = network.state_dict()
    for name, value in own.items():
        if name.endswith("num_batches_tracked"):  # old files lack these counters, and nothing reads them
            continue
        found = state.get(name)
        if found is None or found.shape != value.shape:
            what = "lacks" if found is None else f"has {tuple(found.shape)} for"
            raise DataError(f"{path}: {what} {name} {tuple(value.shape)}; give {wanted}")
        if not found.isfinite().all():
            raise DataError(f"{path}: {name} has values that are not finite; give {wanted}")
    network.load_state_dict({name: state.get(name, value) for name, value in own.items()})
    network.requires_grad_(False).eval()


def load_lpips(path: Path) -> Lpips:
    """Return LPIPS with a user's backbone: AlexNet or VGG-16, told apart by their first layer.

    Raises:
        DataError: where the file is of neither.
    """
    state = read_state(path, TORCHVISION)
    first = tuple(state["features.0.weight"].shape) if "features.0.weight" in state else ()
    backbones: dict[tuple[int, ...], Backbone] = {(64, 3, 11, 11): "alex", (64, 3, 3, 3): "vgg"}
    if first not in backbones:
        what = f"features.0.weight is {first}" if first else "it has no features.0.weight"
        raise DataError(f"{path}: neither AlexNet nor VGG-16 ({what}); give {TORCHVISION}")
    backbone = backbones[first]
    network = Lpips(backbone)
    fill(network, state | linear_weights(backbone), path, TORCHVISION)
    return network


def linear_weights(backbone: Backbone) -> dict[str, Tensor]:
    """Return the weights of the five linear layers, which torchmetrics ships.

    Raises:
        DataError: where this version of torchmetrics has them elsewhere.
    """
    path = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models" / f"{backbone}.pth"
    if not path.is_file():
        raise DataError(
            f"torchmetrics {torchmetrics.__version__} has no {path.name} of LPIPS; install torchmetrics 1.9"
        )
    found = torch.load(path, map_location="cpu", weights_only=True)
    return {f"linear.{stage}": found[f"lin{stage}.model.1.weight"].flatten() for stage in range(5)}


def load_i3d(path: Path) -> I3D:
    """Return I3D with a user's weights.

    Raises:
        DataError: where the file is of another network.
    """
    network = I3D()
    fill(network, read_state(path, KINETICS), path, KINETICS)
    return network


def frechet(first: Floats, second: Floats) -> float:
    """Return the Fréchet distance of the Gaussians with means and covariances of (N, D) and (M, D), N and M at least 2.

    The trace of the root of the covariances' product is the sum of the singular values of the centred features' own
    product, which needs no root of a matrix that may be singular; of more rows than columns, that of their QR factors.
    """
    parts = [(rows - rows.mean(0)) / np.sqrt(len(rows) - 1) for rows in (first, second)]
    small = [np.asarray(np.linalg.qr(part, mode="r")) for part in parts]
    shared = np.linalg.svd(small[0] @ small[1].T, compute_uv=False).sum()
    spread = sum(float(np.square(part).sum()) for part in parts)
    return max(0.0, float(np.square(first.mean(0) - second.mean(0)).sum()) + spread - 2 * float(shared))


class VideoDistance:
    """Collects predicted frames as they come, and keeps the features of the videos that they make.

    Args:
        network: from `load_i3d`.
        lengths: how many predicted frames make a video; those from 9 to 100 are computed.
        windows: how many there are.
        device: where to compute.
    """

    def __init__(self, network: I3D, lengths: Sequence[int], windows: int, device: torch.device) -> None:
        self.network, self.device = network.to(device), device
        self.lengths = [length for length in lengths if SHORTEST <= length <= LONGEST]
        self.left_out = [length for length in lengths if length not in self.lengths]
        self.windows = windows
        self.features: dict[int, dict[str, list[Floats]]] = {length: {} for length in self.lengths}
        self._held = list[dict[str, Frames]]()

    def add(self, which: NDArray[np.int64], step: int, truth: Frames, shown: Mapping[str, Frames]) -> None:
        """Take the frames of one step, see `steps.Meter`."""
        if step == 1:
            self._held = []
        if step <= max(self.lengths, default=0):
            self._held.append({"truth": truth, **shown})
        if step in self.features:
            for row in self._held[0]:
                videos = np.stack([frames[row][: len(which)] for frames in self._held[:step]], 1)
                self.features[step].setdefault(row, []).append(self._features(videos))

    @torch.inference_mode()
    def _features(self, videos: Frames) -> Floats:
        """(B, T, H, W, C) uint8 -> (B, 400)."""
        found = list[Floats]()
        for first in range(0, len(videos), AT_ONCE):
            part = torch.from_numpy(videos[first : first + AT_ONCE]).to(self.device).movedim(-1, 2).float() / 127.5 - 1
            resized = F.interpolate(part.flatten(0, 1), (SIDE, SIDE), mode="bilinear", align_corners=False)
            part = resized.unflatten(0, part.shape[:2]).movedim(1, 2).expand(-1, 3, -1, -1, -1)
            with computing("fp32"):
                found.append(self.network(part).double().cpu().numpy())
        return np.concatenate(found)

    def report(self) -> dict[str, Any]:
        """Return the distance of each row's videos from the true ones, for each length."""
        notes, rows = list[str](), list[dict[str, Any]]()
        for length, features in self.features.items():
            videos = sum(map(len, features.get("truth", ())))
            if videos < 2:
                notes.append(f"no FVD of {length} frames: {videos} windows go so far, and 2 are needed")
                continue
            joined = {row: np.concatenate(parts) for row, parts in features.items()}
            distances = {row: frechet(found, joined["truth"]) for row, found in joined.items() if row != "truth"}
            rows.append(
                {"frames": length, "videos": videos, **{row: float(f"{d:.6g}") for row, d in distances.items()}}
            )
            if videos < self.windows:
                notes.append(f"FVD of {length} frames: {self.windows - videos} of {self.windows} windows are shorter")
            if videos <= CLASSES:
                many = f"{videos} videos of {length} frames for {CLASSES} features"
                notes.append(f"{many}: FVD is far too high with few; compare it only at the same number")
        if self.left_out:
            lengths = ", ".join(map(str, self.left_out))
            notes.append(f"no FVD of {lengths} frames: videos have {SHORTEST} to {LONGEST}")
        settings = {
            "frames": f"predicted ones only, resized to {SIDE}x{SIDE} (bilinear), in [-1, 1]",
            "features": "logits, averaged over time",
        }
        return {"settings": settings, "lengths": rows, "notes": notes}


class Extras:
    """The networks that a user brought, and what they measure.

    Args:
        lpips: weights of AlexNet or VGG-16; None: no LPIPS.
        fvd: weights of I3D; None: no FVD.
        device: where to compute.

    Raises:
        DataError: where a file is not what it should be.
    """

    def __init__(self, lpips: Path | None, fvd: Path | None, device: torch.device) -> None:
        self.device = device
        self._lpips = load_lpips(lpips).to(device) if lpips else None
        self._i3d = load_i3d(fvd).to(device) if fvd else None
        self._files = {name: (path.name, sha256_file(path)) for name, path in (("lpips", lpips), ("fvd", fvd)) if path}
        self._videos: VideoDistance | None = None

    def check(self, frame_shape: Sequence[int]) -> None:
        """Raise DataError where frames (H, W, C) are too small."""
        if self._lpips and min(frame_shape[:2]) < SMALLEST:
            size = f"{frame_shape[0]}x{frame_shape[1]}"
            raise DataError(
                f"frames of {size} are too small for LPIPS, which takes {SMALLEST} pixels; leave --lpips out"
            )

    @property
    def metrics(self) -> dict[str, Metric]:
        """LPIPS as a metric of frames, where there is one."""
        return {"lpips": self._distance} if self._lpips else {}

    @torch.inference_mode()
    def _distance(self, frames: Tensor, truth: Tensor) -> Floats:
        assert self._lpips is not None, "there is a metric only where there are weights"
        with computing("fp32"):
            found: Tensor = self._lpips(frames.to(self.device), truth.to(self.device))
            return found.double().cpu().numpy()

    def meters(self, lengths: Sequence[int], windows: int) -> list[VideoDistance]:
        """Return what collects videos of some lengths, where there is a network for it."""
        if self._i3d:
            self._videos = VideoDistance(self._i3d, lengths, windows, self.device)
        return [self._videos] if self._videos else []

    def report(self) -> dict[str, Any]:
        """Return what was used, and the distances between videos; those between frames are with the other metrics."""
        found: dict[str, Any] = {}
        for name, way in WAYS.items():
            if name not in self._files:
                found[name] = {"not_computed": way}
                continue
            weights, sha256 = self._files[name]
            found[name] = {"network": self._network(name), "weights": weights, "sha256": sha256}
            if name == "fvd" and self._videos:
                found[name] |= self._videos.report()
        return found

    def _network(self, name: str) -> str:
        return (
            "I3D, logits of Kinetics-400" if name == "fvd" or not self._lpips else f"LPIPS 0.1, {self._lpips.backbone}"
        )
