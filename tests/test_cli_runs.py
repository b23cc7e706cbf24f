"""`drnet runs`: a table, a comparison and one plot; whatever is left out is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from drnet.cli import console
from drnet.cli.runs import COLUMNS
from drnet.pipelines.run import read_metrics

LOSS, HELD_OUT = "loss/reconstruction", "held_out/reconstruction"


@pytest.fixture
def three(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with a trained run, one of another seed and learning rate that has just begun, and a broken one."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path / "runs" / "first")
    second = tmp_path / "runs" / "sweep" / "[red]second"
    second.mkdir(parents=True)
    config = json.loads((trained / "config.json").read_text())
    config["train"] |= {"lr": 0.5, "seed": 3}
    (second / "config.json").write_text(json.dumps(config))
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "config.json").write_text("{}")
    return tmp_path


def row_of(text: str, name: str) -> list[str]:
    """Return the cells of a table's line."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"│ {name} ")]
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_runs_are_listed_and_what_is_none_is_named(three: Path, command: Callable[..., Any]) -> None:
    found = command("runs")
    assert found.code == 0, found.err
    last = read_metrics(Path("runs/first"))[-1]
    cells = row_of(found.out, "runs/first")
    assert cells[:5] == ["runs/first", "mnist", "mnist 32x32", "6/6", "yes"]
    assert cells[5] == f"{last[HELD_OUT]:.4g}"
    assert cells[7] == f"{last[HELD_OUT] / last['held_out/mean_frame']:.2f}"
    assert row_of(found.out, "runs/sweep/[red]second")[3:-1] == ["0/120000", "no"] + ["-"] * 6
    assert found.out.splitlines()[0] == f"2 runs, by {HELD_OUT}"
    assert "1 folder left out:\n  runs/broken: runs/broken/config.json: not a run of format 1" in found.out
    assert list(three.iterdir()) == [three / "runs"]


def test_programs_get_json(three: Path, command: Callable[..., Any]) -> None:
    found = command("runs", "--json", "--sort", "loss")
    assert found.code == 0
    report = json.loads(found.out)
    assert report.keys() == {"metric", "runs", "left_out"}
    assert [row["run"] for row in report["runs"]] == ["runs/first", "runs/sweep/[red]second"]
    assert report["runs"][0]["loss"] == read_metrics(Path("runs/first"))[-1][HELD_OUT]
    assert report["runs"][1]["loss"] is None
    assert [one["folder"] for one in report["left_out"]] == ["runs/broken"]


def test_runs_are_compared_and_their_curves_drawn(three: Path, command: Callable[..., Any]) -> None:
    found = command("runs", "runs", "--compare", "variance/pose", "--out", "c.png")
    assert found.code == 0, found.err
    assert found.out.startswith("2 runs, by variance/pose\n")
    assert row_of(found.out, "lr") == ["lr", "0.002", "0.5"]
    assert row_of(found.out, "seed") == ["seed", "0", "3"]
    assert "runs/sweep/[red]second: has no variance/pose\n" in found.out
    assert found.out.endswith("wrote c.png\n")
    with Image.open("c.png") as image:
        assert image.width > 600


def test_a_comparison_without_a_file_draws_nothing_and_json_has_it_all(
    three: Path, command: Callable[..., Any]
) -> None:
    report = json.loads(command("runs", "--compare", LOSS, "--json").out)
    assert report["differences"] == {"lr": [0.002, 0.5], "seed": [0, 3]}
    assert report["without_metric"] == ["runs/sweep/[red]second"]
    assert report["plot"] is None
    assert list(three.iterdir()) == [three / "runs"]
    assert json.loads(command("runs", "runs/first", "--out", "c.svg", "--json").out)["plot"] == "c.svg"
    assert "<svg" in Path("c.svg").read_text()
    assert "settings: the same in all runs" in command("runs", "runs/first", "--compare", LOSS).out


def test_many_runs_that_differ_little_are_a_tall_table(three: Path, command: Callable[..., Any]) -> None:
    for seed in range(4):
        run = Path("runs") / f"seed{seed}"
        run.mkdir()
        config = json.loads(Path("runs/first/config.json").read_text())
        config["train"]["seed"] = seed
        (run / "config.json").write_text(json.dumps(config))
    shown = command("runs", *(f"runs/seed{seed}" for seed in range(4)), "runs/first", "--compare", LOSS).out
    assert row_of(shown.split("settings that differ")[1], "seed3") == ["seed3", "3"]


def test_a_narrow_terminal_gets_what_matters_most(
    three: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "out", Console(width=100, force_terminal=True, color_system=None, highlight=False))
    shown = command("runs").out
    head = next(line for line in shown.splitlines() if line.startswith("┃"))
    columns = [cell.strip() for cell in head.strip("┃").split("┃")]
    assert columns == [name for name in COLUMNS if name in columns]
    assert {"run", "last", "steps", "of mean frame"} <= set(columns)
    assert "…" not in shown
    assert "too narrow for " in shown
    assert "written, UTC: widen the terminal, or use --json" in shown
    assert max(len(line) for line in shown.splitlines() if line.startswith(("┃", "│"))) <= 100


def test_a_mistake_is_one_line(three: Path, command: Callable[..., Any]) -> None:
    cases = [
        (["nowhere"], "nowhere: no such folder"),
        (["runs/broken"], "not a run of format 1"),
        (["--compare", "loss/x"], "metric 'loss/x' is in none of these runs; there are baseline/mean_frame, "),
        (["--out", "c.pdf"], ".pdf is not allowed here; name a file that ends in .png or .svg"),
        (["--out", "c.png", "--smooth", -2], "smoothing -2 is not allowed"),
        (["--out", "none/c.png"], "none/c.png: No such file or directory"),
    ]
    for words, said in cases:
        found = command("runs", *words)
        assert found.code == 1, words
        assert len(found.err.splitlines()) == 1, found.err
        assert said in found.err
        assert found.out == ""
    assert list(three.iterdir()) == [three / "runs"]
    assert command("runs", "--sort", "beauty").code == 2


def test_a_folder_cannot_steer_the_terminal(three: Path, command: Callable[..., Any]) -> None:
    shutil.copytree("runs/first", "runs/\x1b[2Jcleared")
    Path("runs/\x1b[31mred").mkdir()
    shown = command("runs", "--compare", LOSS).out
    assert "\x1b" not in shown
    assert "x1b[2Jcleared" in shown
    assert "x1b[31mred: no run in it" in shown


def test_the_help_shows_how(command: Callable[..., Any]) -> None:
    found = command("runs", "--help")
    assert found.code == 0
    assert "Example: drnet runs runs/a runs/b --compare" in found.out
