"""What results and the page tell: notes, legends, where numbers come from, the time, and what is wrong with pictures."""

import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_reproduction import miniature, run

from drnet.pipelines.progress import Silent
from drnet.pipelines.reproduction.reproduce import Reproduction, report

PARTS = ("frames", "swap", "position", "disentanglement", "identity")


@pytest.fixture(autouse=True, scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Make everything small before the first fixture."""
    with miniature(tmp_path_factory.mktemp("cache")):
        yield


@pytest.fixture(scope="module")
def out(reproduced: tuple[Path, Reproduction], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of some experiments; read only."""
    folder = Path(shutil.copytree(reproduced[0], tmp_path_factory.mktemp("more") / "results"))
    found = run(folder, "fig4", "fig5")
    assert [one.state for one in found.ended] == ["done"] * 2, found.ended
    return folder


def result(out: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / name / "result.json").read_text())
    return found


def shown(out: Path) -> str:
    return unescape((out / "index.html").read_text())


def section_of(out: Path, name: str) -> str:
    return shown(out).split(f'<h2 id="{name}">')[1].split("<h2")[0]


def table_of(out: Path, name: str, title: str) -> dict[str, Any]:
    (table,) = (table for table in result(out, name)["tables"] if table["title"].startswith(title))
    return dict(table)


def test_every_note_of_an_evaluation_is_in_the_page_once(out: Path) -> None:
    report = json.loads((out / "fig3" / "metrics.json").read_text())
    notes = {note for part in PARTS for note in report[part].get("notes", ())}
    assert any("digits are back after" in note or "digits are back where" in note for note in notes)
    assert any("clips only: the intervals say little" in note for note in notes)
    text = section_of(out, "fig3")
    assert {note: text.count(note) for note in notes} == dict.fromkeys(notes, 1)


def test_a_table_of_frames_has_the_last_step_and_the_clips_of_each(out: Path) -> None:
    table = table_of(out, "fig3", "PSNR")
    frames = json.loads((out / "fig3" / "metrics.json").read_text())["frames"]
    assert frames["steps"][-1] == 33
    assert table["columns"][1:6] == ["step 1", "step 5", "step 10", "step 20", "step 33"]
    rows = {row[0]: row[1:6] for row in table["rows"]}
    assert rows["clips"] == [str(frames["clips_at_step"][step - 1]) for step in (1, 5, 10, 20, 33)]
    assert rows["DrNet"][-1] == f"{frames['psnr']['predicted']['mean'][-1]:.2f}"


@pytest.mark.parametrize(
    ("title", "row", "words"),
    [
        ("48 swaps", "own pose", "pose of the true drawing itself"),
        ("position error", "true drawing", "the error of the search itself"),
        ("PSNR", "given the true pose", "the pose of the true frame"),
    ],
)
def test_rows_are_explained_below_their_table(out: Path, title: str, row: str, words: str) -> None:
    table = table_of(out, "fig3", title)
    assert words in table["legend"][row]
    assert f"{row}: {table['legend'][row]}" in section_of(out, "fig3")
    assert set(table["legend"]) <= {cells[0] for cells in table["rows"]}


def test_identity_and_disentanglement_are_shown_where_they_are_computed(out: Path) -> None:
    report = json.loads((out / "fig3" / "metrics.json").read_text())
    rows = {row[0]: row for row in table_of(out, "fig3", "what a frame shows")["rows"]}
    assert rows["swapped"][1] == f"{report['identity']['swap']['same']:.3f}"
    told = {row[0]: row for row in table_of(out, "fig3", "what content and pose tell")["rows"]}
    assert set(told) == set(report["disentanglement"]["factors"])
    scores = dict(table_of(out, "fig3", "scores of disentanglement")["rows"])
    leak = report["disentanglement"]["leakage"]["content_in_pose"]
    assert scores["leakage of content in pose"] == ("-" if leak is None else f"{leak:.3f}")
    assert "as an independent judge reads it" in section_of(out, "fig3")


def test_a_result_holds_what_its_pictures_show_and_the_settings_of_its_scale(out: Path) -> None:
    found = result(out, "fig3")
    pictures = {picture["file"]: picture.get("numbers") for picture in found["pictures"]}
    assert len(pictures["swap.png"]["contents"]) == 5
    assert len(pictures["swap.png"]["poses"]) == 8
    assert pictures["swap.png"]["checkpoint_sha256"] == found["runs"][0]["sha256"]
    assert pictures["swap.png"]["settings"]["seed"] == 0
    assert 0 < pictures["swap.png"]["psnr"]["DrNet"][0] < 60
    assert found["settings"]["scored"] == 3
    assert found["settings"]["sections"] == list(PARTS)


def test_every_fit_of_table_1_is_kept_with_its_seed_and_counts(out: Path) -> None:
    kept = json.loads((out / "table1" / "classify.json").read_text())
    assert list(kept["results"]) == ["content, beta 0.1", "pose, beta 0.1", "content, beta 0", "pose, beta 0"]
    for one in kept["results"].values():
        (point,) = one["points"]
        assert [fit["seed"] for fit in point["runs"]] == [0, 1]
        assert all(0 <= fit[by] <= 1 for fit in point["runs"] for by in ("network", "logistic"))
        assert np.sum(point["confusion"]["network"]) == 2 * one["rows"]["test"]
        assert one["settings"]["hidden"] == 256
    ours = {row["name"]: row["ours"] for row in result(out, "table1")["numbers"]}
    mean = kept["results"]["pose, beta 0"]["points"][0]["network"]["mean"]
    assert ours["percent told from pose, beta 0"] == pytest.approx(100 * mean)


def test_table_1_has_logistic_regression_chance_and_all_four_confusion_matrices(out: Path) -> None:
    kept = json.loads((out / "table1" / "classify.json").read_text())["results"]
    rows = {row[0]: row[1:] for row in table_of(out, "table1", "accuracy")["rows"]}
    mean = kept["pose, beta 0.1"]["points"][0]["logistic"]["mean"]
    assert rows["DrNet, beta 0.1, logistic regression"][1].startswith(f"{100 * mean:.1f}%")
    assert any(name.startswith("always ") for name in rows)
    (picture,) = result(out, "table1")["pictures"]
    with Image.open(out / "table1" / "confusion-content-beta0.1.png") as one:
        single = one.size
    with Image.open(out / "table1" / picture["file"]) as together:
        assert together.width > 2 * single[0]
        assert together.height > 2 * single[1]


def test_a_method_that_is_missing_has_its_words_across_the_row(out: Path) -> None:
    assert '<td>Mathieu et al. 2016</td><td class="whole" colspan="2">not implemented yet</td>' in shown(out)


def test_fig_4_names_its_runs_by_beta(out: Path) -> None:
    numbers = result(out, "fig4")["pictures"][0]["numbers"]
    assert numbers["beside"][0]["name"] == "DrNet, beta 0 (without the adversarial loss)"
    assert numbers["beside"][0]["checkpoint_sha256"] == result(out, "fig4")["runs"][1]["sha256"]


def test_the_movie_of_fig_5_shows_two_chairs(out: Path) -> None:
    movie = next(one for one in result(out, "fig5")["pictures"] if one["file"].endswith(".mp4"))
    assert len(movie["numbers"]["clips"]) == 2


def test_the_page_tells_the_time_the_effort_and_the_command(out: Path) -> None:
    seconds = json.loads((out / "seconds.json").read_text())
    drawn = [result(out, name)["seconds"]["drawing and scoring"] for name in ("fig3", "fig4", "fig5", "table1")]
    total = (sum(seconds.values()) + sum(drawn)) / 60
    assert f"All of it took {total:,.1f} minutes: building " in shown(out)
    text = section_of(out, "fig3")
    assert "At tiny: 4 steps of training, where the full protocol has 120,000, by smaller presets, on what" in text
    assert "<pre>drnet reproduce fig3 --scale tiny --data-root DIR --out results</pre>" in text
    assert '<a href="fig3/swap.png"><img src="fig3/swap.png"' in text


def test_what_is_wrong_with_pictures_is_shown_as_somebody_wrote_it(out: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(out, tmp_path / "results"))
    assert "What is wrong with the pictures: not said yet" in section_of(folder, "fig3")
    remarks = folder / "fig3" / "remarks.txt"
    remarks.write_text("the digits are <grey> mush\n")
    report(folder)
    assert "What is wrong with the pictures: the digits are &lt;grey&gt; mush" in (folder / "index.html").read_text()
    drawn = (folder / "fig3" / "result.json").stat().st_mtime
    before = (folder / "index.html").read_bytes()
    os.utime(remarks, (drawn - 60, drawn - 60))  # as after a copy or a checkout
    report(folder)
    assert (folder / "index.html").read_bytes() == before


def test_commands_can_be_copied_and_name_no_folder_of_who_ran_them(
    reproduced: tuple[Path, Reproduction], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(reproduced[0], tmp_path / "private" / "my results"))
    (mnist := (root := tmp_path / "private" / "originals") / "mnist").mkdir(parents=True)
    (mnist / "train-images-idx3-ubyte").write_bytes(b"no digits")
    monkeypatch.chdir(folder)
    assert [one.state for one in run(Path(), "fig3", "fig7", root=root, again=True).ended] == ["done", "not run"]
    words = ["--scale", "tiny", "--data-root", "DIR", "--out", "my results"]
    assert shlex.split(result(folder, "fig7")["command"]) == ["drnet", "reproduce", "fig7", *words]
    for name in ("fig3", "fig7", "fig12"):  # done, not run, and not asked for
        (told,) = re.findall(rf"drnet reproduce {name} [^<]*", shown(folder))
        assert shlex.split(told) == ["drnet", "reproduce", name, *words]
    assert "DIR/mnist is of no use" in shown(folder)
    assert "KTH is not here (looked in DIR/kth, CACHE/kth)" in shown(folder)
    assert "private" not in (folder / "index.html").read_text()


def test_again_draws_from_the_same_weights_what_would_be_kept(out: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(out, tmp_path / "results"))
    swap = folder / "fig4" / "swap.png"
    swap.write_bytes(b"an older drawing")
    weights = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    assert [one.state for one in run(folder, "fig4").ended] == ["kept"]
    assert swap.read_bytes() == b"an older drawing"
    assert [one.state for one in run(folder, "fig4", again=True).ended] == ["done"]
    assert swap.read_bytes() == (out / "fig4" / "swap.png").read_bytes()
    assert {path: path.stat().st_mtime_ns for path in weights} == weights


class Signal(BaseException):
    """What a signal raises in the middle of a build."""


class Interrupted(Silent):
    """A progress in whose first stage a signal arrives."""

    def advance(self, count: int, **values: float) -> None:
        raise Signal


def test_an_interrupted_build_leaves_a_page(tmp_path: Path) -> None:
    with pytest.raises(Signal):
        run(tmp_path / "results", "fig3", progress=Interrupted())
    assert not (tmp_path / "results" / "fig3").exists()
    text = shown(tmp_path / "results")
    assert re.search(r"0 of 11 figures and tables are done, at scale tiny", text)
    assert "Not run yet: drnet reproduce fig3 --scale tiny --data-root DIR --out results" in text


def test_a_page_that_cannot_be_written_does_not_hide_why_a_call_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(Interrupted):
        """The disk is full, too, when the signal arrives."""

        def advance(self, count: int, **values: float) -> None:
            monkeypatch.setattr("drnet.pipelines.reproduction.reproduce.write_report", full)
            super().advance(count, **values)

    def full(*_: Any) -> None:
        raise OSError("no room")

    with pytest.raises(Signal):
        run(tmp_path / "results", "fig3", progress=Full())
