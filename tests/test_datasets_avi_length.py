"""AVI files that have lost a part, which ffmpeg reads as shorter ones."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from drnet.datasets.contract import ItemFailed
from drnet.datasets.reading.avi_length import avi_length
from drnet.datasets.reading.ffmpeg_binary import ffmpeg_path
from drnet.datasets.reading.video_frames import View, decoded

RAW = ("-c:v", "rawvideo", "-pix_fmt", "bgr24")
Bytes = NDArray[np.uint8]


def record(path: Path, frames: Bytes, *options: str) -> Path:
    """Write (T, H, W, 3) frames as a video without loss."""
    size = f"{frames.shape[2]}x{frames.shape[1]}"
    words = [ffmpeg_path(), "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", "25", "-i", "-"]
    subprocess.run([*words, *options, str(path)], input=frames.tobytes(), check=True)
    return path


def noise(count: int, height: int = 16, width: int = 16) -> Bytes:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def read(path: Path, fps: float | None = None) -> int:
    with decoded(path, View(16, fps=fps)) as video:
        return video.count


def test_a_file_states_its_bytes_and_its_seconds(tmp_path: Path) -> None:
    path = record(tmp_path / "a.avi", noise(30), *RAW)
    assert avi_length(path) == (path.stat().st_size, 1.2)


def test_a_chain_of_chunks_is_one_file(tmp_path: Path) -> None:
    path = record(tmp_path / "a.avi", noise(30), *RAW)
    first = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"RIFF" + (104).to_bytes(4, "little") + b"AVIX" + bytes(100))
    assert avi_length(path).size == path.stat().st_size == first + 112
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ItemFailed, match=f"^it is cut short: {first + 62} of {first + 112} bytes are there$"):
        read(path)


@pytest.mark.parametrize("data", [b"", b"RIFF", b"RIFF\x10\0\0\0WAVE" + bytes(60), bytes(100), b"x" * 100])
def test_what_is_no_avi_states_nothing(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.avi"
    path.write_bytes(data)
    assert avi_length(path) == (0, 0)


def test_an_avi_cut_just_between_two_pictures_is_damaged(tmp_path: Path) -> None:
    path = record(tmp_path / "a.avi", noise(30, 16, 16), *RAW)
    whole = path.read_bytes()
    cut = whole[: whole.index(b"00dc", len(whole) // 2)]
    path.write_bytes(cut)
    with pytest.raises(ItemFailed, match=f"^it is cut short: {len(cut)} of {len(whole)} bytes are there$"):
        read(path)


def test_an_avi_that_ends_long_before_its_stated_length_is_damaged(tmp_path: Path) -> None:
    path = record(tmp_path / "a.avi", noise(150, 16, 16), *RAW)
    whole = path.read_bytes()
    lost = whole.index(b"00dc", len(whole) // 2)
    path.write_bytes(whole[:lost] + bytes(len(whole) - lost))  # which ffmpeg does not mind
    for fps in (None, 5.0):
        with pytest.raises(ItemFailed, match=r"^its pictures end after [23]\.\d of 6\.0 seconds$"):
            read(path, fps)


def test_an_avi_that_does_not_say_its_length_is_read(tmp_path: Path) -> None:
    path = record(tmp_path / "a.avi", noise(30, 16, 16), *RAW)
    for stated in (0, 2**32 - 1):
        path.write_bytes(b"RIFF" + stated.to_bytes(4, "little") + path.read_bytes()[8:])
        assert read(path) == 30
