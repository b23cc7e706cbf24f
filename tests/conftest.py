"""Shared by all tests: one thread for each process, and no look at the user's own cache."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point drnet's cache to an empty folder."""
    monkeypatch.setenv("DRNET_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
