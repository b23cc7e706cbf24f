"""The chairs: pure functions of seed and number, whole and distinct in every frame, with labels that agree."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drnet.datasets import chairs
from drnet.datasets.catalogue import restore
from drnet.datasets.chairs import Chairs
from drnet.datasets.contract import Clip, DataError, DataSet, Split
from drnet.datasets.rendering.chair_meshes import Mesh, normals, pad, tube
from drnet.datasets.rendering.chair_models import STYLES, chair_of
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.looking.truth import truth_of
from drnet.pipelines.source import open_shards
from drnet.pipelines.verify import verify_data

pybullet_here = pytest.mark.skipif(
    sys.platform != "linux" or sys.version_info >= (3, 12), reason="pybullet has no wheel here"
)
SEVERAL: tuple[tuple[Split, int], ...] = (("train", 0), ("train", 5), ("test", 0), ("train", 17))


def clip_of(data: Chairs, split: Split, index: int) -> Clip:
    """Return the one clip of an item."""
    (clip,) = data.clips(split, index)
    return clip


def digest_of(data: Chairs, split: Split, index: int) -> str:
    """Return the hash of an item's frames."""
    return hashlib.sha256(clip_of(data, split, index).frames.tobytes()).hexdigest()


def digest_of_all(data: DataSet, index: int) -> str:
    """Return the hash of the frames of all clips of a train item."""
    clips = [clip for clip in data.clips("train", index) if isinstance(clip, Clip)]
    return hashlib.sha256(b"".join(clip.frames.tobytes() for clip in clips)).hexdigest()


def edge_of(frames: np.ndarray) -> np.ndarray:
    """Return the pixels of the frames' outermost rows and columns, (N, 3)."""
    sides = [frames[:, 0], frames[:, -1], frames[:, :, 0], frames[:, :, -1]]
    return np.concatenate([side.reshape(-1, 3) for side in sides])


def test_it_is_a_data_set_that_travels() -> None:
    data = Chairs(clips=7, test_clips=3, size=32, frames=4, elevation=(15, 40), seed=5, shadows=True)
    assert isinstance(data, DataSet)
    again = pickle.loads(pickle.dumps(data))  # noqa: S301 - what a worker process receives
    assert again.parameters() == data.parameters()
    assert Chairs(**data.parameters()).parameters() == data.parameters()
    assert (data.count("train"), data.count("test")) == (7, 3)


@pytest.mark.parametrize(("clips", "tests"), [(400, 40), (5, 1)])
def test_a_tenth_of_the_clips_is_for_testing_and_at_least_one(clips: int, tests: int) -> None:
    assert Chairs(clips=clips).count("test") == tests


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"clips": 0}, "clips 0"),
        ({"test_clips": 0}, "test clips 0"),
        ({"test_clips": 1_000_001}, "test clips 1000001"),
        ({"size": 48}, "size 48"),
        ({"frames": 1}, "frames 1"),
        ({"elevation": (10.0, 81.0)}, "elevation 81.0"),
        ({"elevation": (float("nan"),)}, "elevation nan"),
        ({"elevation": ()}, "elevation []"),
        ({"elevation": (5.0, 5.0)}, "elevation [5.0, 5.0]"),
        ({"up": "x"}, "up 'x'"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_a_value_that_is_not_allowed_is_named_in_one_line(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(DataError, match="is not allowed; choose") as caught:
        Chairs(**wrong)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_chair_that_is_not_there_is_refused() -> None:
    with pytest.raises(DataError, match="test has chairs 0 to 1"):
        Chairs(clips=20).render("test", 2, [0])


@pytest.mark.parametrize("mesh", [tube([(0, 0, 0), (0.1, 0, 1)], 0.1), tube([(0, 0, 0), (0, 0, 1)], 0.1, fine=True),
                                  tube([(0, 0, 0), (1, 0, 0)], 0.1, True),
                                  pad((1, 2, 0.5)), pad((1, 1, 0.3), roundness=0.5, puff=0.4, curve=0.1)])  # fmt: skip
def test_solids_are_closed_and_face_outwards(mesh: Mesh) -> None:
    points, faces = mesh
    places = np.unique(points.round(9), axis=0, return_inverse=True)[1].reshape(-1)[faces]
    edges = np.concatenate([places[:, [0, 1]], places[:, [1, 2]], places[:, [2, 0]]])
    edges = edges[edges[:, 0] != edges[:, 1]]
    forward, backward = {tuple(edge) for edge in edges.tolist()}, {tuple(edge) for edge in edges[:, ::-1].tolist()}
    assert forward == backward
    a, b, c = (points[faces[:, i]] for i in range(3))
    assert (np.cross(a, b) * c).sum() / 6 > 0.5 * np.prod(np.ptp(points, axis=0)) * 0.3
    np.testing.assert_allclose(np.linalg.norm(normals(mesh), axis=1), 1)


def test_styles_keep_their_shares_and_stools_are_rare() -> None:
    styles = [chair_of(0, number).style for number in range(400)]
    assert set(styles) == set(STYLES)
    assert styles.count("stool") < 0.1 * len(styles)
    assert sum(share for _, share in STYLES.values()) == pytest.approx(1)


def test_colours_and_shapes_tell_chairs_apart() -> None:
    made = [chair_of(0, number) for number in [*range(300), *range(chairs.TEST_FROM, chairs.TEST_FROM + 100)]]
    colours = np.array([[value for role in chairs.ROLES for value in chair.colours[role]] for chair in made])
    apart = np.linalg.norm(colours[:, None] - colours[None], axis=2) + 9 * np.eye(len(made))
    assert apart.min() > 0.02
    assert (apart.min(1) > 0.1).mean() > 0.9  # nearly every chair can be told by its colours alone
    bodies = [mesh[0] for chair in made for mesh in chair.bodies().values()]
    assert all(np.isfinite(points).all() for points in bodies)
    assert len({points.tobytes() for points in bodies}) == len(bodies)


@pybullet_here
def test_every_process_and_order_gives_the_same_bytes() -> None:
    data = Chairs(clips=20, size=32, frames=9)
    forth = [digest_of(data, *item) for item in SEVERAL]
    back = [digest_of(Chairs(clips=200, size=32, frames=9), *item) for item in reversed(SEVERAL)]
    assert forth == back[::-1]
    code = (
        "import hashlib\nfrom drnet.datasets.chairs import Chairs\ndata = Chairs(clips=20, size=32, frames=9)\n"
        f"for item in {SEVERAL[2:]!r}:\n"
        "    print(hashlib.sha256(next(data.clips(*item)).frames.tobytes()).hexdigest())"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == forth[2:]
    assert done.stderr == ""  # pybullet's banner is silenced


@pybullet_here
def test_memory_stays_flat_over_many_chairs() -> None:
    data = Chairs(clips=300, size=32, frames=2)

    def pages() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    for index in range(60):
        clip_of(data, "train", index)
    before = pages()
    for index in range(60, 300):
        clip_of(data, "train", index)
    assert (pages() - before) * 4096 < 240 * 100_000  # pybullet alone would keep 280 kB of each


@pybullet_here
@pytest.mark.parametrize("size", [32, 64, 128])
def test_no_frame_is_empty_or_cut(size: int) -> None:
    data = Chairs(clips=30, size=size)
    for index in range(30 if size == 64 else 2):
        frames = clip_of(data, "train", index).frames
        assert frames.shape == (36, size, size, 3)
        assert frames.dtype == np.uint8
        assert (edge_of(frames) == 255).all()
        drawn = (frames < 250).any(-1)
        share = drawn.mean((1, 2))
        assert (share > 0.06).all()
        assert (share < 0.75).all()
        across, up = drawn.any((0, 1)).sum(), drawn.any((0, 2)).sum()
        assert max(across, up) > 0.85 * size  # fills the frame
        assert frames.reshape(36, -1).max(1).min() > 0


@pybullet_here
def test_the_camera_turns_once_around_the_chair() -> None:
    data = Chairs(clips=30)
    for index in range(12):
        clip = clip_of(data, "train", index)
        assert clip.labels["azimuth"] == [10 * step for step in range(36)]
        frames = clip.frames.astype(int)
        steps = np.abs(frames - np.roll(frames, 1, 0)).mean((1, 2, 3))
        assert (steps > 0.3).all()  # each differs from the one before, the first from the last
        assert steps.max() < np.abs(frames[0] - frames[9]).mean() * 2.5  # and none jumps
        assert np.abs(frames[0] - frames[18]).mean() > 1  # front and rear differ
    np.testing.assert_array_equal(data.render("train", 11, [350, 370])[0], clip.frames[35])
    np.testing.assert_array_equal(data.render("train", 11, [350, 0])[1], clip.frames[0])


@pybullet_here
def test_azimuth_zero_sees_the_front_upright() -> None:
    data = Chairs(clips=200)
    index = next(
        i
        for i in range(200)
        if (chair := chair_of(0, i)).style == "club" and chair.colours["seat"] != chair.colours["back"]
    )
    front, rear = data.render("train", index, [0, 180]).astype(float)
    seat, back = (np.array(chair_of(0, index).colours[role]) for role in ("seat", "back"))

    def like(frame: np.ndarray, colour: np.ndarray) -> np.ndarray:
        tint = frame / frame.sum(-1, keepdims=True) - colour / colour.sum()
        return np.linalg.norm(tint, axis=-1) < 0.03

    assert like(front, seat).sum() > 2 * like(rear, seat).sum()  # the back rest hides the seat from behind
    assert np.argwhere(like(front, back))[:, 0].min() < np.argwhere(like(front, seat))[:, 0].min()


@pybullet_here
def test_labels_agree_with_their_kinds() -> None:
    data = Chairs(clips=12, test_clips=12, size=32, frames=4, elevation=(30,))
    seen = set()
    for split in ("train", "test"):
        for index in range(12):
            clip = clip_of(data, split, index)
            assert clip.key == f"{split}-{index:06d}-00"
            assert set(clip.labels) == set(data.labels)
            assert clip.labels["azimuth"] == [0, 90, 180, 270]
            assert clip.labels["elevation"] == 30
            for name, label in data.labels.items():
                values = clip.labels[name] if label.varying else [clip.labels[name]]
                assert len(values) == (4 if label.varying else 1)
                if label.kind == "category":
                    assert 0 <= values[0] < len(label.names)
            assert all(
                0 <= clip.labels[name] <= 1 for name in data.labels if name.startswith(("seat", "back", "frame"))
            )
            seen.add(clip.labels[data.about.split_key])
    assert len(seen) == 24
    assert data.labels["azimuth"].period == 360


@pybullet_here
def test_train_chairs_and_test_chairs_and_seeds_differ() -> None:
    names = ("train", 0), ("train", 1), ("test", 0), ("test", 1)
    frames = [
        Chairs(clips=20, size=32, frames=4, seed=seed).render(*name, [30])[0] for name in names for seed in (0, 1)
    ]
    for i, one in enumerate(frames):
        for other in frames[:i]:
            assert np.abs(one.astype(int) - other).mean() > 3


@pybullet_here
def test_the_labelled_colour_is_the_colour_seen() -> None:
    clip = clip_of(Chairs(clips=30, size=128), "train", 3)
    seat = np.array([clip.labels[f"seat_{part}"] for part in ("red", "green", "blue")]) * 255
    nearest = np.abs(clip.frames[1] - seat).max(-1).min()
    assert nearest < 30


@pybullet_here
def test_each_elevation_is_a_clip_of_the_same_chair_and_does_not_change_the_others() -> None:
    data = Chairs(clips=2, size=32, frames=4, elevation=(50, 10))
    high, low = data.clips("train", 1)
    assert isinstance(high, Clip)
    assert [high.key, low.key] == ["train-000001-00", "train-000001-01"]
    assert [high.labels["elevation"], low.labels["elevation"]] == [50, 10]
    assert {**high.labels, "elevation": 0} == {**low.labels, "elevation": 0}
    for clip in (high, low):
        alone = clip_of(Chairs(clips=2, size=32, frames=4, elevation=(clip.labels["elevation"],)), "train", 1)
        np.testing.assert_array_equal(alone.frames, clip.frames)
    np.testing.assert_array_equal(data.render("train", 1, [90], 10)[0], low.frames[1])
    assert (high.frames != low.frames).any((1, 2, 3)).all()


@pybullet_here
def test_shadows_darken_only_the_chair_and_the_ground_beside_it() -> None:
    for index in range(6):
        plain = clip_of(Chairs(clips=9), "train", index).frames.astype(int)
        shaded = clip_of(Chairs(clips=9, shadows=True), "train", index).frames.astype(int)
        grey = (plain == 255).all(-1) & (np.ptp(shaded, axis=-1) == 0) & (shaded[..., 0] < 240)
        assert (grey.mean((1, 2)) > 0.02).all()  # a shadow on the ground in every frame
        assert shaded[(plain == 255).all(-1)].min() >= 205  # of one grey
        assert ((shaded == 255).all(-1).mean((1, 2)) > 0.25).all()  # and the rest of the ground is white
        assert (shaded[:, :8, :8] == 255).all()
        magenta = (shaded[..., 0] > 242) & (shaded[..., 2] > 242) & (shaded[..., 1] < 60)
        assert not magenta.any()


@pybullet_here
def test_a_build_is_the_same_with_two_workers_and_verifies(tmp_path: Path) -> None:
    plan = plan_build(Chairs(clips=4, test_clips=2, size=32, frames=4, elevation=(10, 40), shadows=True), "zstd", 2)
    one, two = build(plan, tmp_path / "one", 1), build(plan, tmp_path / "two", 2)
    assert one.manifest.to_bytes() == two.manifest.to_bytes()
    assert one.counts == {"train": {"written": 4}, "test": {"written": 2}}
    assert [row.clips for row in one.manifest.splits["train"]] == [4, 4]
    assert verify_data(tmp_path / "two")[0] == []
    assert "wrap" in " ".join(one.manifest.about["notes"])


@pybullet_here
def test_a_recorded_build_can_be_made_again() -> None:
    data = Chairs(clips=3, size=32, frames=4, elevation=(10, 40), shadows=True)
    again = restore("chairs", json.loads(json.dumps(data.parameters())))
    assert (
        digest_of(Chairs(clips=3, size=32, frames=4), "train", 2) != digest_of_all(data, 2) == digest_of_all(again, 2)
    )


@pybullet_here
def test_the_truth_of_a_swap_is_the_contents_chair_at_the_poses_elevation(tmp_path: Path) -> None:
    data = Chairs(clips=2, test_clips=3, size=32, frames=4, elevation=(10, 40, 25))
    build(plan_build(data, "zstd", 2), tmp_path / "data")
    collection = open_shards(tmp_path / "data", ["test"])
    truth = truth_of(collection)
    assert truth is not None
    for content, pose in ((0, 7), (8, 3), (4, 4)):
        wanted = data.render("test", content // 3, [180], data.elevation[pose % 3])[0]
        np.testing.assert_array_equal(truth(content, pose, 2), wanted)


def write_models(folder: Path, *names: bytes) -> str:
    """Write tetrahedra of different heights, in text; return the folder."""
    folder.mkdir(exist_ok=True)
    for height, name in enumerate(names, 1):
        points = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, height)]
        faces = [[points[corner] for corner in corners] for corners in ((0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3))]
        text = "".join(
            "facet normal 0 0 0\nouter loop\n"
            + "".join("vertex {} {} {}\n".format(*point) for point in face)
            + "endloop\nendfacet\n"
            for face in faces
        )
        (folder / os.fsdecode(name)).write_text(f"solid\n{text}endsolid\n")
    return str(folder)


@pybullet_here
def test_a_model_whose_name_is_no_text_is_built_under_a_name_that_is(tmp_path: Path) -> None:
    pytest.importorskip("trimesh")
    folder = write_models(tmp_path / "models", b"a\xff.stl")
    first = (Path(folder) / os.fsdecode(b"a\xff.stl")).read_bytes()
    (Path(folder) / os.fsdecode(b"b\xff.stl")).write_bytes(first)
    (Path(folder) / os.fsdecode(b"c\xff.stl")).write_bytes(b"solid")
    report = build(plan_build(Chairs(meshes=folder, size=32, frames=2, test_clips=0), "zstd"), tmp_path / "built")
    assert report.counts["train"] == {"failed": 1, "filtered": 1, "written": 1}
    assert verify_data(tmp_path / "built")[0] == []
    rows = [json.loads(line) for line in (tmp_path / "built" / "accounting.jsonl").read_text().splitlines()]
    assert [row["item"] for row in rows] == ["a\\xff.stl", "b\\xff.stl", "c\\xff.stl"]
    assert rows[1]["why"] == "b\\xff.stl has the same bytes as a\\xff.stl"
    assert rows[2]["why"].startswith("c\\xff.stl cannot be drawn: ")


def test_models_put_into_the_folder_are_seen_by_the_next_data_set(tmp_path: Path) -> None:
    folder = write_models(tmp_path, b"a.stl", b"b.stl", b"c.stl")
    assert Chairs(meshes=folder).count("train") == 2
    write_models(tmp_path, b"d.stl", b"e.stl")
    assert Chairs(meshes=folder).count("train") == 4
