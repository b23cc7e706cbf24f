"""Codecs: every clip comes back as it was, and nothing but a clip is ever read as one."""

import contextlib
import io
import pickle
import threading
import zlib

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from drnet.datasets.contract import DataError
from drnet.pipelines.shards import codec
from drnet.pipelines.shards.codec import (
    EXTENSIONS,
    Codec,
    check_of,
    decode,
    encode,
    frame_checks,
    npy_header,
    stated_shape,
)

SHAPES = st.tuples(st.integers(1, 7), st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3]))
CODECS = st.sampled_from(list(EXTENSIONS))


def clip(shape: tuple[int, ...] = (4, 6, 5, 3), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def npy(array: np.ndarray, pickled: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=pickled)
    return file.getvalue()


@given(SHAPES, CODECS, st.integers(0, 9))
def test_a_clip_of_any_shape_comes_back_as_it_was(shape: tuple[int, int, int, int], name: Codec, seed: int) -> None:
    frames = clip(shape, seed)
    data = encode(frames, name)
    back = decode(data, name, "here")
    assert back.dtype == np.uint8
    assert np.array_equal(back, frames)
    assert stated_shape(data[: codec.HEAD], len(data), name, "here") == shape


@given(SHAPES)
def test_the_header_is_the_one_numpy_writes(shape: tuple[int, int, int, int]) -> None:
    assert encode(clip(shape), "raw") == npy(clip(shape))


def test_frames_that_do_not_lie_in_order_are_stored_in_order() -> None:
    frames = clip((4, 6, 5, 3))[::2, ::-1]
    assert np.array_equal(decode(encode(frames, "raw"), "raw", "here"), frames)
    assert frame_checks(frames) == frame_checks(frames.copy())


@pytest.mark.parametrize("name", EXTENSIONS)
@pytest.mark.parametrize(
    "frames",
    [np.zeros((2, 3, 3, 3)), np.zeros((2, 3, 3), np.uint8), np.zeros((0, 3, 3, 1), np.uint8), np.zeros(1, np.int8)],
)
def test_what_is_not_a_clip_is_not_written(name: Codec, frames: np.ndarray) -> None:
    with pytest.raises(ValueError, match="not a clip"):
        encode(frames, name)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_in_one_line(data: bytes) -> None:
    for name in EXTENSIONS:
        for read in (lambda n: decode(data, n, "here"), lambda n: stated_shape(data, len(data), n, "here")):
            with pytest.raises(DataError) as error:
                read(name)
            assert "\n" not in str(error.value)


@given(st.binary(max_size=120), st.integers(0, 127), SHAPES)
def test_a_damaged_header_raises_a_data_error_or_nothing(
    junk: bytes, at: int, shape: tuple[int, int, int, int]
) -> None:
    data = bytearray(encode(clip(shape), "raw"))
    data[at : at + len(junk)] = junk
    with contextlib.suppress(DataError):  # and nothing else
        decode(bytes(data), "raw", "here")


@given(SHAPES, CODECS, st.data())
def test_a_member_cut_anywhere_is_refused(shape: tuple[int, int, int, int], name: Codec, data: st.DataObject) -> None:
    whole = encode(clip(shape), name)
    with pytest.raises(DataError):
        decode(whole[: data.draw(st.integers(0, len(whole) - 1))], name, "here")


@given(st.data())
def test_a_flipped_bit_in_a_zstd_member_is_refused_or_seen_by_the_frames_checks(data: st.DataObject) -> None:
    frames = np.repeat(clip((1, 8, 8, 3)), 6, axis=0)
    member = bytearray(encode(frames, "zstd"))
    member[data.draw(st.integers(0, len(member) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(DataError):
        found = decode(bytes(member), "zstd", "here")
        assert np.array_equal(found, frames) or frame_checks(found) != frame_checks(frames)


@pytest.mark.parametrize("name", EXTENSIONS)
def test_bytes_behind_the_frames_are_refused(name: Codec) -> None:
    with pytest.raises(DataError):
        decode(encode(clip(), name) + b"\0", name, "here")


class Bomb:
    """Unpickling this would raise."""

    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("raise SystemExit('unpickled')",)


@pytest.mark.parametrize("name", EXTENSIONS)
def test_an_array_of_objects_is_refused_and_not_unpickled(name: Codec) -> None:
    data = npy(np.array([Bomb()], dtype=object), pickled=True)
    with pytest.raises(SystemExit):
        pickle.loads(pickle.dumps(Bomb()))  # noqa: S301 - shows that the bomb is live
    if name == "zstd":
        data = zstandard.compress(data)
    with pytest.raises(DataError, match="not an NPY array of uint8 frames"):
        decode(data, name, "here")


@pytest.mark.parametrize(
    "array",
    [clip().astype(np.int8), clip().astype(np.float32), clip()[0], np.asfortranarray(clip())],
    ids=["int8", "float32", "three axes", "fortran order"],
)
def test_arrays_of_another_kind_are_refused(array: np.ndarray) -> None:
    with pytest.raises(DataError, match="not an NPY array of uint8 frames"):
        decode(npy(array), "raw", "here")


def test_a_clip_of_absurd_size_is_refused_before_memory_is_taken() -> None:
    header = npy_header((99_999, 99_999, 99_999, 3))
    with pytest.raises(DataError, match="not allowed"):
        decode(header, "raw", "here")
    forged = b"\x28\xb5\x2f\xfd\xe0" + (1 << 40).to_bytes(8, "little") + bytes(20)
    assert zstandard.frame_content_size(forged) == 1 << 40
    with pytest.raises(DataError, match="a compressed clip of 1099511627776 bytes is not allowed"):
        decode(forged, "zstd", "here")


def test_a_stream_without_a_stated_size_is_refused() -> None:
    data = zstandard.ZstdCompressor(write_content_size=False).compress(encode(clip(), "raw"))
    with pytest.raises(DataError, match="not allowed"):
        decode(data, "zstd", "here")


def test_an_unknown_codec_is_named_with_the_known_ones() -> None:
    with pytest.raises(DataError, match="'jpeg' is not known; supported are raw, zstd"):
        decode(b"", "jpeg", "here")


def test_checks_are_the_crc_32_of_each_frame() -> None:
    frames = clip()
    expected = [zlib.crc32(frame.tobytes()) for frame in frames]
    checks = frame_checks(frames)
    assert [int(checks[at : at + 8], 16) for at in range(0, len(checks), 8)] == expected
    assert [check_of(frame) for frame in frames] == expected


def test_threads_can_encode_and_decode_at_the_same_time() -> None:
    clips = [np.repeat(clip((1, 64, 64, 3), seed), 30, axis=0) for seed in range(4)]
    wrong: list[str] = []

    def work(frames: np.ndarray) -> None:
        try:
            for _ in range(40):
                if not np.array_equal(decode(encode(frames, "zstd"), "zstd", "here"), frames):
                    wrong.append("other pixels")
        except Exception as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=work, args=(frames,)) for frames in clips]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
