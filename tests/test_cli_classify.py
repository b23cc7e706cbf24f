"""`drnet classify`: what it prints and writes, and one line for every mistake."""

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from planted_features import planted, write_features

from drnet.classifier import ClassifierConfig
from drnet.cli.classify import named_files, numbers_of, references_of

QUICK = ("--hidden", "8", "--label", "action", "--device", "cpu", "--window", "4")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let networks train for few steps: the planted facts need no more."""
    quick = functools.partial(ClassifierConfig, most_steps=60, check_every=20)
    monkeypatch.setattr("drnet.pipelines.evaluation.classify.ClassifierConfig", quick)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two features files of the same clips: `drnet.h5`, and `ae.h5` whose code tells less."""
    folder = tmp_path_factory.mktemp("features")
    features = planted()
    write_features(folder / "drnet.h5", features)
    noisy = features.content + np.random.default_rng(3).normal(size=features.content.shape).astype(np.float32)
    write_features(folder / "ae.h5", replace(features, content=features.content[..., :0], pose=noisy))
    return folder


def test_it_prints_tables_and_writes_json_and_pictures(
    files: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    out = tmp_path / "new" / "c.json"
    ended = command("classify", files / "drnet.h5", *QUICK, "--seeds", 2, "--out", out)
    assert ended.code == 0, ended.err
    assert "drnet: action from content, accuracy on 60 test rows (mean of 2 seeds, each in brackets)" in ended.out
    assert "told walk" in ended.out
    assert ended.out.splitlines()[-2:] == [f"wrote {out}", f"wrote {tmp_path}/new/c-confusion.png"]
    found = json.loads(out.read_text())["results"]["drnet"]
    assert found["points"][0]["logistic"]["mean"] > 0.9
    assert f"{100 * found['points'][0]['logistic']['mean']:.1f}%" in ended.out
    with Image.open(out.with_name("c-confusion.png")) as picture:
        assert picture.width > 300


def test_several_files_and_numbers_of_persons_are_compared_in_one_curve(
    files: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    out = tmp_path / "c.json"
    ended = command(
        "classify", f"DrNet={files}/drnet.h5", f"autoencoder 24={files}/ae.h5", *QUICK, "--features", "both",
        "--persons", "1,3", "--draws", 2, "--reference", "supervised=93.9", "--out", out,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    names = ["c.json", "c-confusion-1.png", "c-confusion-2.png", "c-curve.png"]
    assert [line.rpartition("/")[2] for line in ended.out.splitlines()[-4:]] == names
    found = json.loads(out.read_text())
    assert list(found["results"]) == ["DrNet", "autoencoder 24"]
    assert found["references"] == {"supervised": 93.9}
    for row in found["results"].values():
        assert [point["groups"] for point in row["points"]] == [1, 3]
        assert len(row["points"][0]["network"]["values"]) == 2


def test_json_for_programs_is_all_that_is_printed(files: Path, command: Callable[..., Any]) -> None:
    ended = command("classify", files / "drnet.h5", *QUICK, "--seeds", 1, "--json")
    assert json.loads(ended.out)["drnet"]["label"] == "action"


def test_another_file_is_scored(files: Path, tmp_path: Path, command: Callable[..., Any]) -> None:
    other = write_features(tmp_path / "other.h5", planted(36, seed=5))
    ended = command("classify", files / "drnet.h5", *QUICK, "--seeds", 1, "--test", other)
    assert "accuracy on 18 test rows" in ended.out
    assert ended.out.splitlines()[-1] == "next: the same with --out classify.json writes figures and pictures"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--label", "acton"],
            "drnet.h5: label 'acton' is not in the features (did you mean 'action'?); categories are",
        ),
        (["--label", "height"], "label 'height' is a number, and only categories can be told apart"),
        (
            ["--features", "poze"],
            "features 'poze' is not allowed (did you mean 'pose'?); it must be 'content', 'pose' or 'both'",
        ),
        (
            ["--persons", "1..9"],
            "persons 9 is not allowed: 'person' has 6 values in the train clips, less 1 held out",
        ),
        (["--persons", "none"], "persons 'none' is not allowed; give numbers from 1 to 1000, such as 1-12 or 1,2,4"),
        (["--window", "40"], "window 40 is longer than every clip; the longest has 6 frames"),
        (["--reference", "93.9"], "reference '93.9' is not allowed; it must be NAME=PERCENT"),
        (["--out", "c.png"], "c.png: .png is not allowed here; name a file that ends in .json"),
        (["--test", "missing.h5"], "missing.h5: missing; `drnet export-features"),
        (["--group", "persn"], "group 'persn' is not in the features (did you mean 'person'?)"),
    ],
)
def test_a_mistake_is_one_line(files: Path, command: Callable[..., Any], words: list[str], message: str) -> None:
    ended = command("classify", files / "drnet.h5", *QUICK, *words)
    assert ended.code == 1
    assert message in ended.err
    assert len(ended.err.strip().splitlines()) == 1


def test_two_files_have_two_names_and_no_test_file(files: Path, command: Callable[..., Any]) -> None:
    twice = command("classify", files / "drnet.h5", files / "drnet.h5", *QUICK)
    assert "the name 'drnet' is not allowed twice or empty; give each file its own: NAME=" in twice.err
    tested = command("classify", files / "drnet.h5", files / "ae.h5", *QUICK, "--test", files / "ae.h5")
    assert "is not allowed with 2 files; classify them one at a time" in tested.err


def test_files_are_named_by_their_stem_or_as_said(tmp_path: Path) -> None:
    for name in ("a.h5", "b=c.h5"):
        (tmp_path / name).touch()
    found = named_files([f"{tmp_path}/a.h5", f"{tmp_path}/b=c.h5", f"the same={tmp_path}/a.h5"])
    assert found == {"a": tmp_path / "a.h5", "b=c": tmp_path / "b=c.h5", "the same": tmp_path / "a.h5"}
    with pytest.raises(ValueError, match="no such file; `drnet export-features RUN --shards S --out"):
        named_files(["x=nothing.h5"])


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("1-3", (1, 2, 3)), ("1..3", (1, 2, 3)), ("12", (12,)), ("1, 2,4 - 5", (1, 2, 4, 5)), ("3,1-3", (1, 2, 3))],
)
def test_numbers_are_read_from_ranges_and_lists(text: str, numbers: tuple[int, ...]) -> None:
    assert numbers_of(text) == numbers


@pytest.mark.parametrize("text", ["", "0", "3-1", "1-", "a", "1,,2", "1-2-3", "1001"])
def test_numbers_that_are_not_understood_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"persons '{text}' is not allowed"):
        numbers_of(text)


def test_references_are_names_and_percents() -> None:
    assert references_of(["fully supervised=93.9", "a=b=1"]) == {"fully supervised": 93.9, "a=b": 1.0}
    for text in ("=3", "x=", "x=nan", "x=101"):
        with pytest.raises(ValueError, match="is not allowed; it must be NAME=PERCENT"):
            references_of([text])
