"""Chairs from model files: every format stands upright in its own colours, and what is unsafe or broken fails by name."""

import io
import json
import math
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from drnet.datasets.chairs import Chairs
from drnet.datasets.contract import Clip, DataError, ItemFailed, ItemFiltered
from drnet.datasets.rendering import chair_files
from drnet.datasets.rendering.turntable import turn
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.verify import verify_data

trimesh = pytest.importorskip("trimesh")
pybullet_here = pytest.mark.skipif(
    sys.platform != "linux" or sys.version_info >= (3, 12), reason="pybullet has no wheel here"
)
RED, GREEN, BLUE = (204, 26, 26), (26, 153, 26), (26, 51, 204)
PARTS = {  # colour, size and place; z up, the front towards -y
    "seat": (RED, (0.5, 0.5, 0.06), (0, 0, 0.45)),
    "back": (BLUE, (0.5, 0.05, 0.55), (0, 0.225, 0.72)),
    **{
        f"leg{x}{y}": (GREEN, (0.07, 0.07, 0.45), (0.2 * x, 0.2 * y, 0.225)) for x in (-1, 1) for y in (-1, 1)
    },
}  # fmt: skip


def boxes(up: str = "z") -> list[tuple[Any, tuple[int, int, int]]]:
    """Return a chair of boxes with their colours."""
    turned = np.eye(4) if up == "z" else trimesh.transformations.rotation_matrix(-math.pi / 2, (1, 0, 0))
    found = []
    for colour, size, place in PARTS.values():
        box = trimesh.creation.box(size)
        box.apply_translation(place)
        box.apply_transform(turned)
        found.append((box, colour))
    return found


def linear(colour: tuple[int, int, int]) -> list[float]:
    """Return a colour of pictures as the linear light that glTF's factors are."""
    return [((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour] + [1.0]


def write_glb(path: Path, kind: str = "glb") -> None:
    """Write the chair as glTF 2.0, y up, a material for each part."""
    scene = trimesh.Scene()
    for box, colour in boxes("y"):
        material = trimesh.visual.material.PBRMaterial(baseColorFactor=linear(colour))
        box.visual = trimesh.visual.TextureVisuals(uv=np.zeros((len(box.vertices), 2)), material=material)
        scene.add_geometry(box)
    files = scene.export(file_type=kind)
    for name, blob in ({path.name: files} if kind == "glb" else files).items():
        (path if name.endswith(kind) else path.parent / name).write_bytes(blob)


def write_obj(path: Path, up: str = "z", textured: bool = False) -> None:
    """Write the chair as OBJ with an MTL, its colours plain or the quarters of a PNG."""
    lines, materials, first = [f"mtllib {path.stem}.mtl"], [], 1
    for number, (box, colour) in enumerate(boxes(up)):
        materials += [f"newmtl m{number}", *([f"map_Kd {path.stem}.png"] if textured else [])]
        materials += ["Kd 1 1 1" if textured else "Kd " + " ".join(f"{c / 255:.4f}" for c in colour)]
        u, v = {RED: (0.25, 0.75), GREEN: (0.75, 0.75), BLUE: (0.25, 0.25)}[colour]
        lines += [f"usemtl m{number}", *("v {:.5f} {:.5f} {:.5f}".format(*point) for point in box.vertices)]
        lines += [f"vt {u + 2} {v - 3}"]  # whole textures away, as tiling models have it
        lines += ["f " + " ".join(f"{corner + first}/{number + 1}" for corner in face) for face in box.faces]
        first += len(box.vertices)
    path.write_text("\n".join(lines) + "\n")
    path.with_suffix(".mtl").write_text("\n".join(materials) + "\n")
    if textured:
        picture = np.full((256, 256, 3), 255, np.uint8)
        picture[:128, :128], picture[:128, 128:], picture[128:, :128] = RED, GREEN, BLUE
        Image.fromarray(picture).save(path.with_suffix(".png"))


def write_ply(path: Path, up: str = "z") -> None:
    """Write the chair as PLY with vertex colours."""
    parts = boxes(up)
    for box, colour in parts:
        box.visual.vertex_colors = [*colour, 255]
    path.write_bytes(trimesh.util.concatenate([box for box, _ in parts]).export(file_type="ply"))


def write_stl(path: Path, up: str = "z") -> None:
    """Write the chair as binary STL, which has no colours."""
    path.write_bytes(trimesh.util.concatenate([box for box, _ in boxes(up)]).export(file_type="stl"))


def write_dae(path: Path) -> None:
    """Write the chair as COLLADA with z up and a material for each part."""
    pytest.importorskip("collada")
    parts = []
    for box, colour in boxes("z"):
        material = trimesh.visual.material.PBRMaterial(baseColorFactor=[*colour, 255])
        box.visual = trimesh.visual.TextureVisuals(uv=np.zeros((len(box.vertices), 2)), material=material)
        parts.append(box)
    text = trimesh.exchange.dae.export_collada(parts).decode()
    assert "Y_UP" in text
    path.write_text(text.replace("Y_UP", "Z_UP"))


WRITERS: dict[str, Callable[[Path], None]] = {
    "a.glb": write_glb,
    "b.gltf": lambda path: write_glb(path, "gltf"),
    "c.obj": write_obj,
    "d.obj": lambda path: write_obj(path, "y", textured=True),
    "e.ply": write_ply,
    "f.stl": write_stl,
    "g.dae": write_dae,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the chair of boxes in every format; read only."""
    pytest.importorskip("collada")
    folder = tmp_path_factory.mktemp("models")
    for name, write in WRITERS.items():
        write(folder / name)
    return folder


def ends(folder: Path, name: str, up: chair_files.Up = "auto") -> str:
    """Return why a model fails."""
    with pytest.raises(ItemFailed) as caught:
        chair_files.load(str(folder), name, up, 32)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(name)
    return str(caught.value)


def hue_shares(frame: np.ndarray) -> dict[str, np.ndarray]:
    """Return where the seat (red), the back (blue) and the legs (green) of the chair of boxes are seen."""
    strongest, spread = frame.argmax(-1), np.ptp(frame.astype(int), axis=-1) > 60
    return {part: (strongest == plane) & spread for part, plane in (("seat", 0), ("legs", 1), ("back", 2))}


@pybullet_here
@pytest.mark.parametrize("name", [name for name in WRITERS if name != "f.stl"])
def test_every_format_stands_upright_with_its_front_to_azimuth_zero_in_its_colours(models: Path, name: str) -> None:
    bodies = chair_files.load(str(models), name, "auto", 64)
    front, rear = turn(bodies, [0, 180], 20, 64)
    seen, behind = hue_shares(front), hue_shares(rear)
    rows = {part: np.argwhere(where)[:, 0].mean() for part, where in seen.items()}
    assert rows["back"] < rows["seat"] < rows["legs"]
    assert seen["seat"].sum() > 1.5 * behind["seat"].sum()  # from behind the back hides the seat
    assert behind["back"].sum() > seen["back"].sum()
    for part, colour in (("back", BLUE), ("legs", GREEN), ("seat", RED)):
        brightest = np.median(front[seen[part]], axis=0)
        np.testing.assert_allclose(brightest / brightest.max(), np.array(colour) / max(colour), atol=0.06)


@pybullet_here
def test_all_formats_give_nearly_the_same_picture(models: Path) -> None:
    drawn = {name: turn(chair_files.load(str(models), name, "auto", 32), [30], 20, 32)[0] for name in WRITERS}
    for name, frame in drawn.items():
        if name != "f.stl":
            assert np.abs(frame.astype(int) - drawn["a.glb"]).mean() < 1.5, name
    shape = (drawn["f.stl"] < 250).any(-1)
    assert ((drawn["a.glb"] < 250).any(-1) == shape).mean() > 0.98


def test_models_are_centred_on_the_ground_and_one_metre_large(models: Path, tmp_path: Path) -> None:
    for box, _ in (parts := boxes("y")):
        box.apply_scale(3000)
        box.apply_translation((12_345, -777, 9))
    (tmp_path / "far.stl").write_bytes(trimesh.util.concatenate([box for box, _ in parts]).export(file_type="stl"))
    for folder, name in ((models, "a.glb"), (models, "e.ply"), (tmp_path, "far.stl")):
        points = np.concatenate([body.points for body in chair_files.load(str(folder), name, "auto", 32)])
        np.testing.assert_allclose(points.min(0) + points.max(0), (0, 0, 1), atol=1e-6)
        assert np.ptp(points, axis=0).max() == pytest.approx(1)


def test_the_axis_that_is_up_can_be_said(tmp_path: Path) -> None:
    write_ply(tmp_path / "z.ply", "z")
    write_ply(tmp_path / "y.ply", "y")

    def tall(name: str, up: chair_files.Up) -> bool:
        points = np.concatenate([body.points for body in chair_files.load(str(tmp_path), name, up, 32)])
        return bool(np.ptp(points[:, 2]) > 0.9)

    assert [tall("z.ply", up) for up in ("auto", "z", "y")] == [True, True, False]
    assert [tall("y.ply", up) for up in ("auto", "z", "y")] == [True, False, True]


GLTF = {"asset": {"version": "2.0"}, "scenes": [{"nodes": [0]}], "scene": 0, "nodes": [{"mesh": 0}]}


def gltf(uri: str, **more: Any) -> str:
    """Return a glTF of one triangle whose points are in a file or at a URL."""
    primitives = [{"attributes": {"POSITION": 0}}]
    accessor = {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3", "max": [1, 1, 0], "min": [0, 0, 0]}
    buffers = {"buffers": [{"uri": uri, "byteLength": 36}], "bufferViews": [{"buffer": 0, "byteLength": 36}]}
    return json.dumps({**GLTF, "meshes": [{"primitives": primitives}], "accessors": [accessor], **buffers, **more})


TRIANGLE = struct.pack("<9f", 0, 0, 0, 1, 0, 0, 0, 1, 0)


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("../secret.bin", "outside of the folder"),
        ("%2e%2e/secret.bin", "outside of the folder"),
        ("link.bin", "outside of the folder"),
        ("/secret.bin", "only files in the folder"),
        ("https://example.org/points.bin", "only files in the folder"),
        ("file:points.bin", "only files in the folder"),
        ("points.txt", "may be referred to"),
        ("gone.bin", "which is not there"),
    ],
)
def test_what_a_model_refers_to_must_be_in_the_folder(tmp_path: Path, uri: str, why: str) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    for path in (tmp_path / "secret.bin", folder / "points.bin", folder / "points.txt"):
        path.write_bytes(TRIANGLE)
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "a.gltf").write_text(gltf("points.bin"))
    assert chair_files.load(str(folder), "a.gltf", "auto", 32)
    (folder / "a.gltf").write_text(gltf(uri))
    assert why in ends(folder, "a.gltf")


def test_obj_and_collada_reach_no_other_files_either(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "secret.mtl").write_text("newmtl m0\nKd 1 0 0\n")
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    write_obj(folder / "a.obj", textured=True)
    whole = (folder / "a.obj").read_text()
    (folder / "a.obj").write_text(whole.replace("mtllib a.mtl", "mtllib ../secret.mtl"))
    assert "outside of the folder" in ends(folder, "a.obj")
    (folder / "a.obj").write_text(whole)
    (folder / "a.mtl").write_text((folder / "a.mtl").read_text().replace("a.png", "..\\secret.png"))
    assert "outside of the folder" in ends(folder, "a.obj")
    (folder / "b.dae").write_text('<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>')
    assert "XML entities" in ends(folder, "b.dae")
    (folder / "c.glb").symlink_to(tmp_path / "secret.png")
    assert "link to outside" in ends(folder, "c.glb")


def test_a_broken_model_says_its_name_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_glb(tmp_path / "cut.glb")
    (tmp_path / "cut.glb").write_bytes((tmp_path / "cut.glb").read_bytes()[:900])
    for name, content in {
        "empty.obj": "",
        "points.obj": "v 0 0 0\nv 1 0 0\n",
        "text.ply": "no",
        "noise.stl": "solid",
        "short.glb": "glTF",
    }.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "other.fbx").write_bytes(b"Kaydara FBX Binary")
    (tmp_path / "draco.gltf").write_text(gltf("points.bin", extensionsRequired=["KHR_draco_mesh_compression"]))
    (tmp_path / "flat.obj").write_text("v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n")
    write_stl(tmp_path / "nan.stl")
    binary = (tmp_path / "nan.stl").read_bytes()
    (tmp_path / "nan.stl").write_bytes(binary[:100] + struct.pack("<f", math.nan) + binary[104:])
    for name in ("cut.glb", "empty.obj", "points.obj", "text.ply", "noise.stl"):
        assert "cannot be drawn" in ends(tmp_path, name)
    assert "short.glb cannot be drawn: it is no binary glTF file" in ends(tmp_path, "short.glb")
    assert "convert it to .glb" in ends(tmp_path, "other.fbx")
    assert "KHR_draco_mesh_compression" in ends(tmp_path, "draco.gltf")
    assert "no area" in ends(tmp_path, "flat.obj")
    assert "no numbers" in ends(tmp_path, "nan.stl")
    write_obj(tmp_path / "bad.obj", textured=True)
    (tmp_path / "bad.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0")
    assert "no picture" in ends(tmp_path, "bad.obj")
    write_stl(tmp_path / "large.stl")
    monkeypatch.setattr(chair_files, "MOST_FACES", 71)
    assert "it has 72 faces, and at most 71 are drawn" in ends(tmp_path, "large.stl")
    monkeypatch.setattr(chair_files, "MOST_BYTES", 3_000)
    assert "3,684 bytes" in ends(tmp_path, "large.stl")


def test_a_texture_of_too_many_pixels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_obj(tmp_path / "a.obj", textured=True)
    monkeypatch.setattr(chair_files, "MOST_PIXELS", 1000)
    assert "a texture has 256x256 pixels" in ends(tmp_path, "a.obj")


def test_what_is_transparent_in_a_texture_is_white() -> None:
    image = Image.new("RGBA", (2, 1), (10, 20, 30, 255))
    image.putpixel((1, 0), (10, 20, 30, 0))
    assert chair_files._pixels(image).tolist() == [[[10, 20, 30], [255, 255, 255]]]
    picture = io.BytesIO()
    Image.new("RGB", (4, 4)).save(picture, "PPM")
    with pytest.raises(ValueError, match="PPM"):
        chair_files._pixels(Image.open(picture))


def test_a_folder_that_is_not_right_is_named_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder; --meshes takes"):
        Chairs(meshes=str(tmp_path / "gone")).count("train")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("none yet")
    with pytest.raises(DataError, match="holds no model; put"):
        Chairs(meshes=str(tmp_path / "empty")).count("train")
    write_stl(tmp_path / "a.stl")
    assert Chairs(meshes=str(tmp_path)).count("test") == 0  # one model can be looked at
    with pytest.raises(DataError, match=r"clips 1 and test clips 1 are not allowed; .* holds 1 models"):
        Chairs(meshes=str(tmp_path), test_clips=1).count("train")


@pytest.mark.parametrize(("module", "wrote"), [("trimesh", "a.stl"), ("collada", "b.dae")])
def test_without_what_reads_models_the_way_out_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, wrote: str
) -> None:
    (tmp_path / wrote).write_text("any")
    monkeypatch.setitem(sys.modules, module, None)
    chair_files._trimesh.cache_clear()
    try:
        with pytest.raises(DataError, match=r"pip install 'drnet\[meshes\]'") as caught:
            chair_files.sources(str(tmp_path))
    finally:
        chair_files._trimesh.cache_clear()
    assert "\n" not in str(caught.value)


def many(folder: Path, count: int) -> Path:
    """Write boxes of different heights, some in a folder of their own."""
    for number in range(count):
        path = folder / f"room{number % 3}" / f"chair {number:02d}.stl"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(trimesh.creation.box((1, 1, 1 + number / 10)).export(file_type="stl"))
    return folder


def test_the_split_is_by_model_and_by_seed(tmp_path: Path) -> None:
    many(tmp_path, 20)
    (tmp_path / ".hidden.stl").write_bytes(b"")

    def split(**given: Any) -> tuple[list[str], list[str]]:
        data = Chairs(meshes=str(tmp_path), **given)
        train, test = ([data.item(name, i) for i in range(data.count(name))] for name in ("train", "test"))
        return train, test

    train, test = split()
    assert (len(train), len(test)) == (18, 2)
    assert sorted(train + test) == list(chair_files.names(str(tmp_path)))
    assert train == sorted(train)
    assert train[0] == "room0/chair 00.stl"
    assert split(seed=1)[1] != test == split()[1]
    few, same = split(clips=5, test_clips=2)
    assert same == test
    assert set(few) < set(train)


@pybullet_here
def test_models_build_with_their_labels_and_each_failure_is_counted(models: Path, tmp_path: Path) -> None:
    folder = many(tmp_path, 6)
    (folder / "room1" / "twin.stl").write_bytes((folder / "room0" / "chair 00.stl").read_bytes())
    (folder / "room2" / "broken.glb").write_bytes(b"glTF")
    (folder / "sofa.fbx").write_bytes(b"Kaydara FBX Binary")
    data = Chairs(meshes=str(folder), size=32, frames=4, elevation=(10, 40), test_clips=0)
    plan = plan_build(data, "zstd", 4)
    one, two = build(plan, tmp_path / "one", 1), build(plan, tmp_path / "two", 2)
    assert one.manifest.to_bytes() == two.manifest.to_bytes()
    assert one.counts["train"] == {"failed": 2, "filtered": 1, "written": 6}
    assert verify_data(tmp_path / "two")[0] == []
    rows = [json.loads(line) for line in (tmp_path / "one" / "accounting.jsonl").read_text().splitlines()]
    reasons = {row["item"]: row.get("why", "") for row in rows}
    assert reasons["room1/twin.stl"] == "room1/twin.stl has the same bytes as room0/chair 00.stl"
    assert reasons["sofa.fbx"].startswith("sofa.fbx is a .fbx file")
    assert one.manifest.parameters["meshes"] == "models"
    assert str(tmp_path) not in one.manifest.to_bytes().decode()
    assert [source["name"] for source in one.manifest.sources] == list(chair_files.names(str(folder)))
    first = next(data.clips("train", 0))
    assert isinstance(first, Clip)
    assert set(first.labels) == {*data.labels, "file"}
    assert first.labels["file"] == "room0/chair 00.stl"
    assert "style" not in data.labels


def test_a_twin_of_an_earlier_model_is_left_out(tmp_path: Path) -> None:
    for name in ("a.stl", "b.stl", "c.stl"):
        write_stl(tmp_path / name)
    (tmp_path / "b.stl").write_bytes((tmp_path / "b.stl").read_bytes()[:-1] + b"\1")
    chair_files.refuse_twin(str(tmp_path), 1)
    with pytest.raises(ItemFiltered, match=r"c\.stl has the same bytes as a\.stl"):
        chair_files.refuse_twin(str(tmp_path), 2)


def test_a_changed_texture_is_a_changed_source(models: Path, tmp_path: Path) -> None:
    write_obj(tmp_path / "a.obj", textured=True)
    before = {source.name: source.sha256 for source in chair_files.sources(str(tmp_path))}
    assert set(before) == {"a.obj", "a.mtl", "a.png"}
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    after = {source.name: source.sha256 for source in chair_files.sources(str(tmp_path))}
    assert [name for name in before if before[name] != after[name]] == ["a.png"]
