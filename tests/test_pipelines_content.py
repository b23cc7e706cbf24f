"""Content keys of clips, and training in either variant on what the loader draws."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drnet.datasets.contract import DataError
from drnet.pipelines.feeding.content import ContentKeys
from drnet.pipelines.loader import FrameStream, PlannedFrames
from drnet.pipelines.plan import Plan
from drnet.pipelines.run import read_config, read_metrics
from drnet.pipelines.source import open_shards
from drnet.pipelines.train import Logging, train

SMALL: dict[str, Any] = {"width": 2, "batch_size": 6}


def plan_of(shards: Any) -> Plan:
    return Plan(shards.order_key, 0, [place.clips for place in shards.places], 6)


def test_keys_are_equal_exactly_where_the_content_label_is(digits: Path) -> None:
    shards = open_shards(digits)
    assert shards.manifest is not None
    label = shards.manifest.about["content_key"]
    values = [shards.labels(clip)[label] for clip in range(len(shards))]
    keys = ContentKeys(shards).of(range(len(shards)))
    assert keys.dtype == np.int64
    for one in range(len(values)):
        assert [bool(key == keys[one]) for key in keys] == [value == values[one] for value in values]
    assert np.array_equal(ContentKeys(open_shards(digits)).of([3, 1]), keys[[3, 1]])


def test_shards_without_a_manifest_have_none_and_say_so_in_one_line(digits: Path, tmp_path: Path) -> None:
    shutil.copy(digits / "train-000000.tar", tmp_path)
    with pytest.raises(
        DataError, match=r"^shards without a manifest have no content key; train with --negatives shift$"
    ):
        ContentKeys(open_shards(tmp_path))


def test_batches_carry_keys_and_four_frames_where_asked_with_and_without_stages(digits: Path) -> None:
    shards = open_shards(digits)
    source = PlannedFrames(shards, plan_of(shards), 5, drawn="window", keyed=True)
    batch = source.read(3)
    assert batch.frames.shape == (6, 4, 32, 32, 3)
    assert batch.times.shape == (6, 4)
    for frames, clip, times in zip(batch.frames, batch.clips, batch.times, strict=True):
        assert np.array_equal(frames, shards.frames(int(clip))[times])
    assert batch.keys is not None
    assert np.array_equal(batch.keys, ContentKeys(shards).of(batch.clips))
    staged = FrameStream(source, lambda samples: samples).batches()
    first = next(staged)
    staged.close()
    assert np.array_equal(first.keys, source.read(0).keys)
    assert np.array_equal(first.frames, source.read(0).frames)
    assert PlannedFrames(shards, plan_of(shards), 5).read(3).keys is None


@pytest.mark.parametrize("variant", ["paper", "authors"])
@pytest.mark.parametrize("name", ["mnist", "kth"])
def test_a_preset_trains_in_either_variant_and_continues(digits: Path, tmp_path: Path, name: str, variant: str) -> None:
    settings = SMALL | {"variant": variant}
    for steps in (2, 3):
        train(digits, tmp_path / "run", name, steps, "cpu", settings, Logging(1, 1, 1))
    config = read_config(tmp_path / "run")
    assert config["train"]["frames"] == {"paper": "pair", "authors": "window" if name == "mnist" else "clip"}[variant]
    assert len(read_metrics(tmp_path / "run")) == 3
    assert sorted(path.name for path in (tmp_path / "run" / "samples").iterdir())[-1] == "00000003.png"


def test_negatives_of_other_content_train_and_are_counted(digits: Path, tmp_path: Path) -> None:
    train(digits, tmp_path / "run", "mnist", 2, "cpu", SMALL | {"negatives": "other-content"}, Logging(1, 1, 1))
    assert {line["discriminator/same_content"] for line in read_metrics(tmp_path / "run")} == {0}
