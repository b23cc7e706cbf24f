"""Graphs of every preset's networks say what the model says, for any batch, and name no file of this machine."""

import dataclasses
import functools
import io
import sys
import zipfile
from collections.abc import Mapping

import onnx
import onnxruntime
import pytest
import torch

from drnet.config import DrNetConfig
from drnet.model import DrNet
from drnet.pipelines.run import RunError
from drnet.pipelines.sharing import graphs as module
from drnet.pipelines.sharing.graphs import (
    NAMES,
    TOLERANCE,
    Part,
    compare,
    examples,
    nested,
    network_of,
    onnx_graph,
    parts_of,
    torch_graph,
)
from drnet.presets import PRESETS

NARROW = {"width": 2, "channels": 1, "content_dim": 6, "pose_dim": 3}


def networks() -> dict[str, tuple[DrNetConfig, str]]:
    """Return each network that a preset has, narrow, once: named after itself and all presets that have it."""
    found: dict[str, tuple[list[str], DrNetConfig, str]] = {}
    for name, preset in PRESETS.items():
        if not isinstance(preset.model, DrNetConfig):
            continue  # only a DrNet is shared
        config = dataclasses.replace(preset.model, size=preset.sizes[0], **NARROW)
        with torch.device("meta"):
            model = DrNet(config)
        for part in NAMES:
            key = f"{part} {config.size} {config.unit_norm} {config.skips} {getattr(model, part)}"
            found.setdefault(key, ([], config, part))[0].append(name)
    return {f"{part} of {'+'.join(names)}": (config, part) for names, config, part in found.values()}


NETWORKS = networks()


@functools.cache
def model_with(config: DrNetConfig) -> DrNet:
    """Return a model whose BatchNorm has seen frames, in evaluation mode."""
    torch.manual_seed(0)
    model = DrNet(config).train()
    frames = torch.rand(6, config.channels, config.size, config.size)
    with torch.no_grad():
        model.decode(model.content_encoder(frames), model.pose_encoder(frames))
    return model.eval()


def network(name: str) -> tuple[DrNet, Part]:
    config, part = NETWORKS[name]
    model = model_with(config)
    return model, parts_of(model)[NAMES.index(part)]


def wanted(model: DrNet, part: Part, given: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    with torch.no_grad():
        said = network_of(model, part)(*nested([given[name] for name in part.inputs]))
    return [said] if isinstance(said, torch.Tensor) else list(said)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_torch_program_that_was_loaded_says_what_the_model_says(name: str) -> None:
    model, part = network(name)
    data = torch_graph(model, part)
    program = torch.export.load(io.BytesIO(data)).module()
    for batch in (1, 3):
        given = examples(model, batch)
        said = program(*nested([given[name] for name in part.inputs]))
        found = [said] if isinstance(said, torch.Tensor) else list(said)
        for one, other in zip(found, wanted(model, part, given), strict=True):
            assert torch.allclose(one, other, atol=1e-5)
            assert len(one) == batch


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_runtime_says_what_the_model_says(name: str) -> None:
    model, part = network(name)
    data = onnx_graph(model, part)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    assert [row.name for row in session.get_inputs()] == list(part.inputs)
    assert [row.name for row in session.get_outputs()] == list(part.outputs)
    assert {row.shape[0] for row in (*session.get_inputs(), *session.get_outputs())} == {"batch"}
    for batch in (1, 4):
        given = examples(model, batch)
        found = session.run(None, {name: given[name].numpy() for name in part.inputs})
        for one, other in zip(found, wanted(model, part, given), strict=True):
            assert one.shape == other.shape
            assert float((torch.from_numpy(one) - other).abs().max()) <= 1e-4


@pytest.fixture(scope="module")
def small() -> DrNet:
    torch.manual_seed(0)
    return DrNet(DrNetConfig(size=32, width=2, content_dim=6, pose_dim=2)).eval()


def test_every_preset_is_among_the_networks() -> None:
    for part in NAMES:
        of_part = [name.removeprefix(f"{part} of ") for name in NETWORKS if name.startswith(part)]
        assert sorted("+".join(of_part).split("+")) == sorted(
            name for name, row in PRESETS.items() if isinstance(row.model, DrNetConfig)
        )


def test_no_graph_names_a_source_file_of_this_machine(small: DrNet) -> None:
    part = parts_of(small)[2]
    with zipfile.ZipFile(io.BytesIO(torch_graph(small, part))) as archive:
        contents = b"".join(archive.read(name) for name in archive.namelist())
    for data in (contents, onnx_graph(small, part)):
        assert b"networks.py" not in data
        assert sys.prefix.encode() not in data
        assert b"DcganDecoder" in contents  # or the format would have changed, and nothing be searched


def test_an_onnx_graph_is_one_valid_file(small: DrNet) -> None:
    graph = onnx.load_from_string(onnx_graph(small, parts_of(small)[0]))
    onnx.checker.check_model(graph, full_check=True)
    assert [row.version for row in graph.opset_import if not row.domain] == [module.OPSET]
    assert not [tensor.name for tensor in graph.graph.initializer if tensor.external_data]


def test_a_graph_that_differs_from_the_model_is_refused(small: DrNet) -> None:
    part = parts_of(small)[1]
    exact = network_of(small, part)
    assert compare(small, part, lambda inputs: exact(*inputs).detach()) == 0
    assert 0 < compare(small, part, lambda inputs: exact(*inputs).detach() + TOLERANCE / 2) <= TOLERANCE
    wrong = {
        "0.001": lambda inputs: exact(*inputs).detach() + 1e-3,
        "nan": lambda inputs: exact(*inputs).detach() * float("nan"),
    }
    for difference, say in wrong.items():
        with pytest.raises(
            RunError, match=rf"^pose_encoder: the graph differs from the model by {difference}, more than"
        ):
            compare(small, part, say)
    with pytest.raises(RunError, match=r"^pose_encoder: the graph gives other shapes than the model for a batch of 2$"):
        compare(small, part, lambda inputs: exact(*inputs).detach()[:1])


def test_without_the_packages_one_line_says_the_way_out(small: DrNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RunError, match=r"^ONNX needs onnx, onnxscript and onnxruntime: pip install 'drnet\[onnx\]'$"):
        onnx_graph(small, parts_of(small)[0])
