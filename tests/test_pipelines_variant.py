"""`--variant` and the paper's presets through the whole of training: settings, continued runs, one line for mistakes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drnet.pipelines.export import export_features, load_features
from drnet.pipelines.run import latest_checkpoint, load_run, read_config
from drnet.pipelines.train import resolve
from drnet.presets import preset

WORDS = ["--width", "2", "--batch-size", "6", "--device", "cpu"]


def test_a_variant_goes_behind_the_users_own_values_and_before_the_presets() -> None:
    found = resolve("mnist", {"variant": "authors", "beta": 0.2}, (64, 64, 3))
    assert (found["model"]["beta"], found["model"]["unit_norm"], found["train"]["adam_beta1"]) == (0.2, False, 0.5)
    again = resolve(None, {"variant": "authors", "beta": 0.2}, (64, 64, 3), found)
    assert again == found == resolve(None, {}, (64, 64, 3), found)
    paper = resolve("kth", {"variant": "paper"}, (128, 128, 1))
    assert paper == resolve("kth", {}, (128, 128, 1))
    assert paper["model"] == preset("kth").model.to_json()


def test_settings_that_do_not_fit_are_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="variant 'authors' is not allowed with preset chairs-small, a tuned one"):
        resolve("chairs-small", {"variant": "authors"}, (64, 64, 3))
    with pytest.raises(ValueError, match=r"^frame size 100 is not allowed; .*--size 96$"):
        resolve("kth", {}, (100, 100, 1))


@pytest.mark.parametrize("variant", ["paper", "authors"])
def test_the_model_with_skips_trains_continues_and_is_exported(
    digits: Path, tmp_path: Path, command: Callable[..., Any], variant: str
) -> None:
    run, features = tmp_path / "run", tmp_path / "features.h5"
    words = ["train", "--shards", digits, "--out", run, "--preset", "kth", "--variant", variant, *WORDS, "--steps"]
    for steps in (2, 3):
        assert command(*words, steps).code == 0
    config = read_config(run)
    assert config["model"]["skips"]
    assert config["model"]["unit_norm"] == (variant == "paper")
    assert latest_checkpoint(run).step == 3
    assert [path.name for path in sorted((run / "samples").iterdir())] == ["00000002.png", "00000003.png"]
    assert type(load_run(run)[0].decoder).__name__ == "Vgg16Decoder"
    export_features(run, str(digits), features)
    lengths = np.linalg.norm(load_features(features).pose, axis=-1)
    assert np.allclose(lengths, 1, atol=1e-5) == (variant == "paper")
    other = {"paper": "authors", "authors": "paper"}[variant]
    refused = command(*(other if word == variant else word for word in words), 4)
    assert refused.code == 1
    assert f"{run}: was started with " in refused.err
    assert len(refused.err.splitlines()) == 1


def test_a_wrong_variant_is_one_line(digits: Path, tmp_path: Path, command: Callable[..., Any]) -> None:
    found = command("train", "--shards", digits, "--out", tmp_path / "run", "--variant", "nature", *WORDS)
    assert found.code == 1
    assert "variant 'nature' is not known; there are paper and authors" in found.err
    assert not (tmp_path / "run").exists()
