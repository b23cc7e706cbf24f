"""Parametric chairs: the shape and colours of a chair as a pure function of the seed and the chair's number.

Metres; seen from the front x points right, y to the rear, z up. Every part belongs to the seat, the back or the frame,
and each of these has one colour: three bodies a chair, so that nearly all of the time goes into drawing.
"""

import colorsys
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from drnet.datasets.draws import key_of, uniforms, words
from drnet.datasets.rendering.chair_meshes import Array, Mesh, Point, joined, pad, placed, solid, tube

Colour = tuple[float, float, float]
Role = Literal["seat", "back", "frame"]

ROLES: tuple[Role, ...] = ("seat", "back", "frame")
GOLDEN = 0.6180339887498949  # hues that step by the golden ratio stay apart in any run of chairs


class Draws:
    """The random numbers of one chair, taken in order."""

    def __init__(self, *parts: object) -> None:
        self._values = iter(uniforms(words(key_of(*parts), 0, 32).reshape(-1)).tolist())

    def number(self, low: float, high: float) -> float:
        """Return a number in [low, high)."""
        return low + (high - low) * float(next(self._values))

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return float(next(self._values)) < probability

    def pick(self, options: Sequence[Any]) -> Any:
        """Return one of the options."""
        return options[int(float(next(self._values)) * len(options))]


@dataclass
class Chair:
    """A chair: its style, the colour of each role (red, green, blue in [0, 1]) and the meshes of each role."""

    style: str
    colours: dict[Role, Colour]
    parts: dict[Role, list[Mesh]] = field(default_factory=lambda: {role: [] for role in ROLES})

    def add(self, role: Role, *meshes: Mesh) -> None:
        """Add meshes to a role."""
        self.parts[role].extend(meshes)

    def bodies(self) -> dict[Role, Mesh]:
        """Return one mesh for each role that has parts, centred on the z axis."""
        bodies = {role: joined(meshes) for role, meshes in self.parts.items() if meshes}
        corners = np.array([(points.min(0), points.max(0)) for points, _ in bodies.values()])
        centre = (corners[:, 0].min(0) + corners[:, 1].max(0)) / 2 * (1, 1, 0)
        return {role: (points - centre, triangles) for role, (points, triangles) in bodies.items()}


class BackPlane:
    """The leaning, bowed surface of a back rest: from (x, height above the seat) to a point."""

    def __init__(self, y: float, z: float, width: float, recline: float, bow: float) -> None:
        self.y, self.z, self.width, self.bow, self.recline = y, z, width, bow, recline

    def at(self, x: float, up: float) -> Point:
        """Return the point at x, `up` metres along the back."""
        lean = math.radians(self.recline)
        bowed = self.bow * (1 - (2 * x / self.width) ** 2)
        return x, self.y + up * math.sin(lean) + bowed, self.z + up * math.cos(lean)

    def slat(self, left: tuple[float, float], right: tuple[float, float], high: float, thick: float = 0.014) -> Mesh:
        """Return a bowed board between two places (x, up)."""
        path = [self.at(*(a + (b - a) * i / 4 for a, b in zip(left, right, strict=True))) for i in range(5)]
        return tube(path, [(thick, high / 2)] * 5, square=True)

    def panel(self, width: float, low: float, high: float, thick: float, **shape: float) -> Mesh:
        """Return a panel from `low` to `high` up the back."""
        middle = self.at(0, (low + high) / 2)
        mesh = pad((width, high - low, thick), curve=self.bow, **shape)
        return placed(mesh, middle, pitch=90 - self.recline)


def _legs(chair: Chair, draws: Draws, width: float, depth: float, height: float) -> None:
    """Add four legs under a seat, straight, tapered or splayed, and sometimes stretchers between them."""
    square, thick = draws.chance(0.5), draws.number(0.018, 0.027)
    splay, foot = draws.pick((0.0, 0.0, 0.03, 0.06)), draws.pick((1.0, 0.6, 0.5))
    stretched, level = draws.chance(0.4), draws.number(0.25, 0.45)
    x, y = width / 2 - thick, depth / 2 - thick

    def at(sx: int, sy: int, z: float) -> Point:
        out = splay * (1 - z / height)
        return sx * (x + out), sy * (y + out), z

    for sx in (-1, 1):
        for sy in (-1, 1):
            chair.add("frame", tube([at(sx, sy, 0), at(sx, sy, height)], (thick * foot, thick), square))
    if stretched:
        z = level * height
        chair.add("frame", *(tube([at(s, -1, z), at(s, 1, z)], thick * 0.6, square) for s in (-1, 1)))
        chair.add("frame", tube([at(-1, 0, z), at(1, 0, z)], thick * 0.6, square))


def _arms(chair: Chair, draws: Draws, width: float, depth: float, seat: float, role: Role = "frame") -> None:
    """Add two arm rests on posts."""
    high, board = seat + draws.number(0.19, 0.25), draws.number(0.022, 0.035)
    front, square = -depth / 2 + draws.number(0.02, 0.1), draws.chance(0.6)
    for side in (-1, 1):
        x = side * (width / 2 + 0.005)
        rest = tube([(x, front - 0.03, high), (x, depth / 2 + 0.03, high + 0.01)], [(board, 0.016)] * 2, square)
        chair.add(role, rest)
        chair.add("frame", tube([(x, front, seat - 0.05), (x, front, high)], 0.018, square))


def _open_back(chair: Chair, draws: Draws, plane: BackPlane, kind: str, height: float) -> None:
    """Add a back of posts with slats, spindles, a cross or a splat between them."""
    half, thick = plane.width / 2 - 0.02, draws.number(0.018, 0.024)
    square, top, fill = draws.chance(0.5), draws.number(0.06, 0.12), draws.number(0.35, 0.6)
    count = draws.pick((3, 4, 5))
    for x in (-half, half):
        chair.add("frame", tube([plane.at(x, -0.04), plane.at(x, height)], thick, square))
    if kind == "ladder":
        pitch = height * 0.9 / count
        for i in range(count):
            up = height - (i + 0.5) * pitch
            chair.add("back", plane.slat((-half, up), (half, up), pitch * fill))
        return
    rail = height - top / 2
    chair.add("back", plane.slat((-half - 0.02, rail), (half + 0.02, rail), top, 0.018))
    if kind == "spindle":
        for i in range(count + 1):
            x = half * 0.8 * (2 * i / count - 1)
            chair.add("back", tube([plane.at(x * 0.9, -0.03), plane.at(x, rail)], 0.012))
    elif kind == "cross":
        for side in (-1, 1):
            chair.add("back", plane.slat((-side * half, 0.04), (side * half, rail), 0.035))
    else:
        chair.add("back", plane.slat((-half, 0.07), (half, 0.07), 0.04))
        splat = plane.panel(half * fill * 1.5, 0.07, rail, 0.025, taper=draws.number(-0.2, 0.3))
        chair.add("back", splat)


def _back(chair: Chair, draws: Draws, width: float, depth: float, seat: float) -> None:
    """Add a back of a random kind and height behind a seat."""
    plane = BackPlane(depth / 2 - 0.02, seat, width, draws.number(3, 13), draws.number(0.0, 0.05))
    kind, height = (
        draws.pick(("ladder", "spindle", "cross", "splat", "panel", "panel", "oval")),
        draws.number(0.36, 0.58),
    )
    if kind == "panel":
        low, puff = draws.pick((-0.01, 0.12)), draws.pick((0.0, 0.5))
        shape = {"roundness": draws.pick((0.0, 0.35, 0.6)), "taper": draws.number(-0.12, 0.12), "puff": puff}
        chair.add("back", plane.panel(width * 0.98, low, height, 0.05 if puff else 0.035, **shape))
    elif kind == "oval":
        low = draws.number(0.08, 0.14)
        chair.add("back", plane.panel(width * 0.92, low, height, 0.06, roundness=1.0, puff=0.5))
    else:
        _open_back(chair, draws, plane, kind, height)
        return
    for x in (-width * 0.3, width * 0.3):
        if low > 0:
            chair.add("frame", tube([(x, plane.y, seat - 0.04), plane.at(x, low + 0.08)], 0.02))


def dining(chair: Chair, draws: Draws, arms: bool = False, width: float = 0.0) -> None:
    """A seat on four legs with a back of any kind: also the body of the armchair and the bench."""
    width, depth = width or draws.number(0.40, 0.52), draws.number(0.40, 0.50)
    seat, thick = draws.number(0.42, 0.50), draws.number(0.035, 0.055)
    cushion, roundness = draws.chance(0.5), draws.pick((0.0, 0.15, 0.5))
    _legs(chair, draws, width * 0.96, depth * 0.96, seat - thick)
    board: Role = "frame" if cushion else "seat"
    chair.add(board, placed(pad((width, depth, thick), roundness), (0, 0, seat - thick / 2)))
    if cushion:
        soft = pad((width * 0.97, depth * 0.95, 0.07), max(roundness, 0.25), puff=0.5)
        chair.add("seat", placed(soft, (0, -0.01, seat + 0.02)))
    _back(chair, draws, width, depth, seat)
    if arms:
        _arms(chair, draws, width, depth, seat, draws.pick(("frame", "back")))


def armchair(chair: Chair, draws: Draws) -> None:
    """A wooden chair with arm rests."""
    dining(chair, draws, arms=True, width=draws.number(0.5, 0.6))


def bench(chair: Chair, draws: Draws) -> None:
    """A wide seat for two."""
    dining(chair, draws, arms=draws.chance(0.5), width=draws.number(0.75, 0.95))


def stool(chair: Chair, draws: Draws) -> None:
    """A high bar stool with a foot rest and, mostly, a low back."""
    width, seat, thick = draws.number(0.34, 0.42), draws.number(0.62, 0.78), draws.number(0.02, 0.026)
    roundness, splay, backless = draws.pick((0.0, 0.3, 1.0)), draws.number(0.02, 0.07), draws.chance(0.3)
    depth = width * draws.number(0.7, 0.85) if backless else width  # oblong, for its azimuth to show
    chair.add("seat", placed(pad((width, depth, 0.08), roundness, puff=0.4), (0, 0, seat)))
    x, y = width * 0.4, depth * 0.4
    for sx in (-1, 1):
        for sy in (-1, 1):
            foot = (sx * (x + splay), sy * (y + splay), 0)
            chair.add("frame", tube([foot, (sx * x, sy * y, seat - 0.02)], (thick * 0.8, thick)))
    for step, front in ((0.22, True), (0.36, False)):  # the foot rest is lower: it tells front from rear
        out = splay * (1 - step / seat)
        a, b = x + out, y + out
        bars = [(-1, -1, 1, -1)] if front else [(-1, 1, 1, 1), (-1, -1, -1, 1), (1, -1, 1, 1)]
        for x0, y0, x1, y1 in bars:
            chair.add("frame", tube([(x0 * a, y0 * b, step), (x1 * a, y1 * b, step)], 0.015))
    if backless:
        chair.colours["back"] = chair.colours["seat"]
        return
    plane = BackPlane(depth / 2 - 0.02, seat, width, draws.number(5, 12), 0.04)
    top = draws.number(0.22, 0.36)
    chair.add("back", plane.panel(width, top - draws.number(0.12, 0.2), top, 0.035, roundness=draws.pick((0.0, 0.4))))
    chair.add(
        "frame",
        *(tube([plane.at(s * width * 0.35, -0.03), plane.at(s * width * 0.35, top - 0.04)], 0.014) for s in (-1, 1)),
    )


def office(chair: Chair, draws: Draws) -> None:
    """A swivel chair on a star of five feet with castors."""
    width, seat, reach = draws.number(0.46, 0.54), draws.number(0.44, 0.52), draws.number(0.27, 0.33)
    roundness = draws.pick((0.2, 0.4, 0.7))
    for i in range(5):
        c, s = math.sin(i * 0.4 * math.pi), -math.cos(i * 0.4 * math.pi)
        chair.add("frame", tube([(0, 0, 0.13), (reach * c, reach * s, 0.075)], [(0.028, 0.026), (0.018, 0.016)], True))
        chair.add("frame", tube([(reach * c - 0.025, reach * s, 0.035), (reach * c + 0.025, reach * s, 0.035)], 0.035))
    chair.add("frame", tube([(0, 0, 0.09), (0, 0, seat)], 0.03))
    chair.add("seat", placed(pad((width, width * 0.95, 0.1), roundness, puff=0.4), (0, 0, seat)))
    low, high = draws.number(0.08, 0.16), draws.number(0.42, 0.68)
    plane = BackPlane(width / 2 - 0.01, seat, width, draws.number(4, 14), draws.number(0.02, 0.06))
    shape = {"roundness": draws.pick((0.2, 0.5, 0.8)), "taper": draws.number(-0.2, 0.05), "puff": 0.4}
    chair.add("back", plane.panel(width * draws.number(0.85, 1.0), low, high, 0.07, **shape))
    bracket = [(0.0, 0.1, seat - 0.04), (0.0, plane.y + 0.05, seat - 0.04), plane.at(0, low + 0.12)]
    chair.add("frame", tube(bracket, [(0.035, 0.015)] * 3, True))
    if draws.chance(0.6):
        _arms(chair, draws, width + 0.06, width * 0.6, seat)
        chair.add("frame", tube([(-width / 2 - 0.03, -0.1, seat - 0.05), (width / 2 + 0.03, -0.1, seat - 0.05)], 0.016))


def lounge(chair: Chair, draws: Draws) -> None:
    """A low, deep, reclined chair: thick cushions on an open frame."""
    width, depth, seat = draws.number(0.56, 0.68), draws.number(0.55, 0.66), draws.number(0.30, 0.38)
    recline, high, thick = draws.number(18, 32), draws.number(0.5, 0.72), draws.number(0.10, 0.15)
    soft = {"roundness": draws.pick((0.1, 0.3)), "puff": draws.number(0.2, 0.45)}
    chair.add("seat", placed(pad((width, depth, thick), **soft), (0, 0, seat), pitch=-7))
    plane = BackPlane(depth / 2 - 0.03, seat - 0.02, width, recline, 0.0)
    chair.add("back", plane.panel(width, 0.02, high, thick, **soft))
    rail, bar = seat - thick / 2 - 0.01, draws.number(0.02, 0.028)
    square, armed, arm = draws.chance(0.6), draws.chance(0.7), seat + draws.number(0.17, 0.24)
    front, rear, post = -depth / 2 + 0.04, plane.at(0, 0.3)[1], arm if armed else rail + bar
    for s in (-1, 1):
        x = s * (width / 2 + bar + 0.005)
        chair.add("frame", tube([(x, front - 0.02, 0), (x, front + 0.02, post)], bar, square))
        chair.add("frame", tube([(x, rear + 0.08, 0), (x, rear - 0.02, post)], bar, square))
        chair.add("frame", tube([(x, front, rail), (x, rear + 0.02, rail - 0.03)], bar, square))
        if armed:
            board = [(x, front - 0.06, arm), (x, rear + 0.06, arm - 0.03)]
            chair.add("frame", tube(board, [(0.035, 0.016)] * 2, square))
    chair.add("frame", tube([(-width / 2, front + 0.02, rail), (width / 2, front + 0.02, rail)], bar, square))


def club(chair: Chair, draws: Draws) -> None:
    """An upholstered chair with closed arms, on short feet; sometimes with wings."""
    width, depth, seat = draws.number(0.52, 0.64), draws.number(0.55, 0.65), draws.number(0.38, 0.44)
    arm, side = seat + draws.number(0.12, 0.22), draws.number(0.10, 0.16)
    feet, high, winged = draws.number(0.08, 0.18), draws.number(0.36, 0.62), draws.chance(0.4)
    roundness = draws.pick((0.0, 0.25, 0.4))
    body: Role = draws.pick(("back", "back", "seat"))
    chair.add(body, placed(pad((width + side, depth, seat - 0.1 - feet)), (0, 0, (seat - 0.1 + feet) / 2)))
    chair.add("seat", placed(pad((width, depth, 0.14), 0.15, puff=0.3), (0, -0.03, seat - 0.04)))
    plane = BackPlane(depth / 2 - 0.02, feet, width, draws.number(4, 12), 0.0)
    chair.add("back", plane.panel(width + side * 0.8, 0.0, seat + high - feet, 0.15, roundness=roundness, puff=0.2))
    for s in (-1, 1):
        x = s * (width + side) / 2
        upright = pad((depth, arm - feet, side), roundness, puff=0.15)
        chair.add(body, placed(upright, (x, -0.01, (arm + feet) / 2), pitch=90, yaw=90))
        if winged and high > 0.45:
            wing = pad((0.22, seat + high - arm + 0.02, 0.06), 0.5, puff=0.3)
            chair.add(
                "back", placed(wing, (x * 0.93, depth / 2 - 0.05, (seat + high + arm) / 2 - 0.03), pitch=90, yaw=90)
            )
        for y in (-depth / 2 + 0.05, depth / 2 - 0.05):
            chair.add("frame", tube([(x, y, 0), (x, y, feet + 0.01)], (0.02, 0.032)))


def shell(chair: Chair, draws: Draws) -> None:
    """A moulded bucket on splayed legs, a trumpet foot or runners of bent tube."""
    width, seat, high = draws.number(0.46, 0.58), draws.number(0.42, 0.47), draws.number(0.34, 0.56)
    lift, lean = draws.number(0.03, 0.16), draws.number(0.06, 0.16)
    profile = np.array([(-0.24, -0.03), (-0.2, 0.0), (-0.05, -0.01), (0.1, -0.015), (0.19, 0.02), (0.23, 0.1)])
    top = np.array([(0.23 + lean * t, 0.1 + (high - 0.1) * t) for t in (0.3, 0.55, 0.8, 1.0)])
    widths = width * np.array([0.82, 0.95, 1.0, 1.0, 1.0, 1.0, 0.98, 0.95, 0.85, 0.62 + draws.number(0, 0.3)])
    line = np.concatenate([profile, top])
    along = np.gradient(line, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    inner = np.stack([-along[:, 1], along[:, 0]], axis=1)  # towards the sitter
    u = np.linspace(-1, 1, 9)
    raised = lift * np.sin(np.linspace(0.15, math.pi - 0.3, 10))[:, None] * np.abs(u) ** 2.5

    def sheet(offset: float) -> Array:
        flat = line[:, None] + inner[:, None] * (raised + offset)[..., None]
        return np.stack([widths[:, None] / 2 * u, flat[..., 0], flat[..., 1] + seat], axis=-1)

    upper, lower = sheet(0.014), sheet(-0.014)
    chair.add("seat", solid(upper[:6], lower[:6]))
    chair.add("back", solid(upper[5:], lower[5:]))
    kind, bar, spread = draws.pick(("legs", "trumpet", "runners")), draws.number(0.016, 0.022), draws.number(0.02, 0.06)
    if kind == "trumpet":
        path = [(0.0, 0.0, z * seat) for z in (0.0, 0.03, 0.1, 0.4, 0.8, 0.98)]
        chair.add("frame", tube(path, np.array([0.23, 0.22, 0.09, 0.035, 0.035, 0.09]), fine=True))
        return
    for s in (-1, 1):
        x = s * width * 0.32
        if kind == "legs":
            for y, out in ((-0.15, -spread), (0.14, spread)):
                chair.add(
                    "frame",
                    tube([(x + s * spread, y + out, 0), (x * 0.7, y * 0.7, seat - 0.01)], (bar * 0.7, bar * 1.3)),
                )
        else:
            run = [(x, -0.14, seat - 0.02), (x * 1.2, -0.2, 0.03), (x * 1.2, 0.2, 0.03), (x, 0.12, seat - 0.02)]
            for a, b in itertools.pairwise(run):
                chair.add("frame", tube([a, b], bar))


STYLES: dict[str, tuple[Callable[[Chair, Draws], None], float]] = {  # what builds it, and its share
    "dining": (dining, 0.25),
    "armchair": (armchair, 0.15),
    "office": (office, 0.13),
    "lounge": (lounge, 0.12),
    "club": (club, 0.12),
    "shell": (shell, 0.12),
    "bench": (bench, 0.06),
    "stool": (stool, 0.05),
}
WOOD_AND_METAL: tuple[Colour, ...] = (
    *((0.72, 0.53, 0.34), (0.50, 0.32, 0.19), (0.30, 0.19, 0.13), (0.85, 0.72, 0.52)),
    *((0.16, 0.16, 0.18), (0.60, 0.62, 0.66)),
)
TONES = ((0.68, 0.88), (0.72, 0.64), (0.42, 0.92), (0.50, 0.74), (0.60, 0.48))  # saturation and value


def _paint(draws: Draws, hue: float) -> Colour:
    """Draw a tone of a hue."""
    saturation, value = draws.pick(TONES)
    return colorsys.hsv_to_rgb(hue % 1, saturation + draws.number(-0.06, 0.06), value + draws.number(-0.06, 0.06))


def _colours(draws: Draws, number: int) -> dict[Role, Colour]:
    """Draw the colours: a seat of any hue, a back alike or in contrast, a frame of wood, metal or paint."""
    hue = draws.number(-0.01, 0.01) + number * GOLDEN
    seat, other = _paint(draws, hue), _paint(draws, hue + draws.pick((0.12, 0.33, 0.5, 0.67, 0.88)))
    painted, shade = _paint(draws, draws.number(0, 1)), draws.number(0.88, 1.12)
    red, green, blue = draws.pick(WOOD_AND_METAL)
    frame = painted if draws.chance(0.45) else (red * shade, green * shade, blue * shade)
    return {"seat": seat, "back": seat if draws.chance(0.35) else other, "frame": frame}


def chair_of(seed: int, number: int) -> Chair:
    """Return chair `number` of a seed: always the same chair."""
    draws = Draws("chairs", seed, number)
    colours = _colours(draws, number)
    shares = list(itertools.accumulate(share for _, share in STYLES.values()))
    place = draws.number(0, shares[-1])
    style, (build, _) = next(entry for entry, upto in zip(STYLES.items(), shares, strict=True) if place < upto)
    chair = Chair(style, colours)
    build(chair, draws)
    return chair
