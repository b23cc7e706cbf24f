"""Several processes train one model: as one process would, on the same batches in the same order.

The processes are real ones that talk by gloo on this machine.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from drnet.datasets.contract import DataError
from drnet.parallel import averaged, gathered
from drnet.pipelines.plan import Plan, share_of
from drnet.pipelines.run import latest_checkpoint, read_metrics
from drnet.pipelines.source import open_shards
from drnet.pipelines.training.processes import ALONE, first_host, launched, together

FROZEN = """
import os
import sys
from pathlib import Path
from torch import nn
from drnet.pipelines.train import train
from drnet.pipelines.training.loop import Logging

# BatchNorm as in evaluation: what a process computes of its clips then depends on no other clip.
kept = nn.modules.batchnorm._BatchNorm.train
nn.modules.batchnorm._BatchNorm.train = lambda self, mode=True: kept(self, False)
shards, folder = sys.argv[1:]
for negatives, similarity in (("shift", "whitened"), ("other-content", "mean")):
    settings = {"width": 4, "batch_size": 8, "negatives": negatives, "similarity": similarity}
    run = Path(folder, f"{negatives}-{os.environ['WORLD_SIZE']}")
    train(shards, run, steps=6, overrides=settings, device="cpu", logging=Logging(1, 6, 6))
"""


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def started(words: list[str], count: int) -> list[subprocess.Popen[str]]:
    """Start some processes of one command as torchrun does."""
    return started_each([words] * count)


def started_each(commands: list[list[str]]) -> list[subprocess.Popen[str]]:
    """Start processes that train together, each by its own command."""
    count, port = str(len(commands)), str(free_port())
    shared = {"WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    return [
        subprocess.Popen(
            words,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, words in enumerate(commands)
    ]


def ended(processes: list[subprocess.Popen[str]], code: int = 0) -> list[tuple[str, str]]:
    """Wait for processes, and return what each wrote."""
    texts = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [code] * len(processes), texts
    return texts


def curves(run: Path) -> dict[str, list[float]]:
    lines = read_metrics(run)
    names = ("loss/reconstruction", "loss/similarity", "loss/adversarial", "discriminator/bce")
    return {name: [line[name] for line in lines if name in line] for name in names}


@pytest.fixture(scope="module")
def runs(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    """Runs of one and of two processes, by (negatives, processes)."""
    folder = tmp_path_factory.mktemp("parallel")
    words = [sys.executable, "-c", FROZEN, str(digits), str(folder)]
    for count in (1, 2):
        ended(started(words, count))
    return {(name, count): folder / f"{name}-{count}" for name in ("shift", "other-content") for count in (1, 2)}


@pytest.mark.parametrize("negatives", ["shift", "other-content"])
def test_two_processes_have_the_loss_curve_of_one(runs: dict[tuple[str, int], Path], negatives: str) -> None:
    one, two = curves(runs[negatives, 1]), curves(runs[negatives, 2])
    for name, values in one.items():
        assert len(values) == 6
        assert two[name] == pytest.approx(values, rel=2e-4), name
    assert len(set(one["loss/reconstruction"])) == 6  # it does train


@pytest.fixture
def train_words(digits: Path, tmp_path: Path) -> list[str]:
    words = [sys.executable, "-m", "drnet", "train", "--shards", str(digits), "--out", str(tmp_path / "run")]
    return [*words, "--width", "4", "--batch-size", "8", "--device", "cpu", "--log-every", "2"]


def test_only_the_first_process_writes_and_prints_and_one_process_goes_on(
    train_words: list[str], tmp_path: Path
) -> None:
    (out, _), (other_out, other_err) = ended(started([*train_words, "--steps", "4"], 2))
    assert "4 steps: " in out
    assert (other_out, other_err) == ("", "")
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == [2, 4]
    ended(started([*train_words, "--steps", "6"], 1))
    checkpoint = latest_checkpoint(tmp_path / "run")
    assert checkpoint is not None
    assert checkpoint.step == 6


def test_a_signal_to_one_process_stops_all_with_a_checkpoint(train_words: list[str], tmp_path: Path) -> None:
    processes = started([*train_words, "--steps", "100000"], 2)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    texts = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [143, 143], texts
    state = json.loads((latest_checkpoint(tmp_path / "run").folder / "state.json").read_text())  # type: ignore[union-attr]
    assert 0 < state["step"] < 100000


def test_a_batch_that_cannot_be_divided_is_refused_in_one_line_and_leaves_nothing(
    train_words: list[str], tmp_path: Path
) -> None:
    processes = started([*train_words, "--steps", "4", "--batch-size", "7"], 2)
    for _, err in ended(processes, code=1):
        assert "batch size 7 is not allowed with 2 processes; it must be a multiple" in err
    assert not (tmp_path / "run").exists()


def test_processes_that_were_started_with_other_settings_leave_nothing(train_words: list[str], tmp_path: Path) -> None:
    words = [*train_words, "--steps", "4"]
    for _, err in ended(started_each([words, [*words, "--lr", "0.5"]]), code=1):
        assert "the processes differ in their shards, settings or last checkpoint" in err
    assert not (tmp_path / "run").exists()


def damage(folder: Path, clip: int) -> None:
    """Flip a bit of every frame of a clip."""
    shard, index = open_shards(folder).locate(clip)
    data = bytearray(shard.path.read_bytes())
    start, size = shard.sidecar.samples[index].frames
    for place in range(start + 200, start + size, 256):
        data[place] ^= 1
    shard.path.write_bytes(data)


def test_damaged_clips_are_left_out_by_several_processes_and_an_error_of_one_ends_all_in_a_line(
    train_words: list[str], digits: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(digits, tmp_path / "copy"))
    damage(copy, 0)
    words = [str(copy) if word == str(digits) else word for word in train_words]
    ended(started([*words, "--steps", "6", "--max-skipped", "1"], 2))
    other = [*words, "--steps", "6", "--out", str(tmp_path / "other")]
    texts = sorted(err for _, err in ended(started(other, 2), code=1))
    last = [err.splitlines()[-1] for err in texts]
    assert sum("is damaged" in line for line in last) == 1
    assert sum("ends, since another one did, whose message says why" in line for line in last) == 1
    assert not any("Traceback" in err for err in texts)


def test_the_budget_of_clips_left_out_is_that_of_all_processes_together(
    train_words: list[str], digits: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(digits, tmp_path / "copy"))
    shards = open_shards(copy)
    first = Plan(shards.order_key, 0, [place.clips for place in shards.places], 8).batch(0).clips
    for rank in (0, 1):
        damage(copy, int(first[share_of(8, rank, 2, 1)][0]))
    words = [str(copy) if word == str(digits) else word for word in train_words]
    for _, err in ended(started([*words, "--steps", "2", "--max-skipped", "1"], 2), code=1):  # each process has met one
        assert "2 of 48 clips could not be read, more than --max-skipped 1 allows; the first: " in err


def test_processes_that_see_other_run_folders_are_refused(train_words: list[str], tmp_path: Path) -> None:
    ended(started([*train_words, "--steps", "2"], 1))
    words = [*train_words, "--steps", "4"]
    for _, err in ended(started_each([words, [*words, "--out", str(tmp_path / "elsewhere")]]), code=1):
        assert "the processes differ in their shards, settings or last checkpoint" in err


def test_one_process_is_joined_with_nothing() -> None:
    with together("cpu") as processes:
        assert processes is ALONE
    assert ALONE.any(True)
    assert not ALONE.any(False)
    assert ALONE.same(b"x")
    assert ALONE.union([3, 1, 3]) == {1, 3}
    rows = torch.ones(2, 3)
    assert gathered(rows) is rows
    assert averaged({"a": 1.0}, torch.device("cpu")) == {"a": 1.0}


def test_torchrun_and_slurm_are_understood_and_a_batch_script_is_one_process() -> None:
    torchrun = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
    assert launched({**torchrun, "SLURM_STEP_NUM_TASKS": "9", "HOME": "/"}) == torchrun
    slurm = {
        "SLURM_JOB_ID": "12345",
        "SLURM_PROCID": "5",
        "SLURM_LOCALID": "1",
        "SLURM_NTASKS": "8",
        "SLURM_STEP_NUM_TASKS": "8",
        "SLURM_STEP_NODELIST": "gpu[003-004]",
    }
    found = launched(slurm)
    assert (found["RANK"], found["WORLD_SIZE"], found["LOCAL_RANK"]) == ("5", "8", "1")
    assert (found["MASTER_ADDR"], found["MASTER_PORT"]) == ("gpu003", "32345")
    assert launched({"SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "8"}) == {}
    with pytest.raises(DataError, match="RANK is set and MASTER_PORT is not; start the processes with torchrun"):
        launched({name: value for name, value in torchrun.items() if name != "MASTER_PORT"})


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("gpu1", "gpu1"),
        ("gpu1,gpu2", "gpu1"),
        ("gpu[003-007,012],login1", "gpu003"),
        ("a-[7,9]-ib", "a-7-ib"),
        ("node-12.cluster", "node-12.cluster"),
    ],
)
def test_the_first_host_of_slurms_lists(hosts: str, first: str) -> None:
    assert first_host(hosts) == first
