"""The paper's figures from a run: what is chosen, what is shown, and the numbers beside it."""

import copy
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from turning_bars import Turntable, frames_of, only

from drnet.datasets.contract import DataError, Label
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.export import encode
from drnet.pipelines.figures.beside import runs_beside
from drnet.pipelines.figures.interpolate import interpolate_figure, turning
from drnet.pipelines.figures.neighbours import Nearest, neighbours_figure
from drnet.pipelines.figures.scene import Scene, clips_of, drawn_clips, open_scene, words_of
from drnet.pipelines.figures.sheet import page_of
from drnet.pipelines.figures.swap import swap_figure
from drnet.pipelines.figures.variation import Variation, content_note
from drnet.pipelines.looking.clips import named_clips
from drnet.pipelines.looking.swaps import swapped
from drnet.pipelines.run import RunError
from drnet.pipelines.source import open_shards
from drnet.pipelines.train import train


@pytest.fixture(scope="module")
def scene(trained: Path, digits: Path) -> Scene:
    return open_scene(trained, digits, device="cpu")


@pytest.fixture(scope="module")
def turning_scene(tmp_path_factory: pytest.TempPathFactory, tiny: dict[str, Any]) -> Scene:
    folder = tmp_path_factory.mktemp("turntable")
    build(plan_build(Turntable(), "zstd"), folder / "data")
    train(folder / "data", folder / "run", steps=1, overrides=tiny, device="cpu")
    return open_scene(folder / "run", folder / "data", device="cpu")


def test_held_out_clips_are_shown_by_default(scene: Scene, digits: Path, trained: Path) -> None:
    assert scene.split == "test"
    assert scene.notes == ()
    for spec in (digits / "train-000000.tar", digits / "test-000000.tar"):
        assert {place.split for place in clips_of(spec, "test")[0].places} == {"test"}
        assert {place.split for place in clips_of(spec, "train")[0].places} == {"train"}
    assert open_scene(trained, digits, "train", "cpu").split == "train"


def test_where_no_held_out_clips_are_at_hand_the_figure_says_so(trained: Path, digits: Path, tmp_path: Path) -> None:
    for path in digits.iterdir():
        if not path.name.startswith("test"):
            shutil.copy(path, tmp_path)
    found = open_scene(trained, tmp_path, device="cpu")
    assert found.split == "train"
    assert "these are training clips" in found.notes[0]
    assert found.notes[0] in only(swap_figure(found, rows=1, columns=1)).notes


def test_clips_and_frames_can_be_named(scene: Scene) -> None:
    keys = list(scene.clips.keys())
    shots = named_clips(scene.clips, [f"{keys[3]}:2-5", keys[0], f"{keys[3]}:7"])
    assert [(shot.clip, shot.first, shot.last) for shot in shots] == [(3, 1, 4), (0, None, None), (3, 6, None)]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("test-0000003x", r"clip 'test-0000003x' is not in the test split; the nearest are .*test-00000003"),
        ("test-00000003:9", "has no frame 9; it has 8, counted from 1"),
        ("test-00000003:0", "has no frame 0; it has 8, counted from 1"),
        ("test-00000003:x", "is not understood; write KEY, KEY:FRAME or KEY:FIRST-LAST"),
    ],
)
def test_a_name_that_is_not_there_is_told_with_the_way_out(scene: Scene, name: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as error:
        named_clips(scene.clips, [name])
    assert "\n" not in str(error.value)


def test_drawn_clips_depend_on_the_seed_alone_and_differ(scene: Scene) -> None:
    draws = [[s.clip for s in drawn_clips(scene.clips, 6, np.random.default_rng(seed))] for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0])) == 6
    without = drawn_clips(scene.clips, 6, np.random.default_rng(0), without=draws[0])
    assert not {shot.clip for shot in without} & set(draws[0])
    assert len(drawn_clips(scene.clips, 20, np.random.default_rng(0))) == 20  # of 16 clips


def test_a_swap_grid_shows_the_models_swaps_of_its_row_and_column(scene: Scene) -> None:
    figure = swap_figure(scene, rows=2, columns=3, seed=4)
    sheet = only(figure)
    content, pose = (
        [scene.frame(named_clips(scene.clips, [c["clip"]])[0].clip, c["frame"] - 1) for c in figure.numbers[name]]
        for name in ("contents", "poses")
    )
    np.testing.assert_array_equal(frames_of(sheet, 0)[1:], pose)
    wanted = swapped(scene.model, np.stack(content), np.stack(pose), scene.device)
    for number in range(2):
        np.testing.assert_array_equal(frames_of(sheet, number + 1), [content[number], *wanted[number]])
    assert figure.numbers["checkpoint_sha256"] == scene.checkpoint.sha256
    assert figure.numbers["build"] == scene.clips.manifest.build  # type: ignore[union-attr]


def test_the_truth_of_a_swap_stands_below_it_with_its_psnr(scene: Scene, turning_scene: Scene) -> None:
    figure = swap_figure(
        scene, rows=2, columns=2, truth=True, beside=runs_beside([f"b={scene.run}"], (32, 32, 3), scene.device)
    )
    sheet = only(figure)
    assert [row.label for row in sheet.rows[1:5]] == ["generated", "truth"] * 2
    assert figure.numbers["psnr"]["DrNet"] == figure.numbers["psnr"]["b"]
    assert 0 < figure.numbers["psnr"]["DrNet"][0] < 40
    with pytest.raises(DataError, match="the truth of these swaps is not known"):
        swap_figure(turning_scene, truth=True)


def test_the_poses_of_a_swap_movie_run_and_its_contents_stay(scene: Scene) -> None:
    sheets = list(swap_figure(scene, rows=1, columns=2, moving=True).sheets)
    assert len(sheets) == 8
    assert len({page_of(sheet).height for sheet in sheets}) == 1
    assert all((frames_of(sheet, 1)[0] == frames_of(sheets[0], 1)[0]).all() for sheet in sheets)
    assert any((frames_of(a, 0)[1] != frames_of(b, 0)[1]).any() for a, b in pairwise(sheets))


def test_an_interpolation_ends_at_the_swap_with_its_own_clips_frames(scene: Scene) -> None:
    figure = interpolate_figure(scene, ["test-00000002:2-7"], columns=4)
    sheet = only(figure)
    (cells,) = [frames_of(sheet, row) for row in range(len(sheet.rows))]  # digits turn not: no row of truth
    clip = np.array(scene.clips.frames(2))
    np.testing.assert_array_equal([cells[0], cells[-1]], clip[[1, 6]])
    ends = swapped(scene.model, clip[[1]], clip[[1, 6]], scene.device)[0].astype(int)
    assert np.abs([cells[1], cells[-2]] - ends).max() <= 1  # rounding: not of the same batch
    assert figure.numbers["clips"][0]["truth"] is None


def test_the_truth_of_an_interpolation_turns_the_shorter_way_round(turning_scene: Scene) -> None:
    figure = interpolate_figure(turning_scene, ["test-001:1-3", "test-001:4-1"], columns=3)
    first, second = figure.numbers["clips"]
    assert first["truth"]["shown"] == [330, 0, 30]  # over 0, not back over 180
    assert first["truth"]["times"] == [1, 2, 3]
    assert second["truth"]["times"][0] == 4
    assert second["truth"]["times"][-1] == 1
    sheet = only(figure)
    assert [cell.caption for cell in sheet.rows[1].cells] == ["", "330°", "0°", "30°", ""]
    assert len(list(interpolate_figure(turning_scene, rows=1, moving=True).sheets)) == 46


def test_two_varying_labels_give_no_turn() -> None:
    turns = Label("number", True, period=360)
    assert turning({"a": turns, "b": Label("number")}) == "a"
    assert turning({"a": turns, "b": turns}) is None
    assert turning({"a": Label("number", True)}) is None


@pytest.mark.parametrize("frames", ["test-001:5-5", "test-001:12"])
def test_an_interpolation_needs_two_frames(turning_scene: Scene, frames: str) -> None:
    with pytest.raises(DataError, match="both frames are"):
        interpolate_figure(turning_scene, [frames])


def test_a_search_in_blocks_finds_the_nearest_of_all() -> None:
    draw = np.random.default_rng(0)
    queries, frames = draw.normal(size=(5, 3)).astype(np.float32), draw.normal(size=(90, 3)).astype(np.float32)
    clips, times = np.divmod(np.arange(90), 9)
    nearest = Nearest(queries)
    for first in range(0, 90, 7):
        part = slice(first, first + 7)
        nearest.meet(frames[part], clips[part], times[part])
    distances = np.linalg.norm(queries[:, None].astype(float) - frames[None], axis=2)
    assert (nearest.clip * 9 + nearest.time).tolist() == distances.argmin(1).tolist()
    np.testing.assert_allclose(nearest.distance, distances.min(1), rtol=1e-6)


def test_neighbours_are_training_frames_with_their_distance(
    scene: Scene, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drnet.pipelines.figures.variation.FRAMES_AT_ONCE", 20)
    figure = neighbours_figure(scene, rows=2, columns=3)
    training = open_shards(digits)
    content, pose = encode(scene.model, [training.frames(n) for n in range(len(training))], scene.device)
    spread = figure.numbers["spread"]
    assert spread["pose"] == pytest.approx(np.sqrt(pose.var(0).sum()), rel=1e-3)
    assert spread["content"] == pytest.approx(np.sqrt(content.var(0).sum()), rel=1e-3)
    features = {"pose": pose / spread["pose"]}
    features["content and pose"] = np.concatenate([content / spread["content"], features["pose"]], 1)
    keys = list(training.keys())
    for query in figure.numbers["queries"]:
        shot = named_clips(scene.clips, [query["clip"]])[0]
        own = encode(scene.model, [scene.frame(shot.clip, query["frame"] - 1)[None]], scene.device)
        vectors = {"pose": own[1] / spread["pose"]}
        vectors["content and pose"] = np.concatenate([own[0] / spread["content"], vectors["pose"]], 1)
        for by, found in query["nearest"].items():
            distances = np.linalg.norm(features[by] - vectors[by], axis=1)
            at = keys.index(found["clip"]) * 8 + found["frame"] - 1
            assert distances[at] == pytest.approx(distances.min(), abs=1e-4)
            assert found["distance"] == pytest.approx(distances.min(), abs=1e-4)
    assert figure.numbers["searched"] == {"split": "train", "clips": 48, "of": 48, "frames": 384}
    assert len(only(figure).rows) == 2 * 3


def test_a_training_frame_is_its_own_nearest_neighbour_and_a_limit_is_told(trained: Path, digits: Path) -> None:
    own = open_scene(trained, digits, "train", "cpu")
    figure = neighbours_figure(own, ["train-00000004"], columns=2)
    for query in figure.numbers["queries"]:
        for found in query["nearest"].values():
            assert (found["clip"], found["frame"]) == (query["clip"], query["frame"])
            assert found["distance"] == pytest.approx(0, abs=1e-3)
    few = neighbours_figure(own, ["train-00000004"], columns=2, train_clips=5)
    assert any("5 of 48 training clips (40 frames) were searched" in note for note in only(few).notes)


def test_how_much_content_varies_is_measured_over_the_frames_of_the_split(scene: Scene, digits: Path) -> None:
    found = neighbours_figure(scene, rows=1, columns=2).numbers["content"]
    for split, collection in (("train", open_shards(digits)), ("test", scene.clips)):
        content, _ = encode(scene.model, [collection.frames(n) for n in range(len(collection))], scene.device)
        spread = np.linalg.svd(content.astype(float) - content.mean(0), compute_uv=False) ** 2
        assert found[split]["variance"] == pytest.approx(spread.sum() / len(content), rel=1e-3)
        assert found[split]["one_way"] == pytest.approx(spread[0] / spread.sum(), rel=1e-3)


@pytest.mark.parametrize(
    ("here", "there", "says"),
    [
        (Variation(1.0, 0.5), Variation(1.2, 0.4), None),
        (Variation(1.0, 0.95), Variation(1.2, 0.4), "95% of its variance .* 40%.* and it is 0.83 times"),
        (Variation(0.05, 0.5), Variation(1.0, 0.4), "50% of its variance .* and it is 0.05 times that over training"),
        (Variation(0.0, 1.0), Variation(0.0, 1.0), "100% of its variance"),
    ],
    ids=["well", "one direction", "little", "none"],
)
def test_content_that_hardly_varies_is_told_below_the_neighbours(
    here: Variation, there: Variation, says: str | None
) -> None:
    note = content_note(here, there, 7, 9, "test")
    assert note.startswith("For 7 of 9 frames the neighbour by content and pose is the same frame as the one by pose.")
    assert bool(re.search(f"Content hardly varies over held-out frames.*{says}", note)) == (says is not None)
    assert ("hardly" in note) == (says is not None)


def test_the_neighbours_that_are_one_frame_are_counted_below_the_figure(scene: Scene) -> None:
    model = copy.deepcopy(scene.model)
    encoded = model.encode
    model.encode = lambda frames: (torch.zeros(len(frames), 128), encoded(frames)[1])  # type: ignore[method-assign]
    figure = neighbours_figure(replace(scene, model=model), rows=2, columns=3)
    assert figure.numbers["same_by_both"] == 6
    assert "For 6 of 6 frames" in only(figure).notes[-1]
    assert "Content hardly varies" in only(figure).notes[-1]


def test_neighbours_of_a_clip_that_is_named_twice_stand_under_their_own_clip(scene: Scene) -> None:
    names = ["test-00000001:1-2", "test-00000003", "test-00000001:7-8"]
    figure = neighbours_figure(scene, names, columns=2)
    heads = [row.section for row in only(figure).rows if row.section]
    assert [len(row.cells) for row in only(figure).rows] == [2] * 9
    assert [head.rsplit(", ")[-1] for head in heads] == [name.partition(":")[0] for name in names]
    with pytest.raises(DataError, match="columns 0 is not allowed; it must be at least 1"):
        neighbours_figure(scene, columns=0)


def test_the_frames_that_a_picture_names_are_those_to_type(scene: Scene, trained: Path, digits: Path) -> None:
    clip = np.array(scene.clips.frames(2))
    for figure in (
        interpolate_figure(scene, ["test-00000002:1-8"]),
        neighbours_figure(scene, ["test-00000002:1-8"], columns=2),
    ):
        cells = [cell for cell in only(figure).rows[0].cells if cell.caption]
        assert [cell.caption for cell in cells] == ["frame 1", "frame 8"]
        np.testing.assert_array_equal([cell.frame for cell in cells], clip[[0, 7]])  # type: ignore[misc]
    numbers = swap_figure(scene, ["test-00000002:8"], ["test-00000001:1"]).numbers
    assert (numbers["contents"], numbers["poses"]) == (
        [{"clip": "test-00000002", "frame": 8}],
        [{"clip": "test-00000001", "frame": 1}],
    )
    own = open_scene(trained, digits, "train", "cpu")
    rows = only(neighbours_figure(own, ["train-00000004:8-8"], columns=1)).rows
    (row,) = [row for row in rows if row.label.endswith("frame by pose")]
    assert row.cells[0].caption.startswith("train-00000004 frame 8\n")


def test_runs_beside_must_be_named_and_fit(scene: Scene, turning_scene: Scene, tmp_path: Path) -> None:
    shape = scene.clips.frame_shape
    assert [one.name for one in runs_beside([f"a b = {scene.run}"], shape, scene.device)] == ["a b"]
    for word in ("x", "=x", "x="):
        with pytest.raises(DataError, match="is not understood; write NAME=RUN"):
            runs_beside([word], shape, scene.device)
    with pytest.raises(DataError, match="do not fit this run"):
        runs_beside([f"grey={turning_scene.run}"], shape, scene.device)
    with pytest.raises(RunError, match="no run here"):
        runs_beside([f"none={tmp_path}"], shape, scene.device)


def test_categories_are_words_and_bare_numbers_have_their_labels_name() -> None:
    types: dict[str, Label] = {
        "digit": Label("category", names=("0", "1")),
        "action": Label("category", names=("walking", "running")),
        "sex": Label("category", names=("f", "m")),
        "moving": Label("category", varying=True, names=("yes", "no")),
    }
    labels: dict[str, Sequence[int] | int] = {"digit": 1, "action": 0, "sex": 1, "moving": [0, 1]}
    assert words_of(labels, types, most=9) == ["digit 1", "walking", "sex m"]
