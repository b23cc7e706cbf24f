"""drnet works from a checkout, an editable install and a wheel, each beside Hugging Face's `datasets`.

Each layout gets a virtual environment of its own that links every package of this one, less drnet: it takes no network.
"""

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from drnet.datasets.contract import DataError
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.looking.ffmpeg import ffmpeg_path

ROOT = Path(__file__).parents[1]
FOLDERS = ("drnet", "datasets", "pipelines", "cli")
FILES = ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "constraints.txt", "Makefile")
LAYOUTS = ("checkout", "checkout on PYTHONPATH", "editable install", "wheel")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@dataclass(frozen=True)
class Layout:
    """One way of having drnet.

    Attributes:
        python: interpreter of its environment.
        source: the checkout it comes from.
        folder: where the commands are run.
        code: folder that holds drnet/cli or cli.
        installed: with pip; else found by the folder or PYTHONPATH.
        variables: set in the environment.
    """

    python: Path
    source: Path
    folder: Path
    code: Path
    installed: bool
    variables: Mapping[str, str] = field(default_factory=dict)

    def run(self, *words: str | Path, folder: Path | None = None) -> str:
        """Run the interpreter and return what it printed."""
        return run([self.python, *words], folder or self.folder, self.variables)


def run(words: Sequence[str | Path], folder: Path, variables: Mapping[str, str] | None = None) -> str:
    """Run a program with neither this test run's PYTHONPATH nor its other PYTHON* settings; return its output."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV_", "PYTEST"))}
    done = subprocess.run(words, cwd=folder, env=kept | dict(variables or {}), capture_output=True, text=True)
    assert done.returncode == 0, f"{words}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def new_environment(folder: Path) -> Path:
    """Make a virtual environment with links to every installed package but drnet; return its interpreter."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    target = Path(run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).strip())
    for source in {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}:
        for entry in source.iterdir():
            if "drnet" not in entry.name and entry.name != "__pycache__":
                (target / entry.name).symlink_to(entry)
    return python


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source without anything that was built in it."""
    copy = tmp_path_factory.mktemp("checkout")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="session")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source archive that is built from the checkout."""
    out = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", out, checkout], out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="session", params=LAYOUTS)
def layout(request: pytest.FixtureRequest, checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Each layout in turn."""
    base = tmp_path_factory.mktemp("layout")
    elsewhere = base / "elsewhere"
    elsewhere.mkdir()
    python = new_environment(base / "venv")
    install = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation")
    if request.param == "checkout":
        return Layout(python, checkout, checkout, checkout, False)
    if request.param == "checkout on PYTHONPATH":
        return Layout(python, checkout, elsewhere, checkout, False, {"PYTHONPATH": str(checkout)})
    if request.param == "editable install":
        own = base / "source"  # building leaves files in the source
        shutil.copytree(checkout, own)
        run([python, *install, "--editable", own], base)
        return Layout(python, own, elsewhere, own, True)
    run([python, *install, request.getfixturevalue("wheel")], base)
    purelib = run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], base)
    return Layout(python, checkout, elsewhere, Path(purelib.strip()) / "drnet", True)


def test_the_command_line_runs_as_a_module(layout: Layout) -> None:
    assert layout.run("-m", "drnet", "--version").strip() == f"drnet {PROJECT['project']['version']}"
    assert "data" in layout.run("-m", "drnet", "--help")


def test_the_code_that_runs_is_the_layouts_own(layout: Layout) -> None:
    where = "import drnet.cli.main, drnet.pipelines.shards.codec, drnet.datasets.contract as c; print(c.__file__)"
    assert layout.run("-c", where).strip() == str(layout.code / "datasets" / "contract.py")


def test_hugging_face_datasets_keeps_its_name(layout: Layout) -> None:
    both = "import datasets, drnet.datasets.mnist as ours; print(datasets.load_dataset.__module__, ours.__name__)"
    assert layout.run("-c", both).split() == ["datasets.load", "drnet.datasets.mnist"]


def test_hugging_face_datasets_keeps_its_name_in_the_checkouts_root(layout: Layout) -> None:
    code = "import importlib.util as u; print(*(u.find_spec(n) and u.find_spec(n).origin for n in ('datasets', 'cli')))"
    theirs, cli = layout.run("-c", code, folder=layout.source).split()
    assert theirs.endswith("site-packages/datasets/__init__.py")
    assert cli == "None"  # at most a bare folder, which any installed package of that name goes before


@pytest.fixture(scope="session")
def built_here(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the shards that this very process builds."""
    out = tmp_path_factory.mktemp("here")
    build(plan_build(BouncingDigits("optdigits", clips=8, test_clips=2, frames=4, size=32), "zstd", None), out, 1)
    return digest_of_shards(out)


def digest_of_shards(folder: Path) -> str:
    tars = sorted(folder.glob("*.tar"))
    assert tars
    return hashlib.sha256(b"".join(tar.read_bytes() for tar in tars)).hexdigest()


def test_spawned_workers_build_the_same_shards(layout: Layout, built_here: str, tmp_path: Path) -> None:
    settings = ["--source", "optdigits", "--clips", "8", "--test-clips", "2", "--frames", "4", "--size", "32"]
    layout.run("-m", "drnet", "data", "build", "mnist", *settings, "--workers", "2", "--out", tmp_path / "data")
    assert digest_of_shards(tmp_path / "data") == built_here


def test_only_installing_makes_the_drnet_command(layout: Layout) -> None:
    script = layout.python.parent / "drnet"
    assert script.exists() == layout.installed
    if layout.installed:
        assert run([script, "--version"], layout.folder).strip() == f"drnet {PROJECT['project']['version']}"


def test_the_wheel_holds_the_four_folders_and_claims_no_other_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    version = PROJECT["project"]["version"]
    assert {name.split("/")[0] for name in names} == {"drnet", f"drnet-{version}.dist-info"}
    expected = {str(Path("drnet") / path.relative_to(ROOT / "drnet")) for path in (ROOT / "drnet").rglob("*.py")}
    for folder in FOLDERS[1:]:
        expected |= {f"drnet/{path.relative_to(ROOT)}" for path in (ROOT / folder).rglob("*.py")}
        expected |= {f"drnet/{path.relative_to(ROOT)}" for path in (ROOT / folder).rglob("*.json")}
    assert {name for name in names if name.startswith("drnet/")} == expected | {"drnet/py.typed"}
    assert {f"drnet-{version}.dist-info/licenses/{name}" for name in ("LICENSE", "NOTICE")} <= names
    assert "drnet = drnet.cli.main:run" in entry_points
    assert wheel.name == f"drnet-{version}-py3-none-any.whl"


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    rows = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {plain(name): version for name, version in rows}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_constraints_are_versions_and_name_no_place() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"#.*|[A-Za-z0-9][\w.-]*==[\w.]+", line), line
    assert constraints()["torch"] == "2.13.0"  # whichever build of it the index serves


def test_constraints_pin_everything_that_is_installed_for_drnet() -> None:
    project = PROJECT["project"]
    todo = [*project["dependencies"], *(row for rows in project["optional-dependencies"].values() for row in rows)]
    seen: set[tuple[str, str]] = set()
    while todo:
        name, extras = re.match(r"([\w.-]+)\s*(?:\[([^\]]*)\])?", todo.pop()).groups()  # type: ignore[union-attr]
        if (plain(name), extras or "") in seen:
            continue
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform, or of an extra that is not in use
        seen.add((plain(name), extras or ""))
        wanted = set(re.split(r"[,\s]+", extras or ""))
        for need in needs:
            extra = re.search(r"""extra\s*==\s*["']([^"']+)""", need)
            if extra is None or extra.group(1) in wanted:
                todo.append(need)
    unpinned = {name for name, _ in seen} - set(constraints())
    assert {name for name in unpinned if not name.startswith(("nvidia-", "cuda-", "triton"))} == set()
    assert len(seen) > len(project["dependencies"])


def test_the_version_is_written_in_two_places_that_agree() -> None:
    import drnet

    assert drnet.__version__ == PROJECT["project"]["version"]
    assert f"## {drnet.__version__} " in (ROOT / "CHANGELOG.md").read_text()


def test_ffmpeg_runs_where_the_system_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("IMAGEIO_FFMPEG_EXE", raising=False)
    shown = subprocess.run([ffmpeg_path(), "-version"], capture_output=True, text=True, check=True).stdout
    assert shown.startswith("ffmpeg version")


def test_the_systems_own_ffmpeg_goes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = tmp_path / "ffmpeg"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ffmpeg_path() == str(own)


def test_without_any_ffmpeg_one_line_says_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def none_here() -> str:
        raise RuntimeError("No ffmpeg exe could be found.\nInstall ffmpeg on your system")

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", none_here)
    with pytest.raises(DataError, match=r"^ffmpeg: none on PATH.*install ffmpeg.*$") as caught:
        ffmpeg_path()
    assert "\n" not in str(caught.value)
