"""Every command in the README and in the help is one that exists, with options that exist."""

import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from drnet.cli.main import app
from drnet.presets import PRESETS

ROOT = Path(__file__).parents[1]
COMMAND = re.compile(r"^(?:    |Example: |`)?(drnet [a-z][^`#]*)")


def commands_of(text: str) -> Iterator[str]:
    """Yield the `drnet` commands of a text, without comments and without the marks of alternatives."""
    for line in text.replace("\\\n", " ").splitlines():
        if found := COMMAND.match(line):
            yield re.sub(r"\[[^\]]*\]|\.\.\.", "", found[1]).strip()


def help_texts(group: Any) -> Iterator[str]:
    """Yield the help of a group's commands, and of its groups' commands."""
    context = typer.Context(group)
    for command in (group.get_command(context, name) for name in group.list_commands(context)):
        if hasattr(command, "list_commands"):
            yield from help_texts(command)
        else:
            yield inspect.cleandoc(command.help or "")


OWN = re.compile(r"drnet data build \w+:\w+ ")  # one's own data set: tests/test_cli_build.py runs it
PAGES = ("README.md", "docs/training.md", "docs/evaluation.md", "docs/promises.md")
TEXT = "\n".join((ROOT / page).read_text() for page in PAGES)
README = sorted(line for line in set(commands_of(TEXT)) if not OWN.match(line))
HELP = sorted({command for text in help_texts(typer.main.get_command(app)) for command in commands_of(text)})


def test_the_readme_and_the_help_show_commands() -> None:
    assert len(README) >= 8
    assert len(HELP) >= 9


@pytest.mark.parametrize("line", README + HELP)
def test_a_command_that_is_shown_exists_with_its_options(line: str) -> None:
    result = CliRunner().invoke(app, [*shlex.split(line)[1:], "--help"])
    assert result.exit_code == 0, result.output


def test_an_option_that_does_not_exist_would_be_found() -> None:
    assert CliRunner().invoke(app, ["train", "--shard", "x", "--help"]).exit_code == 2


def test_every_command_shows_an_example_in_its_help() -> None:
    without = [text.splitlines()[0] for text in help_texts(typer.main.get_command(app)) if "Example: drnet" not in text]
    assert without == []


def test_every_file_the_readme_links_to_is_there() -> None:
    for page in PAGES:
        links = re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / page).read_text())
        assert links or page != "README.md"
        assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_no_placeholder_is_left_and_shapes_are_the_presets_own() -> None:
    text = (ROOT / "README.md").read_text()
    assert not re.search(r"@[A-Z]+@", text + (ROOT / "docs" / "results.md").read_text())
    model = PRESETS["mnist-small"].model
    assert f"features.content.shape  # (55000, 20, {model.content_dim})" in text
    assert f"features.pose.shape  # (55000, 20, {model.pose_dim})" in text


def test_the_help_of_train_names_every_preset() -> None:
    shown = "".join(CliRunner().invoke(app, ["train", "--help"]).output.split())  # broken at hyphens
    assert [name for name in PRESETS if name not in shown] == []
