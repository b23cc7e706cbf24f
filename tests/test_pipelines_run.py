"""The run folder: settings that stay, checkpoints that are whole, and damage that is told in one line."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from drnet.pipelines import run as module
from drnet.pipelines.run import (
    Best,
    RunError,
    choose_checkpoint,
    data_error_if_size_differs,
    keep_checkpoints,
    latest_checkpoint,
    load_run,
    load_tensors,
    load_weights,
    read_best,
    read_config,
    read_metrics,
    run_folder,
    save_checkpoint,
    settle_config,
)
from drnet.pipelines.training.session import cut_metrics


def config_of(**train: Any) -> dict[str, Any]:
    model = {"size": 32, "width": 4}
    return {"format": 1, "preset": "mnist", "model": model, "train": train, "data": {"order_key": "k", "clips": 9}}


def resolved(config: dict[str, Any], run: Path) -> dict[str, Any]:
    """Return a configuration with every setting in it, as training resolves it."""
    run.mkdir()
    (run / "config.json").write_text(json.dumps(config))
    return read_config(run)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


def saved(run: Path, step: int) -> nn.Module:
    model = nn.Linear(3, 2)
    save_checkpoint(run, model, {"step": torch.tensor(step)}, {"step": step})
    return model


def test_settings_are_written_once_and_then_compared(tmp_path: Path, run: Path) -> None:
    config = resolved(config_of(lr=0.01), tmp_path / "other")
    settle_config(run, config)
    before = (run / "config.json").read_bytes()
    settle_config(run, config)
    assert (run / "config.json").read_bytes() == before
    assert read_config(run) == config


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("train", "lr", 0.5),
        ("train", "seed", 9),
        ("model", "beta", 3.0),
        ("data", "order_key", "z"),
        ("data", "clips", 1),
    ],
)
def test_a_changed_setting_is_refused_by_name(tmp_path: Path, run: Path, part: str, name: str, value: Any) -> None:
    config = resolved(config_of(), tmp_path / "other")
    settle_config(run, config)
    saved(run, 1)
    changed = config | {part: config[part] | {name: value}}
    with pytest.raises(RunError, match=f"was started with {part}.{name} .*, not {value!r}; use that, or another --out"):
        settle_config(run, changed)


def test_the_parts_of_a_batch_may_change_when_a_run_is_continued(tmp_path: Path, run: Path) -> None:
    config = resolved(config_of(), tmp_path / "other")
    settle_config(run, config)
    saved(run, 1)
    settle_config(run, config | {"train": config["train"] | {"accumulate": 4}})
    assert read_config(run)["train"]["accumulate"] == 4


def test_another_preset_is_named_before_all_that_follows_from_it(tmp_path: Path, run: Path) -> None:
    config = resolved(config_of(), tmp_path / "other")
    settle_config(run, config)
    saved(run, 1)
    with pytest.raises(RunError, match="was started with preset 'mnist', not 'fast'"):
        settle_config(run, config | {"preset": "fast", "model": config["model"] | {"beta": 9.0}})


def test_a_run_without_a_checkpoint_may_start_with_other_settings(tmp_path: Path, run: Path) -> None:
    config = resolved(config_of(), tmp_path / "other")
    settle_config(run, config)
    settle_config(run, config | {"train": config["train"] | {"accumulate": 2}})
    assert read_config(run)["train"]["accumulate"] == 2


def test_the_best_checkpoint_stays_beside_the_newest(run: Path) -> None:
    values = {1: 3.0, 2: 3.0, 3: 4.0, 4: 3.5, 5: 9.0}  # of equally good ones the later is the best
    for step, value in values.items():
        saved(run, step)
        keep_checkpoints(run, 2, Best(step, "held_out/reconstruction", value))
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["00000002", "00000004", "00000005"]
    assert read_best(run) == Best(2, "held_out/reconstruction", 3.0)
    assert [choose_checkpoint(run, name).step for name in ("last", "best", "4")] == [5, 2, 4]
    with pytest.raises(RunError, match="no checkpoint '3'; there are last, best and the steps 2, 4, 5"):
        choose_checkpoint(run, "3")


def test_a_best_checkpoint_that_was_deleted_is_none(run: Path) -> None:
    saved(run, 1)
    keep_checkpoints(run, 2, Best(1, "held_out/reconstruction", 1.0))
    shutil.rmtree(run / "checkpoints" / "00000001")
    saved(run, 2)
    assert read_best(run) is None
    with pytest.raises(RunError, match="no checkpoint is known to be the best"):
        choose_checkpoint(run, "best")
    keep_checkpoints(run, 2, Best(2, "held_out/reconstruction", 8.0))
    assert choose_checkpoint(run, "best").step == 2


def test_a_damaged_name_of_the_best_is_told_in_one_line(run: Path) -> None:
    saved(run, 1)
    (run / "best.json").write_text('{"step": 1, "metric": "x", "value": []}')
    with pytest.raises(RunError, match=r"best\.json: damaged; delete the file"):
        choose_checkpoint(run, "best")


def test_a_kind_of_model_that_is_not_known_is_refused(run: Path) -> None:
    run.mkdir()
    (run / "config.json").write_text(json.dumps(config_of() | {"kind": "oracle"}))
    with pytest.raises(RunError, match="kind 'oracle' is not known; there are drnet"):
        read_config(run)


def test_a_run_from_before_a_setting_existed_has_its_default(tmp_path: Path, run: Path) -> None:
    config = resolved(config_of(), tmp_path / "other")
    settle_config(run, config)
    older = json.loads((run / "config.json").read_text())
    del older["train"]["adam_beta1"], older["model"]["detach_target"]
    (run / "config.json").write_text(json.dumps(older))
    settle_config(run, config)


def test_a_folder_with_other_files_is_left_alone(run: Path) -> None:
    run.mkdir()
    (run / "thesis.txt").write_text("dear")
    with pytest.raises(RunError, match="holds files that are not a run; choose an empty or new folder as --out"):
        settle_config(run, config_of())
    assert [path.name for path in run.iterdir()] == ["thesis.txt"]


def test_what_a_writer_left_that_was_killed_at_once_is_no_hindrance(run: Path) -> None:
    run.mkdir()
    (run / ".config.json.123.tmp").write_text("{")
    with run_folder(run):
        settle_config(run, config_of())
    assert [path.name for path in run.iterdir()] == ["config.json"]


def test_two_processes_cannot_train_into_one_folder(run: Path) -> None:
    with run_folder(run), pytest.raises(RunError, match="another process trains into it"), run_folder(run):
        pass
    with run_folder(run):
        pass


@pytest.mark.parametrize("text", ["", "[]", '{"format": 2}', '{"format": 1}', '{"format": 1, "model": {"tail": 1}}'])
def test_settings_that_make_no_sense_are_refused_in_one_line(run: Path, text: str) -> None:
    run.mkdir()
    (run / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json: ") as raised:
        read_config(run)
    assert "\n" not in str(raised.value)


def test_a_checkpoint_is_whole_and_the_newest_is_found(run: Path) -> None:
    saved(run, 5)
    model = saved(run, 40)
    found = latest_checkpoint(run)
    assert found is not None
    assert (found.step, found.folder.name) == (40, "00000040")
    assert sorted(path.name for path in found.folder.iterdir()) == [
        "model.safetensors",
        "state.json",
        "trainer.safetensors",
    ]
    assert json.loads((run / "latest.json").read_text()) == {"latest": "00000040"}
    other = nn.Linear(3, 2)
    load_weights(other, found)
    assert torch.equal(other.weight, model.weight)


def test_checkpoints_are_ordered_by_number_not_by_text(run: Path) -> None:
    for step in (99_999_999, 100_000_000):
        saved(run, step)
    found = latest_checkpoint(run)
    assert found is not None
    assert found.step == 100_000_000
    keep_checkpoints(run, 1)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["100000000"]


def test_only_the_newest_checkpoints_stay_and_leftovers_go(run: Path) -> None:
    for step in range(1, 6):
        saved(run, step)
    (run / "checkpoints" / ".00000009.new.tmp").mkdir()
    keep_checkpoints(run, 2)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["00000004", "00000005"]


def test_a_writer_killed_at_any_moment_leaves_the_checkpoint_before(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(run, 1)
    for name in ("save_file", "_sync_and_hash", "write_whole", "sync_folder"):

        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(module, name, killed)
            with pytest.raises(KeyboardInterrupt):
                saved(run, 2)
        found = latest_checkpoint(run)
        assert found is not None
        assert found.step == 1
    saved(run, 2)
    keep_checkpoints(run, 3)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["00000001", "00000002"]


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a flipped bit in the data": lambda path: flip(path, -3),
    "a flipped bit in the header": lambda path: flip(path, 12),
    "cut short": lambda path: os.truncate(path, path.stat().st_size - 5),
    "empty": lambda path: os.truncate(path, 0),
    "missing": lambda path: path.unlink(),
}


def load_all(run: Path, model: nn.Module) -> None:
    checkpoint = latest_checkpoint(run)
    assert checkpoint is not None
    load_weights(model, checkpoint)
    load_tensors(checkpoint.folder / "trainer.safetensors", checkpoint.trainer_sha256)


@pytest.mark.parametrize("file", ["model.safetensors", "trainer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_with_the_way_out(run: Path, file: str, damage: str) -> None:
    model = saved(run, 5)
    DAMAGES[damage](run / "checkpoints" / "00000005" / file)
    with pytest.raises(RunError, match="delete this checkpoint to go on from the one before") as raised:
        load_all(run, model)
    assert file.split(".")[0] in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("state", ["[]", "{}", '{"step": "many", "sha256": ""}', "null"])
def test_a_state_of_another_form_is_refused(run: Path, state: str) -> None:
    saved(run, 5)
    (run / "checkpoints" / "00000005" / "state.json").write_text(state)
    with pytest.raises(RunError, match=r"state\.json: missing or damaged"):
        latest_checkpoint(run)


def test_weights_of_another_model_are_refused(run: Path) -> None:
    saved(run, 5)
    checkpoint = latest_checkpoint(run)
    assert checkpoint is not None
    with pytest.raises(RunError, match=r"does not fit the model of config\.json"):
        load_weights(nn.Linear(4, 2), checkpoint)


def test_metrics_after_the_checkpoint_and_a_half_written_line_are_cut(run: Path) -> None:
    run.mkdir()
    lines = [json.dumps({"step": step, "loss": step / 10}) + "\n" for step in (2, 4, 6, 8)]
    (run / "metrics.jsonl").write_text("".join(lines) + '{"step": 10, "lo')
    cut_metrics(run, 8)
    assert (run / "metrics.jsonl").read_text() == "".join(lines)
    cut_metrics(run, 5)
    assert [line["step"] for line in read_metrics(run)] == [2, 4]
    cut_metrics(run, 0)
    assert read_metrics(run) == []
    assert read_metrics(run / "nowhere") == []


def test_a_trained_run_is_loaded_ready_for_use(trained: Path) -> None:
    model, checkpoint, config = load_run(trained)
    assert not model.training
    assert checkpoint.step == 6
    assert (model.config.width, config["train"]["batch_size"]) == (4, 8)


def test_a_copied_run_is_loaded_the_same(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "elsewhere")
    one, other = load_run(trained)[0].state_dict(), load_run(tmp_path / "elsewhere")[0].state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_folder_without_a_run_or_a_checkpoint_says_how_to_make_one(tmp_path: Path, run: Path) -> None:
    with pytest.raises(RunError, match=r"no run here .*drnet train --shards S --out"):
        load_run(tmp_path)
    settle_config(run, config_of())
    with pytest.raises(RunError, match="no checkpoint yet; train it first with `drnet train"):
        load_run(run)


def test_frames_of_another_size_do_not_fit(trained: Path) -> None:
    data_error_if_size_differs(read_config(trained), (32, 32, 3))
    with pytest.raises(
        ValueError, match=r"frames of \(64, 64, 3\) do not fit this run, .* \(32, 32, 3\); build shards"
    ):
        data_error_if_size_differs(read_config(trained), (64, 64, 3))
