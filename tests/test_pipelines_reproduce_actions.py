"""Reproducing figures of actions in miniature, from small videos under KTH's names and in its formats."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from drnet.datasets.reading.ffmpeg_binary import ffmpeg_path
from drnet.pipelines.evaluation import inception
from drnet.pipelines.reproduction.reproduce import Reproduction, reproduce
from drnet.pipelines.reproduction.scales import SCALES, RunPlan
from drnet.pipelines.training.loop import Logging

SMALLEST: dict[str, Any] = {"width": 4, "batch_size": 8, "precision": "fp32"}
ATOM = replace(
    SCALES["tiny"],
    data={**SCALES["tiny"].data, "kth": {"size": 32}},
    runs={
        "kth": RunPlan("kth-small", 2, SMALLEST, predictor=2),
        "kth-actions": RunPlan("kth-small", 2, {**SMALLEST, "pose_dim": 24}),
        "kth-ae24": RunPlan("kth-small-autoencoder", 2, SMALLEST, predictor=2),
        "kth-ae128": RunPlan("kth-small-autoencoder", 2, {**SMALLEST, "pose_dim": 128}, predictor=2),
    },
    predictor={"hidden": 8, "batch_size": 4},
    logging=Logging(2, 2, 4),
    far=12,
    draws=1,
    hidden=16,
    searched=8,
)
PERSONS = {1: "walking running", 2: "walking running", 3: "walking running", 20: "walking running", 21: "walking"}
FRAMES = 48


def write_video(path: Path, person: int, speed: int) -> None:
    """Write a bright figure that crosses a ground of the person's own."""
    y, x = np.mgrid[:120, :160]
    ground = (x // 2 + y * person) % 60
    frames = [np.where(abs(x - 20 - speed * t) < 8, 200, ground).astype(np.uint8) for t in range(FRAMES)]
    words = [ffmpeg_path(), "-v", "error", "-f", "rawvideo", "-pix_fmt", "gray", "-s", "160x120", "-r", "25", "-i", "-"]
    words += ["-c:v", "mpeg4", "-vtag", "DX50", "-q:v", "2", "-pix_fmt", "yuv420p", str(path)]
    subprocess.run(words, input=b"".join(frame.tobytes() for frame in frames), check=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of originals with some videos of KTH."""
    folder = tmp_path_factory.mktemp("originals")
    (folder / "kth").mkdir()
    lines = ["person09_boxing_d1\tframes\t1-48"]
    for person, actions in PERSONS.items():
        for action in actions.split():
            name = f"person{person:02d}_{action}_d1"
            lines.append(f"{name}\tframes\t1-{FRAMES}")
            write_video(folder / "kth" / f"{name}_uncomp.avi", person, 1 + 2 * (action == "running"))
    (folder / "kth" / "00sequences.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def made(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reproduction]:
    """Figures that share runs; read only."""
    out = tmp_path_factory.mktemp("reproduced") / "results"
    ids = ("fig6", "fig7", "fig8", "fig9", "fig10", "fig11", "fig12")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "CONFIG", replace(inception.CONFIG, steps=4, width=4))
        return out, reproduce(ids, out, ATOM, root, "cpu", workers=1)


def result(out: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / name / "result.json").read_text())
    return found


def test_every_figure_is_made_and_not_grey(made: tuple[Path, Reproduction]) -> None:
    out, found = made
    assert [(one.id, one.state) for one in found.ended] == [(one.id, "done") for one in found.ended], found.ended
    for one in found.ended:
        for picture in result(out, one.id)["pictures"]:
            if picture["file"].endswith(".mp4"):
                assert (out / one.id / picture["file"]).stat().st_size > 1000
                continue
            with Image.open(out / one.id / picture["file"]) as image:
                assert np.asarray(image.convert("L")).std() > 0


def test_the_figures_share_their_runs(made: tuple[Path, Reproduction]) -> None:
    out, _ = made
    assert {path.name for path in (out / "runs").iterdir()} == {"kth", "kth-actions", "kth-ae24", "kth-ae128"}
    shas = {result(out, name)["runs"][0]["sha256"] for name in ("fig6", "fig10", "fig12")}
    assert len(shas) == 1


def test_a_part_of_the_videos_is_told_and_would_not_be_judged(made: tuple[Path, Reproduction]) -> None:
    out, found = made
    data = result(out, "fig6")["data"]
    assert data["what"] == "9 of the 10 videos of KTH actions"
    assert not data["whole"]
    assert data["items"]["train"] == {"written": 6, "missing": 1}
    assert "9 of the 10 videos" in found.page.read_text()


def test_models_stand_in_one_table_with_the_copied_frame_and_a_place_for_mcnet(
    made: tuple[Path, Reproduction],
) -> None:
    table = result(made[0], "fig6")["tables"][0]
    assert [row[0] for row in table["rows"]] == [
        "DrNet",
        "AE-LSTM 24",
        "AE-LSTM 128",
        "MCNet",
        "copy of the last frame",
        "clips",
    ]
    assert table["rows"][3][1] == "not implemented yet"
    assert all(len(row) == len(table["columns"]) for row in table["rows"])


def test_a_table_names_the_most_frequent_class_and_what_stands_in_brackets(made: tuple[Path, Reproduction]) -> None:
    found = result(made[0], "fig8")
    table = found["tables"][0]
    classified = json.loads((made[0] / "fig8" / "classify.json").read_text())["results"]["DrNet"]
    assert "(one seed)" in table["title"]  # of a single draw
    common = classified["names"][int(np.argmax(classified["train_classes"]))]
    assert table["rows"][-1][0] == f"always {common}, the most frequent in training"
    assert table["rows"][-1][2] == f"{100 * classified['chance']:.1f}%"
    assert all(len(row) == len(table["columns"]) for row in table["rows"])
    assert any(note.startswith("of 3 training persons 1 is held out of each draw") for note in found["notes"])


def test_the_two_figures_of_long_futures_show_other_clips(made: tuple[Path, Reproduction]) -> None:
    found = [result(made[0], name) for name in ("fig7", "fig11")]
    assert found[1]["pictures"][0]["caption"].startswith("10 frames are observed and 12 predicted, of other clips than")
    said = "Fig. 7 and 11 share the 3 held-out clips that there are"
    assert [said in one["notes"] for one in found] == [True, True]
    long = ["held-out clips that have all 22 frames, observed and predicted: 3 of 3; of the 2 shown: 2"]
    long += ["held-out clips that have all 22 frames, observed and predicted: 3 of 3; of the 1 shown: 1"]
    assert [line in one["notes"] for line, one in zip(long, found, strict=True)] == [True, True]


def test_scores_stand_beside_their_windows_and_the_classifier_that_made_them(made: tuple[Path, Reproduction]) -> None:
    found = result(made[0], "fig9")
    scores, right, frequent, windows = found["tables"]
    names = ["real frames", "DrNet, same windows", "DrNet, all windows", "MCNet"]
    for table in found["tables"]:
        assert [row[0] for row in table["rows"]] == names
        assert all(len(row) == len(table["columns"]) for row in table["rows"])
    last = next(place for place, cell in enumerate(windows["rows"][0]) if cell == "0 (0)")  # 48 frames less 10 and 10
    assert windows["columns"][last] == "31"
    assert windows["rows"][0][1:] == windows["rows"][1][1:] != windows["rows"][2][1:]
    assert frequent["rows"][0][1:] == frequent["rows"][1][1:]
    assert windows["rows"][2][last] == "6 (3)"  # three clips, from frames 1 and 21
    assert (scores["rows"][0][last], scores["rows"][1][last]) == ("-", "-")
    assert " ± " in scores["rows"][2][last]
    assert right["rows"][2][last].endswith("%")
    (note,) = (note for note in found["notes"] if note.startswith("the classifier tells the action of "))
    assert "of 3 clips (95% interval, a clip counted as one: " in note
    assert "always naming walking would be right for 66.7%" in note


def test_how_many_neighbours_are_the_same_frame_is_told(made: tuple[Path, Reproduction]) -> None:
    (note,) = (note for note in result(made[0], "fig10")["notes"] if note.startswith("For "))
    assert "of 18 frames the neighbour by content and pose is the same frame as the one by pose" in note


def test_the_numbers_of_persons_follow_from_those_at_hand(made: tuple[Path, Reproduction]) -> None:
    found = result(made[0], "fig8")
    classified = json.loads((made[0] / "fig8" / "classify.json").read_text())
    assert [point["groups"] for point in classified["results"]["DrNet"]["points"]] == [1, 2]
    assert list(classified["results"]) == ["DrNet", "autoencoder 24", "autoencoder 128"]
    assert classified["references"] == {"fully supervised (paper)": 93.9}
    assert "1 to 2 training persons are at hand, of the 12 asked for" in found["notes"]


def test_a_value_that_the_paper_has_not_is_words_and_not_judged(made: tuple[Path, Reproduction]) -> None:
    rows = {row["name"]: row for row in result(made[0], "fig8")["numbers"]}
    share = rows["share of the numbers of persons with DrNet above both autoencoders"]
    assert share["paper"] == "above (curve lost)"
    assert share["verdict"] == "not judged: the paper shows a curve, whose values are lost"


def test_the_psnr_of_two_sequences_stands_beside_the_papers(made: tuple[Path, Reproduction]) -> None:
    rows = {row["name"]: row for row in result(made[0], "fig12")["numbers"]}
    ours = rows["DrNet, sequence 1, PSNR in dB"]
    assert (ours["paper"], ours["verdict"]) == (19.6, "not judged: the paper's sequences are not known")
    assert 0 < ours["ours"] < 60
    assert rows["MCNet, sequence 2, PSNR in dB"]["verdict"] == "not implemented yet"
    assert rows["MCNet, sequence 2, PSNR in dB"]["paper"] == 26.1


def test_more_videos_are_another_data_set_and_are_told(
    made: tuple[Path, Reproduction], root: Path, tmp_path: Path
) -> None:
    more, out = tmp_path / "more", tmp_path / "results"
    shutil.copytree(root, more)
    shutil.copytree(made[0], out)
    write_video(more / "kth" / "person09_boxing_d1_uncomp.avi", 9, 0)
    found = reproduce(("fig12",), out, ATOM, more, "cpu", workers=1)
    assert found.ended[0].state == "failed"
    assert "holds another build" in found.ended[0].lines[0]
