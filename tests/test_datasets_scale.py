"""The one filter that every data set's frames pass through."""

import numpy as np
import pytest
from PIL import Image

from drnet.datasets.mnist import SIZES
from drnet.datasets.scale import filter_weights, scale

SHAPES = [((28, 28), (16, 16)), ((28, 28), (40, 40)), ((8, 8), (64, 64)), ((8, 8), (8, 24)), ((120, 160), (128, 128))]
SHAPES += [((120, 160), (64, 64)), ((96, 96), (64, 64)), ((37, 53), (30, 90))]


@pytest.mark.parametrize(("old", "new"), SHAPES)
def test_scaling_is_exact_in_integers_and_keeps_a_flat_image(old: tuple[int, int], new: tuple[int, int]) -> None:
    images = np.random.default_rng(1).integers(0, 256, (18, *old)).astype(np.uint8)
    images[0], images[1] = 255, 0
    scaled = scale(images, *new)
    rows, columns = ((filter_weights(a, b) * 256).astype(np.int64) for a, b in zip(old, new, strict=True))
    exact = (np.einsum("ij,njk,lk->nil", rows, images.astype(np.int64), columns) + (1 << 15)) >> 16
    assert np.array_equal(scaled, exact)
    assert (scaled[0] == 255).all()
    assert (scaled[1] == 0).all()


def test_the_weights_of_every_size_sum_to_one() -> None:
    digits = [(old, size // 2) for old in (8, 28) for size in SIZES]
    frames = [pair for old, new in SHAPES for pair in zip(old, new, strict=True)]
    for old, new in digits + frames:
        assert (filter_weights(old, new).sum(axis=1) == 1).all(), (old, new)


@pytest.mark.parametrize(("old", "new"), SHAPES)
def test_scaling_agrees_with_pillow_to_two_levels(old: tuple[int, int], new: tuple[int, int]) -> None:
    images = np.random.default_rng(2).integers(0, 256, (6, *old)).astype(np.uint8)
    theirs = [np.asarray(Image.fromarray(i).resize(new[::-1], Image.Resampling.BILINEAR)) for i in images]
    assert np.abs(scale(images, *new).astype(int) - np.stack(theirs)).max() <= 2


def test_colours_are_scaled_each_on_its_own() -> None:
    images = np.random.default_rng(3).integers(0, 256, (5, 20, 30, 3)).astype(np.uint8)
    scaled = scale(images, 16, 16)
    assert scaled.shape == (5, 16, 16, 3)
    for channel in range(3):
        assert np.array_equal(scaled[..., channel], scale(images[..., channel], 16, 16))


def test_the_right_size_is_left_alone() -> None:
    images = np.zeros((2, 9, 7, 1), np.uint8)
    assert scale(images, 9, 7) is images
