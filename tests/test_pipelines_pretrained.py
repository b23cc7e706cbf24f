"""Loading a shared model: a folder, a hub repository, whatever an older version wrote; one line for what is wrong."""

import inspect
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from safetensors.torch import load_file, save_file

from drnet.datasets.contract import DataError
from drnet.pipelines import pretrained as module
from drnet.pipelines.pretrained import MODEL_FORMAT, from_pretrained
from drnet.pipelines.run import latest_checkpoint, load_run
from drnet.pipelines.sharing.export_model import export_model


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the trained model; read only."""
    return export_model(trained, tmp_path_factory.mktemp("models") / "digits").folder


@pytest.fixture
def mine(exported: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    return Path(shutil.copytree(exported, tmp_path / "mine"))


def change(folder: Path, **fields: Any) -> None:
    """Change fields of a model's config.json; None takes one away."""
    facts = json.loads((folder / "config.json").read_text()) | fields
    (folder / "config.json").write_text(json.dumps({k: v for k, v in facts.items() if v is not None}))


def one_line(call: Callable[[], Any]) -> str:
    with pytest.raises(DataError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_loaded_model_is_the_runs_own(exported: Path, trained: Path) -> None:
    model, (expected, checkpoint, config) = from_pretrained(exported), load_run(trained)
    state = expected.state_dict()
    assert model.model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in model.model.state_dict().items())
    assert not model.model.training
    assert (model.facts["step"], model.facts["checkpoint_sha256"]) == (checkpoint.step, checkpoint.sha256)
    assert model.facts["data"] == config["data"]
    frames = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        content, pose = expected.encode(frames.permute(0, 3, 1, 2).float() / 255)
    found = model.encode(frames)
    assert torch.equal(found[0], content)
    assert torch.equal(found[1], pose)


def test_a_name_may_be_a_path_a_text_or_in_the_home_folder(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(exported.parent))
    for name in (exported, str(exported), f"~/{exported.name}"):
        assert from_pretrained(name, device="auto").facts["step"] == 6


REAL = inspect.signature(huggingface_hub.snapshot_download)


class Hub:
    """Stands in for `huggingface_hub.snapshot_download`: a folder for each commit, and links into it."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache, self.asked = folder, cache, list[tuple[str, str | None]]()

    def __call__(self, repo_id: str, *, revision: str | None, allow_patterns: list[str], library_name: str) -> str:
        more = {"revision": revision, "allow_patterns": allow_patterns, "library_name": library_name}
        REAL.bind(repo_id, **more)  # raises TypeError where the real one has no such argument
        self.asked.append((repo_id, revision))
        snapshot = self.cache / "snapshots" / "abc"
        snapshot.mkdir(parents=True, exist_ok=True)
        for name in allow_patterns:
            if (self.folder / name).exists() and not (snapshot / name).exists():
                (snapshot / name).symlink_to(self.folder / name)
        return str(snapshot)


def test_a_model_of_the_hub_is_downloaded(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(exported, tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    monkeypatch.chdir(tmp_path)
    assert from_pretrained("somebody/drnet-digits.v1", revision="v1.0").facts["step"] == 6
    assert hub.asked == [("somebody/drnet-digits.v1", "v1.0")]
    found = {path.name for path in (tmp_path / "snapshots" / "abc").iterdir()}
    assert found == {"config.json", "model.safetensors"}  # no graph, no card


def test_a_folder_of_this_machine_goes_before_the_hub(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(exported, tmp_path / "models" / "digits")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    assert from_pretrained("models/digits").facts["step"] == 6


class CutError(Exception):
    """As an HTTP client's, which is no OSError."""


@pytest.mark.parametrize(
    "error",
    [
        LocalEntryNotFoundError("not found\nin two lines"),
        OfflineModeIsEnabled("offline"),
        CutError("ended"),
        ValueError("?"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_the_hub_does_not_give_is_told_in_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    reason = str(error).partition("\n")[0]
    expected = f"somebody/none: no such folder, and the hub does not give it ({type(error).__name__}: {reason})"
    assert one_line(lambda: from_pretrained("somebody/none")) == expected


@pytest.mark.parametrize("name", ["nothing", "a/b/c", "../x", "/no/such/place", "a b/c", "", "https://hub/a/b", "-a/b"])
def test_a_name_that_is_neither_folder_nor_repository_is_not_looked_up(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    message = one_line(lambda: from_pretrained(name))
    assert "no such folder; give a folder" in message or "config.json is missing" in message


def test_the_hub_is_an_extra(monkeypatch: pytest.MonkeyPatch, exported: Path) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert one_line(lambda: from_pretrained("somebody/model")).endswith("pip install 'drnet[hub]'")
    assert from_pretrained(exported).facts["step"] == 6


def test_a_newer_format_is_refused_and_says_so(mine: Path) -> None:
    change(mine, drnet_format=MODEL_FORMAT + 1)
    message = one_line(lambda: from_pretrained(mine))
    newer = f"of format {MODEL_FORMAT + 1}, and this version of drnet reads up to {MODEL_FORMAT}; upgrade drnet"
    assert message.startswith(f"{mine / 'config.json'}: {newer}")


@pytest.mark.parametrize("with_state", [True, False])
def test_a_runs_own_files_shared_by_hand_are_converted(
    exported: Path, trained: Path, tmp_path: Path, with_state: bool
) -> None:
    checkpoint = latest_checkpoint(trained)
    assert checkpoint is not None
    shutil.copy(trained / "config.json", tmp_path)
    shutil.copy(checkpoint.folder / "model.safetensors", tmp_path)
    if with_state:
        shutil.copy(checkpoint.folder / "state.json", tmp_path)
    old, new = from_pretrained(tmp_path), from_pretrained(exported)
    assert (old.facts["drnet_format"], old.facts["step"]) == (1, 6 if with_state else None)
    assert {name: old.facts[name] for name in ("model", "train", "data", "preset")} == {
        name: new.facts[name] for name in ("model", "train", "data", "preset")
    }
    frames = torch.rand(2, 32, 32, 3)
    assert torch.equal(old.encode(frames)[0], new.encode(frames)[0])
    if with_state:
        (tmp_path / "model.safetensors").write_bytes((exported / "model.safetensors").read_bytes()[:-4] + b"1234")
        assert "SHA-256 differs" in one_line(lambda: from_pretrained(tmp_path))


def test_conversions_are_made_one_after_the_other(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def renamed(found: Any, folder: Path) -> dict[str, Any]:
        return {**found, "drnet_format": 2, "seen": [folder.name, found["step"]]}

    monkeypatch.setattr(module, "MODEL_FORMAT", 2)
    monkeypatch.setattr(module, "CONVERSIONS", (*module.CONVERSIONS, renamed))
    assert from_pretrained(mine).facts["seen"] == ["mine", 6]


def test_settings_that_a_later_version_added_take_their_defaults(mine: Path) -> None:
    settings = json.loads((mine / "config.json").read_text())["model"]
    change(mine, model={name: value for name, value in settings.items() if name != "detach_target"})
    assert from_pretrained(mine).facts["model"] == settings


def spoil(folder: Path) -> dict[str, Callable[[], object]]:
    config, weights = folder / "config.json", folder / "model.safetensors"
    facts = json.loads(config.read_text())
    settings = facts["model"]
    return {
        "config.json is missing": config.unlink,
        "is not valid JSON": lambda: config.write_text("{"),
        "settings (a list of 0) is not a JSON object": lambda: config.write_text("[]"),
        "drnet_format 'x' is not a whole number": lambda: change(folder, drnet_format="x"),
        "field 'files' is missing": lambda: change(folder, files=None),
        "field 'model' is missing": lambda: change(folder, model=None),
        "setting 'depth' is not known": lambda: change(folder, model=settings | {"depth": 3}),
        "width 'x' is of another type": lambda: change(folder, model=settings | {"width": "x"}),
        "holds control characters": lambda: change(folder, preset="\x1b[2J"),
        "tensor content_encoder.features.0.weight is": lambda: change(folder, model=settings | {"width": 2**20}),
        "no model.safetensors, only 'decoder.onnx'": lambda: change(folder, files={"decoder.onnx": "0" * 64}),
        "no model.safetensors, only 'nothing yet'": lambda: change(folder, files={}),
        "missing; copy the whole folder": weights.unlink,
        "its SHA-256 differs": lambda: weights.write_bytes(weights.read_bytes()[:-1]),
        "not a regular file": lambda: (weights.unlink(), weights.mkdir()),
        "damaged (": lambda: (weights.write_bytes(b"12345678"), change(folder, files={"model.safetensors": None})),
    }


def test_everything_that_is_wrong_is_told_in_one_line(exported: Path, tmp_path: Path) -> None:
    for number in range(len(spoil(exported))):
        folder = tmp_path / str(number)
        shutil.copytree(exported, folder)
        message, act = list(spoil(folder).items())[number]
        act()
        said = one_line(lambda folder=folder: from_pretrained(folder))  # type: ignore[misc]
        assert message in said
        assert str(folder) in said


def test_weights_of_another_model_are_refused_by_the_tensors_name(mine: Path) -> None:
    path = mine / "model.safetensors"
    weights = load_file(path)
    weights["decoder.extra"] = torch.zeros(1)
    save_file(weights, path)
    change(mine, files={"model.safetensors": None})
    assert one_line(lambda: from_pretrained(mine)).endswith("tensor 'decoder.extra' is not known")


def test_a_run_is_named_with_the_command_that_exports_it(trained: Path) -> None:
    assert f"`drnet export-model {trained} --out DIR` makes one" in one_line(lambda: from_pretrained(trained))


def test_a_device_that_is_not_there_is_refused(exported: Path) -> None:
    with pytest.raises(ValueError, match=r"^device 'abacus' is not known"):
        from_pretrained(exported, device="abacus")
