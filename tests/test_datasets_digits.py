"""Digit images: fake IDX files under their true names pass through the true path; only the pins are the fakes'."""

import gzip
import hashlib
import http.server
import struct
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from drnet.datasets.contract import DataError, Split
from drnet.datasets.fetching import fetch, originals
from drnet.datasets.fetching.download import Patience
from drnet.datasets.reading import digits

COUNTS: dict[Split, int] = {"train": 30, "test": 20}
Fakes = dict[str, bytes]  # unpacked content under the plain name


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">{1 + array.ndim}I", {1: 2049, 3: 2051}[array.ndim], *array.shape) + array.tobytes()


def serve_from(monkeypatch: pytest.MonkeyPatch, contents: Fakes, *mirrors: str) -> None:
    """Put the fakes into the table of downloads, with these mirrors."""
    files = []
    for name, content in contents.items():
        packed = gzip.compress(content, mtime=0)
        urls = tuple(f"{mirror}{name}.gz" for mirror in mirrors)
        files.append(originals.Original(f"{name}.gz", urls, len(packed), hashlib.sha256(packed).hexdigest()))
    row = originals.Originals("fakes", "page", "licence", "citation", tuple(files))
    monkeypatch.setattr(originals, "ORIGINALS", {"mnist": row})


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    random, contents, table = np.random.default_rng(0), {}, {}
    for split, count in COUNTS.items():
        prefix = {"train": "train", "test": "t10k"}[split]
        images = random.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        pair = []
        for name, array in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
            contents[name] = idx(array)
            pair.append(digits.IdxFile(name, array.shape, hashlib.md5(contents[name]).hexdigest()))
        table[split] = tuple(pair)
    monkeypatch.setattr(digits, "FILES", table)
    serve_from(monkeypatch, contents)  # no mirror: nothing can be downloaded
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(fetch, "Patience", lambda: Patience(pause=0))
    return contents


def write(folder: Path, contents: Fakes, packed: bool = True, dotted: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        shown = (name.replace("-idx", ".idx") if dotted else name) + (".gz" if packed else "")
        (folder / shown).write_bytes(gzip.compress(content, mtime=0) if packed else content)
    return folder


def error_of(call: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dotted", [True, False])
def test_the_four_files_are_read_under_each_of_their_names(
    tmp_path: Path, fakes: Fakes, packed: bool, dotted: bool
) -> None:
    folder = str(write(tmp_path, fakes, packed, dotted))
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = digits.load(folder, split)
        assert images.shape == (COUNTS[split], 28, 28)
        assert images.dtype == labels.dtype == np.uint8
        assert images.tobytes() == fakes[f"{prefix}-images-idx3-ubyte"][16:]
        assert labels.tolist() == [number % 10 for number in range(COUNTS[split])]


def test_sources_are_the_same_whether_the_files_are_packed_or_not(tmp_path: Path, fakes: Fakes) -> None:
    packed = digits.sources(str(write(tmp_path / "a", fakes, packed=True)))
    plain = digits.sources(str(write(tmp_path / "b", fakes, packed=False, dotted=True)))
    assert packed == plain
    assert {file.name: (file.size, file.sha256) for file in packed} == {
        name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in fakes.items()
    }


def test_the_pins_are_those_of_the_published_files() -> None:
    rows = originals.ORIGINALS["mnist"]
    pins = {
        file.name: (file.size, file.md5, rows.file(f"{file.name}.gz").size, rows.file(f"{file.name}.gz").sha256[:16])
        for pair in digits.FILES.values()
        for file in pair
    }
    assert pins == {
        "train-images-idx3-ubyte": (47_040_016, "6bbc9ace898e44ae57da46a324031adb", 9_912_422, "440fcabf73cc546f"),
        "train-labels-idx1-ubyte": (60_008, "a25bea736e30d166cdddb491f175f624", 28_881, "3552534a0a558bbe"),
        "t10k-images-idx3-ubyte": (7_840_016, "2646ac647ad5339dbf082846283269ea", 1_648_877, "8d422c7b0a1c1c79"),
        "t10k-labels-idx1-ubyte": (10_008, "27ae3e4e09519cfbb04c329615203637", 4_542, "f7ae60f92e00ec6d"),
    }


def changed(content: bytes, at: int, value: bytes) -> bytes:
    return content[:at] + value + content[at + len(value) :]


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "another magic number": (
        lambda content: changed(content, 0, struct.pack(">I", 2049)),
        "number 2049; expected 2051",
    ),
    "no bytes at all": (lambda content: b"", "expected 2051"),
    "another count": (
        lambda content: changed(content, 4, struct.pack(">I", 31)),
        "(31, 28, 28); expected (30, 28, 28)",
    ),
    "half of it": (lambda content: content[: len(content) // 2], "ends after 11,768 bytes; expected 23,536"),
    "only a part of the header": (lambda content: content[:9], "ends after 9 bytes"),
    "a byte too many": (lambda content: content + b"\0", "longer than the 23,536 bytes expected"),
    "one pixel changed": (lambda content: changed(content, 99, bytes([content[99] ^ 1])), "has the MD5"),
}


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_wrong_file_is_named_with_what_was_expected_and_the_ways_out(
    tmp_path: Path, fakes: Fakes, damage: str, packed: bool
) -> None:
    spoil, expected = DAMAGE[damage]
    name = "train-images-idx3-ubyte"
    folder = str(write(tmp_path, fakes | {name: spoil(fakes[name])}, packed))
    for text in (error_of(lambda: digits.load(folder, "train")), error_of(lambda: digits.sources(folder))):
        assert name in text
        assert expected in text
        assert "--source optdigits" in text
    assert len(digits.load(folder, "test")[0]) == COUNTS["test"], "the other files are whole"


SPOILT: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda packed: packed[:500],
    "without its checksum": lambda packed: packed[:-6],
    "no gzip at all": lambda packed: b"no gzip",
    "zeros inside": lambda packed: packed[:40] + bytes(200) + packed[240:],
    "an impossible block": lambda packed: packed[:10] + b"\xff" + packed[11:],
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_damaged_gzip_file_is_named(tmp_path: Path, fakes: Fakes, spoil: Callable[[bytes], bytes]) -> None:
    file = write(tmp_path, fakes) / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(spoil(file.read_bytes()))
    text = error_of(lambda: digits.load(str(tmp_path), "test"))
    assert str(file) in text
    assert "cannot be read" in text


def test_of_a_gzip_file_that_unpacks_to_a_gigabyte_only_the_expected_size_is_read(
    tmp_path: Path, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = fakes["t10k-images-idx3-ubyte"]
    bomb = gzip.compress(content, mtime=0) + gzip.compress(bytes(1 << 22)) * 256  # gzip members are read one by one
    (write(tmp_path, fakes) / "t10k-images-idx3-ubyte.gz").write_bytes(bomb)
    unpacked: list[int] = []
    problem = digits._problem
    monkeypatch.setattr(digits, "_problem", lambda data, file: (unpacked.append(len(data)), problem(data, file))[1])
    assert "longer than" in error_of(lambda: digits.load(str(tmp_path), "test"))
    assert unpacked == [len(content) + 1]


def test_a_missing_file_is_named_with_both_ways_out(tmp_path: Path, fakes: Fakes) -> None:
    (write(tmp_path, fakes) / "train-labels-idx1-ubyte.gz").unlink()
    text = error_of(lambda: digits.sources(str(tmp_path)))
    assert "holds no train-labels-idx1-ubyte" in text
    assert "--source DIR" in text
    assert "--source optdigits" in text


def test_a_source_that_is_no_folder_says_so(tmp_path: Path, fakes: Fakes) -> None:
    assert "is not a folder" in error_of(lambda: digits.sources(str(tmp_path / "nowhere")))


def test_without_a_source_the_cache_is_read_and_nothing_is_downloaded(
    tmp_path: Path, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRNET_CACHE", str(tmp_path))
    write(tmp_path / "mnist", fakes, packed=False)
    assert len(digits.load(None, "train")[0]) == COUNTS["train"]
    assert [file.name for file in digits.sources(None)] == list(fakes)


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on this machine: its address, and the folder it serves."""
    folder = tmp_path / "mirror"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", folder
        server.shutdown()
        thread.join()


CLOSED = "http://127.0.0.1:9/"  # the discard port: refused at once


def test_the_next_mirror_is_tried_and_what_it_serves_is_kept_in_the_cache(
    tmp_path: Path, fakes: Fakes, mirror: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = mirror
    monkeypatch.setenv("DRNET_CACHE", str(tmp_path / "cache"))
    serve_from(monkeypatch, fakes, CLOSED, address)
    write(folder, fakes)
    assert {file.sha256 for file in digits.sources(None)} == {
        hashlib.sha256(content).hexdigest() for content in fakes.values()
    }
    kept = sorted(path.name for path in (tmp_path / "cache" / "mnist").iterdir())
    assert kept == sorted(f"{name}.gz" for name in fakes)
    serve_from(monkeypatch, fakes)
    assert len(digits.load(None, "test")[0]) == COUNTS["test"]


def test_a_mirror_that_serves_other_bytes_is_not_believed(
    tmp_path: Path, fakes: Fakes, mirror: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = mirror
    monkeypatch.setenv("DRNET_CACHE", str(tmp_path / "cache"))
    serve_from(monkeypatch, fakes, address)
    write(folder, dict.fromkeys(fakes, b"a login page"))
    text = error_of(lambda: digits.sources(None))
    assert "could not be downloaded" in text
    assert list((tmp_path / "cache" / "mnist").iterdir()) == []


def test_with_no_network_one_line_says_the_ways_out(
    tmp_path: Path, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRNET_CACHE", str(tmp_path))
    serve_from(monkeypatch, fakes, CLOSED, CLOSED)
    text = error_of(lambda: digits.sources(None))
    assert text.count("no connection") == 2
    assert "train-images-idx3-ubyte.gz is not in the cache" in text
    assert "--source DIR" in text
    assert "--source optdigits" in text


def test_a_cache_that_cannot_be_written_is_one_line_too(
    tmp_path: Path, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DRNET_CACHE", str(tmp_path / "file"))
    serve_from(monkeypatch, fakes, CLOSED)
    assert "cannot be used" in error_of(lambda: digits.sources(None))


def test_the_cache_is_the_platforms_unless_the_environment_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DRNET_CACHE", raising=False)
    assert digits.cache_folder().parts[-2:] == ("drnet", "mnist")
    monkeypatch.setenv("DRNET_CACHE", "/elsewhere")
    assert digits.cache_folder() == Path("/elsewhere/mnist")


def test_optdigits_are_1297_and_500_images_with_the_full_range_of_grey() -> None:
    train, test = digits.load("optdigits", "train"), digits.load("optdigits", "test")
    assert train[0].shape == (1297, 8, 8)
    assert test[0].shape == (500, 8, 8)
    assert set(train[1].tolist()) == set(test[1].tolist()) == set(range(10))
    assert (train[0].min(), train[0].max()) == (0, 255)
    (source,) = digits.sources("optdigits")
    assert source.size == 1797 * 65
    assert digits.file_of("optdigits", "train") != digits.file_of("optdigits", "test")
