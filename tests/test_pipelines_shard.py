"""Shards: a plain tar whose every byte is determined, and a sidecar that tells any change."""

import contextlib
import io
import json
import tarfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drnet.datasets.contract import Clip, DataError, Label
from drnet.pipelines.shards.codec import Codec
from drnet.pipelines.shards.shard import Fate, ShardWriter, Sidecar, pixel_hash, read_sidecar, tar_header, whole_shard

LABELS = {"digit": Label("category", names=("zero", "one")), "x": Label("number", varying=True, unit="pixel")}
NAMES = st.text("abcXYZ019-_.", min_size=1, max_size=99)


def clip(key: str, length: int = 3, **labels: Any) -> Clip:
    frames = np.random.default_rng(len(key)).integers(0, 256, (length, 4, 4, 1)).astype(np.uint8)
    return Clip(key, frames, {"digit": 1, "x": list(range(length))} | labels)


def written(*clips: Clip, codec: Codec = "raw") -> tuple[bytes, Sidecar]:
    file = io.BytesIO()
    writer = ShardWriter(file, codec, LABELS)
    for each in clips:
        writer.append(each, f"item of {each.key}")
    sidecar = writer.finish("b" * 64, "train-000000.tar", "train", ())
    return file.getvalue(), sidecar


def stored(folder: Path, *clips: Clip) -> tuple[Path, Sidecar]:
    tar = folder / "train-000000.tar"

    def write(file: Any) -> Sidecar:
        writer = ShardWriter(file, "zstd", LABELS)
        for each in clips:
            writer.append(each, "item")
        left_out = [Fate("train", "bad", "failed", 0, "cannot be read")]
        return writer.finish("b" * 64, tar.name, "train", left_out)

    return tar, whole_shard(tar, write)


@given(NAMES, st.integers(0, 8**11 - 1))
def test_a_header_is_the_one_tarfile_writes(name: str, size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o644, 0
    assert tar_header(name, size) == member.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize(("name", "size"), [("x" * 100, 1), ("x", 8**11)])
def test_a_member_that_ustar_cannot_hold_is_refused(name: str, size: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        tar_header(name, size)


@pytest.mark.parametrize("codec", ["raw", "zstd"])
def test_a_whole_shard_is_the_one_tarfile_would_write(codec: Codec) -> None:
    data, sidecar = written(clip("a"), clip("b", 5), codec=codec)
    again = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as source, tarfile.open(fileobj=again, mode="w", format=0) as target:
        for member in source:
            target.addfile(member, source.extractfile(member))
    size = sidecar.size
    assert size == len(data)
    assert again.getvalue()[:size] == data
    assert not again.getvalue()[size:].strip(b"\0")


def test_the_sidecar_says_what_the_bytes_of_the_labels_must_be() -> None:
    data, sidecar = written(clip("a"), clip("b", 5))
    for sample in sidecar.samples:
        offset, size = sample.labels
        assert int(sample.labels_check, 16) == zlib.crc32(data[offset : offset + size])


def test_the_sidecar_says_where_each_member_lies() -> None:
    data, sidecar = written(clip("a"), clip("b", 5))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = [(m.offset_data, m.size) for m in archive]
    assert found == [place for sample in sidecar.samples for place in (sample.frames, sample.labels)]
    assert [sample.length for sample in sidecar.samples] == [3, 5]
    assert sidecar.frames == 8


def test_equal_pixels_have_equal_hashes_whatever_the_codec() -> None:
    raw, zstd = (written(clip("a"), clip("b"), codec=codec)[1] for codec in ("raw", "zstd"))
    assert raw.pixels == zstd.pixels
    assert raw.sha256 != zstd.sha256
    assert raw.pixels == pixel_hash(sample.checks for sample in raw.samples)


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "../a", "a b", "ä", "a" * 81, "b\n"])
def test_a_key_that_would_break_a_reader_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        written(clip(key))


@pytest.mark.parametrize("second", ["b", "a"])
def test_keys_must_rise(second: str) -> None:
    with pytest.raises(ValueError, match="sort"):
        written(clip("b"), clip(second))


@pytest.mark.parametrize(
    "labels",
    [
        {"digit": "one"},
        {"digit": None},
        {"digit": True},
        {"digit": 2},
        {"digit": -1},
        {"digit": 0.5},
        {"x": 1},
        {"x": [1, 2]},
        {"x": [1, 2, "3"]},
        {"x": [1, 2, float("nan")]},
        {"x": [1, 2, 1 << 63]},
        {"x": [1.5, 2, -(1 << 63) - 1]},
        {"digit": 10**400},
    ],
    ids=str,
)
def test_labels_that_are_not_as_declared_are_refused(labels: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        written(clip("a", **labels))


def test_labels_that_no_reader_would_take_are_not_written() -> None:
    with pytest.raises(ValueError, match="labels of 4194337 bytes are not allowed; at most 4194304 are"):
        written(clip("a", note="x" * (1 << 22)))


def test_a_missing_label_is_refused() -> None:
    with pytest.raises(ValueError, match="'x' is missing"):
        written(Clip("a", clip("a").frames, {"digit": 0}))


def test_a_sidecar_is_read_as_it_was_written(tmp_path: Path) -> None:
    tar, sidecar = stored(tmp_path, clip("a"), clip("b", 2))
    assert read_sidecar(tar) == sidecar
    assert read_sidecar(tar).to_bytes() == tar.with_suffix(".json").read_bytes()


def test_every_changed_byte_of_a_sidecar_is_told(tmp_path: Path) -> None:
    tar, sidecar = stored(tmp_path, clip("a"), clip("b", 2))
    path = tar.with_suffix(".json")
    data = path.read_bytes()
    for at in range(0, len(data), 3):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        with contextlib.suppress(DataError):  # else only the spelling changed, and that is told too
            assert read_sidecar(tar).to_bytes() != path.read_bytes()
            assert read_sidecar(tar) == sidecar


@pytest.mark.parametrize("cut", [0, 1, 100, -1, -2])
def test_a_cut_sidecar_is_refused(tmp_path: Path, cut: int) -> None:
    tar, sidecar = stored(tmp_path, clip("a"))
    tar.with_suffix(".json").write_bytes(sidecar.to_bytes()[:cut])
    if cut == -1:  # the line's end alone
        assert read_sidecar(tar) == sidecar
        return
    with pytest.raises(DataError, match="delete the shard and run the build command again"):
        read_sidecar(tar)


@pytest.mark.parametrize("change", [{"codec": "jpeg"}, {"name": "test-000000.tar"}, {"sha256": "0"}, {"size": 100}])
def test_a_sidecar_that_makes_no_sense_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    tar, sidecar = stored(tmp_path, clip("a"))
    tar.with_suffix(".json").write_bytes(replace(sidecar, **change).to_bytes())
    with pytest.raises(DataError, match="damaged"):
        read_sidecar(tar)


def test_a_sidecar_of_another_format_names_both_versions(tmp_path: Path) -> None:
    tar, sidecar = stored(tmp_path, clip("a"))
    row = json.loads(sidecar.to_bytes()) | {"format": 2}
    tar.with_suffix(".json").write_text(json.dumps(row))
    with pytest.raises(DataError, match="format 2 is not known; this version of drnet reads format 1"):
        read_sidecar(tar)


def test_a_failure_in_the_middle_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sort"):
        stored(tmp_path, clip("b"), clip("a"))
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_leaves_no_file_and_names_the_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left") as error:
        stored(tmp_path, clip("a"))
    assert error.value.filename == str(tmp_path / "train-000000.tar")
    assert not list(tmp_path.iterdir())
