"""Hostile shards: each trick is refused in one line that names the file and the clip, in little memory and time.

`test_hostile_data.py` has hostile descriptions of data sets, `test_hostile_runs.py` hostile features and runs, and what the
commands say.
"""

import gzip
import io
import os
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from little_memory import check_refused, outcomes_of

from drnet.datasets.contract import SPLITS
from drnet.pipelines.shards.codec import encode, npy_header
from drnet.pipelines.source import open_shards

MEMORY = 64 << 20  # bytes that a trick may take
SECONDS = 5.0
FRAMES = np.zeros((2, 4, 4, 1), np.uint8)
GOOD = encode(FRAMES, "raw")
TERA = 1 << 40


class Bomb:
    """Unpickling this ends the process."""

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (66,)


def pickled_array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Bomb()], dtype=object), allow_pickle=True)
    return file.getvalue()


def header(
    name: bytes, size: int | bytes, kind: bytes = b"0", link: bytes = b"", magic: bytes = b"ustar\x0000"
) -> bytes:
    block = bytearray(512)
    block[: len(name)], block[100:108], block[148:156] = name, b"0000644\0", b" " * 8
    field = size if isinstance(size, bytes) else b"%011o\0" % size
    block[124 : 124 + len(field)], block[156:157], block[157 : 157 + len(link)] = field, kind, link
    block[257:265] = magic
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def member(name: str, data: bytes, **options: Any) -> bytes:
    return header(name.encode(), len(data), **options) + data + bytes(-len(data) % 512)


def pax(*records: bytes) -> bytes:
    lines = b"".join(b"%d %s\n" % (len(r) + 2 + len(str(len(r) + 4)), r) for r in records)
    return member("PaxHeader", lines, kind=b"x")


def npy(text: bytes, version: bytes = b"\x01\x00", length: int | None = None, data: bytes = bytes(99)) -> bytes:
    return b"\x93NUMPY" + version + (len(text) if length is None else length).to_bytes(2, "little") + text + data


def zst(data: bytes, **options: Any) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(data)


def zeros(count: int, start: bytes = b"", stated: int | None = None) -> bytes:
    """A zstd frame of some bytes and `count` zeros, in four bytes for each 128 KiB of them."""
    size = len(start) + count if stated is None else stated
    first = (len(start) << 3).to_bytes(3, "little") + start
    each = ((1 << 17) << 3 | 0b010).to_bytes(3, "little") + b"\0"
    last = ((count % (1 << 17)) << 3 | 0b011).to_bytes(3, "little") + b"\0"
    return b"\x28\xb5\x2f\xfd\xc0\x38" + size.to_bytes(8, "little") + first + each * (count >> 17) + last


def object_header(expression: str) -> bytes:
    return npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': " + expression.encode() + b", }\n")


def clip(data: bytes, ending: str = "npy") -> list[bytes]:
    return [member(f"s0.{ending}", data)]


PICKLE = pickle.dumps(Bomb())
FIRST = member("s0.npy", GOOD)
# name of the trick -> blocks of a tar, and what the refusal must say
ARCHIVES: dict[str, tuple[list[bytes], str]] = {
    **{f"pickle as .{ending}": ([FIRST, member(f"s0.{ending}", PICKLE)], f"'s0.{ending}' is a pickle")
       for ending in ("pkl", "pyd", "pickle", "pth", "pt", "PKL", "meta.pyd", "joblib", "dill")},
    "pickle as .npy": (clip(PICKLE), "clip s0: not an NPY array"),
    "pickle as .json": ([FIRST, member("s0.json", PICKLE)], "clip s0: damaged labels"),
    "array of objects": (clip(pickled_array()), "clip s0: not an NPY array"),
    "array of objects in zstd": (clip(zst(pickled_array()), "npy.zst"), "clip s0: not an NPY array"),
    "absolute path": ([member("/etc/s0.npy", GOOD)], "'/etc/s0.npy' is not allowed"),
    "parent path": ([member("../../s0.npy", GOOD)], "'../../s0.npy' is not allowed"),
    "parent path in PAX": ([pax(b"path=../s0.npy"), FIRST], "'../s0.npy' is not allowed"),
    "parent path in a long name": ([member("@", b"a/../../s0.npy\0", kind=b"L"), FIRST], "s0.npy' is not allowed"),
    "name that steers a terminal": ([member("\x1b]0;x\x07.npy", GOOD)], r"key '\x1b]0;x\x07' is not allowed"),
    "symbolic link": ([FIRST, header(b"s1.npy", 0, b"2", b"/etc/passwd")], "'s1.npy' is a symbolic link"),
    "hard link": ([FIRST, header(b"s1.npy", 0, b"1", b"/etc/passwd")], "'s1.npy' is a hard link"),
    "character device": ([FIRST, header(b"s1.npy", 0, b"3")], "'s1.npy' is a device"),
    "block device": ([FIRST, header(b"s1.npy", 0, b"4")], "'s1.npy' is a device"),
    "pipe": ([FIRST, header(b"s1.npy", 0, b"6")], "'s1.npy' is a pipe"),
    "GNU sparse file": ([header(b"s0.npy", 512, b"S", magic=b"ustar  \0") + bytes(512)], "'s0.npy' is a sparse file"),
    "PAX sparse file 0.1": ([pax(b"GNU.sparse.map=0,1,9999999999,1"), FIRST], "GNU.sparse.map"),
    "PAX sparse file 1.0": ([pax(b"GNU.sparse.realsize=99999999999"), FIRST], "GNU.sparse.realsize"),
    "size in base 256": ([header(b"s0.npy", b"\x80\0\0\0\0\0\x01\0\0\0\0\0")], "'s0.npy' states a size"),
    "negative size in base 256": ([header(b"s0.npy", b"\xff" * 12)], "'s0.npy' states a size"),
    "size of 8 GiB": ([header(b"s0.npy", 8**11 - 1)], "'s0.npy' of 8589934591 bytes is not allowed"),
    "size override in PAX": ([pax(b"size=99999999999"), FIRST], "another 'size'"),
    "long PAX header": ([header(b"pax", 1 << 30, b"x")], "1073741824 bytes is not allowed; at most 65536"),
    "long name of a gigabyte": ([header(b"name", 1 << 30, b"L")], "1073741824 bytes is not allowed; at most 65536"),
    "PAX record that lies": ([member("pax", b"999999999 a=b\n", kind=b"x"), FIRST], "damaged extended header"),
    "cut member": ([header(b"s0.npy", 1 << 30)], "'s0.npy' is cut short"),
    "key twice": ([FIRST, FIRST], "'s0.npy' is there twice"),
    "zstd that expands to 100 GB": (clip(zeros(10**11), "npy.zst"), "100000000000 bytes is not allowed"),
    "zstd that expands to 1 GB": (clip(zeros(1 << 30, npy_header((1 << 14, 256, 256, 1))), "npy.zst"), "s0: its 107374195"),
    "zstd that states 512 bytes": (clip(zeros(10**11, GOOD, 512), "npy.zst"), "clip s0: "),
    "zstd that states 128 KB": (clip(zeros(10**9, npy_header((2048, 8, 8, 1)), 128 + (1 << 17)), "npy.zst"), "clip s0: "),
    "zstd that states nothing": (clip(zst(GOOD, write_content_size=False), "npy.zst"), "clip s0: a compressed clip"),
    "zstd that holds zeros": (clip(zeros(1 << 30), "npy.zst"), "clip s0: not an NPY array"),
    "zstd in two frames": (clip(zst(GOOD) + zst(bytes(1 << 24)), "npy.zst"), "clip s0: damaged zstd"),
    "zstd with a skippable frame": (clip(b"\x50\x2a\x4d\x18\xff\xff\xff\xff" + zst(GOOD), "npy.zst"), "clip s0: "),
    "shape of exabytes": (clip(npy_header((999_999_999,) * 4)), "clip s0: a clip of shape"),
    "shape of the limit": (clip(npy_header((1 << 21, 32, 32, 1))), "do not fill the shape"),
    "negative shape": (clip(object_header("(-1, 4, 4, 1)")), "clip s0: not an NPY array"),
    "empty shape": (clip(npy_header((0, 4, 4, 1))), "clip s0: a clip of shape"),
    "huge header length": (clip(npy(b"x", length=65535)), "clip s0: not an NPY array"),
    "header of version 2": (clip(npy(b"\xff\xff\xff\x7f", b"\x02\x00")), "clip s0: not an NPY array"),
    "Python in the header": (clip(object_header("(__import__('os')._exit(66), 1, 1, 1)")), "clip s0: not an NPY array"),
    "nested expression in the header": (clip(object_header("(" * 200 + ")" * 200)), "clip s0: not an NPY array"),
    "long arithmetic in the header": (clip(object_header("(9**9**9, 1, 1, 1)")), "clip s0: not an NPY array"),
    "array of structures": (clip(npy(b"{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,), }\n")), "s0: not"),
    "deeply nested labels": ([FIRST, member("s0.json", b"[" * 100_000)], "clip s0: damaged labels"),
    "deeply nested whole labels": ([FIRST, member("s0.json", b'{"a":' * 99_999 + b"1" + b"}" * 99_999)], "damaged labels"),
    "labels of 5 MB": ([FIRST, member("s0.json", b"[" + b"[]," * 1_700_000 + b"1]")], "clip s0: labels of"),
    "a number of a million digits": ([FIRST, member("s0.json", b'{"a":' + b"9" * 1_000_000 + b"}")], "damaged labels"),
    "labels that are no object": ([FIRST, member("s0.json", b"[" + b"{}," * 300_000 + b"1]")], "must be a JSON object"),
    "a tar in gzip": ([gzip.compress(FIRST + bytes(1024))], "damaged at byte 0"),
    "a picture": ([b"\x89PNG\r\n\x1a\n" + bytes(2000)], "damaged at byte 0"),
    "many headers": ([header(b"d%d/" % n, 0, b"5") for n in range(3000)], "cut short at byte"),
}  # fmt: skip


def write_archive(name: str, folder: Path) -> Path:
    path = folder / "x.tar"
    path.write_bytes(b"".join(ARCHIVES[name][0]) + (b"" if name in ("cut member", "many headers") else bytes(1024)))
    return path


def sparse(path: Path, size: int, start: bytes = b"") -> Path:
    """Write a file that states a size and takes no room for it."""
    with path.open("wb") as file:
        file.write(start)
        file.truncate(size)
    return path


# name of the trick -> what makes x.tar in a folder, and what the refusal must say
STRANGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pipe as shard": (os.mkfifo, "x.tar: not a regular file"),
    "a folder as shard": (Path.mkdir, "x.tar: not a regular file"),
    "a device as shard": (lambda path: path.symlink_to("/dev/zero"), "x.tar: not a regular file"),
    "a terabyte of zeros": (lambda path: sparse(path, TERA), "x.tar: 1099511627776 bytes behind the end"),
    "a terabyte behind the end": (lambda path: sparse(path, TERA, FIRST), "bytes behind the end"),
    "a terabyte in a member": (lambda path: sparse(path, TERA, header(b"s0.npy", 8**11 - 1)), "'s0.npy' of 8589934591"),
}


def write_strange(name: str, folder: Path) -> Path:
    STRANGE[name][0](folder / "x.tar")
    return folder / "x.tar"


def read_shards(path: Path) -> None:
    collection = open_shards(path, SPLITS)
    for number in range(len(collection)):
        collection.labels(number)
        collection.frames(number)


Make, Use = Callable[[Path], Path], Callable[[Path], object]
TRICKS: dict[str, tuple[Make, Use, str]] = {  # what makes it, what uses it, and what the refusal must say
    **{f"archive: {n}": (partial(write_archive, n), read_shards, words) for n, (_, words) in ARCHIVES.items()},
    **{f"file: {n}": (partial(write_strange, n), read_shards, words) for n, (_, words) in STRANGE.items()},
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """How each trick ends in a process of little memory."""
    paths = {name: str(make(tmp_path_factory.mktemp("trick"))) for name, (make, _, _) in TRICKS.items()}
    return outcomes_of(Path(__file__).stem, paths)


@pytest.mark.parametrize("name", TRICKS)
def test_a_trick_is_refused_by_name_in_little_memory_and_time(name: str, outcomes: dict[str, dict[str, Any]]) -> None:
    check_refused(outcomes[name], TRICKS[name][2], MEMORY, SECONDS)


def test_a_good_shard_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(FIRST + bytes(1024))
    read_shards(tmp_path / "x.tar")
    with tarfile.open(tmp_path / "x.tar") as archive:
        assert archive.getnames() == ["s0.npy"]


def test_the_bomb_is_live() -> None:
    words = [sys.executable, "-c", f"import pickle; pickle.loads({PICKLE!r})"]
    assert subprocess.run(words, check=False).returncode == 66
