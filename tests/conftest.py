"""Shared by all tests: one thread for each process, no look at the user's own cache, and small data to work on."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

TINY: dict[str, Any] = {"width": 4, "batch_size": 8}  # settings of a model that trains 30 steps a second


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point drnet's cache to an empty folder."""
    monkeypatch.setenv("DRNET_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of bouncing digits, 48 train and 16 test clips of 8 frames of 32x32, raw, 8 clips a shard; read only."""
    from drnet.datasets.mnist import BouncingDigits
    from drnet.pipelines.build import build, plan_build

    folder = tmp_path_factory.mktemp("digits") / "data"
    build(plan_build(BouncingDigits("optdigits", clips=48, test_clips=16, frames=8, size=32), "raw", 8), folder)
    return folder


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    """Settings of a very small model, by field name."""
    return dict(TINY)


@pytest.fixture(scope="session")
def trained(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a very small model after six steps; read only."""
    from drnet.pipelines.train import Logging, train

    run = tmp_path_factory.mktemp("trained") / "run"
    train(digits, run, steps=6, overrides=TINY, device="cpu", logging=Logging(2, 3, 3))
    return run


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The folder of two experiments in miniature and what their call returned; KTH was not at hand; read only."""
    from small_reproduction import miniature, run

    out = tmp_path_factory.mktemp("reproduced") / "results"
    with miniature(tmp_path_factory.mktemp("cache")):
        return out, run(out, "fig3", "table1", "fig7")


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """Run `drnet` with some words, in this process, and return how it ended."""
    from drnet.cli.main import run

    def call(*words: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["drnet", *map(str, words)])
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        capsys.readouterr()
        code = 0
        try:
            run()
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return Ended(code, *capsys.readouterr())

    return call
