"""How the frames of a clip become a member of a shard, and back: `raw` (NPY) and `zstd` (compressed NPY).

A clip is (T, H, W, C) uint8. Nothing here unpickles: an NPY header is matched against the one form that is allowed.
"""

import math
import re
import threading
from functools import lru_cache
from typing import Literal

import numpy as np
import zstandard
from numpy.typing import NDArray
from zlib_ng import zlib_ng

from drnet.datasets.contract import DataError

Codec = Literal["raw", "zstd"]
EXTENSIONS: dict[str, str] = {"raw": "npy", "zstd": "npy.zst"}
ZSTD_LEVEL = 1
CLIP_LIMIT = 1 << 31  # bytes of the largest clip that is read
HEAD = (1 << 17) + 512  # bytes of a member that suffice to know its shape: a zstd block comes as a whole

_HEADER = re.compile(
    rb"\{'descr': '\|u1', 'fortran_order': False, 'shape': \((\d{1,9}), (\d{1,9}), (\d{1,9}), (\d{1,9})\), \} *\n"
)
WINDOW_LIMIT = 1 << 27  # bytes: a zstd frame that asks for a larger window is refused
REBUILD = "delete the shard and run the build command again"


class _Zstd(threading.local):
    """Compressor and decompressor of one thread: they must not be shared, and the loader reads in its own thread."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=False, write_content_size=True)
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_LIMIT)


_zstd = _Zstd()


@lru_cache(maxsize=4096)
def npy_header(shape: tuple[int, int, int, int]) -> bytes:
    """Return the NPY 1.0 header of a uint8 clip, padded to a multiple of 64 bytes as NumPy does."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    padding = -(10 + len(text) + 1) % 64
    text += b" " * padding + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def parse_npy_header(data: bytes | memoryview, where: str) -> tuple[tuple[int, int, int, int], int]:
    """Return the clip's shape and the header's length in bytes.

    Raises:
        DataError: where this is not the NPY header of a uint8 (T, H, W, C) array in C order of sensible size.
    """
    head = bytes(data[:512])
    length = 10 + int.from_bytes(head[8:10], "little")
    match = _HEADER.fullmatch(head[10:length]) if head[:8] == b"\x93NUMPY\x01\x00" and length <= len(head) else None
    if match is None:
        raise DataError(f"{where}: not an NPY array of uint8 frames (T, H, W, C)")
    t, h, w, c = (int(group) for group in match.groups())
    if not 0 < t * h * w * c <= CLIP_LIMIT:
        raise DataError(f"{where}: a clip of shape {(t, h, w, c)} is not allowed; it must hold 1 to {CLIP_LIMIT} bytes")
    return (t, h, w, c), length


def encode(frames: NDArray[np.uint8], codec: Codec) -> bytes:
    """Return the member's bytes for a clip (T, H, W, C) uint8.

    Raises:
        ValueError: where the array is of another type, empty or too large: a builder's mistake.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or not 0 < frames.size <= CLIP_LIMIT:
        raise ValueError(
            f"{frames.dtype} {frames.shape} is not a clip; it must be uint8 (T, H, W, C) of 1 to {CLIP_LIMIT} bytes"
        )
    header, pixels = npy_header(frames.shape), np.ascontiguousarray(frames)
    if codec == "raw":
        return header + pixels.tobytes()
    # In two parts: joining them first costs more, in fresh memory, than compressing them.
    stream = _zstd.compressor.compressobj(size=len(header) + pixels.nbytes)
    return stream.compress(header) + stream.compress(pixels.data) + stream.flush()


def decode(data: bytes | memoryview, codec: str, where: str) -> NDArray[np.uint8]:
    """Return the clip (T, H, W, C) uint8 of a member, read-only.

    Raises:
        DataError: where the member is damaged, of another type, or larger than a clip may be.
    """
    if codec == "zstd":
        try:
            size = _content_size(data, where)
            data = _zstd.decompressor.decompress(data, max_output_size=size, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise DataError(f"{where}: damaged zstd frame ({error}); {REBUILD}") from None
        except MemoryError:
            raise DataError(f"{where}: its {size} bytes of frames do not fit into memory; free some") from None
    elif codec != "raw":
        raise DataError(f"{where}: codec {codec!r} is not known; supported are {', '.join(EXTENSIONS)}")
    shape, offset = parse_npy_header(data, where)
    if len(data) - offset != math.prod(shape):
        raise DataError(f"{where}: {len(data) - offset} bytes of frames do not fill the shape {shape}; {REBUILD}")
    return np.frombuffer(data, np.uint8, offset=offset).reshape(shape)


def stated_shape(data: bytes | memoryview, size: int, codec: str, where: str) -> tuple[int, int, int, int]:
    """Return the shape a member's header states, without reading its frames.

    Args:
        data: the first bytes of the member, `HEAD` or all of them.
        size: bytes of the whole member.
        codec: `raw` or `zstd`.
        where: names the member in messages.

    Raises:
        DataError: where it is no such member, or its size does not fit its shape.
    """
    if codec == "zstd":
        try:
            size = _content_size(data, where)
            data = _zstd.decompressor.stream_reader(bytes(data)).read(512)
        except zstandard.ZstdError as error:
            raise DataError(f"{where}: damaged zstd frame ({error}); {REBUILD}") from None
    shape, offset = parse_npy_header(data, where)
    if size - offset != math.prod(shape):
        raise DataError(f"{where}: {size - offset} bytes of frames do not fill the shape {shape}; {REBUILD}")
    return shape


def _content_size(data: bytes | memoryview, where: str) -> int:
    """Return the size a zstd frame's header states; raises ZstdError where there is no header."""
    size = zstandard.frame_content_size(bytes(data[:18]))
    if not 0 < size <= CLIP_LIMIT + 512:
        raise DataError(f"{where}: a compressed clip of {size} bytes is not allowed; 1 to {CLIP_LIMIT} are")
    return size


def frame_checks(frames: NDArray[np.uint8]) -> str:
    """Return the CRC-32 of each frame, eight hexadecimal digits a frame, in one string."""
    data = np.ascontiguousarray(frames).reshape(-1).data
    size = len(data) // len(frames)
    checks = [zlib_ng.crc32(data[at : at + size]) for at in range(0, len(data), size)]
    return np.array(checks, ">u4").tobytes().hex()


def check_of(frame: NDArray[np.uint8] | memoryview | bytes) -> int:
    """Return the CRC-32 of a frame's bytes."""
    return int(zlib_ng.crc32(frame))
