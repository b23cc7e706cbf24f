"""Read the frames of a video one after the other at their own size: by decord, or by ffmpeg where decord has no wheel.

decord decodes to RGB; its own resizing darkens, and its seeking is wrong in some files, so neither is used. It ends the
process on some damaged files: these are for ffmpeg, which runs in a process of its own. ffmpeg is asked for the planes
of YUV, whose decoding is the same on every processor, and these become RGB here by the integer arithmetic that decord's
library uses: both readers give the same bytes.

Axes: H and W of the video, 3 red, green, blue; T frames.
"""

import functools
import os
import subprocess
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import IO, Any, Literal, cast

import ffmpeg
import numpy as np
from numpy.typing import NDArray

from drnet.datasets.reading.ffmpeg_binary import ffmpeg_path

Bytes = NDArray[np.uint8]
Reader = Literal["decord", "ffmpeg"]

FOR_DAMAGED: Reader = "ffmpeg"

_SIZE_LIMIT = 1 << 14  # pixels of a side


class UnreadableError(ValueError):
    """A video could not be decoded, or has fewer frames than it must; the message says why."""


def default_reader() -> Reader:
    """Return `decord` where it is installed, else `ffmpeg`."""
    return "ffmpeg" if _decord() is None else "decord"


def read_frames(
    video: Path | bytes,
    wanted: NDArray[np.bool_],
    channels: slice = slice(None),
    in_order: bool = False,
    reader: Reader | None = None,
) -> Bytes:
    """Decode the first frames of a video, one after the other and without seeking, and return some of them.

    Args:
        video: the file, or its bytes.
        wanted: (N,) for each of the first N frames whether it is returned; all N are decoded.
        channels: those of red, green and blue that are returned.
        in_order: whether the frames are known to lie in the file in the order in which they are shown; then decord can
            leave those that are not wanted in YUV.
        reader: which one; `ffmpeg` for a file that may be damaged, None for the faster one that there is.

    Returns:
        (T, H, W, C) uint8.

    Raises:
        UnreadableError: where there are fewer than N frames, or the file is damaged.
    """
    by_decord = (reader or default_reader()) == "decord"
    frames, done = np.empty((0,), np.uint8), 0
    with _as_file(video) as path:
        # decord decodes ahead: frames that are not taken as they come would fill the memory.
        for frame in _by_decord(path, wanted, in_order) if by_decord else _by_ffmpeg(path, wanted):
            chosen = frame[..., channels]
            if not done:
                frames = np.empty((int(wanted.sum()), *chosen.shape), np.uint8)
            frames[done] = chosen
            done += 1
    return frames


@contextmanager
def _as_file(video: Path | bytes) -> Iterator[str]:
    """Give bytes a path for a while: in memory where the system can, else in a temporary file.

    decord can read bytes too, but waits for ever for the end of a file that was cut.
    """
    if isinstance(video, Path):
        yield str(video)
        return
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("video"), "wb") as file:
            file.write(video)
            file.flush()
            yield f"/proc/{os.getpid()}/fd/{file.fileno()}"
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video"
        path.write_bytes(video)
        yield str(path)


@functools.cache
def _decord() -> ModuleType | None:
    """Import decord, silenced: what ffmpeg inside it says of a damaged file would run into the progress bar."""
    try:
        import decord
    except ImportError:
        return None
    decord.logging.set_level(decord.logging.QUIET)
    return decord


class _Shared:
    """An array of decord's, as numpy's protocol wants it: taking it over copies nothing."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __dlpack__(self, **asked: Any) -> Any:
        return self._array.to_dlpack()

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0  # the processor's memory


def _by_decord(path: str, wanted: NDArray[np.bool_], in_order: bool) -> Generator[Bytes, None, None]:
    decord: Any = _decord()
    try:
        video = decord.VideoReader(path, num_threads=1)
        if len(video) < len(wanted):
            raise UnreadableError(f"decord finds {len(video)} of {len(wanted)} frames")
        at = 0
        for number in _to_convert(wanted, video.get_key_indices() if in_order else None):
            if number > at:
                video.skip_frames(number - at)  # these are decoded, but not converted
            frame, at = video.next(), number + 1
            if wanted[number]:
                yield cast(Bytes, np.from_dlpack(_Shared(frame)))
    except (decord.DECORDError, RuntimeError, StopIteration) as error:  # of opening, of decoding, at the end
        raise UnreadableError(f"decord cannot read it ({' '.join(str(error).split())[:100]})") from None


def _to_convert(wanted: NDArray[np.bool_], keys: Sequence[int] | None) -> list[int]:
    """Return the frames that decord converts: those wanted, and others so that it never seeks.

    decord seeks where it would skip past a key frame; and with frames out of order it may skip the wrong ones.
    """
    if not keys:
        return list(range(len(wanted)))
    converted = wanted.copy()
    converted[: keys[0]] = True
    converted[[key - 1 for key in keys if 0 < key < len(wanted)]] = True
    converted[-1:] = True  # all are decoded, so that damage shows
    chosen: list[int] = np.flatnonzero(converted).tolist()
    return chosen


def _by_ffmpeg(path: str, wanted: NDArray[np.bool_]) -> Generator[Bytes, None, None]:
    """Read YUV4MPEG2: one line with the size, then for each frame a line `FRAME` and its three planes."""
    # A video in other colours than BT.601's becomes one in these. New times: else frames are doubled to fill gaps.
    video = ffmpeg.input(path, threads=1).video.filter("scale", out_color_matrix="bt601", out_range="tv")
    video = video.filter("setpts", "N/FRAME_RATE/TB")
    stream = video.output("pipe:", format="yuv4mpegpipe", pix_fmt="yuv420p", vframes=len(wanted))
    words = stream.global_args("-v", "quiet", "-nostdin").compile(cmd=ffmpeg_path())
    # In a session of its own, so that Ctrl-C reaches this process alone: an interrupted video is not a damaged one.
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None, "a pipe was asked for"
    try:
        height, width = _size(process.stdout.readline(200))
        for number, is_wanted in enumerate(wanted.tolist()):
            planes = _planes(process.stdout, height, width)
            if planes is None:
                raise UnreadableError(f"ffmpeg finds {number} of {len(wanted)} frames")
            if is_wanted:
                yield _to_rgb(planes, height, width)
    finally:
        process.kill()
        process.communicate()


def _size(line: bytes) -> tuple[int, int]:
    """Return height and width from the first line of a YUV4MPEG2 stream."""
    words = line.split()
    if words[:1] != [b"YUV4MPEG2"]:
        raise UnreadableError("ffmpeg finds no video in it")
    sides = {word[:1]: int(word[1:]) for word in words[1:3]}
    height, width = sides[b"H"], sides[b"W"]
    if not 0 < max(height, width) <= _SIZE_LIMIT:
        raise UnreadableError(f"frames of {width}x{height} are not allowed")
    return height, width


def _planes(pipe: IO[bytes], height: int, width: int) -> Bytes | None:
    """Return the three planes of the next frame, one after the other; None where the stream ends."""
    size = height * width + 2 * (-(-height // 2) * -(-width // 2))
    if not pipe.readline(200).startswith(b"FRAME"):
        return None
    planes = np.frombuffer(pipe.read(size), np.uint8)
    return planes if len(planes) == size else None


def _to_rgb(planes: Bytes, height: int, width: int) -> Bytes:
    """Convert the planes of YUV 4:2:0, BT.601 of limited range, to (H, W, 3).

    The arithmetic of libswscale's fast path: each product of a value times 8 with a whole 8192nd is cut to its upper 16
    bits, and the sums are clipped. A chroma value serves the square of four pixels that it stands for.
    """
    rows, columns = -(-height // 2), -(-width // 2)
    luma, blue, red = np.split(planes.astype(np.int32), [height * width, height * width + rows * columns])
    bright = ((luma.reshape(height, width) - 16) * 8 * 9539) >> 16

    def tint(plane: NDArray[np.int32], weight: int) -> NDArray[np.int32]:
        return ((plane.reshape(rows, columns) - 128) * 8 * weight) >> 16

    tints = (tint(red, 13075), tint(blue, -3209) + tint(red, -6660), tint(blue, 16525))
    colours = [bright + chroma.repeat(2, axis=0).repeat(2, axis=1)[:height, :width] for chroma in tints]
    return np.stack(colours, axis=-1).clip(0, 255).astype(np.uint8)
