"""The turntable: whatever stands on it is whole in every frame, in its own colours, the same bytes in any order."""

import builtins
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drnet.datasets.chairs import Chairs, bodies_of
from drnet.datasets.contract import DataError
from drnet.datasets.rendering import turntable
from drnet.datasets.rendering.chair_models import chair_of
from drnet.datasets.rendering.turntable import FIELD, FILL, Body, fit, halved, turn

pybullet_here = pytest.mark.skipif(
    sys.platform != "linux" or sys.version_info >= (3, 12), reason="pybullet has no wheel here"
)


def wall(columns: int = 1, **look: Any) -> Body:
    """Return a square wall of 1 m that faces azimuth 0, of 2 * columns**2 triangles."""
    place = np.linspace(0, 1, columns + 1)
    across, up = (grid.reshape(-1) for grid in np.meshgrid(place, place))
    corner = (np.arange(columns)[:, None] * (columns + 1) + np.arange(columns)).reshape(-1, 1)
    cells = np.array([(0, 1, columns + 2, 0, columns + 2, columns + 1)])
    points = np.stack([across - 0.5, 0 * across, up], axis=-1)
    normals = np.tile((0.0, -1.0, 0.0), (len(points), 1))
    settings = {"colour": (1.0, 1.0, 1.0), "uv": np.stack([across, up], axis=-1), **look}
    return Body(points, (corner + cells).reshape(-1, 3), normals, **settings)


def test_without_pybullet_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **named: Any) -> Any:
        if name == "pybullet":
            raise ImportError("no such wheel")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    turntable.pybullet.cache_clear()
    try:
        with pytest.raises(DataError, match="--source optdigits") as caught:
            Chairs(clips=1).sources()
    finally:
        turntable.pybullet.cache_clear()
    assert "\n" not in str(caught.value)


def test_a_turning_chair_just_stays_inside_the_frame() -> None:
    for number, elevation in ((0, 0.0), (3, 20.0), (6, 60.0), (22, 20.0), (2, 80.0), (16, 80.0)):
        points = np.concatenate([mesh[0] for mesh in chair_of(0, number).bodies().values()])
        assert FILL - 0.01 < reached(points, elevation) <= FILL + 1e-9


def reached(points: np.ndarray, elevation: float) -> float:
    """Return how far from its middle, as a share of half the frame, points come when they turn."""
    distance, height = fit(points, elevation)
    s, c = np.sin(np.radians(elevation)), np.cos(np.radians(elevation))
    turns = np.radians(np.arange(0, 360, 2))[:, None]
    x = points[:, 0] * np.cos(turns) + points[:, 1] * np.sin(turns)
    near = points[:, 0] * np.sin(turns) - points[:, 1] * np.cos(turns)
    z = points[:, 2] - height
    depth = distance - near * c - z * s
    picture = np.stack([x, z * c - near * s]) / depth / np.tan(np.radians(FIELD / 2))
    return float(np.abs(picture).max()) if (depth > 0).all() else np.inf


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.floats(0, 80), st.floats(0.05, 20), st.floats(0.05, 20))
def test_nothing_is_cut_whatever_turns(seed: int, elevation: float, wide: float, high: float) -> None:
    points = np.random.default_rng(seed).normal(size=(30, 3)) * (wide, 1.0, high)
    assert reached(points, elevation) <= FILL + 1e-9


def test_halving_averages_squares_of_four_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 8, 4)).astype(np.uint8)
    wanted = (pixels.reshape(8, 2, 4, 2, 4).astype(int).sum((1, 3)) + 2) // 4
    np.testing.assert_array_equal(halved(pixels), wanted[..., :3])


@pybullet_here
def test_a_texture_is_upright_and_tinted() -> None:
    texture = np.zeros((8, 8, 3), np.uint8)
    texture[:4, :4], texture[:4, 4:], texture[4:, :4], texture[4:, 4:] = (200, 0, 0), (0, 200, 0), (0, 0, 200), 200
    (frame,) = turn([wall(texture=texture, colour=(1.0, 1.0, 0.5))], [0], 0, 64).astype(int)
    quarters = [frame[20, 20], frame[20, 44], frame[44, 20], frame[44, 44]]
    light = quarters[0][0] / 200
    assert 0.8 < light < 1.1
    np.testing.assert_allclose(
        quarters, np.array([(200, 0, 0), (0, 200, 0), (0, 0, 100), (200, 200, 100)]) * light, atol=2
    )


@pybullet_here
def test_a_body_of_more_triangles_than_pybullet_takes_is_whole() -> None:
    fine, coarse = wall(columns=370, texture=None, uv=None), wall(texture=None, uv=None)
    assert len(fine.points) > 131_072
    np.testing.assert_array_equal(turn([fine], [0], 0, 64), turn([coarse], [0], 0, 64))


@pybullet_here
def test_triangles_are_drawn_from_their_front_alone() -> None:
    front, rear = turn([wall(texture=None, uv=None, colour=(0.5, 0.5, 0.5))], [0, 180], 0, 32)
    assert (front < 250).any(-1).mean() > 0.5
    assert (rear == 255).all()


@pybullet_here
def test_what_stood_before_leaves_no_trace() -> None:
    one, other = bodies_of(chair_of(0, 0)), bodies_of(chair_of(0, 1))
    views = [(one, False), (one, True), (other, True), (one, True), (other, False), (one, False)]
    drawn = [turn(bodies, [30, 200], 20, 32, shadows) for bodies, shadows in views]
    np.testing.assert_array_equal(drawn[0], drawn[5])
    np.testing.assert_array_equal(drawn[1], drawn[3])
    assert all((a != b).any() for a, b in ((drawn[0], drawn[1]), (drawn[1], drawn[2]), (drawn[2], drawn[4])))


@pybullet_here
def test_threads_of_a_process_do_not_disturb_each_other() -> None:
    made = [bodies_of(chair_of(0, number)) for number in range(4)]
    alone = [[turn(bodies, [0, 70, 140], elevation, 32) for elevation in (10, 50)] for bodies in made]
    found: dict[int, Any] = {}

    def work(place: int) -> None:
        found[place] = [turn(made[place], [0, 70, 140], elevation, 32) for elevation in (10, 50)]

    threads = [threading.Thread(target=work, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal([found[place] for place in range(4)], alone)


@pybullet_here
def test_memory_stays_flat_over_many_textured_bodies() -> None:
    def pages() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    def show(count: int) -> None:
        for shade in range(count):
            texture = np.full((128, 128, 3), shade % 256, np.uint8)
            turn([wall(columns=16, texture=texture)], [0], 20, 32, shadows=True)

    show(40)
    before = pages()
    show(150)
    assert (pages() - before) * 4096 < 150 * 40_000  # the lists alone would keep 120 kB of each, a texture 49 kB
