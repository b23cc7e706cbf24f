"""`drnet evaluate`: tables, files, and what is not computed."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drnet.cli.evaluate import lines_of, shown, with_interval
from drnet.pipelines.source import open_shards

QUICK = ("--section", "frames", "--section", "swap", "--section", "position", "--steps", 12, "--clips", 4)


def test_tables_are_shown_and_files_written(
    trained: Path, digits: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "metrics.json"
    found = command("evaluate", trained, "--shards", digits, "--out", out, *QUICK)
    assert found.code == 0, found.err
    report = json.loads(out.read_text())
    mean = report["frames"]["means"][-1]["psnr"]["copy_last"]["mean"]
    (line,) = [line for line in found.out.split("SSIM")[0].splitlines() if line.startswith("│ copy_last")]
    assert f"{mean:.2f} [" in line
    head, counts = (
        next(row for row in found.out.splitlines() if row.startswith(word)) for word in ("┃ PSNR", "│ clips")
    )
    assert re.findall(r"step (\d+)", head) == ["1", "5", "10", "12"]
    assert counts.replace("│", " ").split() == ["clips", *["4"] * 4]
    assert "frames, predicted: not computed: " in found.out
    assert "position error of 8 digits in pixels of 32" in found.out
    assert "64 swaps against the truth" in found.out
    assert "frames: 4 clips only: the intervals say little" in found.out
    assert "lpips: not computed: " in found.out
    assert found.out.endswith(f"wrote {out} and {tmp_path / 'metrics.png'}\n")


def test_programs_get_json(trained: Path, digits: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    found = command(
        "evaluate", trained, "--shards", digits, "--out", tmp_path / "m.json", "--json", *QUICK[:2], *QUICK[6:]
    )
    assert found.code == 0, found.err
    assert json.loads(found.out) == json.loads((tmp_path / "m.json").read_text())


def test_a_section_that_was_asked_for_and_is_not_there_ends_with_1_after_the_others(
    trained: Path, digits: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "m.json"
    words = ["evaluate", trained, "--shards", digits, "--steps", 2, "--clips", 2, "--out", out]
    asked = command(*words, "--section", "inception", "--section", "frames", "--section", "swap")
    report = json.loads(out.read_text())
    assert report["frames"]["steps"] == [1, 2]
    assert report["swap"]["pairs"] == 32
    last = asked.err.splitlines()[-1]
    assert last == f"drnet: error: section inception not computed: {report['inception']['not_computed']}"
    assert asked.err.count("drnet: error") == 1
    assert (asked.code, asked.out.splitlines()[-1]) == (1, f"wrote {out} and {out.with_suffix('.png')}")
    printed = command(*words, "--section", "inception", "--json")
    assert (printed.code, json.loads(printed.out)) == (1, json.loads(out.read_text()))
    part = command(*words, "--section", "frames")  # what needs a predictor alone is missing
    assert (part.code, "drnet: error" in part.err) == (0, False)


def test_sections_that_do_not_apply_are_no_error_where_all_are_meant(
    trained: Path, digits: Path, command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from drnet.pipelines.evaluation import evaluate as stage

    monkeypatch.setattr(stage, "SECTIONS", ("frames", "inception"))
    words = ["--steps", 2, "--clips", 2, "--out", tmp_path / "m.json"]
    found = command("evaluate", trained, "--shards", digits, *words)
    assert (found.code, "inception: not computed: " in found.out) == (0, True)


def test_clips_are_a_number_or_names(trained: Path, digits: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    words = ["evaluate", trained, "--shards", digits, "--section", "frames", "--steps", 3, "--observe", 2, "--json"]

    def report(clips: str) -> Any:
        found = command(*words, "--out", tmp_path / "m.json", "--clips", clips)
        assert found.code == 0, found.err
        return json.loads(found.out)

    many, named = report("3"), report("test-00000003,test-00000001")
    begun, alone = report("test-00000003:1,test-00000003:4"), report("test-00000003")
    assert (many["data"]["clips_scored"], many["data"]["clips_named"]) == (3, None)
    assert (named["data"]["clips_scored"], named["frames"]["windows"]) == (2, 2)
    assert named["data"]["clips_named"] == ["test-00000003", "test-00000001"]
    assert (begun["frames"]["clips"], begun["frames"]["windows"]) == (1, 2)
    assert begun["protocol"]["differences"] == ["windows of 1 clips begin where --clips says"]
    both = np.array(begun["frames"]["psnr"]["copy_last"]["mean"])
    first = np.array(alone["frames"]["psnr"]["copy_last"]["mean"])
    clip = open_shards(digits, ["test"]).frames(3) / 255.0
    later = [-10 * np.log10(np.square(clip[4] - clip[time]).mean()) for time in (5, 6, 7)]  # frame 5 is copied
    assert both == pytest.approx((first + later) / 2, rel=1e-3)


def test_a_mistake_is_one_line(trained: Path, digits: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    for words, said in (
        (["--protocol", "svp"], "protocol 'svp' is not known"),
        (["--section", "frame"], "section 'frame' is not known (did you mean 'frames'?); supported are frames, swap"),
        (["--clips", "test-3"], "clip 'test-3' is not in the test split; the nearest are test-"),
        (["--clips", "test-00000003:1-3"], "is not allowed here, where only a first frame counts; write KEY:FRAME"),
        (["--clips", "0"], "clips 0 is not allowed; it must be at least 1"),
        (["--out", tmp_path / "m.txt"], ".txt is not allowed here; name a file that ends in .json"),
    ):
        found = command("evaluate", trained, "--shards", digits, "--out", tmp_path / "m.json", *words)
        assert found.code == 1
        assert len(found.err.splitlines()) == 1, found.err
        assert said in found.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        ([{"step": 10, "same": 0.25}, {"step": 95, "same": None}], ["step 10, same 0.25", "step 95, same -"]),
        ({"a": [1, 2], "b": {"c": "d"}}, ["a 1 2, b c d"]),
        ("text", ["text"]),
    ],
)
def test_numbers_of_any_section_are_readable(value: Any, lines: list[str]) -> None:
    assert lines_of(value) == lines
    assert shown(1 / 3) == "0.3333"


def test_a_mean_without_interval_stands_alone() -> None:
    assert with_interval({"mean": 1.25, "low": None, "high": None}, 2) == "1.25"
    assert with_interval({"mean": 1.25, "low": 1.0, "high": 2.0}, 1) == "1.2 [1.0, 2.0]"
