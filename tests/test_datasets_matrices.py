"""The binary matrices of small NORB: round trips, refusals, and packed files that are unpacked once."""

import gzip
import struct
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drnet.datasets import cache
from drnet.datasets.contract import DataError
from drnet.datasets.reading import matrices
from drnet.datasets.reading.matrices import (
    MatrixFile,
    check_matrix,
    find_matrix,
    header,
    map_matrix,
    unpacked,
    write_matrix,
)
from drnet.datasets.reading.source_files import sha256_file


@settings(max_examples=30, deadline=None)
@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=5), dtype=st.sampled_from(["u1", "<i4"]))
def test_a_matrix_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, shape: list[int], dtype: str
) -> None:
    path = tmp_path_factory.mktemp("matrix") / "a.mat"
    matrix = np.arange(np.prod(shape)).astype(dtype).reshape(shape)
    write_matrix(path, matrix)
    file = MatrixFile("a.mat", dtype, tuple(shape), "")
    assert path.stat().st_size == file.size == 8 + 4 * max(3, len(shape)) + matrix.nbytes
    assert np.array_equal(map_matrix(path, file), matrix)


def test_the_header_is_that_of_the_published_files() -> None:
    assert header(np.dtype("u1"), (24300, 2, 96, 96)) == struct.pack("<6i", 0x1E3D4C55, 4, 24300, 2, 96, 96)
    assert header(np.dtype("i4"), (24300,)) == struct.pack("<5i", 0x1E3D4C54, 1, 24300, 1, 1)
    assert header(np.dtype("i4"), (24300, 4)) == struct.pack("<5i", 0x1E3D4C54, 2, 24300, 4, 1)


def test_a_type_that_the_format_has_no_number_for_is_refused() -> None:
    with pytest.raises(ValueError, match="float32"):
        header(np.dtype("f4"), (1,))


def test_what_is_mapped_cannot_be_written(tmp_path: Path) -> None:
    write_matrix(tmp_path / "a.mat", np.zeros((2, 3), np.uint8))
    matrix = map_matrix(tmp_path / "a.mat", MatrixFile("a.mat", "u1", (2, 3), ""))
    with pytest.raises(ValueError, match="read-only"):
        matrix[0, 0] = 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "does not begin as a matrix file does"),
        (b"\x55", "does not begin as a matrix file does"),
        (struct.pack("<i", 0x1E3D4C55), "holds uint8 values of an unknown shape"),
        (struct.pack("<2i", 0x1E3D4C55, 2_000_000_000), "holds uint8 values of an unknown shape"),
        (struct.pack("<5i", 0x1E3D4C55, 2, 3, 2, 1), "holds uint8 values of 3 x 2"),
        (struct.pack("<5i", 0x1E3D4C54, 2, 2, 3, 1), "holds int32 values of 2 x 3"),
        (header(np.dtype("u1"), (2, 3)) + bytes(5), "has 25 bytes; expected 26"),
        (header(np.dtype("u1"), (2, 3)) + bytes(7), "has 27 bytes; expected 26"),
    ],
)
def test_another_file_is_refused_by_what_it_holds(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(DataError) as caught:
        map_matrix(tmp_path / "a.mat", MatrixFile("a.mat", "u1", (2, 3), ""))
    assert said in str(caught.value)
    assert "expected" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.mat' cannot be read \(No such file"):
        map_matrix(tmp_path / "a.mat", MatrixFile("a.mat", "u1", (2, 3), ""))


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, MatrixFile]:
    """A gzip file, what is in it, and an empty cache."""
    monkeypatch.setenv("DRNET_CACHE", str(tmp_path / "cache"))
    write_matrix(tmp_path / "a.mat", np.arange(3_000_000, dtype=np.int32).reshape(3, -1))
    file = MatrixFile("a.mat", "<i4", (3, 1_000_000), sha256_file(tmp_path / "a.mat"))
    (tmp_path / "a.mat.gz").write_bytes(gzip.compress((tmp_path / "a.mat").read_bytes(), 1))
    (tmp_path / "a.mat").unlink()
    return tmp_path / "a.mat.gz", file


def left_in_the_cache() -> list[Path]:
    return [path for path in cache.cache_folder().rglob("*") if path.is_file()]


def test_a_packed_file_is_found_where_the_plain_one_is_not(packed: tuple[Path, MatrixFile], tmp_path: Path) -> None:
    found = find_matrix(tmp_path, packed[1])
    assert found is not None
    assert map_matrix(found, packed[1])[2, -1] == 2_999_999
    assert left_in_the_cache() == [found]
    found.rename(tmp_path / "a.mat")
    assert find_matrix(tmp_path, packed[1]) == tmp_path / "a.mat"
    assert find_matrix(tmp_path / "none", packed[1]) is None


def test_threads_that_need_the_same_file_unpack_it_once(
    packed: tuple[Path, MatrixFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    unpack, calls, found = matrices._unpack, [], []
    start = threading.Barrier(4)

    def counted(*arguments: Any) -> None:
        calls.append(arguments)
        unpack(*arguments)

    def ask() -> None:
        start.wait()
        found.append(check_matrix(unpacked(*packed), packed[1]).sha256)

    monkeypatch.setattr(matrices, "_unpack", counted)
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [packed[1].sha256] * 4
    assert len(calls) == 1


def test_a_half_written_copy_is_not_used(packed: tuple[Path, MatrixFile]) -> None:
    folder = cache.cache_folder() / "unpacked" / packed[1].sha256[:16]
    folder.mkdir(parents=True)
    (folder / "a.mat").write_bytes(b"half")
    (folder / "a.mat.tmp").write_bytes(b"of a killed process")
    check_matrix(unpacked(*packed), packed[1])
    assert left_in_the_cache() == [folder / "a.mat"]


@pytest.mark.parametrize("spoil", [lambda data: data[:-100], lambda data: b"no gzip", lambda data: data[:99] + data])
def test_a_damaged_gzip_file_is_refused_by_name(packed: tuple[Path, MatrixFile], spoil: Any) -> None:
    packed[0].write_bytes(spoil(packed[0].read_bytes()))
    with pytest.raises(DataError, match=r"a\.mat\.gz' cannot be unpacked .* the original a\.mat\.gz"):
        unpacked(*packed)
    assert left_in_the_cache() == []


def test_no_more_than_the_right_size_is_unpacked(
    packed: tuple[Path, MatrixFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrices, "PIECE", 1000)
    read, pieces = matrices._pieces, []

    def counted(*arguments: Any) -> Any:
        for piece in read(*arguments):
            pieces.append(len(piece))
            yield piece

    monkeypatch.setattr(matrices, "_pieces", counted)
    packed[0].write_bytes(gzip.compress(bytes(packed[1].size + 1_000_000), 1))
    with pytest.raises(DataError, match="unpacks to more than 12,000,020 bytes; expected 12,000,020"):
        unpacked(*packed)
    assert sum(pieces) <= packed[1].size + 1000
    assert left_in_the_cache() == []
