"""A camera that turns around a thing of any shape, drawn by pybullet's software renderer.

What stands on the table is a list of `Body`s: triangle meshes with a colour or a texture. The background is white.
Metres; z points up and is the axis of turning; azimuth 0 looks from -y, and grows anticlockwise seen from above.
"""

import ctypes
import functools
import math
import os
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drnet.datasets.contract import DataError

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]

FIELD = 25.0  # degrees, the field of view of the camera, and of the light where there are shadows
FILL = 0.92  # of half the frame, that a turning thing may reach
NEAR, FAR = 0.002, 100.0  # metres; shadows need a plane this near, and depth is stored evenly, so it costs nothing
LARGEST_BODY = 40_000  # triangles: pybullet takes 131,072 points of a mesh and drops the rest
LIGHT, SHADOW_LIGHT = (0.55, 0.55, 1.3), (0.5, 0.62, 2.8)  # ambient, diffuse, and how steep
SHADE = np.uint32(0xFFCDCDCD)  # grey of the shadow on the ground
# The ground is drawn in magenta, 255 in the light and 243 in shadow, to be told from bodies: these have some green, or
# are at most 0.85 bright, which is 242 in the best light. A mask of the bodies would cost a tenth of the drawing.
BRIGHTEST = 242
ONE_AT_A_TIME = threading.Lock()  # the threads of a process share its one world
NO_PYBULLET = (
    "pybullet cannot be imported here: it has wheels for Linux x86-64 with Python 3.11 only; "
    "`drnet data build mnist --source optdigits` needs neither pybullet nor a download"
)


@dataclass(frozen=True, eq=False)
class Body:
    """A triangle mesh of one colour, or with a texture.

    Attributes:
        points: (V, 3) float64, metres.
        triangles: (F, 3) int64, counter-clockwise seen from outside; they are not drawn from behind.
        normals: (V, 3) float64 of length 1.
        colour: red, green, blue in [0, 1]; it tints the texture.
        uv: (V, 2) float64 places in the texture, (0, 0) its lower left; None without one.
        texture: (H, W, 3) uint8, or None.
    """

    points: Floats
    triangles: NDArray[np.int64]
    normals: Floats
    colour: tuple[float, float, float]
    uv: Floats | None = None
    texture: Pixels | None = None


@functools.cache
def pybullet() -> ModuleType:
    """Import pybullet, whose C code writes a banner to standard output or error while it loads: both look away.

    Raises:
        DataError: pybullet is not there.
    """
    streams = ctypes.CDLL(None)
    kept, nowhere = [os.dup(1), os.dup(2)], os.open(os.devnull, os.O_WRONLY)
    streams.fflush(None)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    try:
        import pybullet
    except ImportError:
        raise DataError(NO_PYBULLET) from None
    finally:
        streams.fflush(None)
        for stream, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, stream)
        for copy in (*kept, nowhere):
            os.close(copy)
    return pybullet


class Lent:
    """One list, filled anew for every call of pybullet.

    pybullet 3.2.7 never lets go of the lists given to createVisualShape, nor of the lists in them: with new ones each
    chair would cost 0.3 MB for ever.
    """

    def __init__(self) -> None:
        self._rows: list[list[float]] = []
        self._whole: list[Any] = []

    def of(self, values: NDArray[Any]) -> list[Any]:
        """Return the values, (N,) or (N, 3), as a list that holds until the next call."""
        if values.ndim == 1:
            self._whole[:] = values.tolist()
            return self._whole
        self._rows += [[] for _ in range(len(values) - len(self._rows))]
        for row, numbers in zip(self._rows, values.tolist(), strict=False):
            row[:] = numbers
        self._whole[:] = self._rows[: len(values)]
        return self._whole


POINTS, NORMALS, CORNERS, PLACES = Lent(), Lent(), Lent(), Lent()


@functools.cache
def _world() -> int:
    """Connect to this process's own world without a window. Everything that stands in it resets it first."""
    return int(pybullet().connect(pybullet().DIRECT))


@dataclass(frozen=True)
class Stage:
    """What stands in the world: it is kept for the next elevation of the same bodies.

    Attributes:
        bodies: as they were given; the stage is theirs as long as it is this very list.
        points: (V, 3) all their points, the middle of their height at z = 0.
        ground: the number of the body that catches the shadow; None without shadows.
        distance: of the light from the origin, in metres: all points are in its view.
    """

    bodies: Sequence[Body]
    points: Floats
    ground: int | None
    distance: float


_STANDING: list[Stage] = []  # at most one


def turn(
    bodies: Sequence[Body], azimuths: Sequence[float], elevation: float, size: int, shadows: bool = False
) -> Pixels:
    """Draw bodies from each azimuth, at twice the size, and average squares of four pixels.

    The camera's distance is the least at which nothing is cut at any azimuth, and the light moves with the camera.
    Asking for the same list of bodies again, at another elevation, finds them standing.

    Args:
        bodies: what stands on the table.
        azimuths: (T,) degrees.
        elevation: of the camera above the horizon, in degrees.
        size: height and width of the frames in pixels.
        shadows: whether the bodies throw shadows on each other and on a ground that is else as white as the rest.

    Returns:
        (T, size, size, 3) uint8.
    """
    with ONE_AT_A_TIME:
        return _turn(_stage(bodies, shadows), azimuths, elevation, size)


def _stage(bodies: Sequence[Body], shadows: bool) -> Stage:
    """Put bodies into the empty world, unless they are there."""
    if _STANDING and _STANDING[0].bodies is bodies and (_STANDING[0].ground is not None) == shadows:
        return _STANDING[0]
    _STANDING.clear()
    pybullet().resetSimulation(physicsClientId=_world())
    points = np.concatenate([body.points for body in bodies])
    middle = float(points[:, 2].min() + points[:, 2].max()) / 2
    points = points - (0, 0, middle)
    for body in bodies:
        _add(body, -middle)
    distance = 1.03 * float(np.linalg.norm(points, axis=1).max()) / math.sin(math.radians(FIELD / 2))
    ground = _add(_ground(float(points[:, 2].min()), distance), 0.0) if shadows else None
    _STANDING.append(Stage(bodies, points, ground, distance))
    return _STANDING[0]


def _add(body: Body, height: float) -> int:
    """Put a body into the world; return the number of its last part."""
    p, world, number = pybullet(), _world(), -1
    image = -1 if body.texture is None else _texture(body.texture)
    for first in range(0, len(body.triangles), LARGEST_BODY):
        corners, used = body.triangles[first : first + LARGEST_BODY], np.arange(len(body.points))
        if len(body.triangles) > LARGEST_BODY:
            used, inverse = np.unique(corners, return_inverse=True)
            corners = inverse.reshape(-1, 3)
        places = {} if body.uv is None else {"uvs": PLACES.of(body.uv[used])}
        shape = p.createVisualShape(
            p.GEOM_MESH,
            vertices=POINTS.of(body.points[used]),
            indices=CORNERS.of(corners.reshape(-1)),
            normals=NORMALS.of(body.normals[used]),
            rgbaColor=(*body.colour, 1),
            physicsClientId=world,
            **places,
        )
        number = p.createMultiBody(0, -1, shape, (0, 0, height), physicsClientId=world)
        if image >= 0:
            p.changeVisualShape(number, -1, textureUniqueId=image, physicsClientId=world)
    return int(number)


def _texture(pixels: Pixels) -> int:
    """Give pybullet a texture, which it takes from a file only: a plain BMP that is gone again at once."""
    from PIL import Image

    with tempfile.NamedTemporaryFile(suffix=".bmp") as file:
        Image.fromarray(pixels).save(file, "BMP")
        file.flush()
        return int(pybullet().loadTexture(file.name, physicsClientId=_world()))


def _light(azimuth: float, steep: float) -> tuple[float, float, float]:
    """Return where the light comes from: the camera's upper left, so that faces at right angles differ."""
    x, y = math.sin(math.radians(azimuth)), -math.cos(math.radians(azimuth))
    return x + 0.7 * y, y - 0.7 * x, steep


def _ground(level: float, distance: float) -> Body:
    """Return the part of the ground that the light sees from azimuth 0; beyond it pybullet's shadows are wrong."""
    light = np.array(_light(0.0, SHADOW_LIGHT[2]))
    light *= distance / np.linalg.norm(light)
    ahead = -light / distance
    right = np.cross(ahead, (0, 0, 1))
    right /= np.linalg.norm(right)
    up, reach = np.cross(right, ahead), 0.98 * math.tan(math.radians(FIELD / 2))
    rays = [ahead + reach * (a * right + b * up) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    corners = np.array([light + ray * ((level - light[2]) / ray[2]) for ray in rays])
    return Body(corners, np.array([(0, 1, 2), (0, 2, 3)]), np.array([(0.0, 0.0, 1.0)] * 4), (1.0, 0.0, 1.0))


def _turn(stage: Stage, azimuths: Sequence[float], elevation: float, size: int) -> Pixels:
    p, world, shadows = pybullet(), _world(), stage.ground is not None
    distance, height = fit(stage.points, elevation)
    s, c = math.sin(math.radians(elevation)), math.cos(math.radians(elevation))
    ambient, diffuse, steep = SHADOW_LIGHT if shadows else LIGHT
    settings = {
        "projectionMatrix": p.computeProjectionMatrixFOV(FIELD, 1.0, NEAR, FAR),
        "lightColor": (1, 1, 1),
        "lightDistance": stage.distance,
        "lightAmbientCoeff": ambient,
        "lightDiffuseCoeff": diffuse,
        "lightSpecularCoeff": 0.0,
        "shadow": int(shadows),
        "flags": p.ER_NO_SEGMENTATION_MASK,
        "renderer": p.ER_TINY_RENDERER,
        "physicsClientId": world,
    }
    frames = np.empty((len(azimuths), size, size, 3), np.uint8)
    for frame, azimuth in zip(frames, azimuths, strict=True):
        angle = math.radians(azimuth)
        eye = (distance * c * math.sin(angle), -distance * c * math.cos(angle), height + distance * s)
        view = p.computeViewMatrix(eye, (0, 0, height), (0, 0, 1))
        if shadows:
            turned = (0, 0, math.sin(angle / 2), math.cos(angle / 2))  # the ground turns with the light
            p.resetBasePositionAndOrientation(stage.ground, (0, 0, 0), turned, physicsClientId=world)
        drawn = p.getCameraImage(2 * size, 2 * size, view, lightDirection=_light(azimuth, steep), **settings)
        if shadows:
            _whiten(drawn[2])
        frame[:] = halved(drawn[2])
    return frames


def _whiten(pixels: Pixels) -> None:
    """Make the magenta ground white where it is lit, and one grey in the shadow; (H, W, 4), in place."""
    words = pixels.view(np.uint32)[..., 0]
    red = words & np.uint32(0xFF)
    ground = (red > BRIGHTEST) & ((words & np.uint32(0xFF00)) == 0)
    np.copyto(words, np.where(red == 255, np.uint32(0xFFFFFFFF), SHADE), where=ground)


def fit(points: Floats, elevation: float) -> tuple[float, float]:
    """Return the least distance of a camera, and the height it looks at, that keep turning points inside the frame.

    A point at radius r runs on a circle, z above the height looked at. With s, c the sine and cosine of the elevation
    and h the slope of the sight lines that bound the picture, it stays inside where the distance is at least

        r sqrt(1 / h^2 + c^2) + z s         for the sides,
        r |c - s / h| + z (s + c / h)       for the top,
        r (c + s / h) + z (s - c / h)       for the foot.

    Args:
        points: (V, 3) float64, metres; the axis of turning is z.
        elevation: degrees.
    """
    s, c = math.sin(math.radians(elevation)), math.cos(math.radians(elevation))
    h = math.tan(math.radians(FIELD / 2)) * FILL
    radius, z = np.hypot(points[:, 0], points[:, 1]), points[:, 2]
    top = float((radius * abs(c - s / h) + z * (c / h + s)).max())
    foot = float((radius * (c + s / h) + z * (s - c / h)).max())
    height = (top - foot) * h / (2 * c)  # where both need the same distance
    side = float((radius * math.hypot(1 / h, c) + (z - height) * s).max())
    return max(side, top - height * (c / h + s)), height


def halved(pixels: Pixels) -> Pixels:
    """Average squares of four pixels, halves rounded up: (2H, 2W, 4) to (H, W, 3).

    Red with blue, and green, are added in the 16-bit halves of whole words: twice as fast as an array of bytes.
    """
    word = pixels.view(np.uint32)[..., 0]
    mask = np.uint32(0x00FF00FF)
    out = np.empty((word.shape[0] // 2, word.shape[1] // 2, 3), np.uint8)
    for first, lanes in ((0, word & mask), (1, (word >> np.uint32(8)) & mask)):
        rows = (lanes[0::2] + lanes[1::2]).view(np.uint64)
        total = ((rows + (rows >> np.uint64(32))).astype(np.uint32) + np.uint32(0x00020002)) >> np.uint32(2)
        mean = total.view(np.uint8).reshape(*total.shape, 4)
        out[..., first] = mean[..., 0]
        if first == 0:
            out[..., 2] = mean[..., 2]
    return out
