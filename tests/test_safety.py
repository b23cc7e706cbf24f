"""No read path unpickles, evaluates or calls a shell; no file names a machine; every dependency is needed."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("drnet", "datasets", "pipelines", "cli")
SOURCES = sorted(path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

NEVER_IMPORTED = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib", "pickletools"}
NEVER_IMPORTED |= {"code", "runpy", "dbm", "xmlrpc", "jsonpickle"}
NEVER_CALLED = {
    "eval": "evaluates",
    "exec": "evaluates",
    "compile": "evaluates",
    "__import__": "imports by a name that may come from data",
    "builtins.eval": "evaluates",
    "builtins.exec": "evaluates",
    "builtins.compile": "evaluates",
    "ast.literal_eval": "takes any memory and time; json.loads",
    "numpy.lib.format.open_memmap": "evaluates a header that may be long; drnet.pipelines.shards.codec",
    "numpy.lib.format.read_magic": "reads headers by evaluating them; drnet.pipelines.shards.codec",
    "os.system": "calls a shell",
    "os.popen": "calls a shell",
    "subprocess.getoutput": "calls a shell",
    "subprocess.getstatusoutput": "calls a shell",
    "asyncio.create_subprocess_shell": "calls a shell",
    "yaml.load": "builds any object; yaml.safe_load",
    "yaml.unsafe_load": "builds any object; yaml.safe_load",
    "yaml.full_load": "builds many objects; yaml.safe_load",
    "yaml.load_all": "builds any object; yaml.safe_load_all",
    "xml.etree.ElementTree.parse": "expands entities without end",
    "xml.etree.ElementTree.fromstring": "expands entities without end",
    "xml.dom.minidom.parse": "expands entities without end",
    "torch.serialization.load": "unpickles; torch.load with weights_only",
    "torch.hub.load_state_dict_from_url": "unpickles what the network gives",
    "torch.jit.script": "evaluates source",
    "logging.config.listen": "evaluates what the network gives",
    "multiprocessing.connection.Client": "unpickles what the network gives",
    "multiprocessing.connection.Listener": "unpickles what the network gives",
    "datasets.load_dataset": "may run code of a repository",
    "torch.hub.load": "runs code from the network",
    "torch.jit.load": "runs code from a file",
    "torch.package.PackageImporter": "runs code from a file",
    "shutil.unpack_archive": "writes where the archive says",
    "webdataset.WebDataset": "its decoders unpickle; drnet.pipelines.source reads shards",
    "webdataset.gopen": "calls a shell for pipe: URLs",
    "webdataset.gopen.gopen": "calls a shell for pipe: URLs",
    "webdataset.xdecode": "unpickles members named .pyd or .pickle",
    "webdataset.decode": "unpickles members named .pyd or .pickle",
    "webdataset.autodecode.Decoder": "unpickles members named .pyd or .pickle",
    "tempfile.mktemp": "another process may take the name",
}
NEVER_METHODS = {
    "extractall": "writes where the archive says",
    "extract": "writes where the archive says",
    "read_pickle": "unpickles",
    "to_pickle": "pickles",
    "decode_pickle": "unpickles",
}
NEEDED_KEYWORDS = {
    "torch.load": ("weights_only", True),
    "numpy.load": ("allow_pickle", False),
    "numpy.lib.format.read_array": ("allow_pickle", False),
    "numpy.save": ("allow_pickle", False),
}


def imported(tree: ast.AST) -> dict[str, str]:
    """Return what each name of a file stands for: `np` for `numpy`, `load` for `torch.load`."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.split(".")[0]
                names[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    return names


def full_name(node: ast.AST, names: dict[str, str]) -> str:
    """Return `numpy.load` of `np.load`; an empty string of what is no plain name."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        base = full_name(node.value, names)
        return f"{base}.{node.attr}" if base else ""
    return ""


def dangers(tree: ast.AST) -> Iterator[str]:
    """Yield each dangerous thing in a file, with its line."""
    names = imported(tree)
    for name in names.values():
        if name.split(".")[0] in NEVER_IMPORTED:
            yield f"import of {name}"
        if name in NEVER_CALLED:
            yield f"import of {name}: {NEVER_CALLED[name]}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from (f"line {node.lineno}: {found}" for found in dangers_of_call(node, names))


def dangers_of_call(call: ast.Call, names: dict[str, str]) -> Iterator[str]:
    name = full_name(call.func, names)
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if name in NEVER_CALLED:
        yield f"{name}: {NEVER_CALLED[name]}"
    if isinstance(call.func, ast.Attribute) and call.func.attr in NEVER_METHODS:
        yield f".{call.func.attr}: {NEVER_METHODS[call.func.attr]}"
    if "shell" in keywords and not is_constant(keywords["shell"], False):
        yield f"{name}: shell=True calls a shell"
    if name in NEEDED_KEYWORDS:
        keyword, value = NEEDED_KEYWORDS[name]
        if not is_constant(keywords.get(keyword), value):
            yield f"{name} without {keyword}={value}"
    if "allow_pickle" in keywords and not is_constant(keywords["allow_pickle"], False):
        yield f"{name}: allow_pickle unpickles"


def is_constant(node: ast.AST | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_nothing_unpickles_evaluates_or_calls_a_shell(path: Path) -> None:
    assert list(dangers(ast.parse((ROOT / path).read_text()))) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "def late():\n    from cloudpickle import loads",
        "import shelve as box",
        "eval('1')",
        "exec(text)",
        "import os\nos.system('ls')",
        "from os import system as run",
        "import subprocess as s\ns.run('ls', shell=True)",
        "import subprocess\nsubprocess.run('ls', shell=quiet)",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "from torch import load\nload(path)",
        "import numpy as np\nnp.load(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "from numpy.lib.format import read_array\nread_array(file, allow_pickle=flag)",
        "import yaml\nyaml.load(text)",
        "import tarfile\ntarfile.open(path).extractall(folder)",
        "import webdataset as wds\nwds.WebDataset(url)",
        "import webdataset\nwebdataset.gopen.gopen('pipe:ls')",
        "import builtins\nbuiltins.eval(text)",
        "import ast\nast.literal_eval(header)",
        "from ast import literal_eval",
        "import yaml\nyaml.full_load(text)",
        "import zipfile\nzipfile.ZipFile(path).extract(name)",
        "import tarfile\ntarfile.open(path).extract(member)",
        "import runpy",
        "from torch.serialization import load\nload(path)",
        "import xml.etree.ElementTree as tree\ntree.parse(path)",
        "import numpy as np\nnp.lib.format.open_memmap(path)",
    ],
)
def test_each_danger_is_found_under_any_name(code: str) -> None:
    assert list(dangers(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "import torch\ntorch.load(path, weights_only=True)",
        "import numpy as np\nnp.load(path, allow_pickle=False)",
        "import subprocess\nsubprocess.run(['ls'])",
        "import re\nre.compile('x')",
        "model.eval()",
    ],
)
def test_the_safe_form_is_no_danger(code: str) -> None:
    assert list(dangers(ast.parse(code))) == []


OF_A_MACHINE = re.compile(
    r"(?<![\w.:/])/(home|root|work|tmp|opt|mnt|Users)(?=/|\b)|file:/+(home|root|work|tmp|opt|mnt|Users)\b"
)
TEXTS = {".py", ".toml", ".txt", ".md", ".json", ".yml", ".yaml", ".cfg", ".sh", ".in", ""}


@lru_cache
def tracked() -> list[Path]:
    """Return the project's text files: what git would carry or, outside a clone, what lies in the known places."""
    git = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        names = subprocess.run(git, check=True, capture_output=True, text=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        names = [path.name for path in ROOT.iterdir() if path.is_file()]
        names += [
            str(path.relative_to(ROOT)) for top in (*FOLDERS, "tests", "docs") for path in (ROOT / top).rglob("*")
        ]
    return [Path(name) for name in names if name and Path(name).suffix in TEXTS and (ROOT / name).is_file()]


def test_no_file_names_a_place_on_one_machine() -> None:
    found = []
    for path in tracked():
        for number, line in enumerate((ROOT / path).read_text(encoding="utf-8").splitlines(), 1):
            if OF_A_MACHINE.search(line):
                found.append(f"{path}:{number}: {line.strip()}")
    assert found == []
    assert Path("pyproject.toml") in tracked()
    assert Path("pipelines/shards/shard.py") in tracked()


@pytest.mark.parametrize("line", ["cd " + "/" + "home/me/x", "'" + "/" + "tmp/x'", "open('" + "/" + "root')"])
def test_a_place_on_one_machine_is_found(line: str) -> None:
    assert OF_A_MACHINE.search(line)


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MODULES = {  # where the import's name is not the distribution's
    "scikit-learn": "sklearn",
    "pillow": "PIL",
    "zlib-ng": "zlib_ng",
    "imageio-ffmpeg": "imageio_ffmpeg",
    "ffmpeg-python": "ffmpeg",
    "pytest-xdist": "xdist",
    "pycollada": "collada",
    "flask-cors": "flask_cors",
    "PyYAML": "yaml",
}
NOT_IMPORTED = {  # and why it is a dependency all the same
    "tensorboard": "torch.utils.tensorboard imports it to write event files",
    "decord": "one of the packages the toolkit is fixed to; the builders of real video read with it",
}
TOOLS = {"ruff": "a program", "mypy": "a program", "pytest-xdist": "a plug-in", "build": "a program"}
EXTRAS = {name: rows for name, rows in PROJECT["optional-dependencies"].items() if name != "dev"}
OPTIONAL = [row for rows in EXTRAS.values() for row in rows]
EVERYTHING = PROJECT["dependencies"] + OPTIONAL + PROJECT["optional-dependencies"]["dev"]
OF_EXTRAS = {"s3fs": "fsspec imports it for s3://", "onnx": "torch.onnx imports it", "onnxscript": "and this"}


def name_of(requirement: str) -> str:
    return re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0]


def imported_modules(*folders: str) -> set[str]:
    """Return the top-level modules that the source of some folders imports, outside the standard library."""
    found: set[str] = set()
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for name in imported(ast.parse(path.read_text())).values():
            found.add(name.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"drnet"}


def modules_of(requirements: list[str]) -> dict[str, str]:
    return {name: MODULES.get(name, name) for name in map(name_of, requirements)}


def test_every_dependency_is_imported_or_has_a_reason() -> None:
    modules = modules_of(PROJECT["dependencies"])
    found = imported_modules(*FOLDERS)
    assert sorted(name for name, module in modules.items() if module not in found and name not in NOT_IMPORTED) == []
    assert set(NOT_IMPORTED) <= set(modules)


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_package_of_an_extra_is_imported_or_has_a_reason(extra: str) -> None:
    wanted = modules_of(EXTRAS[extra])
    assert {name for name, module in wanted.items() if module not in imported_modules(*FOLDERS)} <= set(OF_EXTRAS)


def test_every_import_is_a_dependency() -> None:
    rows = PROJECT["dependencies"] + OPTIONAL
    assert imported_modules(*FOLDERS) - set(modules_of(rows).values()) == set()


def test_what_only_an_extra_brings_is_imported_late() -> None:
    late = set(modules_of(OPTIONAL).values()) - set(modules_of(PROJECT["dependencies"]).values())
    found = []
    for path in (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        top = ast.Module([node for node in ast.parse(path.read_text()).body if not isinstance(node, ast.If)], [])
        direct = [node for node in top.body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = imported(ast.Module(direct, [])).values()
        found += [f"{path.name}: {name}" for name in names if name.split(".")[0] in late]
    assert found == []


def test_every_import_of_the_tests_is_a_dependency() -> None:
    needed = EVERYTHING
    own = {path.stem for path in (ROOT / "tests").glob("*.py")}
    assert imported_modules("tests") - own - set(modules_of(needed).values()) == set()
    assert set(TOOLS) <= set(modules_of(needed))


def test_every_dependency_has_a_floor() -> None:
    assert [line for line in EVERYTHING if not re.match(r"[\w.\[\]-]+>=[\d.]+(;|$)", line)] == []
