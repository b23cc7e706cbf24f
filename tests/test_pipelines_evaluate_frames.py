"""PSNR and SSIM against their formulas, and scores as they come."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from drnet.pipelines.evaluation.frames import HIGHEST, FrameMeter, as_tensor, psnr, settings, ssim

Bytes = NDArray[np.uint8]


def noise(*shape: int, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def by_hand(first: Bytes, second: Bytes) -> float:
    """SSIM of Wang et al. 2004, Eq. 13, of one frame (H, W, C): a Gaussian window around each pixel, borders reflected."""
    far = np.arange(-5, 6)
    line = np.exp(-(far**2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    a, b = (np.pad(frame / 255, ((5, 5), (5, 5), (0, 0)), "reflect") for frame in (first, second))
    values = []
    for y in range(a.shape[0] - 10):
        for x in range(a.shape[1] - 10):
            for channel in range(a.shape[2]):
                p, q = a[y : y + 11, x : x + 11, channel], b[y : y + 11, x : x + 11, channel]
                mp, mq = (window * p).sum(), (window * q).sum()
                vp, vq, both = ((window * u * v).sum() - mu * mv for u, v, mu, mv in _pairs(p, q, mp, mq))
                top = (2 * mp * mq + 0.01**2) * (2 * both + 0.03**2)
                values.append(top / ((mp**2 + mq**2 + 0.01**2) * (vp + vq + 0.03**2)))
    return float(np.mean(values))


def _pairs(p, q, mp, mq):  # type: ignore[no-untyped-def]
    return (p, p, mp, mp), (q, q, mq, mq), (p, q, mp, mq)


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_that_of_its_paper(channels: int) -> None:
    truth = noise(2, 16, 16, channels)
    shown = (truth // 2 + noise(2, 16, 16, channels, seed=1) // 4).astype(np.uint8)
    found = ssim(as_tensor(shown), as_tensor(truth))
    assert found == pytest.approx([by_hand(a, b) for a, b in zip(shown, truth, strict=True)], abs=2e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_psnr_is_of_each_frame_by_itself(channels: int) -> None:
    truth, shown = noise(3, 16, 16, channels), noise(3, 16, 16, channels, seed=1)
    errors = np.square(truth / 255 - shown / 255).mean((1, 2, 3))
    assert psnr(as_tensor(shown), as_tensor(truth)) == pytest.approx(-10 * np.log10(errors), rel=1e-5)


def test_equal_frames_have_the_highest_psnr_and_not_an_infinite_one() -> None:
    frames = as_tensor(noise(2, 16, 16, 1))
    assert psnr(frames, frames).tolist() == [HIGHEST, HIGHEST]
    assert ssim(frames, frames) == pytest.approx([1, 1])
    assert pytest.approx(58.92, abs=0.01) == HIGHEST


def test_frames_go_in_as_channels_of_unit_range() -> None:
    frames = np.array([[[[0, 51, 255]]]], np.uint8)
    assert torch.equal(as_tensor(frames), torch.tensor([[[[0.0]], [[0.2]], [[1.0]]]]))


def test_steps_that_few_clips_reach_are_told_and_counted() -> None:
    meter = FrameMeter([4, 4, 9], 3, ["predicted", "copy_last"])
    truth = noise(3, 16, 16, 1)
    near, far = truth // 2, truth // 4
    meter.add(np.array([2, 0, 1]), 1, truth, {"predicted": near, "copy_last": far})
    meter.add(np.array([2]), 2, truth[:1], {"predicted": near[:1], "copy_last": far[:1]})
    report = meter.report((1, 2, 3), 0)
    assert report["steps"] == [1, 2]
    assert report["windows_at_step"] == [3, 1]
    assert report["clips_at_step"] == [2, 1]
    of = psnr(as_tensor(near), as_tensor(truth))
    assert report["psnr"]["predicted"]["mean"] == pytest.approx([of.mean(), of[0]], rel=1e-5)
    assert report["psnr"]["predicted"]["low"][1] is None  # of one clip
    assert [mean["steps"] for mean in report["means"]] == [[1, 1], [1, 2]]
    mean = report["means"][1]
    assert mean["psnr"]["predicted"]["mean"] == pytest.approx((of.mean() + of[0]) / 2, rel=1e-5)
    below = psnr(as_tensor(far), as_tensor(truth))
    above = mean["psnr_above_copy_last"]["predicted"]["mean"]
    assert above == pytest.approx((of.mean() + of[0] - below.mean() - below[0]) / 2, rel=1e-4)
    assert [line.split(":")[0] for line in report["notes"]] == [
        "no mean up to step 3",
        "2 clips only",
        "clips are scored as far as they go",
    ]


def test_the_numbers_name_what_made_them() -> None:
    told = settings()
    assert told["implementation"].startswith("torchmetrics 1.")
    assert told["ssim"]["window"] == 11
    assert told["ssim"]["gaussian_sigma"] == 1.5
    assert told["psnr"]["data_range"] == 1.0
