"""Chairs from the user's own 3D models: a folder of glTF, OBJ, STL, PLY and COLLADA files, read by trimesh.

A model is the chair's name, its path below the folder. What a file refers to (materials, buffers, pictures) is read only
where it lies in the folder too. Textures, vertex and face colours are kept; animations, lamps and cameras are not.
"""

import functools
import io
import json
import logging
import re
import struct
import urllib.parse
import warnings
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from drnet.datasets.contract import DataError, ItemFailed, ItemFiltered, SourceFile
from drnet.datasets.reading.source_files import copies, printable, source_files
from drnet.datasets.rendering.chair_surfaces import Surface, Up, bodies_of, guess_up, upright
from drnet.datasets.rendering.turntable import Body, Floats, Pixels

MODELS = (".glb", ".gltf", ".obj", ".stl", ".ply", ".dae")
UNREAD = (".fbx", ".blend", ".3ds", ".3mf", ".max", ".off", ".step", ".stp", ".usd", ".usda", ".usdc", ".usdz", ".wrl")
BESIDE = (
    ".mtl",
    ".bin",
    ".png",
    ".jpg",
    ".jpeg",
    ".webp",
    ".bmp",
    ".tga",
    ".gif",
    ".tif",
    ".tiff",
)  # may be referred to
PICTURES = ("PNG", "JPEG", "WEBP", "BMP", "TGA", "GIF", "TIFF")  # Pillow's names
MOST_BYTES = 256 * 2**20  # of a model with all it refers to
MOST_FACES = 200_000
MOST_PIXELS = 8192 * 8192  # of a texture
GREY = (0.72, 0.72, 0.72)  # of what has no colour
TONE = 0.85  # of all colours: white models stay apart from the white background
NO_TRIMESH = "models are read by trimesh, which is not installed; install it by: pip install 'drnet[meshes]'"
NO_COLLADA = ".dae files are read by pycollada, which is not installed; install it by: pip install 'drnet[meshes]'"


@functools.cache
def _trimesh() -> ModuleType:
    try:
        import trimesh
    except ImportError:
        raise DataError(NO_TRIMESH) from None
    logging.getLogger("trimesh").addHandler(logging.NullHandler())  # else its warnings go to the terminal
    return trimesh


@functools.lru_cache(maxsize=8)
def names(folder: str) -> tuple[str, ...]:
    """Return the models of a folder and of those in it, sorted: paths below it, with `/`.

    Files of formats that are not read are among them: they fail by name.

    Raises:
        DataError: the folder is not there or holds no model.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"'{folder}' is not a folder; --meshes takes a folder of {', '.join(MODELS)} files")
    found = tuple(name for name in _files(root) if Path(name).suffix.lower() in MODELS + UNREAD)
    if not any(Path(name).suffix.lower() in MODELS for name in found):
        raise DataError(f"'{folder}' holds no model; put {', '.join(MODELS)} files into it")
    return found


def _files(root: Path) -> list[str]:
    """Return the visible files below a folder, sorted."""
    below = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in below if not any(part.startswith(".") for part in path.parts))


def sources(folder: str) -> list[SourceFile]:
    """Return the models and all files that they may refer to.

    Raises:
        DataError: the folder is not as expected, or what reads the models is not installed.
    """
    _trimesh()
    if any(name.lower().endswith(".dae") for name in names(folder)):
        try:
            import collada  # noqa: F401 - only to know that it is there
        except ImportError:
            raise DataError(NO_COLLADA) from None
    root = Path(folder)
    found = [name for name in _files(root) if Path(name).suffix.lower() in MODELS + UNREAD + BESIDE]
    return source_files(root, found)


def look_again() -> None:
    """Forget what the folders held: somebody may have put models there, or taken some away."""
    names.cache_clear()
    _twins.cache_clear()


def refuse_twin(folder: str, number: int) -> None:
    """Raise ItemFiltered where an earlier model of the folder has the very same bytes: a chair is in one split only."""
    other = _twins(folder).get(number)
    if other is not None:
        model, first = (printable(names(folder)[place]) for place in (number, other))
        raise ItemFiltered(f"{model} has the same bytes as {first}")


@functools.lru_cache(maxsize=8)
def _twins(folder: str) -> dict[int, int]:
    return copies(Path(folder), names(folder))


class Inside:
    """What trimesh asks for the files that a model refers to: those in the folder and no others.

    trimesh goes on without what it does not get, so every refusal is remembered.
    """

    def __init__(self, folder: str, name: str) -> None:
        self.root, self.name = Path(folder).resolve(), name
        self.bytes = 0
        self.refused: list[str] = []

    def model(self) -> bytes:
        """Return the bytes of the model itself."""
        return self._read(self.root / self.name)

    def get(self, name: str) -> bytes:
        """Return the bytes of a file that the model names.

        Raises:
            ItemFailed: it is not in the folder, or not of a kind that models need.
        """
        wanted = name.strip().replace("\\", "/")
        parent = (self.root / self.name).parent
        plain = urllib.parse.unquote(wanted)
        if "://" in wanted or wanted.startswith(("/", "file:", "data:")) or "\0" in plain:
            self._refuse(f"refers to '{name[:200]}'; only files in the folder of models are read")
        path = next((path for path in (parent / wanted, parent / plain) if path.is_file()), parent / plain)
        if not path.resolve().is_relative_to(self.root):
            self._refuse(f"refers to '{name[:200]}', which is outside of the folder of models")
        if path.suffix.lower() not in BESIDE:
            self._refuse(f"refers to '{name[:200]}'; only {', '.join(BESIDE)} files may be referred to")
        if not path.is_file():
            self._refuse(f"refers to '{name[:200]}', which is not there")
        blob = self._read(path)
        if path.suffix.lower() not in (".mtl", ".bin"):
            _picture(blob, self._refuse, name)
        return blob

    __getitem__ = get

    def _read(self, path: Path) -> bytes:
        if not path.resolve().is_relative_to(self.root):
            self._refuse("is a link to outside of the folder of models")
        self.bytes += path.stat().st_size
        if self.bytes > MOST_BYTES:
            self._refuse(f"has {self.bytes:,} bytes with what it refers to; at most {MOST_BYTES:,} are read")
        return path.read_bytes()

    def _refuse(self, why: str) -> None:
        self.refused.append(f"{printable(self.name)} {why}")
        raise ItemFailed(self.refused[-1])


def _picture(blob: bytes, refuse: Any, name: str) -> None:
    """Refuse what is no picture: trimesh would go on without it."""
    from PIL import Image

    try:
        Image.open(io.BytesIO(blob), formats=PICTURES).close()
    except Exception:
        refuse(f"refers to '{name[:200]}', which is no picture of {', '.join(PICTURES)}")


def load(folder: str, name: str, up: Up, size: int) -> list[Body]:
    """Read a model.

    Args:
        folder: of the models.
        name: of the model, from `names`.
        up: the axis that is up in OBJ, PLY and STL files; the others say it themselves (glTF: y).
        size: of the frames in pixels.

    Returns:
        Bodies, centred, on the ground, one metre large.

    Raises:
        ItemFailed: in one line, with the name, where it cannot be drawn.
    """
    suffix, inside = Path(name).suffix.lower(), Inside(folder, name)
    if suffix in UNREAD:
        raise ItemFailed(f"{printable(name)} is a {suffix} file, which is not read; convert it to .glb")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the parsers, about what they make up for
            surfaces = _surfaces(inside, suffix, up)
            bodies = [toned(body) for body in bodies_of(surfaces, size)]
    except (ItemFailed, DataError):
        raise
    except Exception as error:  # the parsers raise anything at a broken file
        if not inside.refused:
            text = " ".join(str(error).split())[:200]
            raise ItemFailed(f"{printable(name)} cannot be drawn: {text or type(error).__name__}") from None
    if inside.refused:
        raise ItemFailed(inside.refused[0])
    return bodies


def _surfaces(inside: Inside, suffix: str, up: Up) -> list[Surface]:
    """Return the triangles of every part, where it stands, with z up."""
    blob, trimesh = inside.model(), _trimesh()
    said = _checked(blob, suffix)
    scene = trimesh.load_scene(io.BytesIO(blob), file_type=suffix[1:], resolver=inside, process=False)
    parts = [scene.graph[node] for node in scene.graph.nodes_geometry]
    parts = [(matrix, scene.geometry[key]) for matrix, key in parts]
    parts = [(matrix, part) for matrix, part in parts if isinstance(part, trimesh.Trimesh) and len(part.faces)]
    faces = sum(len(part.faces) for _, part in parts)
    if not faces:
        raise ValueError("it holds no faces")
    if faces > MOST_FACES:
        raise ValueError(f"it has {faces:,} faces, and at most {MOST_FACES:,} are drawn; simplify it")
    placed = [np.asarray(part.vertices)[part.faces] @ matrix[:3, :3].T + matrix[:3, 3] for matrix, part in parts]
    if not all(np.isfinite(corners).all() for corners in placed):
        raise ValueError("it holds points that are no numbers")
    way = said or (up if up != "auto" else guess_up(np.concatenate(placed), suffix))
    linear = suffix in (".glb", ".gltf")
    return [_surface(part, upright(corners, way), linear) for (_, part), corners in zip(parts, placed, strict=True)]


def _checked(blob: bytes, suffix: str) -> str:
    """Check what the parsers would pass over; return the axis that the format says is up, or nothing."""
    if suffix == ".dae":
        if b"<!ENTITY" in blob or b"<!DOCTYPE" in blob:
            raise ValueError("it declares XML entities")
        way = re.search(rb"<up_axis>\s*([XYZ])_UP", blob)
        return way.group(1).decode().lower() if way else "y"
    if suffix not in (".glb", ".gltf"):
        return ""
    if suffix == ".glb":
        if len(blob) < 20 or not blob.startswith(b"glTF"):
            raise ValueError("it is no binary glTF file")
        blob = blob[20 : 20 + struct.unpack("<I", blob[12:16])[0]]
    needed = set(json.loads(blob).get("extensionsRequired", ()))
    unread = sorted(kind for kind in needed if "compression" in kind or "texture_" in kind.lower())
    if unread and unread != ["KHR_texture_transform"]:
        raise ValueError(f"it needs {', '.join(unread)}, which is not read; export it without")
    return "y"


def _surface(part: Any, corners: Floats, linear: bool) -> Surface:
    """Return the triangles of a part with its material: a texture, else colours of its points, else one colour."""
    visual = part.visual
    material = getattr(visual, "material", None)
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    tint = getattr(material, "baseColorFactor", None)
    tint = getattr(material, "diffuse", None) if tint is None and image is None else tint
    colour = _rgb(tint, linear) if tint is not None else (1.0, 1.0, 1.0) if material is not None else GREY
    if image is not None and visual.uv is not None:
        return Surface(corners, colour, uv=np.asarray(visual.uv, float)[part.faces], texture=_pixels(image))
    of_points = getattr(visual, "vertex_attributes", {}).get("color") if material is not None else None
    if visual.kind == "face":
        colours = np.repeat(visual.face_colors[:, None, :3], 3, axis=1)
    elif visual.kind == "vertex":
        colours = visual.vertex_colors[part.faces, :3]
    elif of_points is not None:
        colours = np.asarray(of_points)[part.faces, :3]
    else:
        return Surface(corners, colour)
    share = colours / 255.0 if colours.dtype == np.uint8 else np.asarray(colours, float)
    tinted = _encoded(share) if linear else share
    if np.ptp(tinted, axis=(0, 1)).max() == 0:
        return Surface(corners, tuple((tinted[0, 0] * (colour if material is not None else 1.0)).tolist()))
    return Surface(corners, colour if material is not None else (1.0, 1.0, 1.0), colours=tinted)


def _rgb(value: Any, linear: bool) -> tuple[float, float, float]:
    """Return a colour of trimesh, bytes or floats, as red, green, blue in [0, 1]."""
    array = np.asarray(value)
    share = array[:3] / 255.0 if array.dtype == np.uint8 else array[:3].astype(float)
    red, green, blue = (_encoded(share) if linear else share).clip(0, 1).tolist()
    return red, green, blue


def _encoded(linear: Floats) -> Floats:
    """Return linear light, which glTF's factors and vertex colours are, as the sRGB of pictures (IEC 61966-2-1)."""
    share = linear.clip(0, 1)
    return np.where(share <= 0.0031308, share * 12.92, 1.055 * share ** (1 / 2.4) - 0.055)


def _pixels(image: Any) -> Pixels:
    """Return a Pillow image as (H, W, 3) uint8; what is transparent shows the white background."""
    from PIL import Image

    if image.format not in (*PICTURES, None):
        raise ValueError(f"it holds a picture of kind {image.format}; {', '.join(PICTURES)} are read")
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(f"a texture has {image.width}x{image.height} pixels; at most {MOST_PIXELS:,} are read")
    rgba = image.convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB"))


def toned(body: Body) -> Body:
    """Return a body a little darker."""
    red, green, blue = body.colour
    return replace(body, colour=(red * TONE, green * TONE, blue * TONE))
