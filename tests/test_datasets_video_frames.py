"""Decoding by ffmpeg: right frames at right times from sound files, one line about all others, and nothing left behind."""

import os
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import drnet.datasets.reading.video_frames as video_frames
from drnet.datasets.contract import ItemFailed
from drnet.datasets.reading.ffmpeg_binary import ffmpeg_path
from drnet.datasets.reading.video_frames import View, command, decoded
from drnet.datasets.scale import scale

Bytes = NDArray[np.uint8]

LOSSLESS = {  # without loss in red, green and blue
    "raw.avi": ("-c:v", "rawvideo", "-pix_fmt", "bgr24"),
    "ffv1.mkv": ("-c:v", "ffv1", "-pix_fmt", "bgr0"),
    "png.mov": ("-c:v", "png", "-pix_fmt", "rgb24"),
}
LOSSY = {
    "faststart.mp4": ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-movflags", "faststart"),
    "late.mp4": ("-c:v", "libx264", "-pix_fmt", "yuv420p"),
    "h264.mkv": ("-c:v", "libx264", "-pix_fmt", "yuv420p"),
    "vp8.webm": ("-c:v", "libvpx", "-b:v", "400k"),
    "mpeg4.avi": ("-c:v", "mpeg4", "-q:v", "2"),
    "mpeg2.mpg": ("-c:v", "mpeg2video", "-q:v", "2"),
    "mpeg4.m4v": ("-c:v", "mpeg4", "-q:v", "2", "-f", "mp4"),
}


def ffmpeg(*words: object, given: bytes = b"") -> None:
    subprocess.run([ffmpeg_path(), "-v", "error", "-y", *map(str, words)], input=given, check=True)


def record(path: Path, frames: Bytes, *options: object, fps: float = 25) -> Path:
    """Write (T, H, W, 3) frames as a video."""
    size = f"{frames.shape[2]}x{frames.shape[1]}"
    raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", fps, "-i", "-")
    ffmpeg(*raw, *(options or ("-c:v", "ffv1", "-pix_fmt", "bgr0")), path, given=frames.tobytes())
    return path


def noise(count: int, height: int = 48, width: int = 64, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def counting(count: int, height: int = 48, width: int = 64) -> Bytes:
    """Return frames whose level is 4 times their number."""
    return np.broadcast_to(4 * np.arange(count)[:, None, None, None], (count, height, width, 3)).astype(np.uint8)


def soft(count: int, height: int, width: int) -> Bytes:
    """Return smooth frames with motion: compression and scaling change them little."""
    t, y, x = np.meshgrid(np.arange(count) / 10, np.arange(height) / height, np.arange(width) / width, indexing="ij")
    planes = [np.sin(3 * x + 2 * y + t), np.cos(4 * y - t), np.sin(5 * x * y + 2 * t)]
    return np.stack([128 + 100 * plane for plane in planes], axis=-1).astype(np.uint8)


def read(path: Path, view: View | None = None, **settings: object) -> tuple[Bytes, list[float]]:
    with decoded(path, view or View(**settings)) as video:  # type: ignore[arg-type]
        return video.frames(0, video.count), video.times(0, video.count)


def why(path: Path, **settings: object) -> str:
    """Return why a file fails: one line that names no place."""
    with pytest.raises(ItemFailed) as failed:
        read(path, **settings)
    text = str(failed.value)
    assert text.isprintable()
    assert 0 < len(text) < 250
    assert str(path.parent) not in text
    assert "/dev" not in text
    return text


@pytest.mark.parametrize("name", LOSSLESS)
def test_frames_without_loss_come_back_bit_for_bit(tmp_path: Path, name: str) -> None:
    frames = noise(30, 48, 48)
    found, times = read(record(tmp_path / name, frames, *LOSSLESS[name]), size=48)
    np.testing.assert_array_equal(found, frames)
    assert times == [round(n / 25, 6) for n in range(30)]


@pytest.mark.parametrize("name", LOSSY)
def test_every_container_gives_every_picture_at_its_time(tmp_path: Path, name: str) -> None:
    frames = soft(50, 48, 48)
    found, times = read(record(tmp_path / name, frames, *LOSSY[name]), size=48)
    assert found.shape == frames.shape
    assert np.abs(found.astype(int) - frames).mean() < 6
    assert times == pytest.approx([n / 25 for n in range(50)], abs=0.001)


def test_parts_of_a_file_are_read_in_any_order_also_from_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = noise(20, 16, 16)
    path = record(tmp_path / "a.mkv", frames)
    for limit in (2**26, 1000):
        monkeypatch.setattr(video_frames, "IN_MEMORY", limit)
        with decoded(path, View(16)) as video:
            for first, count in ((12, 5), (0, 3), (19, 1), (0, 20)):
                np.testing.assert_array_equal(video.frames(first, count), frames[first : first + count])
                assert video.times(first, count) == [round(n / 25, 6) for n in range(first, first + count)]


def irregular(path: Path) -> tuple[Path, Bytes, list[int]]:
    """Write a video whose rate varies: some of the pictures of 25 a second, numbered by their level."""
    kept = [0, 1, 2, 10, 11, 30, 31, 49]
    frames = counting(50, 16, 16)
    chosen = "+".join(f"eq(n,{n})" for n in kept)
    return record(path, frames, "-vf", f"select='{chosen}'", "-fps_mode", "vfr", *LOSSLESS["ffv1.mkv"]), frames, kept


def test_a_varying_rate_is_kept_as_it_is(tmp_path: Path) -> None:
    path, frames, kept = irregular(tmp_path / "a.mkv")
    found, times = read(path, size=16)
    np.testing.assert_array_equal(found, frames[kept])
    assert times == [round(n / 25, 6) for n in kept]


@pytest.mark.parametrize("fps", [2.0, 5.0, 12.5, 25.0, 29.97, 60.0])
def test_at_a_rate_each_frame_is_the_last_picture_shown_by_then(tmp_path: Path, fps: float) -> None:
    path, frames, kept = irregular(tmp_path / "a.mkv")
    found, times = read(path, size=16, fps=fps)
    assert times == [round(n / fps, 6) for n in range(len(found))]
    assert len(found) == int(np.ceil(50 / 25 * fps))  # to the end of the last picture
    shown = [max(n for n in kept if n / 25 <= moment + 0.002) for moment in times]
    np.testing.assert_array_equal(found, frames[shown])


@pytest.mark.parametrize("rate", [24, 30, 60])
def test_a_file_sampled_at_its_own_rate_keeps_every_picture_once(tmp_path: Path, rate: int) -> None:
    frames = noise(40, 16, 16)
    path = record(tmp_path / "a.mkv", frames, *LOSSLESS["ffv1.mkv"], fps=rate)  # whose times are in milliseconds
    np.testing.assert_array_equal(read(path, size=16, fps=float(rate))[0], frames)


def test_times_count_from_the_first_picture(tmp_path: Path) -> None:
    frames = counting(20, 16, 16)
    late = record(tmp_path / "a.mkv", frames, *LOSSLESS["ffv1.mkv"], "-output_ts_offset", 7.3)
    found, times = read(late, size=16)
    np.testing.assert_array_equal(found, frames)
    assert times[:2] == [0, 0.04]
    np.testing.assert_array_equal(read(late, size=16, fps=12.5)[0], frames[::2])


def test_sound_further_streams_and_cover_pictures_change_nothing(tmp_path: Path) -> None:
    frames = soft(30, 48, 64)
    plain = record(tmp_path / "plain.mkv", frames)
    sound, cover = ("-f", "lavfi", "-i", "sine=d=3"), tmp_path / "cover.png"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=80x80", "-frames:v", 1, cover)
    another = ("-f", "lavfi", "-i", "testsrc2=s=32x32:d=1")
    streams = ("-map", 1, "-map", 0, "-map", 2, "-c:v", "ffv1", "-c:a", "aac")
    ffmpeg("-i", plain, *sound, *another, *streams, tmp_path / "many.mkv")
    h264 = record(tmp_path / "h264.mp4", frames, *LOSSY["late.mp4"])
    covers = ("-map", 1, "-map", 0, "-c", "copy", "-c:v:0", "png", "-disposition:v:0", "attached_pic")
    ffmpeg("-i", h264, "-i", cover, *covers, tmp_path / "cover.mp4")
    for path, same in ((tmp_path / "many.mkv", plain), (tmp_path / "cover.mp4", h264)):
        np.testing.assert_array_equal(read(path)[0], read(same)[0])


def turned(path: Path, clockwise: int) -> None:
    """Make a player turn a QuickTime or MP4 file by quarters, as phones do: another matrix in its track header."""
    plain, data = _matrix(1, 0, 0, 1), bytearray(path.read_bytes())
    at = data.index(plain, data.index(b"tkhd"))
    data[at : at + len(plain)] = _matrix(*((1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0))[clockwise])
    path.write_bytes(data)


def _matrix(a: int, b: int, c: int, d: int) -> bytes:
    whole = [n << 16 for n in (a, b, 0, c, d, 0, 0, 0)]
    return b"".join(n.to_bytes(4, "big", signed=True) for n in whole) + (1 << 30).to_bytes(4, "big")


@pytest.mark.parametrize("clockwise", [1, 2, 3])
def test_a_phones_video_stands_upright(tmp_path: Path, clockwise: int) -> None:
    frames = noise(3, 32, 32)
    path = record(tmp_path / "a.mov", frames, *LOSSLESS["png.mov"])
    turned(path, clockwise)
    np.testing.assert_array_equal(read(path, size=32)[0], np.rot90(frames, -clockwise, axes=(1, 2)))


def test_a_region_is_cut_in_pixels_of_the_upright_picture(tmp_path: Path) -> None:
    frames = noise(3, 48, 64)
    path = record(tmp_path / "a.mov", frames, *LOSSLESS["png.mov"])
    np.testing.assert_array_equal(read(path, size=16, crop=(16, 16, 47, 31))[0], frames[:, 31:47, 47:63])
    turned(path, 1)
    upright = np.rot90(frames, -1, axes=(1, 2))
    np.testing.assert_array_equal(read(path, size=16, crop=(16, 16, 31, 47))[0], upright[:, 47:63, 31:47])
    assert why(path, size=16, crop=(16, 16, 47, 31)) == "its pictures do not hold the region to crop"


def test_the_square_at_the_centre_is_that_of_the_picture_as_it_is_shown(tmp_path: Path) -> None:
    frames = soft(3, 48, 64)
    square = record(tmp_path / "a.mov", frames, *LOSSLESS["png.mov"])
    np.testing.assert_array_equal(read(square, size=48, crop="square")[0], frames[:, :, 8:56])
    wide = record(tmp_path / "b.mkv", frames, "-vf", "setsar=2", *LOSSLESS["ffv1.mkv"])  # shown as 128 by 48
    expected = scale(np.ascontiguousarray(frames[:, :, 20:44]), 48, 48)
    assert np.abs(read(wide, size=48, crop="square")[0].astype(int) - expected).max() <= 2
    tall = record(tmp_path / "c.mkv", frames, "-vf", "setsar=1/2", *LOSSLESS["ffv1.mkv"])  # shown as 32 by 48
    expected = scale(np.ascontiguousarray(frames[:, 8:40]), 48, 48)
    assert np.abs(read(tall, size=48, crop="square")[0].astype(int) - expected).max() <= 2


@pytest.mark.parametrize(("height", "width"), [(48, 64), (47, 63), (240, 320), (181, 33), (11, 9)])
def test_frames_are_scaled_as_all_data_sets_scale(tmp_path: Path, height: int, width: int) -> None:
    frames = noise(4, height, width)
    found, _ = read(record(tmp_path / "a.mkv", frames), size=32)
    differences = np.abs(found.astype(int) - scale(frames, 32, 32))
    assert differences.mean() < 1
    assert differences[:, 2:-2, 2:-2].max() <= 3  # the two treat the picture's border differently


def test_grey_is_the_luminance_in_one_channel(tmp_path: Path) -> None:
    frames = soft(5, 48, 48)
    found, _ = read(record(tmp_path / "a.mkv", frames), size=48, grey=True)
    assert found.shape == (5, 48, 48, 1)
    assert np.abs(found[..., 0] - frames @ [0.299, 0.587, 0.114]).max() < 3
    lossy, _ = read(record(tmp_path / "a.mp4", frames, *LOSSY["late.mp4"]), size=48, grey=True)
    assert np.abs(lossy[..., 0] - frames @ [0.299, 0.587, 0.114]).mean() < 4  # black is 0 again, not 16


def test_ten_bits_come_as_eight(tmp_path: Path) -> None:
    frames = soft(5, 48, 48)
    found, _ = read(record(tmp_path / "a.mkv", frames, "-c:v", "ffv1", "-pix_fmt", "yuv444p10le"), size=48)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - frames).max() <= 3


DAMAGE = {
    "cut at 60%": lambda data: data[: len(data) * 6 // 10 + 99],
    "cut at 90%": lambda data: data[: len(data) * 9 // 10 + 99],
    "zeros in the middle": lambda data: data[: len(data) // 2] + bytes(len(data) // 10) + data[len(data) * 6 // 10 :],
    "a part lost": lambda data: data[: len(data) // 2] + data[len(data) * 6 // 10 :],
    "garbage": lambda data: noise(4).tobytes(),
    "text": lambda data: b"no video at all\n" * 100,
    "the first bytes": lambda data: data[:40],
}


@pytest.mark.parametrize("name", [*LOSSY, "ffv1.mkv"])
def test_damage_is_told_in_one_line_always_the_same(tmp_path: Path, name: str) -> None:
    path = record(tmp_path / name, soft(100, 48, 64), *(LOSSY | LOSSLESS)[name])
    whole = path.read_bytes()
    for kind, harm in DAMAGE.items():
        path.write_bytes(harm(whole))
        assert len({why(path) for _ in range(3)}) == 1, kind
    path.write_bytes(whole)
    assert len(read(path)[0]) == 100


def test_a_programme_stream_cut_between_two_packs_is_read_as_a_shorter_one(tmp_path: Path) -> None:
    path = record(tmp_path / "a.mpg", soft(100, 48, 64), *LOSSY["mpeg2.mpg"])
    path.write_bytes(path.read_bytes()[: 6 * 2048])  # nothing in such a file says how long it was: a known limit
    assert 20 < len(read(path)[0]) < 100


def test_an_mp4_whose_index_is_lost_says_so(tmp_path: Path) -> None:
    path = record(tmp_path / "a.mp4", soft(50, 48, 64), *LOSSY["late.mp4"])
    path.write_bytes(path.read_bytes()[:-200])
    path.write_bytes(path.read_bytes()[: path.read_bytes().index(b"moov") - 4])
    assert why(path) == "ffmpeg: moov atom not found"


def test_empty_files_and_files_without_video_say_so(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    assert why(tmp_path / "empty.mp4") == "it is empty"
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", tmp_path / "sound.mp4")
    assert why(tmp_path / "sound.mp4") == "it holds no video"
    assert why(tmp_path / "missing.mp4") == "it cannot be read (No such file or directory)"
    (tmp_path / "link.mp4").symlink_to(tmp_path / "nothing")
    assert why(tmp_path / "link.mp4") == "it cannot be read (No such file or directory)"
    os.mkfifo(tmp_path / "pipe.mp4")
    assert why(tmp_path / "pipe.mp4") == "it is empty"


def test_a_file_full_of_complaints_does_not_block(tmp_path: Path) -> None:
    path = record(tmp_path / "a.avi", soft(1500, 48, 64), "-c:v", "mpeg4", "-q:v", 2)
    data = np.frombuffer(path.read_bytes(), np.uint8).copy()
    data[10_000::211] ^= 255
    path.write_bytes(data.tobytes())
    with path.open("rb") as file:
        loud = subprocess.run(command(View(), 1), stdin=file, capture_output=True).stderr
    assert len(loud) > 2**16  # more than a pipe holds
    assert why(path)


@pytest.mark.parametrize("ending", ["mp4", "avi", "mkv"])
@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile '{inner}'\n",
        "ffconcat version 1.0\nfile 'file:{inner}'\nduration 2\n",
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:2.0,\n{inner}\n#EXT-X-ENDLIST\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:2.0,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    ],
)
def test_a_file_that_names_others_is_no_video(tmp_path: Path, text: str, ending: str) -> None:
    inner = tmp_path / f"inner.{ending}"
    if not inner.exists():
        record(inner, noise(3, 16, 16), "-c:v", "mpeg4")
    trick = tmp_path / f"trick.{ending}"
    trick.write_text(text.format(inner=inner.name) + "# " + "x" * 2000)
    told = why(trick)
    assert told.startswith(("ffmpeg: ", "it is no AVI, Matroska, MP4, MPEG, QuickTime or WebM file"))
    for secret in ("No such file", "Connection", "127.0.0.1", inner.name):  # nothing was even looked for
        assert secret not in told


@pytest.mark.parametrize(
    "name",
    [b"-i.mp4", b"%03d.mp4", b"a\nb.mp4", b"'\"`$(x).mp4", "ü 視.mp4".encode(), b"\xff\xfe.mp4", b"file:a|b.mp4"],
)
def test_a_files_name_is_no_part_of_the_command(tmp_path: Path, name: bytes) -> None:
    sound = record(tmp_path / "sound.mp4", soft(5, 16, 16), *LOSSY["late.mp4"])
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    sound.rename(odd)
    assert len(read(odd, size=16)[0]) == 5


def test_pictures_beyond_the_limits_are_refused_at_once(tmp_path: Path) -> None:
    path = record(tmp_path / "a.avi", noise(3, 16, 16), *LOSSLESS["raw.avi"])
    data = bytearray(path.read_bytes())
    at = data.index(b"strf") + 12  # width and height of the stream
    data[at : at + 8] = (30_000).to_bytes(4, "little") * 2
    path.write_bytes(data)
    begun = time.process_time()
    assert why(path)
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("fps", [None, 25.0])
def test_times_that_jump_far_are_refused_at_once(tmp_path: Path, fps: float | None) -> None:
    jump = ("-vf", "setpts='PTS+gte(N,10)*4000/TB'", "-fps_mode", "vfr")
    path = record(tmp_path / "a.mkv", noise(20, 16, 16), *jump, *LOSSLESS["ffv1.mkv"])
    assert why(path, size=16, fps=fps).startswith("its pictures' times jump from 0 to 4000")


def test_a_size_that_changes_midway_is_refused(tmp_path: Path) -> None:
    parts = [
        record(tmp_path / f"{n}.mpg", soft(30, size, size), *LOSSY["mpeg2.mpg"]) for n, size in enumerate((48, 64))
    ]
    both = tmp_path / "both.mpg"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    for fps in (None, 5.0):
        assert why(both, fps=fps) == "the size or format of its pictures changes midway"
