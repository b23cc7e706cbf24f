"""Read one local shard: clips, single frames and labels by their offsets in its sidecar.

Only the bytes of the frames asked for are touched (raw codec), and every frame read is checked against its CRC-32.
Axes: T time, H height, W width, C channels; frames are uint8 (T, H, W, C).
"""

import json
import mmap
import os
import weakref
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drnet.datasets.contract import DataError
from drnet.pipelines.files import regular_size
from drnet.pipelines.shards.codec import HEAD, REBUILD, check_of, decode, frame_checks, stated_shape
from drnet.pipelines.shards.foreign import index_foreign
from drnet.pipelines.shards.shard import LABELS_LIMIT, Sample, Sidecar, read_sidecar, sidecar_path


class Shard:
    """One local shard, open for positioned reads."""

    def __init__(self, path: Path, sidecar: Sidecar | None = None) -> None:
        self.path = path
        self.sidecar = sidecar or read_or_index(path)
        try:
            size = regular_size(path)
            self._file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise DataError(f"{path}: the shard is missing; run the build command again") from None
        weakref.finalize(self, os.close, self._file)
        if size != self.sidecar.size:
            raise DataError(f"{path}: {size} bytes, where its sidecar says {self.sidecar.size}; {REBUILD}")

    def __len__(self) -> int:
        return len(self.sidecar.samples)

    def _where(self, sample: Sample) -> str:
        return f"{self.path}: clip {sample.key}"

    def labels(self, index: int) -> dict[str, Any]:
        """Return a clip's labels, checked."""
        sample = self.sidecar.samples[index]
        offset, size = sample.labels
        if size > LABELS_LIMIT:
            raise DataError(f"{self._where(sample)}: labels of {size} bytes are not allowed; at most {LABELS_LIMIT}")
        if not size:
            return {}
        data = os.pread(self._file, size, offset)
        if sample.labels_check and check_of(data) != int(sample.labels_check, 16):
            raise DataError(f"{self._where(sample)}: its labels are damaged (CRC-32 differs); {REBUILD}")
        try:
            labels = json.loads(data)
        except (ValueError, RecursionError):
            raise DataError(f"{self._where(sample)}: damaged labels; {REBUILD}") from None
        if not isinstance(labels, dict):
            raise DataError(f"{self._where(sample)}: labels must be a JSON object; {REBUILD}")
        return labels

    def clip(self, index: int) -> NDArray[np.uint8]:
        """Return all frames of a clip, (T, H, W, C) uint8, checked."""
        frames = self._decode(index)
        for time, frame in enumerate(frames):
            self._check(self.sidecar.samples[index], time, frame)
        return frames

    def _decode(self, index: int) -> NDArray[np.uint8]:
        """Return all frames of a clip, unchecked but for their number."""
        sample = self.sidecar.samples[index]
        offset, size = sample.frames
        frames = decode(os.pread(self._file, size, offset), self.sidecar.codec, self._where(sample))
        if len(frames) != sample.length:
            raise DataError(f"{self._where(sample)}: {len(frames)} frames, where {sample.length} are listed; {REBUILD}")
        return frames

    def read_clip(self, index: int, out: NDArray[np.uint8]) -> None:
        """Read all frames of a clip into `out`, (T, H, W, C) uint8 in C order, checked: no memory is touched anew.

        A raw shard is read as mapped memory. As with all such memory, a disk that fails under it ends the process by a
        signal; where that must not be, use `clip`.
        """
        sample = self.sidecar.samples[index]
        if self.sidecar.codec != "raw":
            frames = self._decode(index)
            if frames.shape != out.shape:
                raise ValueError(f"{self._where(sample)}: frames of {frames.shape} do not fit {out.shape}")
            out[...] = frames
        elif len(out) != sample.length:
            raise ValueError(f"{self._where(sample)}: {sample.length} frames do not fit {out.shape}")
        else:
            start = self._pixels(sample, out.nbytes // sample.length, out.shape[1:])
            if os.fstat(self._file).st_size < self.sidecar.size:  # touching mapped memory behind the end would kill
                raise DataError(f"{self._where(sample)}: its frames are cut short; {REBUILD}")
            np.copyto(out.reshape(-1), self._mapped[start : start + out.nbytes])
        if sample.checks and frame_checks(out) != sample.checks:
            for time, frame in enumerate(out):
                self._check(sample, time, frame)

    @cached_property
    def _mapped(self) -> NDArray[np.uint8]:
        """The file as memory: copying from it is a third cheaper than reading."""
        return np.frombuffer(mmap.mmap(self._file, 0, prot=mmap.PROT_READ), np.uint8)

    def _pixels(self, sample: Sample, frame: int, shape: Sequence[int]) -> int:
        """Return where a raw clip's pixels begin, behind the NPY header, if its frames have this size and shape."""
        offset, size = sample.frames
        start = offset + size - sample.length * frame
        if not offset < start <= offset + 512:
            raise DataError(f"{self._where(sample)}: its frames are not {tuple(shape)}; {REBUILD}")
        return start

    def read_frames(self, index: int, times: Sequence[int], out: NDArray[np.uint8]) -> None:
        """Read some frames of a clip into `out`, (len(times), H, W, C) uint8 in C order."""
        sample = self.sidecar.samples[index]
        if wrong := [time for time in times if not 0 <= time < sample.length]:
            raise IndexError(
                f"{self._where(sample)} has no frame {wrong[0] + 1}; it has {sample.length}, counted from 1"
            )
        if self.sidecar.codec != "raw":
            frames = self._decode(index)
            if frames.shape[1:] != out.shape[1:]:
                raise DataError(f"{self._where(sample)}: frames of {frames.shape[1:]}, not {out.shape[1:]}; {REBUILD}")
            for place, time in zip(out, times, strict=True):
                place[...] = frames[time]
                self._check(sample, time, place)
            return
        frame = out[0].nbytes
        start = self._pixels(sample, frame, out.shape[1:])
        for place, time in zip(out, times, strict=True):
            if os.preadv(self._file, [place], start + time * frame) != frame:
                raise DataError(f"{self._where(sample)}: frame {time + 1} is cut short; {REBUILD}")
            self._check(sample, time, place)

    def _check(self, sample: Sample, time: int, frame: NDArray[np.uint8]) -> None:
        if sample.checks and check_of(frame) != int(sample.checks[8 * time : 8 * time + 8], 16):
            raise DataError(f"{self._where(sample)}: frame {time + 1} is damaged (CRC-32 differs); {REBUILD}")

    def shape(self, index: int) -> tuple[int, int, int, int]:
        """Return the (T, H, W, C) that a clip's own header states."""
        sample = self.sidecar.samples[index]
        offset, size = sample.frames
        head = os.pread(self._file, min(size, HEAD), offset)
        return stated_shape(head, size, self.sidecar.codec, self._where(sample))


def read_or_index(path: Path) -> Sidecar:
    """Return a shard's sidecar; where it has none, what one would say."""
    return read_sidecar(path) if sidecar_path(path).exists() else index_foreign(path)
