"""One command for each data set, made from its class; and one's own data set, as the README shows it."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from typer.testing import CliRunner

from drnet.cli.main import app
from drnet.datasets.catalogue import BUILDERS
from drnet.datasets.contract import About, Clip, ItemMissing, Label, Setting, SourceFile, Split, Tell
from drnet.pipelines.shards.manifest import read_manifest
from drnet.pipelines.verify import verify_data

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


class Everything:
    """A data set with every type of setting.

    Example: drnet data build tests:Everything --out data/everything
    """

    about = About("everything", 1, "every type of setting", "MIT", "nobody", "number", "number")
    labels: Mapping[str, Label] = {"number": Label("number", unit="id")}

    def __init__(
        self,
        name: Annotated[str, Setting("Needed.", "NAME")],
        share: Annotated[float, Setting("A share.", "F")] = 0.5,
        most: Annotated[int | None, Setting("Perhaps a number.", "N")] = None,
        colour: Annotated[Literal["grey", "rgb"], Setting("One of two.")] = "grey",
        angles: Annotated[tuple[float, ...], Setting("Any number of them.", "DEGREES")] = (20.0,),
        deep: Annotated[bool, Setting("Yes or no.")] = False,
        hidden: int = 5,
    ) -> None:
        self.given = {"name": name, "share": share, "most": most, "colour": colour, "angles": list(angles)}
        self.given |= {"deep": deep, "hidden": hidden}

    def parameters(self) -> dict[str, Any]:
        return self.given

    def sources(self) -> list[SourceFile]:
        return []

    def frame_shape(self) -> tuple[int, int, int]:
        return 2, 2, 1

    def count(self, split: Split) -> int:
        return 3

    def item(self, split: Split, index: int) -> str:
        return f"{split}-{index}"

    def clips(self, split: Split, index: int) -> Iterator[Clip]:
        number = index + (3 if split == "test" else 0)
        yield Clip(f"{split}-{index}", np.zeros((2, 2, 2, 1), np.uint8), {"number": number})


class Remote(Everything):
    """A data set that has something to download."""

    def fetch_missing(self, tell: Tell | None = None) -> None:
        assert tell is not None
        tell("far.bin", 2_000, 9_000)
        tell("far.bin", 9_000, 9_000)


class Incomplete(Everything):
    """A data set whose source lacks items, which are rolls."""

    items_are = "rolls"

    def count(self, split: Split) -> int:
        return 9

    def missing_items(self, split: Split) -> list[str]:
        return [self.item(split, index) for index in range(1, 8)] if split == "train" else []

    def clips(self, split: Split, index: int) -> Iterator[Clip]:
        if self.item(split, index) in self.missing_items(split):
            raise ItemMissing("it is not in the source")
        number = index + (9 if split == "test" else 0)
        yield Clip(f"{split}-{index}", np.zeros((2, 2, 2, 1), np.uint8), {"number": number})


def own(name: str) -> str:
    """The name of a class of this file, for the command line."""
    return f"{__name__}:{name}"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or sys.modules[Everything.__module__])


@pytest.mark.parametrize("name", BUILDERS)
def test_every_data_set_has_a_command_with_help_and_an_example(name: str) -> None:
    result = CliRunner().invoke(app, ["data", "build", name, "--help"])
    assert result.exit_code == 0, result.output
    assert f"Example: drnet data build {name} " in " ".join(result.output.split())
    assert "Args:" not in result.output
    for option in ("--out DIR", "--limit N", "--workers N", "--dry-run"):
        assert option in result.output


def test_the_list_of_commands_names_every_data_set() -> None:
    shown = CliRunner().invoke(app, ["data", "build", "--help"]).output
    assert [name for name in BUILDERS if f"\n  {name} " not in shown] == []


def test_each_type_of_setting_becomes_an_option(here: None, command: Callable[..., Any], tmp_path: Path) -> None:
    given = [
        "--name",
        "x",
        "--share",
        ".25",
        "--most",
        "4",
        "--colour",
        "rgb",
        "--angles",
        1,
        "--angles",
        "2.5",
        "--deep",
    ]
    ended = command("data", "build", own("Everything"), "--out", tmp_path / "d", *given)
    assert ended.code == 0, ended.err
    wanted = {"name": "x", "share": 0.25, "most": 4, "colour": "rgb", "angles": [1, 2.5], "deep": True, "hidden": 5}
    assert read_manifest(tmp_path / "d").parameters == wanted


def test_settings_have_their_defaults(here: None, command: Callable[..., Any], tmp_path: Path) -> None:
    assert command("data", "build", own("Everything"), "--out", tmp_path / "d", "--name", "x").code == 0
    wanted = {"name": "x", "share": 0.5, "most": None, "colour": "grey", "angles": [20.0], "deep": False, "hidden": 5}
    assert read_manifest(tmp_path / "d").parameters == wanted


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--name", "x", "--colour", "blue"], "'blue' is not one of 'grey', 'rgb'"),
        (["--colour", "rgb"], "Missing option '--name'"),
        (["--name", "x", "--hidden", "3"], "No such option: --hidden"),
    ],
)
def test_wrong_usage_of_an_option_is_told_and_exits_with_2(
    here: None, command: Callable[..., Any], tmp_path: Path, words: list[str], said: str
) -> None:
    ended = command("data", "build", own("Everything"), "--out", tmp_path / "d", *words)
    assert ended.code == 2
    assert said in ended.err
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("option", ["--limit", "--workers", "--clips-per-shard"])
def test_a_number_that_is_not_allowed_is_repeated_with_what_is(
    here: None, command: Callable[..., Any], tmp_path: Path, option: str
) -> None:
    ended = command("data", "build", own("Everything"), "--out", tmp_path / "d", "--name", "x", option, "0")
    assert ended.code == 1
    name = option[2:].replace("-", " ")
    assert ended.err.strip() == f"drnet: error: {name} 0 is not allowed; it must be at least 1"
    assert not (tmp_path / "d").exists()


def test_an_unknown_data_set_is_wrong_usage_that_names_the_known_ones(command: Callable[..., Any]) -> None:
    ended = command("data", "build", "imagenet", "--out", "x")
    assert ended.code == 2
    assert "imagenet" in ended.err
    assert "mnist, norb, chairs" in " ".join(ended.err.split())


def test_a_limit_takes_the_first_items_of_each_split(here: None, command: Callable[..., Any], tmp_path: Path) -> None:
    ended = command("data", "build", own("Everything"), "--out", tmp_path / "d", "--name", "x", "--limit", 2)
    assert ended.out.splitlines()[:2] == [
        f"{split}: 2 clips, 4 frames; items: 2 written" for split in ("train", "test")
    ]
    assert read_manifest(tmp_path / "d").parameters["limit"] == 2
    other = command("data", "build", own("Everything"), "--out", tmp_path / "d", "--name", "x")
    assert other.code == 1
    assert "another build" in other.err


def test_the_data_set_of_the_readme_is_built_in_a_folder_of_its_own(tmp_path: Path) -> None:
    section = README.split("## Your own data set")[1].split("\n## ")[0]
    code = re.findall(r"```python\n(.*?)```", section, re.S)[0]
    (line,) = re.findall(r"^    (drnet data build \S+ .*)$", section, re.M)
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
    (tmp_path / "spirals.py").write_text(code)
    words = [sys.executable, "-m", "drnet", *line.split()[1:], "--workers", "2"]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    folder = tmp_path / words[words.index("--out") + 1]
    assert verify_data(folder)[0] == []
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["splits"]["train"]["clips"] > 0
    assert manifest["accounting"]["train"]["written"] == manifest["splits"]["train"]["clips"]


def test_what_a_build_downloads_is_shown_before_it_begins(
    here: None, command: Callable[..., Any], tmp_path: Path
) -> None:
    ended = command("data", "build", own("Remote"), "--out", tmp_path / "d", "--name", "x")
    assert ended.code == 0, ended.err
    lines = ended.err.splitlines()
    assert lines[0].startswith("far.bin: 9/9 kB in ")
    assert lines[1].startswith("building everything: ")


@pytest.mark.parametrize(("limit", "missing"), [(None, (7, 9)), (3, (2, 3))])
def test_a_dry_run_says_what_the_source_lacks_as_the_build_then_counts_it(
    here: None, command: Callable[..., Any], tmp_path: Path, limit: int | None, missing: tuple[int, int]
) -> None:
    words = ["--name", "x", "--out", tmp_path / "d", *([] if limit is None else ["--limit", limit])]
    ended = command("data", "build", own("Incomplete"), *words, "--dry-run")
    names = ", ".join(f"train-{index}" for index in range(1, min(missing[0], 5) + 1))
    more = ", ..." if missing[0] > 5 else ""
    told = f"train: {missing[0]} of {missing[1]} items are missing from the source ({names}{more})"
    assert (ended.code, ended.out.splitlines()[1:]) == (0, [told])
    assert command("data", "build", own("Incomplete"), *words).code == 0
    assert read_manifest(tmp_path / "d").accounting["train"]["missing"] == missing[0]


@pytest.mark.parametrize(("name", "word"), [("Everything", "items"), ("Incomplete", "rolls")])
@pytest.mark.parametrize("limit", [[], ["--limit", "2"]])
def test_a_build_counts_what_the_data_set_says_its_items_are(
    here: None, command: Callable[..., Any], tmp_path: Path, name: str, word: str, limit: list[str]
) -> None:
    ended = command("data", "build", own(name), "--name", "x", "--out", tmp_path / "d", *limit)
    number = 2 * (2 if limit else 3 if name == "Everything" else 9)
    assert f"building everything: {number}/{number} {word} in " in ended.err
