"""LPIPS and FVD: files of weights that are read or refused, and distances between videos."""

import json
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchmetrics.image.fid import _compute_fid

from drnet.datasets.contract import DataError
from drnet.i3d import I3D
from drnet.lpips import Lpips
from drnet.pipelines.evaluation import perceptual
from drnet.pipelines.evaluation.perceptual import Extras, VideoDistance, frechet, load_i3d, load_lpips, read_state

CPU = torch.device("cpu")


def backbone_state(backbone: Any = "alex") -> dict[str, Tensor]:
    """What a file of torchvision has: the features, and a classifier that nobody asked for."""
    state = {name: value for name, value in Lpips(backbone).state_dict().items() if name.startswith("features")}
    return state | {"classifier.6.bias": torch.zeros(1000)}


@pytest.fixture(scope="module")
def i3d_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "rgb_imagenet.pt"
    old = {name: value for name, value in I3D().state_dict().items() if not name.endswith("num_batches_tracked")}
    torch.save(old, path, _use_new_zipfile_serialization=False)
    return path


@pytest.fixture
def alex_file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "weights" / "alexnet.pth"
    path.parent.mkdir()
    torch.save(backbone_state(), path)
    return path


@pytest.mark.parametrize("backbone", ["alex", "vgg"])
def test_a_backbone_is_told_by_its_first_layer_whatever_the_file_is_called(backbone: Any, tmp_path: Path) -> None:
    state = backbone_state(backbone)
    save_file({f"module.{name}": value for name, value in state.items()}, tmp_path / "w.safetensors")
    network = load_lpips(tmp_path / "w.safetensors")
    assert network.backbone == backbone
    assert torch.equal(network.features[0].weight, state["features.0.weight"])  # type: ignore[arg-type]
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_weights_of_an_old_torch_are_read_without_the_counters_it_did_not_have(i3d_file: Path) -> None:
    network = load_i3d(i3d_file)
    wanted = torch.load(i3d_file, weights_only=True)
    assert all(torch.equal(network.state_dict()[name], value) for name, value in wanted.items())


class Code:
    """Runs when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


def write_code(path: Path) -> None:
    path.write_bytes(pickle.dumps({"features.0.weight": Code()}))


def write_script(path: Path) -> None:
    torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(str(path))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda path: None, "no such file"),
        (Path.mkdir, "not a regular file"),
        (lambda path: path.write_bytes(b""), "not a state dict"),
        (lambda path: path.write_bytes(b"\x80\x02nonsense"), "not a state dict"),
        (write_code, "not a state dict"),
        (write_script, "not a state dict"),
        (lambda path: torch.save([1, 2], path), "holds no tensors by name"),
        (lambda path: torch.save({"epoch": 3}, path), "holds no tensors by name"),
        (lambda path: os.truncate(path, perceptual.MOST_BYTES + 1), "more than the 1,073,741,824 that are read"),
        (lambda path: torch.save({"conv.weight": torch.zeros(2)}, path), "it has no features.0.weight"),
        (lambda path: torch.save({"features.0.weight": torch.zeros(2)}, path), "features.0.weight is (2,)"),
        (
            lambda path: torch.save(backbone_state() | {"features.3.bias": torch.full((192,), torch.nan)}, path),
            "features.3.bias has values that are not finite",
        ),
        (
            lambda path: torch.save(backbone_state() | {"features.3.weight": torch.zeros(1)}, path),
            "has (1,) for features.3.weight (192, 64, 5, 5)",
        ),
    ],
)
def test_another_file_is_refused_and_nothing_in_it_runs(
    write: Callable[[Path], Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pth"
    if said.startswith("more"):
        path.touch()
    write(path)
    with pytest.raises(DataError) as error:
        load_lpips(path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert "give the weights of torchvision's alexnet or vgg16" in str(error.value) or "give the file" in str(
        error.value
    )
    assert not (tmp_path / "ran").exists()


def test_a_packed_file_counts_as_what_it_unpacks_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"features.0.weight": torch.zeros(100_000)}, tmp_path / "flat.pth")
    with zipfile.ZipFile(tmp_path / "flat.pth") as flat, zipfile.ZipFile(tmp_path / "w.pth", "w") as packed:
        for member in flat.infolist():
            packed.writestr(member.filename, flat.read(member), zipfile.ZIP_DEFLATED)
    assert (tmp_path / "w.pth").stat().st_size < 10_000
    assert read_state(tmp_path / "w.pth", "")["features.0.weight"].shape == (100_000,)
    monkeypatch.setattr(perceptual, "MOST_BYTES", 100_000)
    with pytest.raises(DataError, match=r"40\d,\d{3} bytes, more than the 100,000 that are read"):
        read_state(tmp_path / "w.pth", "")


def test_a_backbone_is_no_network_of_videos(alex_file: Path) -> None:
    with pytest.raises(DataError, match=r"lacks Conv3d_1a_7x7\.conv3d\.weight .*rgb_imagenet"):
        load_i3d(alex_file)
    assert "classifier.6.bias" in read_state(alex_file, "")


@pytest.mark.parametrize(("rows", "others"), [(40, 60), (5, 4), (2, 9), (3, 50)])
def test_the_distance_is_that_of_torchmetrics_also_where_covariances_are_singular(rows: int, others: int) -> None:
    rng = np.random.default_rng(rows)
    first, second = rng.normal(size=(rows, 8)), rng.normal(0.5, 2, size=(others, 8))
    wanted = _compute_fid(
        *(torch.from_numpy(part) for part in (first.mean(0), np.cov(first.T), second.mean(0), np.cov(second.T)))
    )
    assert frechet(first, second) == pytest.approx(float(wanted), rel=1e-3)  # torchmetrics' own root is less exact
    assert frechet(first, first) == pytest.approx(0, abs=1e-12)
    assert frechet(first, first + 3) == pytest.approx(8 * 9)


class Brightness(nn.Module):
    """Stands in for a network: the first features are the mean brightness of the first and of the last frame."""

    def forward(self, videos: Tensor) -> Tensor:
        assert videos.shape[1] == 3
        assert videos.shape[-2:] == (224, 224)
        assert videos.amin() >= -1 - 1e-6
        assert videos.amax() <= 1 + 1e-6
        return videos.mean((1, 3, 4))[:, [0, -1]]


def test_videos_are_kept_window_by_window_as_far_as_they_go() -> None:
    windows = 5
    meter = VideoDistance(Brightness(), [20, 9, 12, 200], windows, CPU)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    level = rng.integers(0, 256, size=(windows, 30)).astype(np.uint8)
    for batch in ([0, 1, 2], [3, 4]):  # windows 0 to 4 go 30, 20, 10, 12 and 9 frames
        far = [(30, 20, 10, 12, 9)[number] for number in batch]
        for step in range(1, max(far) + 1):
            alive = np.array([number for number, end in zip(batch, far, strict=True) if step <= end])
            truth = np.broadcast_to(level[alive, step - 1, None, None, None], (len(alive), 8, 8, 1)).copy()
            meter.add(alive, step, truth, {"predicted": np.maximum(truth, 100)})
    report = meter.report()
    assert [(row["frames"], row["videos"]) for row in report["lengths"]] == [(20, 2), (9, 5), (12, 3)]
    for row in report["lengths"]:
        far = np.array([30, 20, 10, 12, 9]) >= row["frames"]
        ends = level[far][:, [0, row["frames"] - 1]] / 127.5 - 1
        raised = np.maximum(level[far][:, [0, row["frames"] - 1]], 100) / 127.5 - 1
        assert row["predicted"] == pytest.approx(frechet(raised, ends), rel=1e-4, abs=1e-9)
    assert "no FVD of 200 frames: videos have 9 to 100" in report["notes"]
    assert "FVD of 20 frames: 3 of 5 windows are shorter" in report["notes"]
    assert any("far too high with few" in note for note in report["notes"])


def test_one_video_is_not_enough() -> None:
    meter = VideoDistance(Brightness(), [9], 1, CPU)  # type: ignore[arg-type]
    for step in range(1, 10):
        meter.add(
            np.array([0]), step, np.zeros((1, 8, 8, 3), np.uint8), {"copy_last": np.zeros((1, 8, 8, 3), np.uint8)}
        )
    assert meter.report()["lengths"] == []
    assert "no FVD of 9 frames: 1 windows go so far, and 2 are needed" in meter.report()["notes"]


def test_frames_that_are_too_small_are_refused_before_anything_is_predicted(alex_file: Path) -> None:
    Extras(alex_file, None, CPU).check((32, 32, 3))
    with pytest.raises(DataError, match="frames of 16x16 are too small for LPIPS, which takes 32 pixels"):
        Extras(alex_file, None, CPU).check((16, 16, 3))
    Extras(None, None, CPU).check((16, 16, 3))


def test_the_command_scores_with_both(
    trained: Path, digits: Path, alex_file: Path, i3d_file: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "metrics.json"
    words = ["--section", "frames", "--steps", 9, "--clips", 2, "--lpips", alex_file, "--fvd", i3d_file]
    found = command("evaluate", trained, "--shards", digits, "--out", out, *words)
    assert found.code == 0, found.err
    report: Mapping[str, Any] = json.loads(out.read_text())
    curves = report["frames"]["lpips"]
    assert curves.keys() == {"true_pose", "copy_last"}
    assert all(value > 0 for value in curves["true_pose"]["mean"])
    (line,) = [line for line in found.out.split("LPIPS")[1].splitlines() if line.startswith("│ true_pose")]
    assert f"{curves['true_pose']['mean'][0]:.4f}" in line
    extras = report["extras"]
    assert extras["lpips"]["network"] == "LPIPS 0.1, alex"
    assert extras["fvd"]["weights"] == "rgb_imagenet.pt"
    (video,) = extras["fvd"]["lengths"]
    assert (video["frames"], video["videos"]) == (9, 2)
    assert video["true_pose"] > 0
    assert "FVD, I3D, logits of Kinetics-400" in found.out
    assert "2 videos of 9 frames for 400 features" in found.out
    assert "not computed: give" not in found.out
    assert out.with_suffix(".png").stat().st_size > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--lpips", "none.pth"], "none.pth: no such file; give the weights of torchvision's"),
        (["--fvd", "none.pt"], "none.pt: no such file; give the weights of I3D"),
        (["--fvd", "none.pt", "--section", "swap"], "--fvd scores predicted frames; add --section frames"),
    ],
)
def test_a_mistake_is_said_before_the_work(
    words: list[str], said: str, trained: Path, digits: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    found = command("evaluate", trained, "--shards", digits, "--out", tmp_path / "m.json", *words)
    assert found.code == 1
    assert said in found.err
    assert len(found.err.splitlines()) == 1
    assert not (tmp_path / "m.json").exists()
