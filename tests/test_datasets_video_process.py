"""The process that decodes: ended whatever happens, never mistaken for a damaged file, and told apart by its version."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import drnet.datasets.reading.video_frames as video_frames
from drnet.datasets.contract import DataError, ItemFailed
from drnet.datasets.reading.ffmpeg_binary import ffmpeg_path
from drnet.datasets.reading.video_frames import View, decoded, ffmpeg_version

Bytes = NDArray[np.uint8]


def record(path: Path, frames: Bytes, *options: str) -> Path:
    """Write (T, H, W, 3) frames as a video without loss."""
    size = f"{frames.shape[2]}x{frames.shape[1]}"
    words = [ffmpeg_path(), "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", "25", "-i", "-"]
    subprocess.run([*words, *options, str(path)], input=frames.tobytes(), check=True)
    return path


def noise(count: int, height: int = 16, width: int = 16) -> Bytes:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def read(path: Path) -> int:
    with decoded(path, View(16)) as video:
        return video.count


@pytest.fixture
def endless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let decoding run an ffmpeg without end, which writes its process number to this file."""
    number = tmp_path / "number"
    source = "-v error -nostdin -f lavfi -i testsrc2=s=16x16 -f rawvideo pipe:1"
    words = ["sh", "-c", f'echo $$ > "{number}"; exec "{ffmpeg_path()}" {source}']
    monkeypatch.setattr(video_frames, "command", lambda view, times: words)
    return number


class Interrupted(Exception):  # noqa: N818 - like a Ctrl-C
    pass


def interrupt(*_: object) -> None:
    raise Interrupted


@contextmanager
def alarm(handler: Callable[..., object]) -> Iterator[None]:
    """Call a handler in a third of a second."""
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_an_interrupt_ends_ffmpeg_and_leaves_no_process(tmp_path: Path, endless: Path) -> None:
    with alarm(interrupt), pytest.raises(Interrupted):
        read(record(tmp_path / "a.mkv", noise(3)))
    with pytest.raises(ProcessLookupError):  # ended, and waited for
        os.kill(int(endless.read_text()), 0)


def test_an_ffmpeg_killed_from_outside_is_no_damaged_file(tmp_path: Path, endless: Path) -> None:
    path = record(tmp_path / "a.mkv", noise(3))
    with alarm(lambda *_: os.kill(int(endless.read_text()), signal.SIGKILL)), pytest.raises(DataError, match="outside"):
        read(path)


def test_an_ffmpeg_told_to_stop_is_no_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = record(tmp_path / "a.mkv", noise(3))
    monkeypatch.setattr(video_frames, "command", lambda view, times: ["sh", "-c", "exit 255"])  # as after SIGTERM
    with pytest.raises(DataError, match="stopped from outside while it decoded a video; run the same command again"):
        read(path)


def test_a_crash_of_ffmpeg_is_the_files_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = record(tmp_path / "a.mkv", noise(3))
    monkeypatch.setattr(video_frames, "command", lambda view, times: ["sh", "-c", "kill -SEGV $$"])
    with pytest.raises(ItemFailed, match=r"^ffmpeg crashed on it \(SIGSEGV\)$"):
        read(path)


@pytest.mark.parametrize(
    ("says", "told"),
    [
        (
            "echo ffmpeg version 4.4.2-0ubuntu0.22.04.1 Copyright",
            "ffmpeg 4.4.2-0ubuntu0.22.04.1 .* is too old; put 5.1",
        ),
        ("exit 1", "does not run; put an ffmpeg"),
    ],
)
def test_an_ffmpeg_that_is_old_or_broken_is_told_before_the_first_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, told: str
) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\n{says}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(DataError, match=told):
        ffmpeg_version()


def test_a_snapshot_of_ffmpeg_is_new_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho ffmpeg version N-112233-gabcdef Copyright\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert ffmpeg_version() == "N-112233-gabcdef"


def test_a_full_temporary_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = record(tmp_path / "a.mkv", noise(30, 48, 48))
    monkeypatch.setattr(video_frames, "SpooledTemporaryFile", lambda limit: Path("/dev/full").open("wb", 0))  # noqa: SIM115
    with pytest.raises(DataError, match=r"cannot hold a video's frames \(No space left on device\); .* TMPDIR"):
        read(path)
