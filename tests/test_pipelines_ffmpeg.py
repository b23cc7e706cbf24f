"""Movies, written and read back by ffmpeg itself."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from drnet.datasets.contract import DataError
from drnet.pipelines.looking.ffmpeg import ffmpeg_path, save_mp4


def test_a_movie_has_every_picture_in_order(tmp_path: Path) -> None:
    sheets = [np.full((33, 47, 3), value, np.uint8) for value in (10, 90, 170, 250)]
    save_mp4(tmp_path / "x.mp4", sheets, fps=5)
    words = [ffmpeg_path(), "-v", "error", "-i", str(tmp_path / "x.mp4"), "-f", "rawvideo", "-pix_fmt", "gray", "-"]
    pixels = np.frombuffer(subprocess.run(words, capture_output=True, check=True).stdout, np.uint8)
    frames = pixels.reshape(4, 34, 48)  # one row and one column were added: H.264 wants even sizes
    for frame, value in zip(frames, (10, 90, 170, 250), strict=True):
        assert np.abs(frame.astype(int) - value).max() < 8
    assert [path.name for path in tmp_path.iterdir()] == ["x.mp4"]


def test_where_ffmpeg_fails_one_line_says_so_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "bin" / "ffmpeg"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\ncat > /dev/null\necho no such codec >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr("drnet.pipelines.looking.ffmpeg.ffmpeg_path", lambda: str(broken))
    with pytest.raises(DataError, match=r"x\.mp4: ffmpeg cannot write it \(no such codec\)"):
        save_mp4(tmp_path / "x.mp4", [np.zeros((4, 4, 3), np.uint8)])
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]
