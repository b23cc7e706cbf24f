"""Two readers of videos, which give the same bytes."""

import functools
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from drnet.datasets.reading import kth_frames
from drnet.datasets.reading.avi import avi_frames
from drnet.datasets.reading.ffmpeg_binary import ffmpeg_path
from drnet.datasets.reading.kth_frames import FOR_DAMAGED, Reader, UnreadableError, default_reader, read_frames

COUNT, HEIGHT, WIDTH = 50, 120, 160
KINDS = {"plain": "-bf 0 -g 12", "one key frame": "-bf 0 -g 300", "out of order": "-bf 2 -g 12"}
READERS: list[Reader] = ["decord", "ffmpeg"] if default_reader() == "decord" else ["ffmpeg"]
ALL = np.ones(COUNT, bool)


def painted(grey: bool) -> NDArray[np.uint8]:
    """Frames with every colour there is, or every grey, moving."""
    y, x, t = np.mgrid[:HEIGHT, :WIDTH, :COUNT]
    red, green, blue = (2 * x + 3 * t) % 256, (2 * y + x + 5 * t) % 256, (x * y // 60 + 7 * t) % 256
    planes = (red, red, red) if grey else (red, green, blue)
    return np.stack(planes, axis=-1).transpose(2, 0, 1, 3).astype(np.uint8)


@functools.cache
def video(kind: str, grey: bool = False) -> bytes:
    """An AVI file in MPEG-4 part 2, as KTH's are."""
    words = [ffmpeg_path(), "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", "25"]
    words += ["-i", "-", "-c:v", "mpeg4", "-vtag", "DX50", "-q:v", "3", *KINDS[kind].split()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.avi"
        subprocess.run([*words, str(path)], input=painted(grey).tobytes(), check=True)
        return path.read_bytes()


@pytest.fixture
def no_decord(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A platform without decord."""
    monkeypatch.setitem(sys.modules, "decord", None)
    kth_frames._decord.cache_clear()
    yield
    kth_frames._decord.cache_clear()


@pytest.mark.skipif("decord" not in READERS, reason="decord has no wheel for this platform")
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_both_readers_give_the_same_bytes_for_every_colour(kind: str, grey: bool) -> None:
    decord, ffmpeg = (read_frames(video(kind, grey), ALL, reader=reader) for reader in ("decord", "ffmpeg"))
    assert decord.shape == (COUNT, HEIGHT, WIDTH, 3)
    assert np.array_equal(decord, ffmpeg)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_frames_are_those_of_the_video_in_their_order(kind: str, reader: Reader) -> None:
    errors = np.abs(read_frames(video(kind, True), ALL, reader=reader).astype(int) - painted(True)).mean(axis=(1, 2, 3))
    assert errors.max() < 8  # of another frame: 40 and more


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", KINDS)
def test_frames_that_are_not_wanted_change_nothing_in_the_others(kind: str, reader: Reader) -> None:
    data, random = video(kind), np.random.default_rng(0)
    frames, in_order = read_frames(data, ALL, reader=reader), avi_frames(data).in_order
    assert in_order == (kind != "out of order")
    for _ in range(6):
        wanted = np.repeat(random.random(COUNT // 5) < 0.4, 5) ^ (random.random(COUNT) < 0.05)
        wanted = wanted[: random.integers(1, COUNT + 1)]
        chosen = read_frames(data, wanted, slice(1, 2), in_order, reader)
        if wanted.any():
            assert np.array_equal(chosen, frames[: len(wanted)][wanted][..., 1:2])
        else:
            assert not len(chosen)


@given(
    wanted=st.lists(st.booleans(), min_size=1, max_size=60),
    keys=st.lists(st.integers(0, 70), min_size=1, max_size=6, unique=True).map(sorted),
)
def test_nothing_is_skipped_past_a_key_frame_where_decord_would_seek(wanted: list[bool], keys: list[int]) -> None:
    chosen = kth_frames._to_convert(np.array(wanted), keys)
    assert {number for number, is_wanted in enumerate(wanted) if is_wanted} <= set(chosen)
    assert chosen[-1] == len(wanted) - 1
    at = 0
    for number in chosen:
        if number > at:  # as many are skipped, and no key frame lies behind the first of them up to and with the next
            assert keys[0] <= at
            assert not any(at < key <= number for key in keys)
        at = number + 1


@pytest.mark.parametrize("reader", READERS)
def test_the_green_of_a_grey_video_is_its_luma(reader: Reader) -> None:
    frames = read_frames(video("plain", True), ALL, reader=reader).astype(int)
    assert np.abs(frames - frames[..., 1:2]).max() <= 4  # chroma one step off neutral
    ramp = painted(True)[..., 1].astype(int)
    assert np.abs(frames[..., 1] - ramp).mean() < 3


@pytest.mark.parametrize("reader", READERS)
def test_a_file_and_its_bytes_are_read_alike(reader: Reader, tmp_path: Path) -> None:
    path = tmp_path / "a name: with 'odd' signs.avi"
    path.write_bytes(video("plain"))
    assert np.array_equal(read_frames(path, ALL, reader=reader), read_frames(video("plain"), ALL, reader=reader))


@pytest.mark.parametrize("reader", READERS)
def test_bytes_are_read_where_the_system_has_no_files_in_memory(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = read_frames(video("plain"), ALL, reader=reader)
    monkeypatch.delattr("os.memfd_create", raising=False)
    assert np.array_equal(read_frames(video("plain"), ALL, reader=reader), wanted)


@pytest.mark.parametrize("reader", READERS)
def test_a_video_with_fewer_frames_is_refused_with_the_numbers(reader: Reader) -> None:
    with pytest.raises(UnreadableError, match=f"^{reader} finds {COUNT} of {COUNT + 1} frames$"):
        read_frames(video("plain"), np.ones(COUNT + 1, bool), reader=reader)


def test_the_whole_frames_of_a_cut_file_are_as_they_were() -> None:
    data, whole = video("plain"), read_frames(video("plain"), ALL)
    for share in (0.3, 0.61, 0.9):
        cut = data[: int(len(data) * share)]
        found = avi_frames(cut)
        assert 5 < found.whole < COUNT
        frames = read_frames(cut, np.ones(found.whole, bool), in_order=found.in_order, reader=FOR_DAMAGED)
        assert np.array_equal(frames, whole[: found.whole])


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("data", [b"", b"no video at all" * 100], ids=["empty", "text"])
def test_what_is_no_video_is_refused_in_one_line(
    reader: Reader, data: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UnreadableError) as caught:
        read_frames(data, ALL, reader=reader)
    assert reader in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().out == ""


@pytest.mark.usefixtures("no_decord")
def test_where_decord_is_not_installed_ffmpeg_reads() -> None:
    assert default_reader() == "ffmpeg"
    assert np.array_equal(read_frames(video("plain"), ALL), read_frames(video("plain"), ALL, reader="ffmpeg"))


def test_no_reader_leaves_a_process_or_an_open_file() -> None:
    read_frames(video("plain"), ALL)
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    for reader in READERS:
        for _ in range(3):
            read_frames(video("plain"), ALL, reader=reader)
            with pytest.raises(UnreadableError):
                read_frames(b"RIFF", ALL, reader=reader)
    after = len(list(Path("/proc/self/fd").iterdir())) if before else 0
    assert after == before
