"""The picture of an evaluation: every row is in it, and nothing is drawn that was not measured."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from drnet.pipelines.evaluation.curves import save_metric_curves


def curve(*mean: float) -> dict[str, list[float | None]]:
    return {"mean": list(mean), "low": [value - 1 for value in mean[:-1]] + [None], "high": [v + 1 for v in mean]}


def report(steps: int, repeats: bool) -> dict[str, Any]:
    copied = [17.0] * steps
    copied[steps // 2] = 58.9
    rows = {"true_pose": curve(*[24.0] * steps), "copy_last": curve(*copied)}
    frames: dict[str, Any] = {"steps": list(range(1, steps + 1)), "clips_at_step": [9] * (steps - 1) + [3]}
    frames |= {"psnr": rows, "ssim": rows, "windows": 12, "clips": 9}
    if repeats:
        frames["repeats_every"] = 32
    head = {"protocol": {"name": "drnet", "observe": 5}, "data": {"data_set": "mnist"}}
    return head | {"frames": frames}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved."""
    seen: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: seen.append(self) or save(self, *a, **k))
    return seen


def test_copies_that_return_to_the_truth_do_not_flatten_the_other_rows(tmp_path: Path, drawn: list[Figure]) -> None:
    for repeats in (True, False):
        save_metric_curves(tmp_path / "m.png", report(60, repeats))
    returns, whole = (figure.axes[0].get_ylim()[1] for figure in drawn)
    assert 24 < returns < 30
    assert whole > 58


def test_rows_positions_and_their_steps_are_drawn(tmp_path: Path, drawn: list[Figure]) -> None:
    found = report(500, True)
    errors = {row: {"error": curve(0.5, 1.0, 2.0)} for row in ("true_pose", "copy_last", "truth")}
    save_metric_curves(tmp_path / "m.png", found | {"position": {"frame": 32, "steps": [1, 10, 500], "errors": errors}})
    psnr, ssim, place = drawn[0].axes
    assert [len(axes.lines) for axes in (psnr, ssim)] == [2, 2]
    assert {line.get_label() for line in place.lines} >= {"given the true pose", "copy of the last frame"}
    assert place.get_xscale() == psnr.get_xscale() == "log"
    np.testing.assert_array_equal(place.lines[0].get_xdata(), [1, 10, 500])
    texts = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert texts == ["given the true pose", "copy of the last frame", "true drawing"]
    with Image.open(tmp_path / "m.png") as image:
        assert image.width > 1500


def test_the_title_says_how_many_clips_are_left_at_the_end(tmp_path: Path, drawn: list[Figure]) -> None:
    save_metric_curves(tmp_path / "m.png", report(30, False))
    assert drawn[0].get_suptitle() == (
        "mnist, held out, protocol drnet: 5 frames observed; 12 windows of 9 clips, of 3 at the last step; "
        "shaded: 95% interval over clips"
    )
    assert drawn[0].axes[0].get_xscale() == "linear"
