"""Reproducing figures of digits and toys in miniature: the true path with a few steps, resuming, failures, the page."""

import json
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_reproduction import ATOM, miniature, run

from drnet.datasets.contract import DataError
from drnet.pipelines.claim import locked
from drnet.pipelines.reproduction import sources
from drnet.pipelines.reproduction.experiments import EXPERIMENTS
from drnet.pipelines.reproduction.reproduce import Reproduction, report, reproduce
from drnet.pipelines.reproduction.result import Claim, Made, line_of, read_result, why_unjudged
from drnet.pipelines.reproduction.scales import SCALES, RunPlan, Scale
from drnet.pipelines.reproduction.sources import Absent, choose
from drnet.presets import preset


@pytest.fixture(autouse=True, scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Make everything small before the first fixture."""
    with miniature(tmp_path_factory.mktemp("cache")):
        yield


@pytest.fixture
def made(reproduced: tuple[Path, Reproduction]) -> tuple[Path, Reproduction]:
    """Two experiments; KTH is not at hand; read only."""
    return reproduced


def result(out: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / name / "result.json").read_text())
    return found


def copied(made: tuple[Path, Reproduction], to: Path) -> Path:
    return Path(shutil.copytree(made[0], to / "results"))


def test_experiments_end_in_the_papers_order_and_what_lacks_its_data_is_told(made: tuple[Path, Reproduction]) -> None:
    _, found = made
    assert [(one.id, one.state) for one in found.ended] == [("fig3", "done"), ("table1", "done"), ("fig7", "not run")]
    assert "fetch it with `drnet data fetch kth`" in found.ended[2].lines[0]
    assert not found.stopped


def test_every_picture_and_movie_of_a_figure_is_there(made: tuple[Path, Reproduction]) -> None:
    out, _ = made
    names = [picture["file"] for picture in result(out, "fig3")["pictures"]]
    assert names == ["swap.png", "rollout.png", "rollout.mp4", "metrics.png"]
    for name in names:
        if name.endswith(".png"):
            with Image.open(out / "fig3" / name) as image:
                assert np.asarray(image.convert("L")).std() > 0
        else:
            assert (out / "fig3" / name).read_bytes()[4:8] == b"ftyp"


def test_a_result_says_what_it_was_made_from(made: tuple[Path, Reproduction]) -> None:
    out, _ = made
    found = result(out, "fig3")
    manifest = json.loads((out / "data" / "optdigits" / "manifest.json").read_text())
    assert found["data"]["build"] == manifest["build"]
    assert found["data"]["stands_for"] == "MNIST"
    assert found["data"]["clips"] == {"train": 16, "test": 6}
    (run,) = found["runs"]
    state = json.loads((out / run["folder"] / "checkpoints" / "00000004" / "state.json").read_text())
    assert run["sha256"] == state["sha256"]
    assert run["predictor"]["step"] == 2
    assert run["config"]["model"]["width"] == 4
    assert found["seeds"] == [0]
    assert set(found["versions"]) == {"drnet", "torch", "numpy", "python"}
    assert {"data/optdigits", "runs/optdigits", "runs/optdigits/predictor"} <= set(found["seconds"])


def test_tiny_puts_numbers_beside_the_papers_and_judges_nothing(made: tuple[Path, Reproduction]) -> None:
    _, found = made
    lines = found.ended[1].lines
    assert re.fullmatch(
        r"percent told from content, beta 0\.1: paper: 93\.3 / ours: \d+\.\d / not judged at tiny", lines[0]
    )
    assert lines[-1] == "percent told by Mathieu et al. 2016: paper: 86.5 / ours: - / not implemented yet"
    assert not any("pass" in line or "miss" in line for line in lines)


def test_without_the_adversarial_loss_another_run_is_compared(made: tuple[Path, Reproduction]) -> None:
    runs = result(made[0], "table1")["runs"]
    assert [run["config"]["train"].get("beta", run["config"]["model"].get("beta")) for run in runs] == [0.1, 0.0]
    assert len({run["sha256"] for run in runs}) == 2


def test_the_same_call_again_keeps_everything(made: tuple[Path, Reproduction], tmp_path: Path) -> None:
    out = copied(made, tmp_path)
    before = {
        path: path.stat().st_mtime_ns for path in out.rglob("*") if path.suffix in (".png", ".safetensors", ".h5")
    }
    again = run(out, "fig3", "table1")
    assert [one.state for one in again.ended] == ["kept", "kept"]
    assert again.ended[1].lines == made[1].ended[1].lines
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_lost_picture_is_drawn_again_from_the_same_weights(made: tuple[Path, Reproduction], tmp_path: Path) -> None:
    out = copied(made, tmp_path)
    picture = out / "fig3" / "swap.png"
    bytes_before = picture.read_bytes()
    picture.unlink()
    assert [one.state for one in run(out, "fig3").ended] == ["done"]
    assert picture.read_bytes() == bytes_before


def test_runs_are_shared_by_experiments(made: tuple[Path, Reproduction], tmp_path: Path) -> None:
    out = copied(made, tmp_path)
    weights = result(out, "table1")["runs"]
    assert [one.state for one in run(out, "fig4").ended] == ["done"]
    assert [one["sha256"] for one in result(out, "fig4")["runs"]] == [one["sha256"] for one in weights]
    assert sorted(path.name for path in (out / "runs").iterdir()) == [
        "norb-miniature",
        "norb-miniature-beta0",
        "optdigits",
    ]


def test_a_stopped_call_is_continued_to_the_same_weights(made: tuple[Path, Reproduction], tmp_path: Path) -> None:
    out, asked = tmp_path / "results", list[int]()

    @contextmanager
    def stopped() -> Iterator[threading.Event]:
        event = threading.Event()
        event.set()
        asked.append(1)
        yield event

    found = run(out, "fig3", "table1", stoppable=stopped)
    assert found.stopped
    assert found.ended == []
    assert len(asked) == 1
    assert (out / "index.html").exists()
    assert not run(out, "fig3").stopped
    assert result(out, "fig3")["runs"][0]["sha256"] == result(made[0], "fig3")["runs"][0]["sha256"]


def test_what_a_killed_call_left_is_gone_on_with(made: tuple[Path, Reproduction], tmp_path: Path) -> None:
    out = copied(made, tmp_path)
    shutil.rmtree(out / "fig3")
    shutil.rmtree(out / "runs" / "optdigits" / "predictor")
    shutil.rmtree(out / "runs" / "optdigits" / "checkpoints" / "00000004")
    (out / "data" / "optdigits" / "manifest.json").unlink()
    assert [one.state for one in run(out, "fig3").ended] == ["done"]
    assert result(out, "fig3")["runs"][0]["sha256"] == result(made[0], "fig3")["runs"][0]["sha256"]


def test_a_failure_ends_nothing_else_and_is_in_the_page(made: tuple[Path, Reproduction], tmp_path: Path) -> None:
    out = copied(made, tmp_path)
    config = out / "runs" / "optdigits" / "config.json"
    config.write_text("{")
    found = run(out, "fig3", "table1")
    assert [one.state for one in found.ended] == ["failed", "kept"]
    assert "optdigits" in found.ended[0].lines[0]
    assert result(out, "fig3")["state"] == "failed"
    assert "Failed: " in (out / "index.html").read_text()


def test_a_shared_part_that_fails_is_tried_once(tmp_path: Path) -> None:
    broken = replace(ATOM, runs={**ATOM.runs, "turns": RunPlan("chairs-small", 3, {"width": -1})})
    found = run(tmp_path / "results", "fig4", "table1", scale=broken)
    assert [one.state for one in found.ended] == ["failed", "failed"]
    assert found.ended[0].lines == found.ended[1].lines


def test_the_page_shows_what_there_is_and_names_what_there_is_not(made: tuple[Path, Reproduction]) -> None:
    out, found = made
    text = found.page.read_text()
    for source in re.findall(r'src="([^"]+)"', text):
        assert (out / source).is_file()
    assert 'src="fig3/swap.png"' in text
    assert '<video src="fig3/rollout.mp4"' in text
    assert "Not run yet: drnet reproduce fig5" in text
    assert "Not run: KTH is not here" in text
    assert "in place of small NORB" in text
    assert all(f'<h2 id="{one.id}">' in text for one in EXPERIMENTS)
    assert "<td>86.5</td><td>-</td><td>not implemented yet</td>" in text
    assert "http" not in text
    assert "<script" not in text


def test_a_number_in_the_page_is_the_results_own(made: tuple[Path, Reproduction]) -> None:
    out, found = made
    (ours,) = (
        row["ours"] for row in result(out, "table1")["numbers"] if row["name"] == "percent told from content, beta 0.1"
    )
    assert f"<td>93.3</td><td>{ours:.1f}</td><td>not judged at tiny</td>" in found.page.read_text()


def test_the_report_alone_writes_the_same_page(made: tuple[Path, Reproduction], tmp_path: Path) -> None:
    out = copied(made, tmp_path)
    before = (out / "index.html").read_bytes()
    (out / "index.html").unlink()
    assert report(out).read_bytes() == before
    with pytest.raises(DataError, match=r"no results here; `drnet reproduce all --out"):
        report(tmp_path)


def test_a_damaged_result_counts_as_not_run(made: tuple[Path, Reproduction], tmp_path: Path) -> None:
    out = copied(made, tmp_path)
    (out / "table1" / "result.json").write_text("[")
    report(out)
    assert "Not run yet: drnet reproduce table1" in (out / "index.html").read_text()
    assert read_result(out / "table1") is None


def test_a_folder_holds_one_scale_and_no_other_files(made: tuple[Path, Reproduction], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds results of scale tiny; choose another --out for scale paper"):
        run(made[0], "fig3", scale=SCALES["paper"])
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(DataError, match=r"holds other files \(letter.txt\)"):
        run(tmp_path, "fig3")


def test_two_calls_do_not_write_into_one_folder(made: tuple[Path, Reproduction]) -> None:
    with locked(made[0]), pytest.raises(DataError, match="another process reproduces into it; wait for it"):
        run(made[0], "fig3")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ({"ids": ["fig2"]}, "experiment 'fig2' is not known (did you mean 'fig12'?); there are fig3, fig4"),
        ({"scale": "huge"}, "scale 'huge' is not known; there are tiny, small, paper"),
        ({"root": Path("/no/such")}, "data root /no/such is not a folder"),
        ({"device": "tpu"}, "tpu"),
    ],
)
def test_what_is_not_known_is_refused_before_anything_is_made(words: dict[str, Any], line: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(line)):
        reproduce(**{"ids": ["fig3"], "out": tmp_path / "results", **words})
    assert not (tmp_path / "results").exists()


def test_originals_go_before_what_stands_in_for_them(tmp_path: Path) -> None:
    files = tmp_path / "files"
    assert choose("toys", tmp_path, files, {}).name == "norb-miniature"
    (tmp_path / "coil20").mkdir()
    for view in range(4):
        for number in range(1, 6):
            Image.new("L", (8, 8), 40 * number).save(tmp_path / "coil20" / f"obj{number}__{view}.png")
    coil = choose("toys", tmp_path, files, {"size": 32})
    assert (coil.name, coil.stands_for, coil.make().count("test")) == ("coil20", "small NORB", 1)
    assert choose("classes", tmp_path, files, {}).name == "norb-miniature"  # COIL-20 has no categories
    (tmp_path / "norb").mkdir()
    (tmp_path / "norb" / f"{sources.ORIGINAL.train.dat.name}.gz").write_bytes(b"")
    assert [choose(role, tmp_path, files, {}).name for role in ("toys", "classes")] == ["norb", "norb"]
    assert choose("toys", tmp_path, files, {}).stands_for == ""


def test_an_original_that_is_of_no_use_is_told(tmp_path: Path) -> None:
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train-images-idx3-ubyte").write_bytes(b"no digits")
    found = choose("digits", tmp_path, tmp_path, {})
    assert found.name == "optdigits"
    assert "is of no use" in found.notes[0]
    with pytest.raises(Absent, match="KTH is not here"):
        choose("kth", tmp_path, tmp_path, {})


@pytest.mark.parametrize(
    ("claim", "ours", "verdict"),
    [
        (Claim("a", 93.3, "least", 3), 90.4, "pass"),
        (Claim("a", 93.3, "least", 3), 99.0, "pass"),
        (Claim("a", 93.3, "least", 3), 90.2, "miss"),
        (Claim("a", 60.9, "near", 3), 63.8, "pass"),
        (Claim("a", 60.9, "near", 3), 64.0, "miss"),
        (Claim("a", 60.9, "near", 3), 57.8, "miss"),
        (Claim("a", 60.9, "near", 3), float("nan"), "could not be measured"),
        (Claim("a", 60.9), 60.9, "nothing to judge"),
        (Claim("a", 60.9, why="its data is not known"), 60.9, "not judged: its data is not known"),
        (Claim("a", 60.9, missing=True), None, "not implemented yet"),
    ],
)
def test_a_number_passes_by_its_rule(claim: Claim, ours: float | None, verdict: str, tmp_path: Path) -> None:
    made = Made(tmp_path, {"a": claim}, "")
    made.number("a", ours)
    assert made.numbers[0]["verdict"] == verdict
    assert verdict in line_of(made.numbers[0])


def test_only_the_papers_own_whole_data_is_judged() -> None:
    data = {"name": "norb", "what": "small NORB", "stands_for": None, "whole": True}
    assert why_unjudged(SCALES["paper"], data) == ""
    assert why_unjudged(SCALES["tiny"], data) == " at tiny"
    assert why_unjudged(SCALES["small"], {**data, "name": "coil20", "stands_for": "small NORB"}) == (
        ": coil20 stands for small NORB"
    )
    assert why_unjudged(SCALES["small"], {**data, "what": "13 videos", "whole": False}) == ": only 13 videos"


@pytest.mark.parametrize("scale", SCALES.values(), ids=list(SCALES))
def test_every_scale_has_all_that_every_experiment_needs(scale: Scale) -> None:
    for experiment in EXPERIMENTS:
        assert experiment.role in scale.data
        for need in experiment.needs:
            plan = scale.plan(need.role, need.variant)
            row = preset(plan.preset)
            fields = row.model.to_json().keys() | row.train.to_json().keys()
            assert set(plan.changes) <= fields
            assert bool(plan.predictor) or need.part != "predictor"
