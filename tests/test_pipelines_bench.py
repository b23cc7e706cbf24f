"""Benchmarks measure what they say, whatever the speed is."""

import numpy as np

from drnet.pipelines.bench import bench_digits, plain_clip


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


def test_the_ratio_is_of_the_medians_of_interleaved_rounds() -> None:
    found = bench_digits("optdigits", clips=8, rounds=3)
    assert found["ratio"] == found["build"] / found["plain"]
    assert len(found["ratios"]) == 3
    assert found["build"] > 0
