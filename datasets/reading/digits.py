"""Images of handwritten digits: MNIST from a folder, the user's cache or a mirror, or scikit-learn's optdigits.

MNIST is four IDX files, gzip or not: train (60,000 images, 28x28) and test (10,000), each with a file of labels. An IDX
file is a big-endian magic number, one 32-bit count for each axis, and the bytes. The unpacked content of each file is
checked against a pinned MD5 before a pixel is used, and a downloaded gzip file against a pinned SHA-256.

optdigits (Alpaydin & Kaynak, UCI) is what scikit-learn ships: 1,797 images, 8x8, the part of the original whose 13
writers were kept for its test. The file does not say who wrote what, so images are split by their order, first 1,297
train and last 500 test: no image lies in both splits, but a writer may.
"""

import functools
import gzip
import hashlib
import importlib.util
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drnet.datasets import cache
from drnet.datasets.contract import DataError, SourceFile, Split, Tell
from drnet.datasets.fetching import originals

Images = NDArray[np.uint8]  # (N, H, W), ink is bright
Digits = NDArray[np.uint8]  # (N,), 0 to 9

OPTDIGITS = "optdigits"
OPTDIGITS_TRAIN = 1297  # images; the other 500 are the test split
MAGIC = {1: 2049, 3: 2051}  # IDX of bytes with one axis, with three
WAYS_OUT = f"give a folder with the four files (--source DIR), or use scikit-learn's digits (--source {OPTDIGITS})"


@dataclass(frozen=True)
class IdxFile:
    """One of MNIST's files.

    Attributes:
        name: of the unpacked file.
        shape: of its array.
        md5: of the unpacked file.
    """

    name: str
    shape: tuple[int, ...]
    md5: str

    @property
    def size(self) -> int:
        """Bytes of the unpacked file."""
        return 4 + 4 * len(self.shape) + int(np.prod(self.shape))

    def names(self) -> tuple[str, ...]:
        """Return the names under which the file is found, in the order of preference."""
        dotted = self.name.replace("-idx", ".idx")
        return self.name, dotted, f"{self.name}.gz", f"{dotted}.gz"


FILES: dict[Split, tuple[IdxFile, IdxFile]] = {  # the images and their labels
    "train": (
        IdxFile(
            "train-images-idx3-ubyte",
            (60_000, 28, 28),
            "6bbc9ace898e44ae57da46a324031adb",
        ),
        IdxFile(
            "train-labels-idx1-ubyte",
            (60_000,),
            "a25bea736e30d166cdddb491f175f624",
        ),
    ),
    "test": (
        IdxFile(
            "t10k-images-idx3-ubyte",
            (10_000, 28, 28),
            "2646ac647ad5339dbf082846283269ea",
        ),
        IdxFile(
            "t10k-labels-idx1-ubyte",
            (10_000,),
            "27ae3e4e09519cfbb04c329615203637",
        ),
    ),
}


def load(source: str | None, split: Split) -> tuple[Images, Digits]:
    """Return a split's images and labels, read once a process.

    Args:
        source: a folder with the four MNIST files; `optdigits`; or None, MNIST from the user's cache or a mirror.
        split: `train` or `test`.

    Returns:
        (N, H, W) uint8, read-only: H = W = 28 for MNIST, 8 for optdigits; and (N,) uint8 labels.

    Raises:
        DataError: a file is missing, damaged or not the original one, or nothing could be downloaded.
    """
    if source == OPTDIGITS:
        images, labels = _optdigits()
        part = slice(None, OPTDIGITS_TRAIN) if split == "train" else slice(OPTDIGITS_TRAIN, None)
        return images[part], labels[part]
    images, labels = (
        np.frombuffer(_content(_locate(source, file), file), np.uint8, offset=4 + 4 * len(file.shape)).reshape(
            file.shape
        )
        for file in FILES[split]
    )
    return images, labels


def sources(source: str | None) -> list[SourceFile]:
    """Return the files in use: of MNIST, the unpacked ones, whichever way they lie in the folder.

    optdigits counts as one file: its 8x8 images of one byte each (0 to 255), then the labels.

    Raises:
        DataError: as `load` does.
    """
    if source == OPTDIGITS:
        data = b"".join(array.tobytes() for array in _optdigits())
        return [SourceFile(OPTDIGITS, len(data), hashlib.sha256(data).hexdigest())]
    found = [(file, _locate(source, file)) for pair in FILES.values() for file in pair]
    return [SourceFile(file.name, file.size, hashlib.sha256(_content(path, file)).hexdigest()) for file, path in found]


def file_of(source: str | None, split: Split) -> str:
    """Return the name of the file that a split's images come from; no two splits share one."""
    return f"{OPTDIGITS}-{split}" if source == OPTDIGITS else FILES[split][0].name


def cache_folder() -> Path:
    """Return where MNIST is kept for a user: `mnist` in the folder $DRNET_CACHE, or in the platform's cache folder."""
    return cache.cache_folder() / "mnist"


def fetch_missing(source: str | None, tell: Tell | None = None) -> None:
    """Download the files that the user's cache lacks; nothing where another source is given. Raises as `load`."""
    for file in (file for pair in FILES.values() for file in pair) if source is None else ():
        _locate(None, file, tell)


def _locate(source: str | None, file: IdxFile, tell: Tell | None = None) -> Path:
    folder = cache_folder() if source is None else Path(source)
    found = next((folder / name for name in file.names() if (folder / name).is_file()), None)
    if found is not None:
        return found
    if source is None:
        return _download(file, folder, tell)
    if not folder.is_dir():
        raise DataError(f"source '{source}' is not a folder; {WAYS_OUT}")
    raise DataError(f"'{source}' holds no {file.name}, with .gz or without; {WAYS_OUT}")


def _download(file: IdxFile, folder: Path, tell: Tell | None) -> Path:
    from drnet.datasets.fetching.fetch import fetch_file  # only here: it brings an HTTP client

    try:
        return fetch_file(originals.originals_of("mnist").file(f"{file.name}.gz"), folder, tell).path
    except DataError as error:
        raise DataError(f"{file.name}.gz is not in the cache '{folder}': {error}, or {WAYS_OUT}") from None


@functools.cache
def _content(path: Path, file: IdxFile) -> bytes:
    """Return the checked, unpacked content; no more than one byte over the right size is ever unpacked."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as stream:
            content = stream.read(file.size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"'{path}' cannot be read ({error}); expected the original {file.name}; {_remedy()}") from None
    problem = _problem(content, file)
    if problem:
        raise DataError(f"'{path}' {problem}; {_remedy()}")
    return content


def _problem(content: bytes, file: IdxFile) -> str:
    """Return what is wrong with a file's content and what was expected, or nothing."""
    axes = len(file.shape)
    header = np.frombuffer(content[: (len(content) // 4) * 4][: 4 + 4 * axes], ">u4").tolist()
    if header[:1] != [MAGIC[axes]]:
        return (
            f"begins with the number {header[0] if header else 'of no IDX file'}; expected {MAGIC[axes]} ({file.name})"
        )
    if len(header) == 1 + axes and tuple(header[1:]) != file.shape:
        return f"announces the shape {tuple(header[1:])}; expected {file.shape}"
    if len(content) < file.size:
        return f"ends after {len(content):,} bytes; expected {file.size:,}"
    if len(content) > file.size:
        return f"is longer than the {file.size:,} bytes expected"
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return "" if md5 == file.md5 else f"has the MD5 {md5} when unpacked; expected {file.md5}, the original {file.name}"


def _remedy() -> str:
    return f"replace it by the original (in the cache: delete it, and it is downloaded again), or {WAYS_OUT}"


@functools.cache
def _optdigits() -> tuple[Images, Digits]:
    package = importlib.util.find_spec("sklearn")  # not imported: that takes two seconds in every worker
    if package is None or package.origin is None:
        raise DataError("--source optdigits needs scikit-learn, which ships the digits: pip install scikit-learn")
    table = np.loadtxt(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", np.int64, delimiter=",")
    images = np.round(table[:, :64].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)  # 0 to 16 in the file
    labels = table[:, 64].astype(np.uint8)
    for array in (images, labels):
        array.flags.writeable = False
    return images, labels
