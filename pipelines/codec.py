"""How the frames of a clip become a member of a shard, and back: `raw` (NPY) and `zstd` (compressed NPY).

A clip is (T, H, W, C) uint8. Nothing here unpickles: an NPY header is matched against the one form that is allowed.
"""

import re
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

_HEADER = re.compile(
    rb"\{'descr': '\|u1', 'fortran_order': False, 'shape': \((\d{1,9}), (\d{1,9}), (\d{1,9}), (\d{1,9})\), \} *\n"
)
_compress = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True, write_content_size=True)
_decompress = zstandard.ZstdDecompressor(max_window_size=1 << 27)


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
    """Return the member's bytes for a clip (T, H, W, C) uint8."""
    data = npy_header(frames.shape) + np.ascontiguousarray(frames).tobytes()  # type: ignore[arg-type]
    return data if codec == "raw" else _compress.compress(data)


def decode(data: bytes | memoryview, codec: str, where: str) -> NDArray[np.uint8]:
    """Return the clip (T, H, W, C) uint8 of a member, read-only.

    Raises:
        DataError: where the member is damaged, of another type, or larger than a clip may be.
    """
    if codec == "zstd":
        try:
            size = zstandard.frame_content_size(bytes(data[:18]))
            if not 0 < size <= CLIP_LIMIT:
                raise DataError(f"{where}: a compressed clip of {size} bytes is not allowed; 1 to {CLIP_LIMIT} are")
            data = _decompress.decompress(data, max_output_size=size)
        except zstandard.ZstdError as error:
            raise DataError(f"{where}: damaged zstd frame ({error}); {REBUILD}") from None
    elif codec != "raw":
        raise DataError(f"{where}: codec {codec!r} is not known; supported are {', '.join(EXTENSIONS)}")
    shape, offset = parse_npy_header(data, where)
    if len(data) - offset != int(np.prod(shape)):
        raise DataError(f"{where}: {len(data) - offset} bytes of frames do not fill the shape {shape}; {REBUILD}")
    return np.frombuffer(data, np.uint8, offset=offset).reshape(shape)


REBUILD = "delete the shard and run the build command again"


def frame_checks(frames: NDArray[np.uint8]) -> str:
    """Return the CRC-32 of each frame, eight hexadecimal digits a frame, in one string."""
    flat = np.ascontiguousarray(frames).reshape(len(frames), -1)
    return "".join([f"{zlib_ng.crc32(row):08x}" for row in flat])


def check_of(frame: NDArray[np.uint8] | memoryview | bytes) -> int:
    """Return the CRC-32 of a frame's bytes."""
    return int(zlib_ng.crc32(frame))
