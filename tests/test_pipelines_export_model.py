"""A model for others: its folder is whole, says where it comes from, and never mixes two models."""

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from huggingface_hub import ModelCard

import drnet
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.claim import locked
from drnet.pipelines.pretrained import from_pretrained
from drnet.pipelines.run import RunError, load_run, read_metrics
from drnet.pipelines.shards.manifest import read_manifest
from drnet.pipelines.sharing import export_model as module
from drnet.pipelines.sharing.export_model import export_model

STEPS = (3, 6)  # of the checkpoints that the trained run has


@pytest.fixture(scope="module")
def exported(trained: Path, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the trained model in every format; read only."""
    out = tmp_path_factory.mktemp("models") / "digits"
    for kind in ("onnx", "safetensors", "torch-export"):
        assert export_model(trained, out, kind, shards=digits).folder == out
    return out


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained run to spoil."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def facts_in(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "config.json").read_text()))


def refused(pattern: str, *arguments: Any, **more: Any) -> None:
    with pytest.raises(RunError, match=pattern) as caught:
        export_model(*arguments, **more)
    assert "\n" not in str(caught.value)


def test_a_folder_holds_every_format_and_the_sums_of_all_files(exported: Path) -> None:
    graphs = {f"{net}.{end}" for net in ("content_encoder", "pose_encoder", "decoder") for end in ("pt2", "onnx")}
    assert {path.name for path in exported.iterdir()} == graphs | {"model.safetensors", "config.json", "README.md"}
    files = facts_in(exported)["files"]
    assert set(files) == graphs | {"model.safetensors"}
    for name, digest in files.items():
        assert hashlib.sha256((exported / name).read_bytes()).hexdigest() == digest


def test_weights_and_graphs_are_of_one_model(exported: Path, trained: Path) -> None:
    model, frames = from_pretrained(exported), torch.rand(3, 32, 32, 3)
    content, pose = model.encode(frames)
    inside = frames.permute(0, 3, 1, 2).contiguous()
    back = model.decode(content, pose).permute(0, 3, 1, 2)
    truth = {"content_encoder": ([inside], content), "pose_encoder": ([inside], pose)}
    truth["decoder"] = ([content, pose], back)
    for name, (given, expected) in truth.items():
        session = onnxruntime.InferenceSession(exported / f"{name}.onnx", providers=["CPUExecutionProvider"])
        feed = {row.name: value.numpy() for row, value in zip(session.get_inputs(), given, strict=True)}
        assert torch.allclose(torch.from_numpy(session.run(None, feed)[0]), expected, atol=1e-4)
        program = torch.export.load(exported / f"{name}.pt2").module()
        assert torch.allclose(program(*given), expected, atol=1e-5)
    trained_model, _, _ = load_run(trained)
    trained_model.train()
    with torch.no_grad():
        assert not torch.allclose(trained_model.encode(inside)[0], content, atol=1e-3)  # the mode matters


def test_the_facts_are_the_runs(exported: Path, trained: Path) -> None:
    facts, (_, checkpoint, config) = facts_in(exported), load_run(trained)
    assert {name: facts[name] for name in ("model", "train", "data", "preset")} == {
        name: config[name] for name in ("model", "train", "data", "preset")
    }
    assert (facts["step"], facts["checkpoint_sha256"]) == (6, checkpoint.sha256)
    assert (facts["library_name"], facts["drnet_version"]) == ("drnet", drnet.__version__)


def test_the_card_is_one_that_the_hub_reads(exported: Path, trained: Path, digits: Path) -> None:
    card = ModelCard.load(exported / "README.md")
    data, about = card.data, read_manifest(digits).about
    assert (data.library_name, data.license, data.pipeline_tag) == ("drnet", "cc-by-4.0", "image-feature-extraction")
    assert {"drnet", "disentanglement", "video", "mnist"} <= set(data.tags)
    logged = read_metrics(trained)[-1]
    found = {row.metric_type: row.metric_value for row in data.eval_results}
    of_others = ("step", "lr", "time/", "data/")  # not of the model
    assert found == {name: value for name, value in logged.items() if not name.startswith(of_others)}
    assert "loss/reconstruction" in found
    assert {row.dataset_name for row in data.eval_results} == {about["title"]}
    for said in (about["title"], about["licence"], about["citation"], "evaluation mode", "unpickles", "1705.10915"):
        assert said in card.text
    settings = json.loads(re.search(r"```json\n(.*?)```", card.text, re.S)[1])  # type: ignore[index]
    assert settings == {name: facts_in(exported)[name] for name in ("model", "train")}
    assert all(
        f"`{name}`: " in card.text and digest in card.text for name, digest in facts_in(exported)["files"].items()
    )


def test_the_cards_own_lines_run(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.search(r"```python\n(.*?)```", (exported / "README.md").read_text(), re.S)[1]  # type: ignore[index]
    names: dict[str, Any] = {}
    exec(code.replace("FOLDER-OR-USER/NAME", str(exported)), names)
    assert names["content"].shape == (8, 128)
    assert names["again"].shape == (8, 32, 32, 3)
    assert f"# (8, {names['content'].shape[1]}), (8, {names['pose'].shape[1]})" in code


def test_without_the_data_set_the_card_states_no_licence(trained: Path, tmp_path: Path) -> None:
    export_model(trained, tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert (card.data.license, card.data.license_name) == ("other", "not stated")
    assert "unpickles" not in card.text  # there is no .pt2 file
    export_model(trained, tmp_path / "out", licence="apache-2.0")  # again, with a licence
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == "apache-2.0"
    assert "Licence of the weights: apache-2.0" in card.text


def test_a_model_with_skips_is_exported_and_its_card_runs(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from drnet.pipelines.train import Logging, train

    settings = {"width": 2, "batch_size": 4, "skips": True, "content_dim": 5}
    train(digits, tmp_path / "run", steps=1, overrides=settings, device="cpu", logging=Logging(2, 2, 1))
    (tmp_path / "run" / "metrics.jsonl").unlink()
    for kind in ("torch-export", "safetensors"):
        export_model(tmp_path / "run", tmp_path / "out", kind)
    text = (tmp_path / "out" / "README.md").read_text()
    assert "No metrics were logged." in text
    assert re.search(
        r"`content_encoder.pt2`: `frames` \(B, 3, 32, 32\) -> `content` \(B, 5\), `skip_0` \(B, 2, 16, 16\)", text
    )
    code = re.search(r"```python\n(.*?)```", text, re.S)[1]  # type: ignore[index]
    exec(code.replace("FOLDER-OR-USER/NAME", str(tmp_path / "out")), names := {})
    assert names["again"].shape == (8, 32, 32, 3)


def test_the_same_export_again_changes_no_byte(exported: Path, trained: Path, digits: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(exported, tmp_path / "mine"))
    for kind in ("safetensors", "onnx"):
        export_model(trained, mine, kind, shards=digits)
    for path in mine.iterdir():
        assert path.read_bytes() == (exported / path.name).read_bytes(), path.name


@pytest.mark.parametrize("which", ["3", "00000003", "6", "last", "best"])
def test_the_checkpoint_that_was_asked_for_is_exported(run: Path, tmp_path: Path, which: str) -> None:
    lines = read_metrics(run)
    assert [line["step"] for line in lines] == [2, 3, 4, 6]
    for line, error in zip(lines, (0.1, None, 0.3, 0.2), strict=True):  # step 3 has that of step 2, and held-out clips'
        if error is not None:
            line["loss/reconstruction"] = error
    (run / "best.json").write_text(json.dumps({"step": 3, "metric": "held_out/reconstruction", "value": 0.1}))
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    step = {"last": 6, "best": 3}.get(which) or int(which)
    done = export_model(run, tmp_path / "out", checkpoint=which)
    assert (done.checkpoint.step, facts_in(done.folder)["step"]) == (step, step)
    weights = (run / "checkpoints" / f"{step:08d}" / "model.safetensors").read_bytes()
    assert facts_in(done.folder)["checkpoint_sha256"] == hashlib.sha256(weights).hexdigest()
    shown = {row.metric_type: row.metric_value for row in ModelCard.load(done.folder / "README.md").data.eval_results}
    assert shown["loss/reconstruction"] == {3: 0.1, 6: 0.2}[step]


@pytest.mark.parametrize("which", ["4", "-1", "", "latest", "٣", "9" * 30])
def test_a_checkpoint_that_is_not_there_is_refused_with_those_that_are(
    trained: Path, tmp_path: Path, which: str
) -> None:
    refused(
        rf"no checkpoint '{which}'( \(did you mean '\w+'\?\))?; there are last, best and the steps 3, 6$",
        trained,
        tmp_path / "x",
        checkpoint=which,
    )
    assert not (tmp_path / "x").exists()


def test_a_run_that_is_not_ready_is_refused(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused(r"no run here", tmp_path / "none", out)
    (run / "best.json").unlink()
    refused(
        r"no checkpoint is known to be the best, no held-out clips having been measured", run, out, checkpoint="best"
    )
    (run / "metrics.jsonl").write_text('{"step": 3, "loss/rec')
    refused(r"metrics.jsonl: damaged; the run's own `drnet train` command", run, out)
    (run / "metrics.jsonl").unlink()
    (run / "checkpoints" / "00000003" / "state.json").write_text("{}")
    refused(r"00000003/state.json: missing or damaged; delete this checkpoint", run, out, checkpoint="3")
    weights = run / "checkpoints" / "00000006" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    refused(r"its SHA-256 differs", run, out)
    shutil.rmtree(run / "checkpoints")
    refused(r"no checkpoint yet", run, out)
    assert not out.exists()


def test_weights_that_do_not_fit_the_runs_settings_are_refused(run: Path, tmp_path: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    config["model"]["width"] = 2**20
    (run / "config.json").write_text(json.dumps(config))
    refused(r"does not fit the settings of the run's config.json: tensor content_encoder", run, tmp_path / "out")


def test_an_unknown_format_is_refused_with_those_there_are(trained: Path, tmp_path: Path) -> None:
    refused(r"^format 'tf' is not allowed; there are safetensors, torch-export, onnx$", trained, tmp_path / "x", "tf")


def test_another_data_set_is_refused(trained: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    build(plan_build(BouncingDigits("optdigits", clips=4, test_clips=2, frames=3, size=32), "raw", 8), data)
    refused(r"data: build [0-9a-f]{12}, and the run was trained on [0-9a-f]{12};", trained, tmp_path / "x", shards=data)


def test_another_checkpoint_or_anybodys_files_are_never_touched(exported: Path, trained: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(exported, tmp_path / "mine"))
    refused(r"mine: holds the model of step 6, another one; choose a new folder", trained, mine, checkpoint="3")
    (mine / "thesis.tex").write_text("...")
    refused(r"mine: holds thesis.tex, which is not of a model's export", trained, mine)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "README.md").write_text("mine")
    refused(r"text: holds README.md, which is not of a model's export", trained, tmp_path / "text")
    refused(r"holds (best.json|checkpoints|config.json|latest.json)", trained, trained)
    assert (tmp_path / "text" / "README.md").read_text() == "mine"
    (mine / "thesis.tex").unlink()
    (mine / "config.json").write_text("{}")
    refused(r"mine/config.json: damaged, .*, or choose a new folder as --out$", trained, mine)


def test_a_cloned_empty_repository_is_a_place(trained: Path, tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".gitattributes").write_text("*.safetensors filter=lfs")
    export_model(trained, tmp_path)
    assert from_pretrained(tmp_path).facts["step"] == 6


def test_an_export_that_was_cut_off_is_continued_and_not_taken_for_whole(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def torn(path: Path, data: bytes, keep_same: bool = False) -> None:
        if path.name == "model.safetensors":
            path.with_name(f".{path.name}.00ff.tmp").write_bytes(data[:100])
            raise KeyboardInterrupt
        whole(path, data, keep_same)

    whole = module.write_whole
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_whole", torn)
        with pytest.raises(KeyboardInterrupt):
            export_model(trained, tmp_path / "out")
    with pytest.raises(ValueError, match=r"no model.safetensors, only 'nothing yet'"):
        from_pretrained(tmp_path / "out")
    export_model(trained, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"config.json", "README.md", "model.safetensors"}
    assert from_pretrained(tmp_path / "out").facts["step"] == 6


def test_one_export_at_a_time_writes_into_a_folder(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out"):
        refused(r"another process exports into it", trained, tmp_path / "out")
