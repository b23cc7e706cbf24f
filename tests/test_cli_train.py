"""`drnet train`, `export-features` and `probe`: whole processes, their signals, and one line for every mistake."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drnet.pipelines.export import load_features
from drnet.pipelines.run import latest_checkpoint, read_metrics
from drnet.presets import PRESETS

ROOT = Path(__file__).parents[1]
STEPS = 150
WORDS = ["--width", "4", "--batch-size", "8", "--device", "cpu", "--log-every", "1", "--checkpoint-every", "7"]


def drnet(*words: object) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-W", "error", "-m", "drnet", *map(str, words)]
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def until_step(run: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Wait until a process has logged a step."""
    deadline = time.monotonic() + 100
    while process.poll() is None and time.monotonic() < deadline:
        lines = (run / "metrics.jsonl").read_text().count("\n") if (run / "metrics.jsonl").exists() else 0
        if lines >= step:
            return
        time.sleep(0.01)
    pytest.fail(f"step {step} did not come: {process.communicate()}")


def without_time(run: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in read_metrics(run)]


def test_a_process_that_is_stopped_by_signals_ends_with_the_same_bits(
    digits: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    train = ["train", "--shards", digits, "--steps", STEPS, *WORDS, "--out"]
    run, expected = tmp_path / "run", tmp_path / "expected"
    at = 0
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        process = drnet(*train, run)
        until_step(run, at + 3, process)
        process.send_signal(number)
        found, _, err = ended(process)
        checkpoint = latest_checkpoint(run)
        assert found == code
        assert "Traceback" not in err
        assert f"stopped at step {checkpoint.step}; the same command continues" in err
        assert at + 3 <= checkpoint.step == len(read_metrics(run)) < STEPS  # not only where --checkpoint-every says
        at = checkpoint.step
    found = command(*train, run)
    assert (found.code, found.out.splitlines()[0]) == (0, f"{STEPS} steps: {run}/checkpoints/00000{STEPS}")
    assert found.out.splitlines()[1].startswith("last losses: reconstruction 0.")
    assert found.out.splitlines()[2] == f"next: drnet export-features {run} --shards {digits} --out features.h5"

    assert command(*train, expected).code == 0
    one, other = latest_checkpoint(run), latest_checkpoint(expected)
    assert (one.step, one.sha256, one.trainer_sha256) == (STEPS, other.sha256, other.trainer_sha256)
    assert without_time(run) == without_time(expected)


def test_features_are_exported_and_probed_by_processes(trained: Path, digits: Path, tmp_path: Path) -> None:
    path, scores = tmp_path / "f.h5", tmp_path / "probe.json"
    code, out, err = ended(drnet("export-features", trained, "--shards", digits, "--out", path))
    assert (code, out.splitlines()) == (0, [f"48 train, 16 test clips: {path}", f"next: drnet probe {path}"]), err
    assert load_features(path).content.shape == (64, 8, 128)
    code, out, err = ended(drnet("probe", path, "--out", scores, "--json"))
    assert code == 0, err
    assert json.loads(out) == json.loads(scores.read_text())
    assert set(json.loads(out)["labels"]) >= {"digit_red", "x_red", "vy_green", "front"}


def test_a_probe_is_shown_as_a_table_with_what_was_left_out(
    trained: Path, digits: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    assert command("export-features", trained, "--shards", digits, "--out", tmp_path / "f.h5").code == 0
    shown = command("probe", tmp_path / "f.h5")
    assert shown.code == 0
    for text in ("digit_red", "accuracy", "pose MLP", "48 train clips", "index_red: not probed, it is a name"):
        assert text in shown.out


def test_a_finished_run_says_so_and_a_larger_step_trains_on(
    trained: Path, digits: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    train = ["train", "--shards", digits, "--out", run, *WORDS[:6], "--steps"]
    assert "has 6 steps already; a larger --steps trains on" in command(*train, 6).out
    assert "8 steps: " in command(*train, 8).out


WRONG: dict[str, tuple[list[object], str]] = {
    "pose dim": (["--pose-dim", 0], "pose_dim 0 is not allowed; it must be at least 1"),
    "batch size": (["--batch-size", 1], "batch_size 1 is not allowed; it must be at least 2"),
    "learning rate": (["--lr", 0], "lr 0.0 is not allowed; it must be above 0"),
    "not a number": (["--beta", "nan"], "beta nan is not allowed; it must be 0 or more"),
    "steps": (["--steps", 0], "steps 0 is not allowed; it must be at least 1"),
    "preset": (["--preset", "mnits"], "preset 'mnits' is not known (did you mean 'mnist'?); there are mnist, "),
    "device": (["--device", "toaster"], "device 'toaster' is not known; supported are auto, cpu, cuda and cuda:N"),
    "no GPU": (["--device", "cuda"], "device 'cuda' is not at hand: PyTorch sees no CUDA GPU; use --device cpu"),
    "precision": (["--precision", "fp8"], "precision 'fp8' is not allowed; supported are fp32, tf32 and bf16"),
    "log every": (["--log-every", 0], "log_every 0 is not allowed; it must be at least 1"),
    "explodes": (["--lr", 1e20, "--steps", 30, "--log-every", 1], "try a lower --lr, or --clip-norm 1; th"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_value_is_one_line_and_exit_1(
    case: str, digits: Path, tmp_path: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    words, said = WRONG[case]
    found = command("train", "--shards", digits, "--out", tmp_path / "run", *WORDS[:4], *words)
    lines = [line for line in found.err.splitlines() if line.startswith("drnet: error: ")]
    assert found.code == 1
    assert len(lines) == 1
    assert said in lines[0]
    assert "Traceback" not in found.err
    assert found.out == ""


def test_shards_that_are_not_there_and_frames_that_do_not_fit_are_one_line(
    trained: Path, digits: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    out = tmp_path / "f.h5"
    cases = [
        (["train", "--shards", tmp_path / "none", "--out", tmp_path / "run"], "no such folder"),
        (["train", "--shards", digits / "train-{000..001}.tar", "--out", tmp_path / "run"], "missing train-000.tar"),
        (["train", "--shards", digits, "--out", digits, *WORDS], "is a data set, which --shards takes"),
        (["train", "--shards", digits, "--out", trained, *WORDS, "--seed", 5], "was started with train.seed 0, not 5"),
        (["export-features", tmp_path, "--shards", digits, "--out", out], "no run here"),
        (["export-features", trained, "--shards", tmp_path / "none", "--out", out], "no such folder"),
        (["probe", out], "no such file; `drnet export-features"),
        (["probe", digits / "manifest.json"], "is a file of the data set"),
        (
            ["probe", out, "--out", digits / "train-000000.tar"],
            ".tar is not allowed here; name a file that ends in .json",
        ),
        (["export-features", trained, "--shards", digits, "--out", tmp_path], "a folder is not allowed here"),
    ]
    for words, said in cases:
        found = command(*words)
        assert found.code == 1, words
        assert len(found.err.splitlines()) == 1, found.err
        assert said in found.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [["train"], ["train", "--shards", "x"], ["train", "--stepz", 1], ["train", "--steps", "many"], ["probe"], ["fly"]],
    ids=str,
)
def test_wrong_usage_is_exit_2(words: list[object], command: Callable[..., Any]) -> None:
    found = command(*words)
    assert found.code == 2
    assert "Usage" in found.err
    assert "Traceback" not in found.err


def test_help_names_every_preset_and_shows_examples(command: Callable[..., Any]) -> None:
    for words in (["train"], ["export-features"], ["probe"]):
        found = command(*words, "--help")
        assert found.code == 0
        assert "Example: drnet " in found.out
    text = "".join(command("train", "--help").out.split())  # a long name may be broken at its hyphens
    assert all(name in text for name in PRESETS)
