"""Anybody's WebDataset shards: read where they are whole and plain, refused where clips could be lost or unpickled."""

import io
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset

from drnet.datasets.contract import DataError
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.shards.codec import encode
from drnet.pipelines.source import open_shards


def npy(array: np.ndarray, pickled: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=pickled)
    return file.getvalue()


def foreign(path: Path, members: Sequence[tuple[str, bytes]], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def plain(count: int = 3, shape: tuple[int, ...] = (4, 8, 8, 3), first: int = 0) -> list[tuple[str, bytes]]:
    rows = []
    for n in range(first, first + count):
        rows += [(f"s{n}.npy", npy(np.full(shape, n, np.uint8))), (f"s{n}.json", b'{"n": %d}' % n)]
    return rows


def test_plain_webdataset_shards_are_read(tmp_path: Path) -> None:
    for number in range(2):
        with webdataset.TarWriter(str(tmp_path / f"{number}.tar")) as writer:
            for n in range(3):
                frames = np.full((2 + n, 8, 8, 3), 10 * number + n, np.uint8)
                writer.write({"__key__": f"k{number}{n}", "npy": frames, "json": {"n": n}})
    for spec in (tmp_path, f"{tmp_path}/{{0..1}}.tar"):
        collection = open_shards(spec)
        assert list(collection.keys()) == ["k00", "k01", "k02", "k10", "k11", "k12"]
        assert [int(collection.frames(n)[0, 0, 0, 0]) for n in range(6)] == [0, 1, 2, 10, 11, 12]
        assert collection.labels(4) == {"n": 1}
        assert collection.frame_shape == (8, 8, 3)
        assert collection.manifest is None
        assert collection.sample(5).length == 4


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_every_form_are_read(tmp_path: Path, form: int) -> None:
    rows = [(f"{'d' * 90}/{name}", data) for name, data in plain()]
    collection = open_shards(foreign(tmp_path / "x.tar", rows, format=form))
    out = np.empty((1, 8, 8, 3), np.uint8)
    shard, index = collection.locate(2)
    shard.read_frames(index, [3], out)
    assert np.all(out == 2)


@pytest.mark.parametrize("codec", ["raw", "zstd"])
def test_our_own_shards_are_plain_ones_too(tmp_path: Path, codec: Any) -> None:
    data = BouncingDigits("optdigits", clips=4, frames=3, size=16)
    build(plan_build(data, codec, 2), tmp_path / "built")
    (tmp_path / "plain").mkdir()
    for tar in (tmp_path / "built").glob("train-*.tar"):
        shutil.copy(tar, tmp_path / "plain")
    collection = open_shards(tmp_path / "plain")
    assert collection.manifest is None
    assert collection.order_key == open_shards(tmp_path / "built").order_key
    for number in range(4):
        (clip,) = data.clips("train", number)
        assert np.array_equal(collection.frames(number), clip.frames)
        assert collection.labels(number) == clip.labels


def test_a_foreign_shard_cut_or_damaged_anywhere_never_loses_clips_in_silence(tmp_path: Path) -> None:
    path = foreign(tmp_path / "x.tar", plain())
    whole = path.read_bytes()
    assert len(open_shards(path)) == 3
    with tarfile.open(path) as archive:
        headers = [member.offset for member in archive]
    end = 512 + max(headers) + 512
    for cut in [*headers, *(h + 512 for h in headers), *(h + 700 for h in headers), end, 1]:
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError) as error:
            open_shards(path)
        assert "\n" not in str(error.value)
    for header in headers:
        for at in (0, 5, 120, 150, 156, 257):
            path.write_bytes(whole[: header + at] + bytes([whole[header + at] ^ 4]) + whole[header + at + 1 :])
            with pytest.raises(DataError):
                open_shards(path)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "each sample needs frames"),
        ([*plain(), ("s1.npy", plain()[0][1])], "there twice"),
        ([("a/" + n, d) for n, d in plain(1)] + [("b/" + n, d) for n, d in plain(1)], "there twice"),
        ([("a.b.npy", plain()[0][1])], "each sample needs frames"),
        ([*plain(), ("s9.json", b"{}")], "each sample needs frames"),
        ([("s 1.npy", plain()[0][1])], "key 's 1' is not allowed"),
        ([("../s1.npy", plain()[0][1])], "not allowed; only plain files"),
        ([("/s1.npy", plain()[0][1])], "not allowed; only plain files"),
        ([("s1.npy", npy(np.array([{}], dtype=object), pickled=True))], "not an NPY array of uint8 frames"),
        ([("s1.npy", npy(np.zeros((2, 8, 8, 3))))], "not an NPY array of uint8 frames"),
        ([("s1.npy", plain()[0][1][:-1])], "do not fill the shape"),
        ([("s1.npy", plain()[0][1] + b"1")], "do not fill the shape"),
        (plain() + plain(1, (4, 8, 4, 3), 5), r"frames of \(8, 4, 3\), not \(8, 8, 3\)"),
        ([("s1.npy.zst", b"(\xb5/\xfd" + bytes(20))], "not allowed|damaged"),
        ([("s1.txt", b"x")], "each sample needs frames.*clip s1 has none"),
        ([*plain(), ("s1." + "x" * 65, b"x")], "its extension is too long"),
    ],
    ids=range(16),
)
def test_foreign_shards_that_cannot_be_trusted_are_refused(
    tmp_path: Path, members: list[tuple[str, bytes]], message: str
) -> None:
    path = foreign(tmp_path / "x.tar", members)
    with pytest.raises(DataError, match=message) as error:
        open_shards(path)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = foreign(tmp_path / "x.tar", plain())
    with tarfile.open(path, "a") as archive:
        member = tarfile.TarInfo("s9.npy")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(DataError, match="only plain files"):
        open_shards(path)


@pytest.mark.parametrize("ending", ["pyd", "pickle", "PTH", "meta.pkl"])
def test_a_pickle_in_a_foreign_shard_is_refused_and_never_opened(tmp_path: Path, ending: str) -> None:
    bomb = b"cos\nsystem\n(S'touch unpickled'\ntR."
    path = foreign(tmp_path / "x.tar", [*plain(1), (f"s0.{ending}", bomb)])
    with pytest.raises(DataError, match=f"member 's0.{ending}' is a pickle, which is not allowed; leave it out"):
        open_shards(path)
    assert not Path("unpickled").exists()


def test_other_fields_of_a_sample_are_passed_over(tmp_path: Path) -> None:
    path = foreign(tmp_path / "x.tar", [*plain(1), ("s0.txt", b"a caption"), ("s0.cls", b"7"), ("s0.jpg", b"")])
    collection = open_shards(path)
    assert collection.labels(0) == {"n": 0}


def test_foreign_shards_of_two_shapes_are_refused(tmp_path: Path) -> None:
    foreign(tmp_path / "0.tar", plain(1, (4, 8, 4, 3)))
    foreign(tmp_path / "1.tar", plain(1, (4, 4, 8, 3)))
    with pytest.raises(DataError, match=r"1.tar: frames of \(4, 8, 3\), not \(8, 4, 3\)"):
        open_shards(tmp_path)


def test_zstd_clips_larger_than_a_block_are_read_without_sidecars(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8)
    rows = [("s0.npy.zst", encode(frames, "zstd"))]
    collection = open_shards(foreign(tmp_path / "x.tar", rows))
    assert np.array_equal(collection.frames(0), frames)
    assert collection.frame_shape == (64, 64, 3)
