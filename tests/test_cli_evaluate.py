"""`drnet evaluate`: tables, files, and what is not computed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drnet.cli.evaluate import lines_of, shown, with_interval

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


def test_a_mistake_is_one_line(trained: Path, digits: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    for words, said in (
        (["--protocol", "svp"], "protocol 'svp' is not known"),
        (["--section", "psnr"], "section 'psnr' is not known"),
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
