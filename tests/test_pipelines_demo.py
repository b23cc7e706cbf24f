"""The demo: from nothing to a page, in miniature."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drnet.datasets.contract import DataError
from drnet.pipelines.looking.demo import DemoReport, choose_example, demo
from drnet.pipelines.looking.swaps import SwapErrors
from drnet.pipelines.source import open_shards


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DemoReport]:
    out = tmp_path_factory.mktemp("demo") / "demo"
    return out, demo(out, "digits", clips=24, steps=2, workers=1)


def test_the_page_shows_every_picture_that_was_made(made: tuple[Path, DemoReport]) -> None:
    out, report = made
    assert report.errors is not None
    text = report.page.read_text()
    sources = re.findall(r'<img src="([^"]+)"', text)
    assert sources == ["swap.png", "driven.gif", "losses.png", "discriminator.png"]
    for source in sources:
        with Image.open(out / source) as image:
            image.load()
            assert np.asarray(image.convert("L")).std() > 0
    assert 'src="http' not in text
    assert "<script" not in text


def test_the_page_has_the_numbers_of_the_run(made: tuple[Path, DemoReport]) -> None:
    out, report = made
    text = report.page.read_text()
    swap = json.loads((out / "swap.json").read_text())
    assert f"{swap['other_pose']:.4f}" in text
    assert report.errors == SwapErrors(**swap)
    probed = json.loads((out / "probe.json").read_text())
    assert all(f"<td>{name}</td>" in text for name in probed["labels"])


def test_the_demo_run_again_continues_and_changes_nothing(made: tuple[Path, DemoReport]) -> None:
    out, first = made
    weights = (out / "run" / "checkpoints" / "00000002" / "model.safetensors").read_bytes()
    again = demo(out, "digits", clips=24, steps=2, workers=1)
    assert again.errors == first.errors
    assert (out / "run" / "checkpoints" / "00000002" / "model.safetensors").read_bytes() == weights


def test_a_stopped_demo_writes_no_page(tmp_path: Path) -> None:
    @contextmanager
    def stopped() -> Iterator[threading.Event]:
        event = threading.Event()
        event.set()
        yield event

    report = demo(tmp_path / "demo", "digits", clips=24, steps=3, workers=1, stoppable=stopped)
    assert report.errors is None
    assert not (tmp_path / "demo" / "index.html").exists()


def test_the_commands_on_the_page_build_the_same_data(made: tuple[Path, DemoReport]) -> None:
    out, _ = made
    example = choose_example("digits", 24, 2)
    assert f"drnet data build {example.build_words} --out" in (out / "index.html").read_text()
    assert open_shards(out / "data", ["test"]).manifest.clips("test") == example.data.count("test")  # type: ignore[union-attr]


def test_unknown_data_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(
        ValueError, match=r"'cats' is not known \(did you mean 'chairs'\?\); supported are auto, chairs and digits"
    ):
        choose_example("cats", None, None)


def test_without_pybullet_the_demo_takes_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drnet.pipelines.looking.demo.importlib.util.find_spec", lambda name: None)
    assert choose_example("auto", 8, 1).preset == "mnist-small"
    monkeypatch.undo()
    chairs = choose_example("chairs", 8, 1)
    assert chairs.preset == "chairs-small"
    assert chairs.data.count("test") == 2  # a swap takes two


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"holds other files \(notes\.txt\)"):
        demo(tmp_path, "digits", clips=24, steps=1)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
