"""The binary matrices of small NORB: a header of 32-bit integers, then the values; all little-endian, rows first.

The header is a number for the type of the values, the number of axes, and the length of each axis: at least three
lengths, which are 1 beyond the axes that there are. (http://www.cs.nyu.edu/~ylclab/data/norb-v1.0-small, "File format")
"""

import fcntl
import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drnet.datasets import cache
from drnet.datasets.contract import DataError, SourceFile
from drnet.datasets.reading.source_files import source_files

TYPES: dict[int, np.dtype[Any]] = {0x1E3D4C55: np.dtype("u1"), 0x1E3D4C54: np.dtype("<i4")}
LENGTHS = 3  # of axes, that the header has at least
PIECE = 1 << 20  # bytes unpacked at a time


@dataclass(frozen=True)
class MatrixFile:
    """A file as it must be.

    Attributes:
        name: of the unpacked file.
        dtype: `u1` or `<i4`.
        shape: of the matrix.
        sha256: of the unpacked file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str

    @property
    def size(self) -> int:
        """Bytes of the unpacked file."""
        return len(header(np.dtype(self.dtype), self.shape)) + int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


def header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return the bytes before the values. Raises ValueError for a type that has no number."""
    magic = next((number for number, known in TYPES.items() if known == dtype), None)
    if magic is None:
        raise ValueError(f"values of {dtype} are not allowed; supported are {', '.join(map(str, TYPES.values()))}")
    lengths = (*shape, *[1] * (LENGTHS - len(shape)))
    return np.array([magic, len(shape), *lengths], "<i4").tobytes()


def write_matrix(path: Path, matrix: NDArray[Any]) -> None:
    """Write a matrix of uint8 or int32."""
    with path.open("wb") as file:
        file.write(header(matrix.dtype, matrix.shape))
        file.write(np.ascontiguousarray(matrix).data)


def map_matrix(path: Path, expected: MatrixFile) -> NDArray[Any]:
    """Map a matrix file into memory, read-only: pages are read when touched, and let go with the array.

    Raises:
        DataError: the file's header or size is not as expected.
    """
    start = header(np.dtype(expected.dtype), expected.shape)
    try:
        with path.open("rb") as file:
            found, size = file.read(len(start)), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise DataError(f"'{path}' cannot be read ({error.strerror}); put the original {expected.name} there") from None
    if found != start:
        raise DataError(f"'{path}' {_start_of(found)}; expected {_values(start)}, the original {expected.name}")
    if size != expected.size:
        raise DataError(f"'{path}' has {size:,} bytes; expected {expected.size:,}, the original {expected.name}")
    return np.memmap(path, expected.dtype, "r", len(start), expected.shape)


def _start_of(data: bytes) -> str:
    """Say what a file's beginning announces."""
    magic = int.from_bytes(data[:4], "little")
    return f"holds {_values(data)}" if magic in TYPES else "does not begin as a matrix file does"


def _values(data: bytes) -> str:
    """Return the type and the shape that a header announces."""
    numbers = np.frombuffer(data[: len(data) // 4 * 4], "<i4").tolist()
    axes = numbers[1] if len(numbers) > 1 else 0
    shape = " x ".join(map(str, numbers[2 : 2 + axes])) if 0 < axes <= len(numbers) - 2 else "an unknown shape"
    return f"{TYPES[numbers[0]].name} values of {shape}"


def find_matrix(folder: Path, expected: MatrixFile) -> Path | None:
    """Return the unpacked file of a folder that has it, or its gzip file unpacked into the user's cache; else None."""
    if (folder / expected.name).is_file():
        return folder / expected.name
    packed = folder / f"{expected.name}.gz"
    return unpacked(packed, expected) if packed.is_file() else None


def check_matrix(path: Path, expected: MatrixFile) -> SourceFile:
    """Return a file's row after reading all of it. Raises DataError where it is not the one expected."""
    map_matrix(path, expected)  # says more than a hash can
    found = source_files(path.parent, [path])[0]
    if found.sha256 != expected.sha256:
        raise _wrong_hash(path, found.sha256, expected)
    return found


def unpacked(packed: Path, expected: MatrixFile) -> Path:
    """Return the unpacked file of a gzip file, in the user's cache; unpacked only where it is not there.

    Its folder is named by the hash, so that files of one name and other content live side by side. Several processes
    may ask at once: one unpacks, the others wait for it. The file has its name only when it is whole and its hash right.

    Raises:
        DataError: the gzip file is damaged, or another file is in it.
    """
    folder = cache.cache_folder() / "unpacked" / expected.sha256[:16]
    target = folder / expected.name
    if _has_size(target, expected.size):
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        if not _has_size(target, expected.size):  # else another process was faster
            temporary = folder / f"{expected.name}.tmp"  # of a killed process too: this one writes over it
            try:
                _unpack(packed, temporary, expected)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
    return target


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # ends with the process, however that ends
        yield
    finally:
        os.close(descriptor)


def _unpack(packed: Path, target: Path, expected: MatrixFile) -> None:
    """Unpack a file; never more than a piece beyond the right size, whatever is packed in it."""
    digest, size = hashlib.sha256(), 0
    with target.open("wb") as file:
        for piece in _pieces(packed, expected.name):
            size += len(piece)
            if size > expected.size:
                break
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    if size != expected.size:
        found = f"more than {expected.size:,}" if size > expected.size else f"{size:,}"
        raise DataError(
            f"'{packed}' unpacks to {found} bytes; expected {expected.size:,}, the original {expected.name}"
        )
    if digest.hexdigest() != expected.sha256:
        raise _wrong_hash(packed, digest.hexdigest(), expected)


def _pieces(packed: Path, name: str) -> Iterator[bytes]:
    try:
        with gzip.open(packed, "rb") as stream:
            while piece := stream.read(PIECE):
                yield piece
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"'{packed}' cannot be unpacked ({error}); put the original {name}.gz there") from None


def _wrong_hash(path: Path, found: str, expected: MatrixFile) -> DataError:
    """Return the error for a file of the right size and the wrong content."""
    return DataError(f"'{path}' has the SHA-256 {found}; expected {expected.sha256}, the original {expected.name}")
