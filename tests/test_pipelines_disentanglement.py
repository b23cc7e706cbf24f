"""Disentanglement scores of features whose make is known."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from drnet.datasets.contract import DataError, Label
from drnet.pipelines.evaluation import disentanglement as module
from drnet.pipelines.evaluation.disentanglement import COLUMNS, disentanglement, factor_rows
from drnet.pipelines.export import Features

CLIPS, FRAMES = 360, 4
TYPES = {
    "colour": Label("category", names=("red", "green", "blue")),
    "height": Label("number", unit="pixel"),
    "angle": Label("number", varying=True, unit="degree", period=360.0),
    "place": Label("number", varying=True, unit="pixel"),
    "speed": Label("number", unit="pixel per frame"),
    "person": Label("number", unit="id"),
}


def planted(leak: float = 0.0, mix: bool = False, kind: str = "content and pose") -> Features:
    """Content tells colour and height, pose tells angle and place, nothing tells speed.

    Args:
        leak: how much of colour is in pose too.
        mix: turn content and pose together, as one code, by a random rotation.
        kind: `pose alone` puts everything into pose and leaves content without numbers.
    """
    draw = np.random.default_rng(0)
    colour, height = draw.integers(0, 3, CLIPS), draw.uniform(0, 50, CLIPS)
    angle, place = draw.uniform(0, 360, (CLIPS, FRAMES)), draw.uniform(0, 9, (CLIPS, FRAMES))
    still = np.stack([colour, height / 20], 1)[:, None].repeat(FRAMES, 1)
    turn = np.radians(angle)
    moving = np.stack([np.sin(turn), np.cos(turn), place / 3], 2)
    moving[..., 2] += leak * colour[:, None]
    code = np.concatenate([still, moving], 2) + 0.01 * draw.normal(size=(CLIPS, FRAMES, 5))
    if mix:
        code = code @ np.linalg.qr(draw.normal(size=(5, 5)))[0]
    content = 0 if kind == "pose alone" else 2
    length = draw.integers(2, FRAMES + 1, CLIPS).astype(np.int32)
    beyond = np.arange(FRAMES) >= length[:, None]
    code[beyond] = 0
    angle[beyond] = place[beyond] = np.nan
    labels = {"colour": colour, "height": height, "angle": angle, "place": place}
    labels |= {"speed": draw.normal(size=CLIPS), "person": np.arange(CLIPS).astype(float)}
    return Features(
        content=code[..., :content].astype(np.float32),
        pose=code[..., content:].astype(np.float32),
        length=length,
        key=np.array([f"clip-{number:03d}" for number in range(CLIPS)]),
        split=np.array(["train"] * 260 + ["test"] * 100),
        labels=labels,
        label_types=TYPES,
        attributes={"split_key": "person", "checkpoint_sha256": "abc", "checkpoint_step": 7, "manifest_build": "def"},
    )


@pytest.fixture(scope="module")
def apart() -> dict[str, Any]:
    return disentanglement(planted())


def test_vectors_that_share_nothing_leak_nothing_and_score_near_1(apart: dict[str, Any]) -> None:
    assert apart["leakage"]["content_in_pose"] < 0.05
    assert apart["leakage"]["pose_in_content"] < 0.05
    assert apart["dci"]["disentanglement"] > 0.9
    assert apart["dci"]["blocks"]["disentanglement"] > 0.85
    assert apart["dci"]["blocks"]["completeness"] > 0.85
    assert apart["mig"] > 0.6  # an angle lies in two numbers, so its own gap is about 0
    assert apart["factors"]["place"]["mig"] > 0.75
    assert apart["factors"]["angle"]["mig"] < 0.1


def test_a_static_factor_is_contents_and_a_varying_one_poses(apart: dict[str, Any]) -> None:
    assert {name: row["of"] for name, row in apart["factors"].items()} == {
        "colour": "content",
        "height": "content",
        "angle": "pose",
        "place": "pose",
        "speed": "content",
    }
    for name, row in apart["factors"].items():
        if name != "speed":
            assert row[row["of"]]["mlp"] > 0.9
            assert row["importance"][row["of"]] > 0.9


def test_a_factor_that_nothing_tells_is_named_and_one_that_only_names_is_left_out(apart: dict[str, Any]) -> None:
    assert apart["not_told"] == ["speed"]
    assert apart["factors"]["speed"]["leakage"] is None
    assert apart["left_out"] == {"person": "is a name without an order"}
    assert 0.7 < apart["dci"]["informativeness"] < 0.85  # four of five factors


def test_a_fact_of_content_in_the_pose_is_leakage_that_way_only(apart: dict[str, Any]) -> None:
    found = disentanglement(planted(leak=3.0))
    assert found["factors"]["colour"]["leakage"] > 0.9
    assert found["factors"]["height"]["leakage"] < 0.05
    assert 0.45 < found["leakage"]["content_in_pose"] < 0.55
    assert found["leakage"]["pose_in_content"] < 0.05
    assert found["mig"] < apart["mig"] - 0.05


def test_a_rotated_code_is_told_as_well_but_disentangled_no_more(apart: dict[str, Any]) -> None:
    found = disentanglement(planted(mix=True))
    assert found["dci"]["disentanglement"] < apart["dci"]["disentanglement"] - 0.3
    assert found["dci"]["blocks"]["disentanglement"] < 0.4
    assert found["mig"] < 0.3


def test_a_baseline_with_everything_in_its_pose_leaks_all_content_and_no_pose() -> None:
    found = disentanglement(planted(kind="pose alone"))
    assert found["leakage"]["content_in_pose"] == 1
    assert found["leakage"]["pose_in_content"] == 0
    assert found["dci"]["blocks"] == {"disentanglement": None, "completeness": None}
    assert found["dci"]["disentanglement"] > 0.9


def test_codes_that_know_nothing_give_no_numbers_instead_of_noise() -> None:
    features = planted()
    draw = np.random.default_rng(1)
    noise = {name: draw.normal(size=getattr(features, name).shape).astype(np.float32) for name in ("content", "pose")}
    found = disentanglement(dataclasses.replace(features, **noise))
    assert len(found["not_told"]) == 5
    assert found["mig"] is found["leakage"]["content_in_pose"] is found["dci"]["disentanglement"] is None
    assert found["dci"]["informativeness"] < 0.1


def test_the_result_is_json_says_what_it_is_from_and_repeats_itself(
    apart: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert json.loads(json.dumps(apart, allow_nan=False)) == apart
    assert apart["checkpoint"] == {"step": 7, "sha256": "abc"}
    assert apart["data"] == "def"
    monkeypatch.setattr(module, "FIT_ROWS", 120)
    monkeypatch.setattr(module, "SCORE_ROWS", 40)
    first, again, other = (disentanglement(planted(), seed) for seed in (0, 0, 1))
    assert first == again
    assert first["factors"] != other["factors"]
    assert first["protocol"]["rows"] == {"content": [120, 40], "pose": [120, 40]}


def test_the_table_has_every_factor_and_a_cell_under_every_column(apart: dict[str, Any]) -> None:
    rows = factor_rows(apart)
    assert [row[0] for row in rows] == ["colour", "height", "angle", "place", "speed"]
    assert {len(row) for row in rows} == {len(COLUMNS)}
    assert rows[-1][COLUMNS.index("leakage")] == "not told"


def test_features_of_one_split_are_refused() -> None:
    features = planted()
    with pytest.raises(DataError, match="both splits"):
        disentanglement(dataclasses.replace(features, split=np.array(["train"] * CLIPS)))
