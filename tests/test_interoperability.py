"""What others make of a raw build: Hugging Face `datasets` reads every clip and every label."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drnet.pipelines.source import open_shards


@pytest.fixture
def loaded(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The test split as Hugging Face's `load_dataset("webdataset")` has it."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import datasets

        files = {"test": str(digits / "test-*.tar")}
        return datasets.load_dataset(
            "webdataset", data_files=files, split="test", streaming=True, cache_dir=str(tmp_path / "cache")
        )


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::DeprecationWarning")
def test_hugging_face_datasets_reads_every_clip_of_a_raw_build(digits: Path, loaded: Any) -> None:
    ours = open_shards(digits, ["test"])
    rows = list(loaded)
    assert [row["__key__"] for row in rows] == list(ours.keys())
    for number, row in enumerate(rows):
        assert np.array_equal(np.asarray(row["npy"], np.uint8), ours.frames(number))
        assert row["json"]["digit_red"] == ours.labels(number)["digit_red"]
        assert row["json"]["x_red"] == ours.labels(number)["x_red"]
