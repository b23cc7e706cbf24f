"""Decode a whole video file by ffmpeg into small frames of one size, or say what is wrong with it.

One process of ffmpeg decodes, samples, crops and scales; its frames are read from a pipe and lie in memory, or in a
temporary file where they are many, until the whole file has proved sound. So a damaged file gives no frame at all, which
is the only answer that does not depend on how ffmpeg's threads took turns.

The file is ffmpeg's standard input, opened by its number: its name is never part of a command, and it can seek. Only
containers of video are recognised, none that names other files, and no protocol but files.
"""

import functools
import os
import re
import selectors
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO

import ffmpeg
import numpy as np
from numpy.typing import NDArray

from drnet.datasets.contract import DataError, ItemFailed
from drnet.datasets.reading.avi_length import avi_length
from drnet.datasets.reading.ffmpeg_binary import ffmpeg_path
from drnet.datasets.reading.video_log import Complaints, Refused, Times

CONTAINERS = "mov,avi,matroska,mpeg,mpegvideo,mpegts"  # ffmpeg's names; mov is MP4 too, matroska WebM
LARGEST = 2**25  # pixels of a picture: a little more than 7680x4320
IN_MEMORY = 2**26  # bytes of frames, before they go to a temporary file
BLOCK = 2**18  # bytes read at a time
OLDEST = (5, 1)  # version of ffmpeg: the first with -fps_mode
SCALER = "bilinear+accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"
ROUNDED = 2000  # microseconds by which a time may be off: many containers round to milliseconds
TOLD_TO_STOP = 255  # ffmpeg's exit status after SIGTERM and SIGINT
CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}

Region = tuple[int, int, int, int]


@dataclass(frozen=True)
class View:
    """How frames are made of pictures.

    Attributes:
        size: height and width of a frame in pixels.
        crop: `square`, the largest one at the centre of the picture as it is shown (pixels need not be square), a
            region (width, height, left, top) in pixels of the upright picture, or None for all of it.
        fps: frames per second, sampled from the pictures; None for each picture once, whatever its time.
        grey: one channel instead of three.
    """

    size: int = 64
    crop: Region | str | None = None
    fps: float | None = None
    grey: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of a frame."""
        return self.size, self.size, 1 if self.grey else 3


@dataclass(frozen=True)
class Decoded:
    """The frames of one sound file.

    Attributes:
        count: frames.
    """

    count: int
    _view: View
    _seconds: Sequence[float]
    _file: IO[bytes]

    def frames(self, first: int, count: int) -> NDArray[np.uint8]:
        """Return (count, H, W, C) uint8."""
        height, width, channels = self._view.shape
        self._file.seek(first * height * width * channels)
        data = self._file.read(count * height * width * channels)
        return np.frombuffer(data, np.uint8).reshape(count, height, width, channels)

    def times(self, first: int, count: int) -> list[float]:
        """Return seconds from the file's first picture: of each picture, or of the moments at which they were sampled."""
        fps = self._view.fps
        return [round(self._seconds[n] if fps is None else n / fps, 6) for n in range(first, first + count)]


@contextmanager
def decoded(path: Path, view: View) -> Iterator[Decoded]:
    """Decode a file; its frames can be read until the block ends.

    Pictures come upright. The frame of a moment is the last picture that was there (to within 2 ms).

    Args:
        path: the video.
        view: how frames are made.

    Raises:
        ItemFailed: in one line, without the path: the file is damaged, cut short, no video, or beyond the limits.
        DataError: ffmpeg is missing, was stopped from outside, or the temporary folder is full.
    """
    try:
        there = path.stat().st_size
        if not there:
            raise ItemFailed("it is empty")
        stated, video = avi_length(path), path.open("rb")
    except OSError as error:
        raise ItemFailed(f"it cannot be read ({error.strerror})") from None
    times = Times(keep=view.fps is None)
    with video, SpooledTemporaryFile(IN_MEMORY) as frames:
        if there + 9 < stated.size:  # some programs count the first eight bytes too, some leave out the last
            raise ItemFailed(f"it is cut short: {there} of {stated.size} bytes are there")
        _run(video, view, frames, times)
        height, width, channels = view.shape
        count, rest = divmod(frames.tell(), height * width * channels)
        if not count:
            raise ItemFailed("it holds no picture")
        told = len(times.seconds)
        if rest or not told or (view.fps is None and told != count):
            raise DataError(f"ffmpeg {ffmpeg_version()} gave {count} frames and {told} times; try another version")
        if times.seconds[-1] < 0.9 * stated.seconds - 1:  # the last pictures may have been dropped when it was made
            raise ItemFailed(f"its pictures end after {times.seconds[-1]:.1f} of {stated.seconds:.1f} seconds")
        yield Decoded(count, view, times.seconds, frames)


def command(view: View, times: int) -> list[str]:
    """Return the command that writes the frames of its standard input to its standard output.

    Args:
        view: how frames are made.
        times: the number of the open file to which it writes the pictures' times.
    """
    limits = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS, "max_pixels": LARGEST}
    pictures = ffmpeg.input("/dev/stdin", threads=1, flags="bitexact", **limits)["V:0"]  # V: no cover pictures
    pictures = pictures.filter("settb", "AVTB").filter("setpts", "PTS-STARTPTS")
    pictures = pictures.filter("metadata", mode="add", key="drnet", value=1)  # there must be something to print
    pictures = pictures.filter("metadata", mode="print", key="drnet", direct=1, file=f"pipe:{times}")
    if view.fps is not None:
        pictures = pictures.filter("setpts", f"PTS-{ROUNDED}").filter("fps", fps=repr(view.fps), round="up")
    if view.crop == "square":
        pictures = pictures.filter("crop", "min(iw,ih/sar)", "min(ih,iw*sar)", exact=1)
    elif not isinstance(view.crop, str | None):
        width, height, left, top = view.crop  # what does not fit has width 0, which ffmpeg refuses
        fits = f"if(lte({left + width},iw)*lte({top + height},ih),{width},0)"
        pictures = pictures.filter("crop", fits, height, left, top, exact=1)
    pictures = pictures.filter("scale", view.size, view.size, flags=SCALER)
    pictures = pictures.filter("format", "gray" if view.grey else "rgb24")
    # Times have been told; numbers in their place never run backwards, which the output would complain of. Without
    # passthrough, pictures would be doubled and dropped towards a constant rate.
    pictures = pictures.filter("settb", "1").filter("setpts", "N")
    output = pictures.output("pipe:1", format="rawvideo", fps_mode="passthrough")
    output = output.global_args("-hide_banner", "-nostdin", "-nostats", "-loglevel", "repeat+level+warning")
    words: list[str] = output.global_args("-filter_complex_threads", "1").compile(cmd=ffmpeg_path())
    return words


def ffmpeg_version() -> str:
    """Return what the ffmpeg in use calls its version; raises DataError where there is none that runs, or an old one."""
    return _version_of(ffmpeg_path())


@functools.cache
def _version_of(program: str) -> str:
    try:
        ended = subprocess.run([program, "-version"], stdin=subprocess.DEVNULL, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        raise DataError(f"'{program}' does not run; put an ffmpeg that runs on PATH") from None
    version = ended.stdout.decode(errors="replace").removeprefix("ffmpeg version ").split(maxsplit=1)[0]
    number = re.match(r"n?(\d+)\.(\d+)", version)  # a snapshot such as N-112233 is new
    if number and (int(number[1]), int(number[2])) < OLDEST:
        raise DataError(
            f"ffmpeg {version} ('{program}') is too old; put {OLDEST[0]}.{OLDEST[1]} or later on PATH, or take this one "
            "off it, and imageio-ffmpeg's own is used"
        )
    return version


def _run(video: IO[bytes], view: View, frames: IO[bytes], times: Times) -> None:
    """Decode a file. However this ends, the process has ended too."""
    readable, writable = os.pipe()
    try:
        # In a session of its own, so that Ctrl-C reaches this process alone: an interrupted file is not a damaged one.
        process = subprocess.Popen(
            command(view, writable),
            stdin=video,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[writable],
            start_new_session=True,
        )
    except BaseException:
        os.close(readable)
        raise
    finally:
        os.close(writable)
    complaints = Complaints()
    with process, os.fdopen(readable, "rb", 0) as clock:
        assert process.stdout, "a pipe was asked for"
        assert process.stderr, "a pipe was asked for"
        try:
            _read({process.stdout: partial(_keep, frames), process.stderr: complaints.take, clock: times.take})
            code = process.wait()
        except Refused as why:
            raise ItemFailed(str(why)) from None
        finally:
            process.kill()
    _judge(code, complaints)


def _read(pipes: Mapping[IO[bytes], Callable[[bytes], None]]) -> None:
    """Read several pipes as they fill, so that the process never waits for one, until all have ended."""
    with selectors.DefaultSelector() as waiting:
        for pipe, take in pipes.items():
            waiting.register(pipe, selectors.EVENT_READ, take)
        while waiting.get_map():
            for key, _ in waiting.select():
                data = os.read(key.fd, BLOCK)
                key.data(data)
                if not data:
                    waiting.unregister(key.fileobj)


def _keep(frames: IO[bytes], data: bytes) -> None:
    try:
        frames.write(data)
    except OSError as error:
        raise DataError(
            f"the temporary folder cannot hold a video's frames ({error.strerror}); name a larger one in TMPDIR"
        ) from None


def _judge(code: int, complaints: Complaints) -> None:
    """Raise ItemFailed for a file that is not sound, DataError where it is not the file's fault."""
    if -code in CRASHES:
        raise ItemFailed(f"ffmpeg crashed on it ({signal.Signals(-code).name})")
    if why := complaints.worst():
        raise ItemFailed(why)
    if code < 0 or code == TOLD_TO_STOP:
        raise DataError("ffmpeg was stopped from outside while it decoded a video; run the same command again")
    if code:
        raise ItemFailed(f"ffmpeg ended with status {code}")
