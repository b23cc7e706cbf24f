"""From the triangles of any 3D model to bodies that can be drawn: upright, one metre large, smooth, coloured.

Everything here works on corners, not on shared points: F triangles, each with 3 corners of their own.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from drnet.datasets.rendering.turntable import FILL, Body, Floats, Pixels

Up = Literal["auto", "y", "z"]

CREASE = math.cos(math.radians(40))  # triangles that meet at a sharper angle than 40 degrees keep their edge
WIDEST_FAN = 24  # neighbours of a corner that are looked at for its normal
PAINTED = 1024  # about the texels along the side of a texture made of corner colours
SURE = 0.1  # of the up axis: what the shape must say to outweigh the custom of the file's format
CUSTOM_UP = {".obj": "y", ".ply": "y", ".stl": "z"}  # what most programs write


@dataclass(frozen=True, eq=False)
class Surface:
    """Triangles of one material.

    Attributes:
        corners: (F, 3, 3) float64: triangle, corner, x y z.
        colour: red, green, blue in [0, 1]; it tints what follows.
        colours: (F, 3, 3) float64 in [0, 1]: triangle, corner, red green blue; None without.
        uv: (F, 3, 2) float64, (0, 0) the texture's lower left; None without.
        texture: (H, W, 3) uint8; None without.
    """

    corners: Floats
    colour: tuple[float, float, float]
    colours: Floats | None = None
    uv: Floats | None = None
    texture: Pixels | None = None


def upright(corners: Floats, up: str) -> Floats:
    """Turn (..., 3) points so that z is up: `y` takes x, y, z to x, -z, y (glTF's front, +z, to -y); `x` is COLLADA's."""
    x, y, z = np.moveaxis(corners, -1, 0)
    turned = {"y": (x, -z, y), "z": (x, y, z), "x": (-y, -z, x)}[up]
    return np.stack(turned, axis=-1)


def guess_up(corners: Floats, suffix: str) -> str:
    """Guess whether a chair's y or z is up, for formats that do not say: OBJ, PLY and STL.

    A chair is rather taller than deep, and its lowest points span its whole outline (legs), which those of a chair
    that lies on its face or back rarely do. Where the shape is undecided, the custom of the format is taken.

    Args:
        corners: (F, 3, 3) float64.
        suffix: of the file's name, such as `.obj`.
    """
    points = corners.reshape(-1, 3)
    low, extent = points.min(0), np.ptp(points, axis=0)

    def stands(axis: int) -> float:
        near = points[points[:, axis] <= low[axis] + 0.04 * extent[axis]]
        others = [other for other in range(3) if other != axis]
        span = np.ptp(near[:, others], axis=0) / np.maximum(extent[others], 1e-12)
        return math.log(max(float(extent[axis]), 1e-12)) + math.log(float(span.prod()) + 0.1)

    lead = stands(2) - stands(1)
    if abs(lead) <= SURE:
        return CUSTOM_UP[suffix]
    return "z" if lead > 0 else "y"


def bodies_of(surfaces: list[Surface], size: int) -> list[Body]:
    """Return what a turntable draws: centred on the z axis, on the ground, its largest extent one metre.

    Each triangle is there twice, seen from either side: models are often open, or wound the wrong way.

    Args:
        surfaces: at least one, z is up.
        size: of the frames in pixels: textures are shrunk to what is seen of them.

    Raises:
        ValueError: there is nothing to draw.
    """
    every = np.concatenate([surface.corners for surface in surfaces])
    low, high = every.min((0, 1)), every.max((0, 1))
    if not 1e-9 < (extent := float((high - low).max())) < 1e9:
        raise ValueError(f"its extent is {extent:g}")
    corner_normals = smooth_normals((every - low) / extent)
    origin, first, bodies = np.array([*(low + high)[:2] / 2, low[2]]), 0, []
    for surface in surfaces:
        normals = corner_normals[first : first + len(surface.corners)]
        first += len(surface.corners)
        kept = np.abs(normals).sum((1, 2)) > 0  # not those without area
        if kept.any():
            bodies.append(_body(surface, (surface.corners - origin) / extent, normals, kept, size))
    if not bodies:
        raise ValueError("its triangles have no area")
    return bodies


def _body(surface: Surface, corners: Floats, normals: Floats, kept: NDArray[np.bool_], size: int) -> Body:
    corners, normals, uv, texture = corners[kept], normals[kept], None, None
    if surface.texture is not None and surface.uv is not None:
        uv = within(surface.uv[kept])
        texture = shrunk(surface.texture, _oversize(corners, uv, surface.texture, size))
    elif surface.colours is not None:
        uv, texture = painted(surface.colours[kept])
    count = len(corners) * 3
    triangles = np.arange(count).reshape(-1, 3)
    return Body(
        np.concatenate([corners.reshape(-1, 3)] * 2),
        np.concatenate([triangles, triangles[:, ::-1] + count]),
        np.concatenate([normals.reshape(-1, 3), -normals.reshape(-1, 3)]),
        surface.colour,
        None if uv is None else np.concatenate([uv.reshape(-1, 2)] * 2),
        texture,
    )


def smooth_normals(corners: Floats) -> Floats:
    """Return unit normals (F, 3, 3) for corners (F, 3, 3) of a model about 1 large; 0 for triangles without area.

    Each is the mean, weighted by area, over the triangles that share its point and do not meet its own at a crease.
    """
    a, b, c = np.moveaxis(corners, 1, 0)
    flat = np.cross(b - a, c - a)
    area = np.linalg.norm(flat, axis=1, keepdims=True)
    flat = np.where(area > 1e-14, flat, 0.0)
    unit = flat / np.maximum(area, 1e-14)
    places = np.round(corners.reshape(-1, 3) * 1e5).astype(np.int64)
    order = np.lexsort(places.T)
    places, owner = places[order], order // 3
    total = flat[owner]
    for step in range(1, WIDEST_FAN):
        same = (places[step:] == places[:-step]).all(1)
        if not same.any():
            break
        one, other = np.flatnonzero(same), np.flatnonzero(same) + step
        close = (unit[owner[one]] * unit[owner[other]]).sum(1) > CREASE
        one, other = one[close], other[close]
        total[one] += flat[owner[other]]  # within a step, each corner is met at most once on either side
        total[other] += flat[owner[one]]
    normals = np.empty_like(total)
    normals[order] = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-14)
    return normals.reshape(-1, 3, 3)


def painted(colours: Floats) -> tuple[Floats, Pixels]:
    """Return places (F, 3, 2) and a texture that together show corner colours (F, 3, 3), blended inside a triangle.

    pybullet draws no vertex colours: each triangle gets a cell of its own in a square texture.
    """
    across = math.ceil(math.sqrt(len(colours)))
    cell = min(max(PAINTED // across, 2), 16)
    side = across * cell
    i, j = np.meshgrid(*[np.arange(cell) / (cell - 1)] * 2, indexing="ij")  # up, right
    over = np.maximum(i + j, 1.0)  # beyond the long side, the nearest on it
    shares = np.stack([1 - (i + j) / over, j / over, i / over], axis=-1)  # (cell, cell, corner)
    cells = np.zeros((across * across, cell, cell, 3), np.uint8)
    cells[: len(colours)] = np.round(np.einsum("ijc,fck->fijk", shares, colours.clip(0, 1)) * 255)
    texels = cells.reshape(across, across, cell, cell, 3).transpose(0, 2, 1, 3, 4).reshape(side, side, 3)
    at = np.arange(len(colours))
    corner = np.stack([at % across, at // across], axis=-1)[:, None] * cell + 0.5
    return (corner + np.array([(0, 0), (cell - 1, 0), (0, cell - 1)])) / side, np.ascontiguousarray(texels[::-1])


def within(uv: Floats) -> Floats:
    """Return places moved by whole textures to where none is negative, and not on the far edge, where pybullet wraps."""
    if uv.min() >= 0 and uv.max() <= 1:
        return np.minimum(uv, 1 - 1e-6)
    return uv - np.floor(uv.min((0, 1)))


def _oversize(corners: Floats, uv: Floats, texture: Pixels, size: int) -> float:
    """Return how many texels lie along a drawn pixel, over all the surface: what is drawn takes one of them."""
    a, b, c = np.moveaxis(corners, 1, 0)
    area = float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum())
    (ux, uy), (vx, vy) = (uv[:, 1] - uv[:, 0]).T, (uv[:, 2] - uv[:, 0]).T
    texels = float(np.abs(ux * vy - uy * vx).sum()) * texture.shape[0] * texture.shape[1]
    return math.sqrt(texels / max(area, 1e-12)) / (2 * size * FILL)


def shrunk(texture: Pixels, factor: float) -> Pixels:
    """Return a texture shrunk by a factor through an average; as it is for a factor of at most 1."""
    if factor <= 1:
        return texture
    from PIL import Image

    height, width = (max(1, round(side / factor)) for side in texture.shape[:2])
    return np.asarray(Image.fromarray(texture).resize((width, height), Image.Resampling.BOX))
