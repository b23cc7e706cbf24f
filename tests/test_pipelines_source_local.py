"""Whole clips of local shards, read into a place that is there already; and shards that hold no clip at all."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from drnet.datasets.contract import Clip, DataError, Split
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.looking.dots import Dots
from drnet.pipelines.shards.codec import Codec
from drnet.pipelines.source import Collection, open_shards

DATA = BouncingDigits("optdigits", clips=5, test_clips=0, frames=4, size=16)


def test_a_shard_without_clips_named_alone_is_told(tmp_path: Path) -> None:
    class Nothing(Dots):
        def clips(self, split: Split, index: int) -> Iterator[Clip]:
            return iter(())

    build(plan_build(Nothing(2)), tmp_path)
    with pytest.raises(DataError, match=r"train-000000.tar: no clips in these shards; build the data set with some$"):
        open_shards(tmp_path / "train-000000.tar")
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(DataError, match="no clips in these shards"):
        open_shards(tmp_path / "train-000000.tar")


def read_clip(shards: Collection, clip: int, out: NDArray[np.uint8]) -> None:
    shard, index = shards.locate(clip)
    shard.read_clip(index, out)


@pytest.mark.parametrize("codec", ["raw", "zstd"])
def test_a_clip_is_read_into_its_place_and_checked(tmp_path: Path, codec: Codec) -> None:
    build(plan_build(DATA, codec, 3), tmp_path)
    shards = open_shards(tmp_path)
    out = np.zeros((4, 16, 16, 3), np.uint8)
    for clip in range(len(shards)):
        read_clip(shards, clip, out)
        assert np.array_equal(out, shards.frames(clip))
    with pytest.raises(ValueError, match=r"do not fit \(3, 16, 16, 3\)"):
        read_clip(shards, 0, out[:3])
    shard, index = shards.locate(0)
    data = bytearray(shard.path.read_bytes())
    data[sum(shard.sidecar.samples[index].frames) - 1] ^= 1
    shard.path.write_bytes(data)
    with pytest.raises(DataError, match=r"is damaged|damaged zstd frame"):
        read_clip(open_shards(tmp_path), 0, out)
    os.truncate(shard.path, shard.sidecar.samples[index].frames[0] + 200)  # while it is open
    with pytest.raises(DataError, match=r"cut short|damaged"):
        read_clip(shards, 0, out)
