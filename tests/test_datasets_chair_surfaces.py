"""Surfaces of models: upright, with sharp edges and smooth rounds, in the colours of their corners or textures."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drnet.datasets.chairs import bodies_of
from drnet.datasets.rendering import chair_files
from drnet.datasets.rendering.chair_models import chair_of
from drnet.datasets.rendering.chair_surfaces import (
    Surface,
    guess_up,
    painted,
    shrunk,
    smooth_normals,
    upright,
    within,
)
from drnet.datasets.rendering.chair_surfaces import bodies_of as surfaces_to_bodies
from drnet.datasets.rendering.turntable import turn

trimesh = pytest.importorskip("trimesh")
pybullet_here = pytest.mark.skipif(
    sys.platform != "linux" or sys.version_info >= (3, 12), reason="pybullet has no wheel here"
)
RED, GREEN, BLUE = (204, 26, 26), (26, 153, 26), (26, 51, 204)


def test_the_up_axis_of_chairs_is_guessed_and_otherwise_custom_decides() -> None:
    wrong = 0
    for number in range(60):
        bodies = bodies_of(chair_of(0, number))
        corners = np.concatenate([body.points[body.triangles] for body in bodies])
        lying = corners[..., [0, 2, 1]] * (1, 1, -1)
        np.testing.assert_array_equal(upright(lying, "y"), corners)
        wrong += (guess_up(corners, ".obj") != "z") + (guess_up(lying, ".stl") != "y")
    assert wrong <= 2
    cube = trimesh.creation.box((1, 1, 1)).triangles
    assert [guess_up(cube, suffix) for suffix in (".obj", ".ply", ".stl")] == ["y", "y", "z"]


def test_colladas_x_axis_can_be_up() -> None:
    np.testing.assert_array_equal(upright(np.array([1.0, 2.0, 3.0]), "x"), [-2, -3, 1])


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 300), st.integers(0, 2**32))
def test_painted_triangles_show_their_corners_colours_where_pybullet_looks(count: int, seed: int) -> None:
    colours = np.random.default_rng(seed).integers(0, 256, (count, 3, 3)) / 255
    uv, texture = painted(colours)
    side = len(texture)
    found = texture[::-1][(uv[..., 1] * side).astype(int), (uv[..., 0] * side).astype(int)]
    np.testing.assert_array_equal(found, np.round(colours * 255))
    middle = uv.mean(1)
    found = texture[::-1][(middle[:, 1] * side).astype(int), (middle[:, 0] * side).astype(int)] / 255
    assert (found <= colours.max(1) + 0.01).all()
    assert (found >= colours.min(1) - 0.01).all()


def test_edges_stay_sharp_and_round_things_smooth() -> None:
    box, ball = trimesh.creation.box((1, 1, 1)), trimesh.creation.icosphere(3)
    np.testing.assert_allclose(
        smooth_normals(box.triangles), np.repeat(box.face_normals[:, None], 3, axis=1), atol=1e-9
    )
    towards = smooth_normals(ball.triangles / 2)
    assert (np.einsum("fcx,fcx->fc", towards, ball.triangles) > 0.999).all()
    flat = np.concatenate([box.triangles, box.triangles[:1, [0, 0, 1]]])
    assert not smooth_normals(flat)[-1].any()


def test_places_in_a_texture_are_moved_by_whole_textures() -> None:
    uv = np.array([[(-2.25, 0.5), (1.5, 3.0), (0.0, 0.0)]])
    moved = within(uv)
    assert moved.min() >= 0
    np.testing.assert_allclose((moved - uv) % 1, 0, atol=1e-9)
    assert within(np.array([[(0.0, 1.0)]])).max() < 1


def test_a_texture_is_shrunk_to_what_is_seen() -> None:
    corners = np.array([[(0.0, 0, 0), (1, 0, 0), (1, 0, 1)], [(0, 0, 0), (1, 0, 1), (0, 0, 1)]])
    uv = corners[..., [0, 2]]
    stripes = np.tile(np.uint8([[0], [200]]), (512, 1024))[..., None].repeat(3, -1)

    def side(size: int, tiles: float) -> int:
        (body,) = surfaces_to_bodies([Surface(corners, (1.0, 1.0, 1.0), uv=uv * tiles, texture=stripes)], size)
        assert body.texture is not None
        return body.texture.shape[0]

    assert stripes.shape == (1024, 1024, 3)
    assert [side(64, 1), side(256, 1), side(64, 0.1)] == [118, 471, 1024]  # 92% of a frame drawn twice as large
    assert side(64, 4) == 29  # seen four times beside itself
    np.testing.assert_array_equal(shrunk(stripes, 2.0), np.full((512, 512, 3), 100))
    assert shrunk(stripes, 1.0) is stripes


def test_a_model_is_there_from_both_sides() -> None:
    surface = Surface(trimesh.creation.box((1, 2, 3)).triangles, (0.5, 0.5, 0.5))
    (body,) = surfaces_to_bodies([surface], 32)
    assert len(body.triangles) == 24
    a, b, c = (body.points[body.triangles[:, corner]] for corner in range(3))
    ahead = np.einsum("fx,fx->f", np.cross(b - a, c - a), body.normals[body.triangles[:, 0]])
    assert (ahead > 0).all()
    assert (np.ptp(body.points, axis=0) == [1 / 3, 2 / 3, 1]).all()


@pybullet_here
def test_vertex_and_face_colours_are_kept(tmp_path: Path) -> None:
    ball = trimesh.creation.icosphere(3, 0.5)
    shade = np.round((ball.vertices + 0.5) * 200).astype(np.uint8)
    ball.visual.vertex_colors = np.c_[shade, np.full(len(shade), 255)]
    ball.export(tmp_path / "points.ply")
    box = trimesh.creation.box((1, 1, 1))
    box.visual.face_colors = [(*colour, 255) for colour in (RED, GREEN, BLUE) for _ in range(4)]
    box.export(tmp_path / "faces.ply")
    (frame,) = turn(chair_files.load(str(tmp_path), "points.ply", "z", 64), [0], 0, 64).astype(int)
    light = 0.85 * np.array([100, 0, 100]) * 1.05
    assert np.abs(frame[32, 32] - light).max() < 25  # the foremost point: middle of x and z, least y
    assert frame[10, 32, 2] > frame[53, 32, 2] + 60  # blue grows with z
    assert frame[32, 52, 0] > frame[32, 12, 0] + 40  # red with x
    seen = turn(chair_files.load(str(tmp_path), "faces.ply", "z", 64), range(0, 360, 90), 45, 64)
    colours = {tuple(np.round(pixel / pixel.max(), 1)) for frame in seen for pixel in frame[(frame < 250).any(-1)]}
    assert {tuple(np.round(np.array(colour) / max(colour), 1)) for colour in (RED, GREEN, BLUE)} <= colours
