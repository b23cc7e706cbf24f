"""A model's three networks as graphs that run without drnet: `torch.export` programs and ONNX.

Axes: B batch (any number), C channels, H height, W width. Each graph has float32 in and out, in evaluation mode, and is
compared with the model before it is kept. No graph names a file of the machine that it was made on.
"""

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from drnet.model import DrNet, vector_of
from drnet.networks import Content
from drnet.pipelines.run import RunError

TOLERANCE = 1e-4  # largest difference of any number from the model's
BATCHES = (1, 2, 5)  # compared
OPSET = 20
NEEDS_ONNX = "ONNX needs onnx, onnxscript and onnxruntime: pip install 'drnet[onnx]'"
_TRACE = "stack_trace"  # where PyTorch's exporter writes the paths of source files


@dataclass(frozen=True)
class Part:
    """A network as a graph.

    Attributes:
        name: of the model's attribute, and of the file without its ending.
        inputs, outputs: the names of the graph's arguments and results.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


NAMES = ("content_encoder", "pose_encoder", "decoder")


def parts_of(model: DrNet) -> tuple[Part, ...]:
    """Return a model's three networks; skips (Sec. 4.1, KTH) go from the content encoder to the decoder as they are."""
    skips = tuple(name for name in examples(model, 1) if name not in ("frames", "content", "pose"))
    return (
        Part("content_encoder", ("frames",), ("content", *skips)),
        Part("pose_encoder", ("frames",), ("pose",)),
        Part("decoder", ("content", "pose", *skips), ("frames",)),
    )


@torch.no_grad()
def examples(model: DrNet, batch: int) -> dict[str, Tensor]:
    """Return arguments to compare graphs with: random frames (B, C, H, W), and what the encoders say of them."""
    config = model.config
    draw = torch.Generator().manual_seed(batch)
    frames = torch.rand((batch, config.channels, config.size, config.size), generator=draw)
    content, pose = model.content_encoder(frames), model.pose_encoder(frames)
    skips = content.skips if isinstance(content, Content) else ()
    named = {f"skip_{number}": skip for number, skip in enumerate(skips)}
    return {"frames": frames, "content": vector_of(content), "pose": pose, **named}


def shapes_of(model: DrNet) -> dict[str, tuple[int, ...]]:
    """Return the shape of each argument and result without its first axis, B."""
    return {name: tuple(value.shape[1:]) for name, value in examples(model, 1).items()}


class WithSkips(nn.Module):
    """A content encoder that returns, or a decoder that takes, the content vector and its skips one by one."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, first: Tensor, pose: Tensor | None = None, skips: tuple[Tensor, ...] = ()) -> Any:
        if pose is not None:
            return self.net(Content(first, tuple(skips)), pose)
        content = self.net(first)
        return (content.vector, *content.skips)


def network_of(model: DrNet, part: Part) -> nn.Module:
    """Return a network that takes and gives tensors only."""
    net = getattr(model, part.name)
    return WithSkips(net).eval() if model.config.skips and part.name != "pose_encoder" else net


def nested(values: Sequence[Any]) -> tuple[Any, ...]:
    """Return arguments as the network takes them: a decoder's skips, where there are any, are one tuple."""
    return (*values[:2], tuple(values[2:])) if len(values) > 2 else tuple(values)


def torch_graph(model: DrNet, part: Part) -> bytes:
    """Return a network as `torch.export.save` writes it.

    Args:
        model: on the CPU, in evaluation mode.
        part: which network.

    Raises:
        RunError: where the graph does not say what the model says.
    """
    arguments, shapes = _traced(model, part)
    with torch.no_grad(), quiet():
        program = torch.export.export(network_of(model, part), arguments, dynamic_shapes=shapes)
        for node in program.graph.nodes:
            node.meta.pop(_TRACE, None)
        graph = program.module()
    compare(model, part, lambda inputs: graph(*nested(inputs)))
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


def onnx_graph(model: DrNet, part: Part) -> bytes:
    """Return a network as an ONNX model, its arguments and results named as the part says; ONNX Runtime has run it.

    Args:
        model: on the CPU, in evaluation mode.
        part: which network.

    Raises:
        RunError: where a package is missing, or the graph does not say what the model says.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - PyTorch's exporter needs it
    except ImportError:
        raise RunError(NEEDS_ONNX) from None
    arguments, shapes = _traced(model, part)
    with torch.no_grad(), quiet():
        program = torch.onnx.export(
            network_of(model, part),
            arguments,
            input_names=part.inputs,
            output_names=part.outputs,
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None, "with dynamo=True there is a program"
    for node in program.model.graph:
        node.metadata_props.clear()  # traces with paths
    data: bytes = program.model_proto.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def run(inputs: Sequence[Tensor]) -> Any:
        feed = {name: value.numpy() for name, value in zip(part.inputs, inputs, strict=True)}
        return tuple(torch.from_numpy(found) for found in session.run(list(part.outputs), feed))

    compare(model, part, run)
    return data


def _traced(model: DrNet, part: Part) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return arguments to trace a network with, and that the first axis of each may have any length."""
    given, batch = examples(model, 2), torch.export.Dim("batch", min=1)
    arguments = [given[name] for name in part.inputs]
    return nested(arguments), nested([{0: batch}] * len(arguments))


def compare(model: DrNet, part: Part, run: Callable[[Sequence[Tensor]], Any]) -> float:
    """Return the largest difference of a graph from the model, over several sizes of batch.

    Raises:
        RunError: where it is above `TOLERANCE`, or shapes differ.
    """
    differences = [torch.zeros(())]
    net = network_of(model, part)
    for batch in BATCHES:
        given = examples(model, batch)
        inputs = [given[name] for name in part.inputs]
        with torch.no_grad():
            wanted, found = (_listed(say(inputs)) for say in (lambda inputs: net(*nested(inputs)), run))
        if [value.shape for value in found] != [value.shape for value in wanted]:
            raise RunError(f"{part.name}: the graph gives other shapes than the model for a batch of {batch}")
        differences += [(one - other).abs().max() for one, other in zip(found, wanted, strict=True)]
    worst = float(torch.stack(differences).max())  # NaN, where there is one
    if not worst <= TOLERANCE:
        raise RunError(f"{part.name}: the graph differs from the model by {worst:.2g}, more than {TOLERANCE:g}")
    return worst


def _listed(found: Any) -> list[Tensor]:
    return [found] if isinstance(found, Tensor) else list(found)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep PyTorch's exporter from speaking of its own code: a deprecated call, one name for all batch axes, torchvision."""

    def of_torchvision(record: logging.LogRecord) -> bool:
        return "torchvision is not installed" not in record.getMessage()

    registry = logging.getLogger("torch.onnx._internal.exporter._registration")
    registry.addFilter(of_torchvision)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            warnings.filterwarnings("ignore", "# The axis name: batch will not be used", UserWarning)
            yield
    finally:
        registry.removeFilter(of_torchvision)
