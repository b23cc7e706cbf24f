"""Hostile features and runs, and what the commands say of hostile files: one line that names the file, exit code 1."""

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from drnet.datasets.contract import DataError
from drnet.datasets.reading.source_files import sha256_file
from drnet.pipelines.export import FEATURES_FORMAT, export_features, load_features
from drnet.pipelines.files import pretty_json
from drnet.pipelines.run import CONFIG, STATE, TRAINER, WEIGHTS, RunError, latest_checkpoint, load_run
from drnet.pipelines.train import train

TERA = 1 << 40


class Bomb:
    """Unpickling this ends the process."""

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (66,)


# Features


@pytest.fixture(scope="module")
def exported(trained: Path, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("features") / "f.h5"
    export_features(trained, digits, path, "cpu")
    return path


def anew(file: h5py.File, name: str, *arguments: Any, **options: Any) -> None:
    del file[name]
    file.create_dataset(name, *arguments, **options)


def elsewhere(file: h5py.File) -> None:
    """Data that lie in another file, which any reader would open."""
    anew(file, "pose", (64, 8, 5), "f4", external=[("/etc/passwd", 0, 64 * 8 * 5 * 4)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((64, 8, 5), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "pose", (64, 8, 5))
    del file["pose"]
    file.create_virtual_dataset("pose", layout)


def link(kind: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file["pose"]
        file["pose"] = kind

    return change


def long_keys(file: h5py.File) -> None:
    anew(file, "key", (64,), h5py.string_dtype())
    file["key"][:] = "x" * 1_000_000


FEATURES: dict[str, Callable[[h5py.File], object]] = {
    "array of objects": lambda f: anew(f, "pose", (64, 8, 5), h5py.vlen_dtype(np.dtype("f4"))),
    "references": lambda f: anew(f, "pose", (64, 8, 5), h5py.ref_dtype),
    "opaque data": lambda f: anew(f, "pose", (64, 8, 5), np.dtype("V8")),
    "complex numbers": lambda f: anew(f, "pose", (64, 8, 5), "c8"),
    "link to another file": link(h5py.ExternalLink("/etc/passwd", "/pose")),
    "link to itself": link(h5py.SoftLink("/pose")),
    "link inside": link(h5py.SoftLink("/content")),
    "data in another file": elsewhere,
    "virtual data": virtual,
    "petabytes that were never written": lambda f: anew(f, "content", (1 << 30, 8, 1 << 17), "f4", chunks=(1, 8, 128)),
    "a compression bomb": lambda f: anew(f, "content", (64, 8, 128), "f4", chunks=(64, 8, 128), compression="gzip"),
    "long keys": long_keys,
    "a group as data": lambda f: (f.__delitem__("pose"), f.create_group("pose")),
    "data as labels": lambda f: anew(f, "labels", (3,), "f4"),
    "labels in a link": lambda f: f["labels"].__setitem__("x", h5py.ExternalLink("/etc/passwd", "/x")),
    "labels of objects": lambda f: f["labels"].create_dataset("x", (64,), h5py.string_dtype()),
    "labels of other clips": lambda f: f["labels"].create_dataset("x", (65,), "f4"),
    "poses of other clips": lambda f: anew(f, "pose", (63, 8, 5), "f4"),
    "poses of other frames": lambda f: anew(f, "pose", (64, 9, 5), "f4"),
    "content of two axes": lambda f: anew(f, "content", (64, 8), "f4"),
    "content of no axes": lambda f: anew(f, "content", (), "f4"),
    "lengths of floats": lambda f: anew(f, "length", (64,), "f4"),
    "no length": lambda f: f.__delitem__("length"),
    "a format of many numbers": lambda f: f.attrs.__setitem__("format", [1, 1]),
    "a format of text": lambda f: f.attrs.__setitem__("format", "1"),
}


@pytest.mark.parametrize("name", FEATURES)
def test_hostile_features_are_refused_by_name(name: str, exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    shutil.copy(exported, path)
    with h5py.File(path, "r+") as file:
        FEATURES[name](file)
    with pytest.raises(DataError) as error:
        load_features(path)
    assert str(error.value).startswith(f"{path}: ")
    assert len(str(error.value)) < 400
    assert str(error.value).isprintable()


def test_features_that_are_no_file_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f.h5")
    with pytest.raises(DataError, match="not a regular file"):
        load_features(tmp_path / "f.h5")


def test_good_features_of_the_format_are_read(exported: Path) -> None:
    assert load_features(exported).attributes["format"] == FEATURES_FORMAT


# Runs: the hashes in the checkpoint's state are right.


def torch_pickle(path: Path) -> None:
    torch.save({"weights": Bomb()}, path)


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        found = load_file(path)
        change(found)
        save_file(found, path)

    return write


def headed(length: int, text: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(struct.pack("<Q", length) + text + bytes(1 << 20))


def largest(found: dict[str, torch.Tensor]) -> str:
    return max(found, key=lambda name: found[name].numel())


WEIGHT_FILES: dict[str, Callable[[Path], object]] = {
    "pickle": torch_pickle,
    "header of exabytes": headed((1 << 63) - 1, b"{"),
    "header of 99 MB": headed(99_000_000, b"{"),
    "header of nesting": headed(100_000, b"[" * 100_000),
    "tensor beyond the file": headed(60, b'{"x":{"dtype":"F32","shape":[9999999],"data_offsets":[0,39]}}'.ljust(60)),
    "type that is none": headed(60, b'{"x":{"dtype":"O","shape":[1],"data_offsets":[0,8]}}'.ljust(60)),
    "empty": lambda path: path.write_bytes(b""),
    "another shape": tensors(lambda found: found.update({largest(found): torch.zeros(2)})),
    "one more": tensors(lambda found: found.update({"more": torch.zeros(2)})),
    "one less": tensors(lambda found: found.pop(largest(found))),
}


@pytest.mark.parametrize("name", WEIGHT_FILES)
@pytest.mark.parametrize("file", [WEIGHTS, TRAINER])
def test_hostile_weights_are_refused_by_name(name: str, file: str, trained: Path, digits: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    checkpoint = latest_checkpoint(run)
    assert checkpoint is not None
    path = checkpoint.folder / file
    WEIGHT_FILES[name](path)
    state = json.loads((checkpoint.folder / STATE).read_text())
    state["sha256" if file == WEIGHTS else "trainer_sha256"] = sha256_file(path)
    (checkpoint.folder / STATE).write_bytes(pretty_json(state))
    if file == TRAINER and name == "one more":
        return  # is not looked at
    settings: dict[str, Any] = {"overrides": {"width": 4, "batch_size": 8}, "device": "cpu"}
    with pytest.raises(RunError) as error:
        load_run(run) if file == WEIGHTS else train(digits, run, steps=7, **settings)
    assert str(error.value).startswith(f"{path}: ")
    assert len(str(error.value)) < 400
    assert "\n" not in str(error.value)


CONFIGS: dict[str, tuple[str, Any]] = {
    **{f"model.{name} {str(value)[:9]}": (f"model.{name}", value) for name, value in (
        ("width", 10**6), ("width", 10**12), ("width", 10**17), ("width", 1e308), ("width", "4"), ("width", True),
        ("size", 10**9), ("size", [32]), ("content_dim", 10**9), ("pose_dim", 1 << 62), ("alpha", "1"), ("unit_norm", 2),
        ("channels", 10**7), ("similarity", ["mean"]), ("centred", {}), ("other", 1))},
    **{f"train.{name} {str(value)[:9]}": (f"train.{name}", value) for name, value in (
        ("batch_size", 1e308), ("batch_size", 10**30), ("lr", None), ("seed", "1"), ("horizon", 1 << 60), ("precision", []))},
    "data": ("data", []), "no model": ("model", None), "model that is a list": ("model", [1]), "format": ("format", {}),
    "a text that steers": ("data", {"\x1b]0;x\x07": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_hostile_settings_of_a_run_are_refused_by_name(name: str, trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    config = json.loads((run / CONFIG).read_text())
    place, value = CONFIGS[name]
    *path, last = place.split(".")
    part = config[path[0]] if path else config
    part[last] = value
    (run / CONFIG).write_bytes(pretty_json(config))
    with pytest.raises(RunError) as error:
        load_run(run)
    assert str(run) in str(error.value)
    assert len(str(error.value)) < 400
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "text",
    [b"[" * 100_000, b'{"step": 1e999}', b'{"step": 1e308, "sha256": 7}', b"[1]", b"{}", b'{"step": NaN}', b"\xff"],
)
def test_a_hostile_state_of_a_checkpoint_is_refused_by_name(text: bytes, trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    checkpoint = latest_checkpoint(run)
    assert checkpoint is not None
    (checkpoint.folder / STATE).write_bytes(text)
    with pytest.raises(RunError) as error:
        load_run(run)
    assert str(error.value).startswith(str(checkpoint.folder / STATE))


@pytest.mark.parametrize("name", ["²", "1" * 200, "0x10", "-1", "0000000a"])
def test_a_folder_that_is_no_checkpoint_is_passed_over(name: str, trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    (run / "checkpoints" / name).mkdir()
    assert load_run(run)[1].step == 6


# Commands


def pickled(folder: Path) -> Path:
    """A foreign shard with a member that ends the process when it is opened."""
    import pickle
    import tarfile

    source = folder / "source"
    source.write_bytes(pickle.dumps(Bomb()))
    np.save(folder / "clip.npy", np.zeros((4, 32, 32, 3), np.uint8))
    with tarfile.open(folder / "x.tar", "w") as archive:
        for number in range(9):
            archive.add(folder / "clip.npy", f"s{number}.npy")
        archive.add(source, "s3.pyd")
    return folder / "x.tar"


def linked(folder: Path) -> Path:
    import tarfile

    with tarfile.open(folder / "x.tar", "w") as archive:
        member = tarfile.TarInfo("s3.npy")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    return folder / "x.tar"


@pytest.mark.parametrize(
    ("make", "words"), [(pickled, "'s3.pyd' is a pickle"), (linked, "'s3.npy' is a symbolic link")]
)
def test_no_command_opens_a_hostile_shard(
    make: Callable[[Path], Path], words: str, trained: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    shard = make(tmp_path)
    for call in (
        ["train", "--shards", shard, "--out", tmp_path / "run", "--device", "cpu", "--steps", "2", "--width", "4"],
        ["data", "preview", shard, "--out", tmp_path / "x.png"],
        ["export-features", trained, "--shards", shard, "--out", tmp_path / "f.h5", "--device", "cpu"],
    ):
        code, _, err = command(*call)
        assert code == 1
        assert f"drnet: error: {shard}: member {words}" in err
        assert "Traceback" not in err
    assert not (tmp_path / "f.h5").exists()


@pytest.mark.parametrize("place", ["clips", "bytes"])
def test_every_command_refuses_an_absurd_manifest(
    place: str, digits: Path, trained: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    from drnet.pipelines.files import canonical_json, sha256_of

    folder = Path(shutil.copytree(digits, tmp_path / "data"))
    body = json.loads((folder / "manifest.json").read_text())
    body["splits"]["train"]["shards"][0][place] = 1e308
    body.pop("checksum")
    (folder / "manifest.json").write_bytes(pretty_json(body | {"checksum": sha256_of(canonical_json(body))}))
    for call in (
        ["data", "verify", folder],
        ["data", "info", folder],
        ["data", "preview", folder, "--out", tmp_path / "x.png"],
        ["train", "--shards", folder, "--out", tmp_path / "run", "--device", "cpu", "--steps", "2", "--width", "4"],
        ["export-features", trained, "--shards", folder, "--out", tmp_path / "f.h5", "--device", "cpu"],
    ):
        code, _, err = command(*call)
        assert code == 1, call
        assert f"drnet: error: {folder / 'manifest.json'}: damaged ({place} 1e+308 is not a whole number" in err
        assert len(err.strip().splitlines()) == 1
