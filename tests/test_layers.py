"""The folders' order, cli -> pipelines -> {datasets, drnet}, read from the syntax trees: no import runs."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BESIDE = ("datasets", "pipelines", "cli")  # lie beside drnet/ and install inside it
FOLDERS = ("drnet", *BESIDE)
LONGEST = 400  # lines of a file

MAY_IMPORT = {
    "cli": {"drnet", "cli", "pipelines", "datasets"},
    "pipelines": {"drnet", "pipelines", "datasets"},
    "datasets": {"datasets"},
    "drnet": {"drnet"},
}
# The command itself, and what `import drnet` gives: the two files of drnet/ that know the folders above.
ENTRIES = {Path("drnet/__main__.py"), Path("drnet/__init__.py")}
OPENERS = {"webdataset", "h5py", "tarfile", "zipfile", "fsspec", "requests", "shutil", "subprocess", "sqlite3", "mmap"}
TENSORS = {"torch", "torchvision", "safetensors", "webdataset", "tensorboard"}
PROCESS = {"sys.argv", "sys.stdout", "sys.stderr", "sys.stdin", "sys.exit", "sys.__stdout__", "sys.__stderr__"}
WORDS = {"print", "input", "exit", "quit", "breakpoint"}


def sources(*folders: str) -> list[Path]:
    """Return the source files of some folders, relative to the root."""
    return sorted(path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py"))


def tree_of(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(), str(path))


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the full name of every module or object that is imported, at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ("." * node.level + f"{node.module or ''}.{alias.name}" for alias in node.names)


def folder_of(name: str) -> str | None:
    """Return the folder that an imported name lies in; None where it is not the project's."""
    parts = name.split(".")
    if parts[0] != "drnet":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in BESIDE else "drnet"


def wrong_imports(folder: str, tree: ast.AST) -> list[str]:
    """Return the imports that point against the folders' order."""
    allowed = MAY_IMPORT[folder]
    # `from drnet import __version__`, of the package above the three folders, is a fact and no tensor.
    found = [name for name in imports(tree) if name != "drnet.__version__"]
    return [name for name in found if (folder_of(name) or folder) not in allowed or name.split(".")[0] in BESIDE]


def dotted(node: ast.AST) -> str:
    """Return `a.b.c` of an attribute chain, else an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return f"{base}.{node.attr}" if base else ""
    return ""


def words_said(tree: ast.AST) -> list[str]:
    """Return what only cli/ may do: print, end the process, read its arguments or its streams."""
    found = [name for name in imports(tree) if name in PROCESS or name.split(".")[0] in {"typer", "rich", "argparse"}]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in WORDS:
            found.append(f"{node.func.id}()")
        elif isinstance(node, ast.Attribute) and dotted(node) in PROCESS:
            found.append(dotted(node))
        elif isinstance(node, ast.Name) and node.id in {"SystemExit", "KeyboardInterrupt"}:
            found.append(node.id)
    return found


def files_opened(tree: ast.AST) -> list[str]:
    """Return where drnet/ would touch files: calls of open and read, and imports of what reads data sets."""
    found = [name for name in imports(tree) if name.split(".")[0] in OPENERS]
    methods = {"open", "read_text", "read_bytes", "write_text", "write_bytes"}
    functions = {f"{module}.{name}" for module in ("torch", "np") for name in ("load", "save", "fromfile", "memmap")}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id == "open":
            found.append("open()")
        elif isinstance(node.func, ast.Attribute) and (node.func.attr in methods or dotted(node.func) in functions):
            found.append(f".{node.func.attr}()")
    return found


@pytest.mark.parametrize("path", sources(*FOLDERS), ids=str)
def test_imports_follow_the_order_of_the_folders(path: Path) -> None:
    if path not in ENTRIES:
        assert wrong_imports(path.parts[0], tree_of(path)) == []


@pytest.mark.parametrize("path", sources(*FOLDERS), ids=str)
def test_imports_are_absolute(path: Path) -> None:
    assert [name for name in imports(tree_of(path)) if name.startswith(".")] == []


@pytest.mark.parametrize("path", sources("drnet", "datasets", "pipelines"), ids=str)
def test_only_the_command_line_prints_exits_and_reads_arguments(path: Path) -> None:
    assert words_said(tree_of(path)) == []


@pytest.mark.parametrize("path", sources("datasets"), ids=str)
def test_building_a_data_set_needs_no_torch(path: Path) -> None:
    assert [name for name in imports(tree_of(path)) if name.split(".")[0] in TENSORS] == []


@pytest.mark.parametrize("path", sources("drnet"), ids=str)
def test_the_model_opens_no_file(path: Path) -> None:
    assert files_opened(tree_of(path)) == []


@pytest.mark.parametrize("path", sources(*FOLDERS, "tests"), ids=str)
def test_a_file_is_short_enough_to_read(path: Path) -> None:
    assert len((ROOT / path).read_text().splitlines()) <= LONGEST


@pytest.mark.parametrize(
    ("folder", "line"),
    [
        ("drnet", "from drnet.pipelines.source import open_shards"),
        ("drnet", "from drnet import datasets"),
        ("datasets", "import drnet.model"),
        ("datasets", "def late():\n    from drnet.pipelines import build"),
        ("pipelines", "from drnet.cli import console"),
        ("cli", "from pipelines.build import build"),
        ("pipelines", "import datasets"),
    ],
)
def test_an_import_against_the_order_is_found(folder: str, line: str) -> None:
    assert wrong_imports(folder, ast.parse(line))


@pytest.mark.parametrize(
    "line",
    ["print(1)", "import sys\nsys.exit(1)", "from sys import argv", "raise SystemExit(2)", "import rich.console"],
)
def test_a_word_outside_the_command_line_is_found(line: str) -> None:
    assert words_said(ast.parse(line))


@pytest.mark.parametrize("line", ["open('x')", "path.open()", "torch.load('x')", "import h5py", "path.read_bytes()"])
def test_a_file_opened_by_the_model_is_found(line: str) -> None:
    assert files_opened(ast.parse(line))


@pytest.mark.parametrize("folder", BESIDE)
def test_the_three_folders_claim_no_name_of_their_own(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists()  # with one, `import datasets` would be ours in a checkout
    hiding = [ROOT / "drnet" / name for name in (folder, f"{folder}.py")]
    assert [path for path in hiding if path.exists()] == []


def test_every_folder_with_source_is_in_the_wheel() -> None:
    packaging = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {path.parent for path in sources(*FOLDERS)}
    names = {".".join(folder.parts if folder.parts[0] == "drnet" else ("drnet", *folder.parts)) for folder in folders}
    assert set(packaging["packages"]) == names
    assert packaging["package-dir"] == {f"drnet.{folder}": folder for folder in BESIDE}
