"""Benchmarks of builds compare the product's own path with the bare work."""

import sys
from pathlib import Path

import numpy as np
import pytest

from drnet.datasets.contract import DataError
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.measuring.bench_build import bench_chairs, bench_kth, bench_mnist, bench_workers, plain_clip


def test_the_plain_style_draws_digits_that_move() -> None:
    images = np.full((3, 28, 28), 255, np.uint8)
    clip = plain_clip(images, np.random.default_rng(0), 20, 64)
    assert clip.shape == (20, 64, 64, 3)
    assert clip.min() == 0
    assert clip.max() == 1
    assert clip[..., 2].max() == 0
    assert all(clip[..., colour].any() for colour in range(2))
    assert not np.logical_and(clip[..., 0], clip[..., 1]).any()
    assert any((clip[0] != later).any() for later in clip[1:])


def test_digits_are_compared_with_the_plain_style() -> None:
    found = bench_mnist("optdigits", clips=8, rounds=3)
    plain = "plain style, drawing only"
    assert found["ratios"][plain]["ratio"] == found["rates"]["drnet data build mnist"] / found["rates"][plain]
    assert len(found["ratios"][plain]["rounds"]) == 3


def test_two_workers_are_compared_with_one() -> None:
    found = bench_workers(BouncingDigits("optdigits", clips=4, test_clips=1, frames=2, size=16), rounds=1)
    assert set(found["rates"]) == {"two workers", "one worker"}
    assert min(found["rates"].values()) > 0


def test_chairs_are_compared_with_the_drawing_alone() -> None:
    pytest.importorskip("pybullet")
    from drnet.datasets.rendering.turntable import pybullet

    draw = pybullet().getCameraImage
    found = bench_chairs(clips=1, size=32, rounds=2)
    ratios = found["ratios"]["bare getCameraImage"]["rounds"]
    assert len(ratios) == 2
    assert all(0 < ratio < 1 for ratio in ratios)
    assert pybullet().getCameraImage is draw


def test_kth_is_looked_for_in_the_cache_and_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("decord")
    monkeypatch.setenv("DRNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cache" / "kth").mkdir(parents=True)
    (tmp_path / "cache" / "kth" / "00sequences.txt").write_text(
        "person01_walking_d1 frames 1-9\nperson17_walking_d1 frames 1-9\n"
    )
    (tmp_path / "cache" / "kth" / "person17_walking_d1_uncomp.avi").write_bytes(b"of the test split")
    (tmp_path / "person01_walking_d1_uncomp.avi").write_bytes(b"somebody else's")
    with pytest.raises(DataError, match=f"'{tmp_path}/cache/kth' holds no train videos"):
        bench_kth(None)


def test_without_decord_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(DataError, match=r"decord cannot be imported here.*pip install decord"):
        bench_kth(str(tmp_path))
