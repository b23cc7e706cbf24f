"""Builds that are killed at random points end up byte-identical; and the bench that shows it finds what it must."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from drnet.pipelines.measuring.faults import bench_faults, contents, stamps

ROOT = Path(__file__).parent.parent
BUILD = ["data", "build", "mnist", "--source", "optdigits", "--clips", "160", "--frames", "6", "--size", "16"]
KILLS = 12

SCRIPT = """
import random, sys
from contextlib import contextmanager
from pathlib import Path
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines import build, files
from drnet.pipelines.measuring import faults
from drnet.pipelines.building import jobs
from drnet.pipelines.shards import shard
from drnet.pipelines.building import workers

@contextmanager
def open_now(path, keep_same=False):
    with path.open("wb") as file:
        yield file

{broken}
plan = build.plan_build(BouncingDigits("optdigits", clips=60, test_clips=6, frames=4, size=16), "raw", 3)
found = faults.Trials(plan, Path(sys.argv[1]), random.Random(0)).run(12, lambda count: None)
print(found.{what})
"""
BROKEN = {  # what the bench must count, and a way to break the product that gives it something to count
    "rewritten": "jobs.done_shard = lambda tar, build: None",
    "different": "shard.whole_file = open_now",
    "strays": "build.remove_temporaries = build.refuse_other_build = lambda *_: None",
    "orphans": "workers._end_with_the_parent, faults.ORPHANS_END = dict, 0.3",
}


def command(out: Path, workers: int) -> list[str]:
    options = ["--codec", "raw", "--clips-per-shard", "2", "--workers", str(workers), "--out", str(out)]
    return [sys.executable, "-m", "drnet", *BUILD, *options]


def test_a_real_build_killed_at_twelve_random_points_ends_up_the_same(tmp_path: Path) -> None:
    draw = random.Random(7)
    began = time.monotonic()
    subprocess.run(command(tmp_path / "whole", 1), cwd=ROOT, check=True, capture_output=True)
    lasts = time.monotonic() - began
    out, whole = tmp_path / "out", contents(tmp_path / "whole")
    for number in range(KILLS):
        before = stamps(out)
        with subprocess.Popen(
            command(out, 1 + number % 2), cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True
        ) as process:
            time.sleep(lasts * draw.uniform(0.3, 1.0))
            (os.killpg if number % 3 == 0 else os.kill)(process.pid, signal.SIGKILL)
        after = stamps(out)
        assert before.items() <= after.items(), "a finished shard was written again"
        assert all((out / name).read_bytes() == whole[name] for name in after)
    kept = stamps(out)
    subprocess.run(command(out, 1), cwd=ROOT, check=True, capture_output=True)
    assert contents(out) == whole
    assert kept.items() <= stamps(out).items()


def test_builds_hurt_in_every_way_end_up_the_same(tmp_path: Path) -> None:
    found = bench_faults(kills=30, seed=1, folder=tmp_path)
    assert (found["killed"], found["wrong"]) == (30, 0), found
    assert len(found["faults"]) == 6, "a kind of fault was never tried"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("what", BROKEN)
def test_the_bench_finds_a_build_that_is_broken(what: str, tmp_path: Path) -> None:
    script = SCRIPT.format(broken=BROKEN[what], what=what)
    words = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
