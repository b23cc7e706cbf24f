"""Solids for the generated chairs: rods along a path, boards and cushions, as triangle meshes in metres."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mesh = tuple[Array, NDArray[np.int64]]  # points (V, 3), triangles (F, 3) counter-clockwise seen from outside
Point = tuple[float, float, float]

SQUARE = np.array([(1, -1), (1, 1), (1, 1), (-1, 1), (-1, 1), (-1, -1), (-1, -1), (1, -1)], float)  # twice: sharp edges
ROUND, ROUNDER = (
    np.array([(math.cos(i * 2 * math.pi / n), math.sin(i * 2 * math.pi / n)) for i in range(n + 1)]) for n in (8, 20)
)
PLAIN = np.meshgrid((-1.0, 1.0), (-1.0, 1.0))
FINE = np.meshgrid(*[np.sin(np.arange(-3, 4) * (math.pi / 6))] * 2)  # finer towards the rim


def _strips(rows: int, columns: int, step: int = 1) -> NDArray[np.int64]:
    """Return the triangles of a grid of points, rows x columns, or of every `step`-th column of its cells only."""
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(0, columns - 1, step)).reshape(-1)
    cells = [(0, 1, columns + 1), (0, columns + 1, columns)]
    return np.concatenate([corner[:, None] + np.array(cell) for cell in cells])


def tube(path: Sequence[Point], half: Any, square: bool = False, fine: bool = False) -> Mesh:
    """Return a rod along a path.

    Args:
        path: at least two points.
        half: its half width: a number, one a point, or pairs (sideways, upwards).
        square: whether its section is a rectangle rather than an ellipse.
        fine: for a thick round one, whose corners would show.
    """
    line = np.array(path, dtype=np.float64)
    size = np.array(half, dtype=np.float64)
    if size.ndim < 2:
        size = size.reshape(-1, 1)
    along = np.empty_like(line)
    along[1:-1] = line[2:] - line[:-2]
    along[0], along[-1] = line[1] - line[0], line[-1] - line[-2]
    along /= np.sqrt((along * along).sum(1, keepdims=True))
    axis = 1 if abs(along[0, 0]) > 0.7 else 0  # sideways is y for a rod along x, else x
    side = along * -along[:, axis : axis + 1]
    side[:, axis] += 1
    side /= np.sqrt((side * side).sum(1, keepdims=True))
    up = along[:, [1, 2, 0]] * side[:, [2, 0, 1]] - along[:, [2, 0, 1]] * side[:, [1, 2, 0]]
    ring = SQUARE if square else ROUNDER if fine else ROUND
    wide, high = (side * size[:, :1])[:, None], (up * size[:, -1:])[:, None]
    points = line[:, None] + ring[:, :1] * wide + ring[:, 1:] * high
    cap = slice(0, -1, 2 if square else 1)  # each corner once
    every = np.concatenate([points.reshape(-1, 3), points[0, cap], points[-1, cap]])
    return every, _rod_triangles(len(line), len(ring), square)


@functools.cache
def _rod_triangles(rings: int, k: int, square: bool) -> NDArray[np.int64]:
    corners = 4 if square else k - 1
    fan = np.array([(0, i, i + 1) for i in range(1, corners - 1)])
    caps = [fan[:, ::-1] + rings * k, fan + rings * k + corners]
    return np.concatenate([_strips(rings, k, 2 if square else 1), *caps])


def solid(top: Array, bottom: Array, crisp: bool = False) -> Mesh:
    """Close two grids of points (rows, columns, 3) to a solid; `crisp` gives its walls sharp corners."""
    rows, columns = top.shape[:2]
    loop, triangles = _solid_triangles(rows, columns, crisp)
    upper, lower = top.reshape(-1, 3), bottom.reshape(-1, 3)
    return np.concatenate([upper, lower, lower[loop], upper[loop]]), triangles


@functools.cache
def _solid_triangles(rows: int, columns: int, crisp: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    grid = np.arange(rows * columns).reshape(rows, columns)
    loop = np.concatenate([grid[0], grid[1:, -1], grid[-1, -2::-1], grid[-2::-1, 0]])
    if crisp:
        loop = np.stack([loop[:-1], loop[1:]], axis=1).reshape(-1)
    faces, wall = _strips(rows, columns), _strips(2, len(loop), 2 if crisp else 1)
    return loop, np.concatenate([faces, faces[:, ::-1] + grid.size, wall + 2 * grid.size])


def pad(size: Point, roundness: float = 0.0, puff: float = 0.0, curve: float = 0.0, taper: float = 0.0) -> Mesh:
    """Return a slab around the origin.

    Args:
        size: along x, y and z, in metres.
        roundness: of its outline, from 0 (a rectangle) to 1 (an ellipse).
        puff: 0 for a board; a cushion's rim is thinner than its middle by this share.
        curve: how far its sides are lifted above its middle, in metres.
        taper: how much wider it is at its far end (+y), as a share.
    """
    u, v = PLAIN if not (roundness or puff or curve) else FINE
    x = u * (1 - roundness * (1 - np.sqrt(1 - v * v / 2))) * (1 + taper * v) * (size[0] / 2)
    y = v * (1 - roundness * (1 - np.sqrt(1 - u * u / 2))) * (size[1] / 2)
    high = (1 - puff * (1 - (1 - u**4) * (1 - v**4))) * (size[2] / 2)
    middle = curve * u * u
    grids = np.empty((2, *u.shape, 3))
    grids[..., 0], grids[..., 1], grids[0, ..., 2], grids[1, ..., 2] = x, y, middle + high, middle - high
    return solid(grids[0], grids[1], crisp=roundness < 0.2)


def placed(mesh: Mesh, at: Point, pitch: float = 0.0, yaw: float = 0.0) -> Mesh:
    """Return a mesh turned about x by `pitch` and then about z by `yaw` degrees, and moved to `at`."""
    a, b = math.radians(pitch), math.radians(yaw)
    tilt = np.array([(1, 0, 0), (0, math.cos(a), -math.sin(a)), (0, math.sin(a), math.cos(a))])
    turn = np.array([(math.cos(b), -math.sin(b), 0), (math.sin(b), math.cos(b), 0), (0, 0, 1)])
    return mesh[0] @ (turn @ tilt).T + np.array(at), mesh[1]


def normals(mesh: Mesh) -> Array:
    """Return the unit normals (V, 3) of a mesh: of the triangles at each point, weighted by area."""
    points, faces = mesh
    a, b, c = points[faces.T]
    ab, ac = b - a, c - a
    across = ab[:, [1, 2, 0]] * ac[:, [2, 0, 1]] - ab[:, [2, 0, 1]] * ac[:, [1, 2, 0]]
    places = (faces.T[..., None] * 3 + np.arange(3)).reshape(-1)
    total = np.bincount(places, np.broadcast_to(across, (3, *across.shape)).reshape(-1)).reshape(-1, 3)
    return total / np.maximum(np.sqrt((total * total).sum(1, keepdims=True)), 1e-12)


def joined(meshes: Sequence[Mesh]) -> Mesh:
    """Return several meshes as one."""
    starts = np.cumsum([0] + [len(points) for points, _ in meshes])
    triangles = [faces + start for (_, faces), start in zip(meshes, starts, strict=False)]
    return np.concatenate([points for points, _ in meshes]), np.concatenate(triangles)
