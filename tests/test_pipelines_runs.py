"""Many runs beside each other: found, summed up, sorted, compared; whatever is no run is named."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from PIL import Image
from torch import nn

from drnet.datasets.contract import DataError
from drnet.pipelines.run import read_metrics, save_checkpoint, settle_config
from drnet.pipelines.train import resolve
from drnet.pipelines.training.runs import (
    COLOURS,
    HELD_OUT,
    Curve,
    Run,
    Sort,
    default_metric,
    differences,
    find_runs,
    legend,
    read_run,
    save_comparison,
    short_names,
    smooth,
    sort_runs,
    sum_up,
    with_metric,
)

LOSS = "loss/reconstruction"


def make_run(folder: Path, losses: Sequence[float] = (), steps: int = 0, **settings: Any) -> Path:
    """Make a run folder as training does, with a line of metrics every 10 steps."""
    lines = [
        {LOSS: loss, "baseline/mean_frame": 0.5, "time/steps_per_second": 10.0 + n} for n, loss in enumerate(losses)
    ]
    return make_run_of(folder, lines, steps, **settings)


def make_run_of(folder: Path, lines: Sequence[Mapping[str, float]], steps: int = 0, **settings: Any) -> Path:
    data = {"order_key": "k" * 64, "clips": 9, "data_set": "mnist"} | settings.pop("data", {})
    settle_config(folder, {"format": 1, **resolve("mnist", {"horizon": 30, **settings}, (32, 32, 3)), "data": data})
    text = "".join(json.dumps({"step": 10 * (n + 1), **line}) + "\n" for n, line in enumerate(lines))
    (folder / "metrics.jsonl").write_text(text)
    if steps:
        save_checkpoint(folder, nn.Linear(2, 1), {"step": torch.tensor(steps)}, {"step": steps})
    return folder


def names(runs: Sequence[Run]) -> list[str]:
    return [run.folder.name for run in runs]


def test_a_trained_run_is_summed_up_by_what_its_files_say(trained: Path) -> None:
    row = sum_up(read_run(trained), LOSS)
    every = read_metrics(trained)
    lines = [line for line in every if LOSS in line]
    losses = [line[LOSS] for line in lines]
    assert (row.run, row.preset, row.data) == (str(trained), "mnist", "mnist 32x32")
    assert (row.steps, row.loss, row.lowest) == (6, losses[-1], min(losses))
    assert row.lowest_step == lines[losses.index(min(losses))]["step"]
    assert row.share == pytest.approx(losses[-1] / lines[-1]["baseline/mean_frame"])
    assert (row.pose, row.content) == (lines[-1]["variance/pose"], lines[-1]["variance/content"])
    assert row.speed == pytest.approx(np.median([line["time/steps_per_second"] for line in lines]))
    row = sum_up(read_run(trained), HELD_OUT)
    assert row.loss == every[-1][HELD_OUT]
    assert row.share == pytest.approx(every[-1][HELD_OUT] / every[-1]["held_out/mean_frame"])


def test_a_run_is_finished_at_its_horizon_or_where_it_was_asked_to_stop(tmp_path: Path) -> None:
    half = make_run(tmp_path / "half", steps=20)
    whole = make_run(tmp_path / "whole", steps=30)
    assert [sum_up(read_run(run), LOSS).finished for run in (half, whole)] == [False, True]
    save_checkpoint(half, nn.Linear(2, 1), {}, {"step": 20, "asked": 20})
    row = sum_up(read_run(half), LOSS)
    assert (row.steps, row.asked, row.finished) == (20, 20, True)


def test_a_run_that_has_just_begun_is_a_run(tmp_path: Path) -> None:
    row = sum_up(read_run(make_run(tmp_path / "run")), LOSS)
    assert (row.steps, row.asked, row.finished, row.loss, row.lowest, row.share, row.speed) == (
        (0, 30, False) + (None,) * 4
    )


def test_the_date_is_that_of_the_newest_file(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [1.0], steps=10)
    for number, file in enumerate(["config.json", "checkpoints/00000010/state.json", "metrics.jsonl"]):
        os.utime(run / file, (1e9 + number, 1e9 + number))
    assert sum_up(read_run(run), LOSS).date == "2001-09-09T01:46:42+00:00"


def test_runs_are_found_in_folders_of_folders_and_never_twice(tmp_path: Path) -> None:
    for name in ("a", "sweep/b", "sweep/deep/c"):
        make_run(tmp_path / name)
    (tmp_path / "1-link").symlink_to(tmp_path / "a")
    (tmp_path / "sweep" / "loop").symlink_to(tmp_path)
    found = find_runs([tmp_path / "sweep" / "b", tmp_path, tmp_path / "sweep"])
    assert sorted(names(found.runs)) == ["a", "b", "c"]
    assert [one.folder.name for one in found.left_out] == ["loop"]


def test_folders_that_are_no_runs_are_named_with_the_reason(tmp_path: Path) -> None:
    make_run(tmp_path / "good", [1.0], steps=10)
    (tmp_path / "notes" / "old").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "readme.txt").write_text("a file is no folder")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "bare" / "checkpoints").mkdir(parents=True)
    state = make_run(tmp_path / "state", steps=10) / "checkpoints" / "00000010" / "state.json"
    state.write_text("{")
    (make_run(tmp_path / "line", [1.0, 2.0]) / "metrics.jsonl").write_text('{"step": 1}\n{"step"\n{"step": 3}\n')
    found = find_runs([tmp_path])
    assert names(found.runs) == ["good"]
    reasons = {one.folder.name: one.reason for one in found.left_out}
    expected = {
        "notes": "no run in it",
        "other": "not a run of format 1",
        "bare": "config.json is missing",
        "state": "state.json: missing or damaged",
        "line": "metrics.jsonl: line 2 is damaged",
    }
    assert reasons.keys() == expected.keys()
    assert [name for name, reason in expected.items() if reason not in reasons[name]] == []


def test_no_run_at_all_and_no_folder_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none: no such folder; `drnet train"):
        find_runs([tmp_path / "none"])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("{}")
    with pytest.raises(DataError, match=r"other: .*not a run of format 1"):
        find_runs([tmp_path / "other"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no run in it$"):
        find_runs([tmp_path / "empty"])


def test_a_line_that_is_being_written_is_not_read(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [3.0, 2.0])
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 30, "loss/recon')
    assert read_run(run).curves[LOSS].values.tolist() == [3.0, 2.0]


NO_METRICS = ["[]", "7", "{", '{"lr": 1}', '{"step": -1}', '{"step": 1.5}', '{"step": 1, "lr": NaN}', "\xff"]
NO_METRICS += [
    '{"step": 1, "lr": null}',
    '{"step": 1, "lr": true}',
    '{"step": 1, "lr": "1"}',
    '{"step": 1, "\\u001b[2J": 1}',
]


@pytest.mark.parametrize("line", NO_METRICS)
def test_a_line_that_is_no_metrics_is_named(tmp_path: Path, line: str) -> None:
    run = make_run(tmp_path / "run", [1.0])
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(line.encode("latin-1") + b"\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl: line 2 is damaged") as raised:
        read_run(run)
    assert str(raised.value).isprintable()


def test_metrics_that_never_end_are_not_waited_for(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "metrics.jsonl").unlink()
    os.mkfifo(run / "metrics.jsonl")
    with pytest.raises(DataError, match="not a regular file"):
        read_run(run)


def test_the_default_metric_is_of_held_out_clips_where_every_run_has_it(tmp_path: Path) -> None:
    both = {LOSS: 1.0, "held_out/reconstruction": 2.0}
    old = read_run(make_run_of(tmp_path / "old", [{LOSS: 1.0}]))
    new = [read_run(make_run_of(tmp_path / name, [{LOSS: 1.0}, both])) for name in ("b", "c")]
    begun = read_run(make_run(tmp_path / "begun"))
    assert default_metric(new) == default_metric([begun, *new]) == "held_out/reconstruction"
    assert default_metric([old, *new]) == default_metric([begun]) == LOSS
    assert new[0].curves["held_out/reconstruction"].steps.tolist() == [20]  # logged more rarely than the others


def test_runs_are_sorted_and_what_is_not_known_comes_last(tmp_path: Path) -> None:
    make_run(tmp_path / "b", [5.0, 1.0, 3.0], steps=10)
    make_run(tmp_path / "a", [4.0, 4.0], steps=30)
    make_run(tmp_path / "c", steps=20)
    runs = find_runs([tmp_path]).runs
    expected = {"run": "abc", "loss": "bac", "lowest": "bac", "share": "bac", "steps": "acb", "speed": "bac"}
    for key, order in expected.items():
        assert "".join(names(sort_runs(runs, LOSS, key))) == order, key  # type: ignore[arg-type]
    assert set(get_args(Sort)) == {*expected, "date"}


def test_the_share_of_the_mean_frame_is_the_reconstructions_whatever_is_compared(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run", [0.25]))
    assert sum_up(run, LOSS).share == 0.5
    row = sum_up(run, "time/steps_per_second")
    assert (row.loss, row.share) == (10.0, 0.5)


def test_settings_that_differ_are_told_with_their_values(tmp_path: Path) -> None:
    runs = [
        read_run(make_run(tmp_path / "x" / "base")),
        read_run(make_run(tmp_path / "x" / "wide", width=8, data={"clips": 10, "order_key": "z" * 64})),
        read_run(make_run(tmp_path / "y", beta=0.5)),
    ]
    assert differences(runs) == {
        "width": [64, 8, 64],
        "beta": [0.1, 0.1, 0.5],
        "data.order_key": ["k" * 64, "z" * 64, "k" * 64],
        "data.clips": [9, 10, 9],
    }
    assert differences(runs[:1]) == differences([runs[0], runs[0]]) == {}
    assert short_names(runs) == ["x/base", "x/wide", "y"]
    assert legend(runs)[1] == "x/wide (width 8, beta 0.1, data.clips 10)"
    assert legend(runs, most=1)[2] == "y (width 64, 2 more)"
    assert legend(runs[:1]) == ["base"]


def test_a_metric_that_no_run_has_is_refused_with_those_there_are(tmp_path: Path) -> None:
    runs = [read_run(make_run(tmp_path / "a", [1.0])), read_run(make_run(tmp_path / "b"))]
    assert names(with_metric(runs, LOSS)) == ["a"]
    with pytest.raises(DataError, match="'loss/recon' is in none of these runs; there are baseline/mean_frame, loss/"):
        with_metric(runs, "loss/recon")


curves = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(curves, st.floats(0.1, 1e4))
def test_smoothing_stays_between_the_extremes(values: list[float], width: float) -> None:
    curve = Curve(np.arange(1.0, len(values) + 1), np.array(values))
    found = smooth(curve, width)
    assert found.values.min() >= min(values) - 1e-9
    assert found.values.max() <= max(values) + 1e-9
    assert smooth(curve, 0).values.tolist() == values
    raised = smooth(Curve(curve.steps, 10 ** (curve.values / 1e3)), width, geometric=True)
    assert np.log10(raised.values) * 1e3 == pytest.approx(found.values, abs=1e-6)


def test_smoothing_does_not_lag_and_takes_noise_away() -> None:
    steps = np.arange(0.0, 1000, 5)
    noise = np.where(np.arange(200) % 2, 1.0, -1.0)
    found = smooth(Curve(steps, steps + 30 * noise), 40)
    assert np.abs(found.values - steps)[40:-40].max() < 0.5


def test_a_long_curve_is_thinned_to_what_a_picture_shows() -> None:
    found = smooth(Curve(np.arange(10_001.0), np.arange(10_001.0)), 100)
    assert len(found.steps) == len(found.values) <= 2000
    assert found.values[1000] == pytest.approx(found.steps[1000], abs=10)


def test_every_run_has_its_curve_in_the_picture(tmp_path: Path) -> None:
    runs = [read_run(make_run(tmp_path / f"_{n}$", [1.0 + n, 0.5 + n, 0.3 + n], seed=n)) for n in range(3)]
    save_comparison(tmp_path / "c.png", runs, LOSS)
    with Image.open(tmp_path / "c.png") as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert image.width > 600
    for number, colour in enumerate(COLOURS[:4]):
        wanted = np.rint(np.array(to_rgb(colour)) * 255)
        drawn = int((np.abs(pixels - wanted).max(1) < 8).sum())
        assert (drawn > 200) == (number < 3), colour


def test_the_same_runs_give_the_same_drawing(tmp_path: Path) -> None:
    runs = [read_run(make_run(tmp_path / f"_{n}$x$", [1.0, 0.01], seed=n)) for n in range(2)]
    for name in ("a.svg", "b.svg"):
        save_comparison(tmp_path / name, runs, LOSS, width=0)
    drawing = (tmp_path / "a.svg").read_text()
    assert drawing == (tmp_path / "b.svg").read_text()
    assert all(f"_{n}$x$ (seed {n}) -->" in drawing for n in range(2))  # matplotlib's comment beside each text
    assert "as logged" in drawing


def test_an_axis_that_cannot_show_the_values_is_refused(tmp_path: Path) -> None:
    runs = [read_run(make_run(tmp_path / "a", [1.0, 0.0, -1.0]))]
    with pytest.raises(DataError, match="a logarithmic axis shows no values of 0 or less"):
        save_comparison(tmp_path / "c.svg", runs, LOSS, scale="log")
    for width in (-1.0, float("nan"), float("inf")):
        with pytest.raises(DataError, match=r"smoothing -?(1|nan|inf) is not allowed; it must be 0 or more steps"):
            save_comparison(tmp_path / "c.svg", runs, LOSS, width)
    save_comparison(tmp_path / "c.svg", runs, LOSS)
    assert [path.name for path in tmp_path.glob("c.*")] == ["c.svg"]


def test_a_logarithmic_axis_has_plain_numbers(tmp_path: Path) -> None:
    runs = [read_run(make_run(tmp_path / "a", [1.0, 0.3, 0.06]))]
    ticks = {}
    for scale in ("auto", "log", "linear"):
        save_comparison(tmp_path / "c.svg", runs, LOSS, 0, scale)  # type: ignore[arg-type]
        text = (tmp_path / "c.svg").read_text()
        ticks[scale] = [value for value in ("0.1", "0.2", "0.5") if f"<!-- {value} -->" in text]
    assert ticks == {"auto": ["0.1", "0.2", "0.5"], "log": ["0.1", "0.2", "0.5"], "linear": ["0.2"]}
