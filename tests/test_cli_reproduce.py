"""`drnet reproduce`: what it says, how it ends."""

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from drnet.pipelines.reproduction import reproduce as module
from drnet.pipelines.reproduction.reproduce import Ended, Reproduction, reproduce, settle
from drnet.pipelines.reproduction.result import write_result
from drnet.pipelines.reproduction.scales import SCALES
from drnet.pipelines.versions import versions


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder of results with one that failed."""
    folder = tmp_path / "results"
    settle(folder, SCALES["tiny"])
    about = {
        "id": "fig5",
        "title": "chairs",
        "where": "Fig. 5",
        "scale": "tiny",
        "versions": versions("torch", "numpy", "python"),
    }
    write_result(folder / "fig5", {**about, "state": "failed", "error": "the disk is full"})
    return folder


def ending(monkeypatch: pytest.MonkeyPatch, out: Path, *ended: Ended) -> None:
    monkeypatch.setattr(module, "reproduce", lambda *_: Reproduction(out / "index.html", list(ended)))


def test_the_report_is_written_and_says_where(command: Callable[..., Any], out: Path) -> None:
    ended = command("reproduce", "report", "--out", out)
    assert (ended.code, ended.out.strip()) == (0, f"open {out}/index.html")
    text = (out / "index.html").read_text()
    assert "Failed: the disk is full" in text
    assert "Not run yet: drnet reproduce fig3" in text


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("fig2",), "experiment 'fig2' is not known (did you mean 'fig12'?); there are fig3, fig4, fig5, table1"),
        (("all", "--scale", "huge"), "scale 'huge' is not known; there are tiny, small, paper"),
        (("report", "fig3"), "report is not allowed beside others"),
        (("fig3", "--scale", "paper"), "holds results of scale tiny; choose another --out for scale paper"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    command: Callable[..., Any], out: Path, words: tuple[str, ...], line: str
) -> None:
    ended = command("reproduce", *words, "--out", out)
    assert ended.code == 1
    assert line in ended.err
    assert len(ended.err.strip().splitlines()) == 1


def test_what_lacks_its_data_is_told_and_fails_only_where_nothing_else_was_asked_for(
    command: Callable[..., Any], out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = command("reproduce", "fig7", "fig12", "--out", out, "--data-root", tmp_path, "--device", "cpu")
    assert alone.code == 1
    assert "2 of 2 not run: fig7, fig12" in alone.out
    assert "error: KTH is not here" in alone.err
    ending(
        monkeypatch, out, Ended("fig3", "done", ("a: paper: 1 / ours: 2 / pass",)), Ended("fig7", "not run", ("no",))
    )
    both = command("reproduce", "all", "--out", out)
    assert both.code == 0
    assert "fig3: done\n  a: paper: 1 / ours: 2 / pass" in both.out
    assert "1 of 2 not run: fig7" in both.out


def test_a_failure_is_told_at_the_end_and_ends_with_1(
    command: Callable[..., Any], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending(monkeypatch, out, Ended("fig3", "failed", ("no room",)), Ended("fig5", "kept", ()))
    ended = command("reproduce", "all", "--out", out)
    assert ended.code == 1
    assert "fig3: failed\n  no room" in ended.out
    assert "1 of 2 failed (fig3); the same command tries them again" in ended.err


@pytest.mark.parametrize(("words", "again"), [((), False), (("--again",), True)])
def test_again_is_handed_on(
    command: Callable[..., Any], out: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], again: bool
) -> None:
    asked = list[Any]()
    monkeypatch.setattr(module, "reproduce", lambda *given: asked.extend(given) or Reproduction(out / "index.html"))
    assert command("reproduce", "fig5", *words, "--out", out).code == 0
    assert signature(reproduce).bind(*asked).arguments["again"] is again
