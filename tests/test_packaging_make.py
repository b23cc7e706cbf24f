"""The Makefile: which Python it takes, and that it installs once, and again only when the packages' lists change."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAKE = shutil.which("make")
PROGRAMS = ("sh", "touch", "mkdir", "rm", "ln", "cp", "dirname", "find")  # that the Makefile, or a stand-in, calls

pytestmark = pytest.mark.skipif(MAKE is None, reason="needs make")

# Stands in for python: writes down what it is asked, and makes a virtual environment of itself.
STAND_IN = """#!/bin/sh
case "$1 $2" in
"-c "*) exit {too_old} ;;
"-m venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python && echo "venv" >> calls ;;
*) echo "$*" >> calls ;;
esac
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the Makefile and the lists, and bin/ with nothing but the programs that are needed."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    for program in PROGRAMS:
        found = shutil.which(program)
        assert found
        (tmp_path / "bin" / program).symlink_to(found)
    return tmp_path


def add_python(project: Path, name: str, too_old: bool = False) -> None:
    path = project / "bin" / name
    path.write_text(STAND_IN.format(too_old=int(too_old)))
    path.chmod(0o755)


def make(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    assert MAKE
    variables = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    variables |= {"PATH": str(project / "bin")}
    return subprocess.run([MAKE, *words], cwd=project, env=variables, capture_output=True, text=True)


def calls(project: Path) -> list[str]:
    """Return what python was asked since the last look."""
    log = project / "calls"
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def test_the_demo_installs_what_it_needs_and_runs(project: Path) -> None:
    add_python(project, "python3")
    done = make(project, "demo")
    assert done.returncode == 0, done.stderr
    venv, install, demo = calls(project)
    assert venv == "venv"
    assert install.endswith("install --quiet --constraint constraints.txt --editable .")
    assert demo == "-m drnet demo --out demo"


def test_nothing_is_installed_twice(project: Path) -> None:
    add_python(project, "python3.11")
    assert make(project, "test").returncode == 0
    assert [line.partition("install")[1] for line in calls(project)] == ["", "install", ""]
    assert make(project, "test").returncode == 0
    assert make(project, "demo").returncode == 0  # the tests' set-up holds the demo's
    assert [line.split()[1] for line in calls(project)] == ["pytest", "drnet"]


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_changed_list_installs_again(project: Path, name: str) -> None:
    add_python(project, "python3.11")
    make(project, "test")
    calls(project)
    later = (project / ".venv" / "dev.stamp").stat().st_mtime + 10
    os.utime(project / name, (later, later))
    assert make(project, "test").returncode == 0
    install, tests = calls(project)
    assert "--editable .[dev," in install
    assert "pytest" in tests


def test_an_interrupted_installation_is_done_again(project: Path) -> None:
    add_python(project, "python3.11")
    make(project, "test")
    (project / ".venv" / "dev.stamp").unlink()
    calls(project)
    make(project, "test")
    assert ["install" in line for line in calls(project)] == [True, False]


def test_python3_is_taken_where_python3_11_is_too_old_or_missing(project: Path) -> None:
    add_python(project, "python3.11", too_old=True)  # a launcher without that version behind it
    add_python(project, "python3")
    assert make(project, "demo").returncode == 0


def test_a_python_that_is_too_old_gives_one_line(project: Path) -> None:
    add_python(project, "python3", too_old=True)
    done = make(project, "demo")
    assert done.returncode != 0
    said, by_make = done.stderr.splitlines()
    assert said == "drnet needs Python 3.11 or newer: found none as python3.11 or python3; set PYTHON"
    assert by_make.startswith("make")
    assert not (project / ".venv").exists()


def test_the_chosen_python_is_checked_too(project: Path) -> None:
    add_python(project, "python3")
    add_python(project, "old", too_old=True)
    done = make(project, "demo", "PYTHON=old")
    assert done.stderr.startswith("drnet needs Python 3.11 or newer: found none as old;")


def test_what_must_pass_before_merging_is_the_tests_and_the_checks() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert [line for line in script.read_text().splitlines() if line.startswith("make")] == ["make test", "make check"]
