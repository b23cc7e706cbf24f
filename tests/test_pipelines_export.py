"""Features files: what a model says of every frame, with all labels, for clips of any length."""

import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from drnet.datasets.contract import About, Clip, DataError, Label, SourceFile, Split
from drnet.pipelines import export as module
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.export import clip_groups, encode, export_features, load_features
from drnet.pipelines.run import latest_checkpoint, load_run
from drnet.pipelines.source import Collection, open_shards
from drnet.pipelines.train import Logging, train


class Shades:
    """Grey clips of 1 to 7 frames; each frame has one shade, and a few pixels of its own."""

    about = About("shades", 1, "grey frames", "none", "nobody", split_key="person", content_key="person")
    labels: Mapping[str, Label] = {
        "kind": Label("category", names=("dark", "light")),
        "shade": Label("number", varying=True, unit="level"),
        "half": Label("category", varying=True, names=("first", "second")),
        "angle": Label("number", varying=True, unit="degree", period=360.0),
        "speed": Label("number", unit="pixel per frame"),
        "person": Label("number", unit="id"),
    }

    def __init__(self, clips: int = 20) -> None:
        self.clips_in = {"train": clips, "test": clips // 2}

    def parameters(self) -> dict[str, Any]:
        return dict(self.clips_in)

    def sources(self) -> list[SourceFile]:
        return []

    def frame_shape(self) -> tuple[int, int, int]:
        return (32, 32, 1)

    def count(self, split: Split) -> int:
        return self.clips_in[split]

    def item(self, split: Split, index: int) -> str:
        return f"{split}{index}"

    def clips(self, split: Split, index: int) -> Iterator[Clip]:
        length = 1 + index % 7
        draw = np.random.default_rng(index + 1000 * (split == "test"))
        shades = draw.integers(0, 200, length)
        frames = (shades[:, None, None, None] + draw.integers(0, 50, (length, 32, 32, 1))).astype(np.uint8)
        labels = {
            "kind": int(shades[0] > 100),
            "shade": shades.tolist(),
            "half": [int(2 * t >= length) for t in range(length)],
            "angle": (shades * 1.5).tolist(),
            "speed": float(index),
            "person": index + 500 * (split == "test"),
        }
        yield Clip(f"{split}-{index:05d}", frames, labels)


@pytest.fixture(scope="module")
def shades(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shades") / "data"
    build(plan_build(Shades(), "zstd", 5), folder)
    return folder


@pytest.fixture(scope="module")
def run(shades: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    settings = {"width": 4, "batch_size": 6, "pose_dim": 3, "content_dim": 7}
    train(shades, folder, steps=4, overrides=settings, device="cpu", logging=Logging(2, 4, 4))
    return folder


@pytest.fixture(scope="module")
def exported(run: Path, shades: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("features") / "deep" / "features.h5"
    assert export_features(run, shades, path, "cpu") == {"train": 20, "test": 10}
    return path


def test_features_are_what_the_model_says_of_each_frame(exported: Path, run: Path, shades: Path) -> None:
    features, (model, _, _) = load_features(exported), load_run(run)
    collection = open_shards(shades, ("train", "test"))
    for number in range(len(collection)):
        frames = torch.from_numpy(collection.frames(number).copy()).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            content, pose = model.encode(frames)
        length = len(frames)
        assert np.allclose(features.content[number, :length], content.numpy(), atol=1e-5)
        assert np.allclose(features.pose[number, :length], pose.numpy(), atol=1e-5)
    spread = features.pose[features.length == 7].std(0)
    assert float(spread.max()) > 1e-4  # not all alike, or the comparison would say nothing


def test_shorter_clips_are_padded_and_their_length_is_told(exported: Path) -> None:
    features = load_features(exported)
    assert features.content.shape == (30, 7, 7)
    assert features.pose.shape == (30, 7, 3)
    assert features.content.dtype == features.pose.dtype == np.float32
    assert features.length.tolist() == [1 + index % 7 for index in (*range(20), *range(10))]
    padding = np.arange(7) >= features.length[:, None]
    assert not features.content[padding].any()
    assert not features.pose[padding].any()
    assert np.isnan(features.labels["shade"][padding]).all()
    assert (features.labels["half"][padding] == -1).all()
    assert np.allclose(np.linalg.norm(features.pose[~padding], axis=1), 1, atol=1e-5)


def test_labels_are_the_data_sets_with_their_types(exported: Path, shades: Path) -> None:
    features, collection = load_features(exported), open_shards(shades, ("train", "test"))
    assert dict(features.label_types) == dict(Shades.labels)
    assert {name: values.dtype for name, values in features.labels.items()} == {
        name: np.dtype("i8" if label.kind == "category" else "f8") for name, label in Shades.labels.items()
    }
    for number in range(len(collection)):
        truth = collection.labels(number)
        for name, label in Shades.labels.items():
            found = features.labels[name][number]
            assert (found[: features.length[number]].tolist() if label.varying else found) == truth[name]


def test_clips_are_named_in_build_order_with_their_split(exported: Path, shades: Path) -> None:
    features = load_features(exported)
    assert features.key.tolist() == list(open_shards(shades, ("train", "test")).keys())
    assert features.split.tolist() == ["train"] * 20 + ["test"] * 10


def test_attributes_say_where_the_features_come_from(exported: Path, run: Path, shades: Path) -> None:
    attributes, checkpoint = load_features(exported).attributes, latest_checkpoint(run)
    manifest = open_shards(shades).manifest
    assert checkpoint is not None
    assert manifest is not None
    assert attributes == {
        "format": 1,
        "checkpoint_sha256": checkpoint.sha256,
        "checkpoint_step": 4,
        "trained_on_build": manifest.build,
        "manifest_build": manifest.build,
        "order_key": open_shards(shades, ("train", "test")).order_key,
        "data_set": "shades",
        "split_key": "person",
        "content_key": "person",
    }


def test_features_of_other_data_name_that_datas_build(run: Path, tmp_path: Path) -> None:
    other = build(plan_build(Shades(8), "raw", 5), tmp_path / "other").manifest
    export_features(run, tmp_path / "other", tmp_path / "f.h5", "cpu")
    attributes = load_features(tmp_path / "f.h5").attributes
    assert attributes["manifest_build"] == other.build != attributes["trained_on_build"]


def test_a_pattern_exports_one_split(run: Path, shades: Path, tmp_path: Path) -> None:
    assert export_features(run, f"{shades}/test-{{000000..000001}}.tar", tmp_path / "f.h5") == {"train": 0, "test": 10}
    features = load_features(tmp_path / "f.h5")
    assert set(features.split) == {"test"}
    assert set(features.labels) == set(Shades.labels)


def test_the_same_export_gives_the_same_arrays_for_any_group_size(
    exported: Path, run: Path, shades: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FRAMES_AT_ONCE", 5)  # less than the longest clip
    export_features(run, shades, tmp_path / "f.h5", "cpu")
    one, other = load_features(exported), load_features(tmp_path / "f.h5")
    assert np.allclose(one.content, other.content, atol=1e-5)
    assert np.allclose(one.pose, other.pose, atol=1e-5)


def test_no_batch_is_larger_than_a_group_however_long_a_clip_is(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FRAMES_AT_ONCE", 10)
    model, _, _ = load_run(run)
    sizes = []
    model.content_encoder.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    content, _ = encode(model, [np.zeros((34, 32, 32, 1), np.uint8)], torch.device("cpu"))
    assert sizes == [10, 10, 10, 4]
    assert content.shape == (34, 7)


def test_groups_hold_every_clip_once_in_order(shades: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FRAMES_AT_ONCE", 9)
    collection, at = open_shards(shades), 0
    for first, clips in clip_groups(collection):
        assert first == at
        assert sum(map(len, clips[:-1])) < 9
        for number, clip in enumerate(clips, first):
            assert np.array_equal(clip, collection.frames(number))
        at += len(clips)
    assert at == len(collection)


@pytest.mark.parametrize("clips", [20, 120])
def test_clips_are_let_go_whatever_their_number(
    run: Path, tmp_path: Path, clips: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(plan_build(Shades(clips), "zstd", 50), tmp_path / "data")
    monkeypatch.setattr(module, "FRAMES_AT_ONCE", 16)
    read, alive, most = Collection.frames, set[int](), 0

    def counted(collection: Collection, number: int) -> Any:
        nonlocal most
        frames = read(collection, number).copy()
        alive.add(number)
        weakref.finalize(frames, alive.discard, number)
        most = max(most, len(alive))
        return frames

    monkeypatch.setattr(Collection, "frames", counted)
    export_features(run, tmp_path / "data", tmp_path / "f.h5", "cpu")
    assert 2 <= most <= 14  # two groups: the one at work, and the one being read


def test_an_interrupted_export_leaves_no_file(
    run: Path, shades: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_features(run, shades, tmp_path / "f.h5", "cpu")
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_file_stays_until_the_new_one_is_whole(
    run: Path, shades: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f.h5").write_bytes(b"precious")
    with monkeypatch.context() as patch:
        patch.setattr(module, "clip_groups", lambda _: iter([(0, None)]))
        with pytest.raises(TypeError):
            export_features(run, shades, tmp_path / "f.h5", "cpu")
    assert (tmp_path / "f.h5").read_bytes() == b"precious"
    export_features(run, shades, tmp_path / "f.h5", "cpu")
    assert len(load_features(tmp_path / "f.h5").key) == 30


def test_shards_of_another_frame_shape_are_refused(run: Path, digits: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"frames of \(32, 32, 3\) do not fit this run, .* \(32, 32, 1\)"):
        export_features(run, digits, tmp_path / "f.h5", "cpu")
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_features_are_refused_in_one_line(exported: Path, tmp_path: Path) -> None:
    whole = exported.read_bytes()
    cases = {"missing.h5": None, "text.h5": b"hello", "empty.h5": b"", "short.h5": whole[: len(whole) // 2]}
    for name, data in cases.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=name) as raised:
            load_features(tmp_path / name)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("attribute", "said"), [(2, "format 2 are not known; this version reads 1"), (1, "damaged")])
def test_another_format_and_a_file_without_its_arrays_are_refused(tmp_path: Path, attribute: int, said: str) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.attrs["format"] = attribute
    with pytest.raises(DataError, match=said):
        load_features(tmp_path / "f.h5")
