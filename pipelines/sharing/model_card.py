"""A model's card: `README.md` with the front matter that the Hugging Face hub reads."""

import json
from collections.abc import Mapping
from typing import Any

from drnet.pipelines.run import WEIGHTS
from drnet.pipelines.sharing.card import LICENCES
from drnet.pipelines.sharing.graphs import NAMES, TOLERANCE

TAGS = ("drnet", "video", "disentanglement", "representation-learning")
UNNAMED = "unnamed shards"  # of a run on shards without a manifest
PAPER = (
    "Denton and Birodkar, Unsupervised learning of disentangled representations from video, 2017 "
    "([arXiv:1705.10915](https://arxiv.org/abs/1705.10915))"
)
TRUST = (
    "`torch.export.load` unpickles what a file tells it to: load a `.pt2` file only where you trust everybody who could "
    "have changed it. `model.safetensors` and `.onnx` files hold no code."
)
MODE = (
    "Every file is of the model in evaluation mode: BatchNorm uses the statistics of training, so a frame's vectors do "
    "not depend on the other frames of its batch."
)


def model_card(
    facts: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    metrics: Mapping[str, float],
    about: Mapping[str, Any],
    licence: str | None = None,
) -> str:
    """Return the card.

    Args:
        facts: the model's `config.json`.
        shapes: of what the networks take and give, by name, without B.
        metrics: the last ones logged, with their `step`.
        about: what the data set says of itself; empty where that is not known.
        licence: of the weights, as the hub names it; None for the data set's.
    """
    settings = json.dumps({"model": facts["model"], "train": facts["train"]}, indent=2)
    parts = [
        front_matter(facts, metrics, about, licence),
        f"# DrNet of {data_name(facts)}, {facts['step']:,} steps",
        "Encodes a video frame as *content* (what it shows) and *pose* (how it stands), and decodes both to a frame.",
        "## Use",
        use(facts),
        MODE,
        "## Files",
        "\n".join(file_lines(facts, shapes)),
        TRUST if any(name.endswith(".pt2") for name in facts["files"]) else "",
        "## Training",
        "\n".join(training_lines(facts, about)),
        "\n".join(metric_lines(metrics)),
        "## Settings",
        f"```json\n{settings}\n```",
        "## Licence and citation",
        licence_line(about, licence),
        f"Cite: {PAPER}",
        f"Cite, for the data set: {about['citation']}" if about else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def data_name(facts: Mapping[str, Any]) -> str:
    """Return the data set's name."""
    return str((facts["data"] or {}).get("data_set") or UNNAMED)


def front_matter(
    facts: Mapping[str, Any], metrics: Mapping[str, float], about: Mapping[str, Any], licence: str | None
) -> str:
    """Return the YAML that the hub reads; its values are JSON, which YAML contains."""
    known = next((value for name, value in LICENCES.items() if name in about.get("licence", "")), None)
    values: dict[str, Any] = {"library_name": "drnet", "license": licence or known or "other"}
    if values["license"] == "other":
        values["license_name"] = about.get("licence", "not stated")
    name = data_name(facts)
    values["tags"] = [*TAGS, *([name] if name != UNNAMED else [])]
    values["pipeline_tag"] = "image-feature-extraction"
    rows = [
        {"type": metric, "name": f"{metric}, while training, at step {metrics['step']}", "value": value}
        for metric, value in metrics.items()
        if metric not in ("step", "lr") and not metric.startswith("data/")
    ]
    if rows:
        data = {"name": about.get("title", name), "type": name}
        task = {"type": "image-feature-extraction", "name": "content and pose of video frames"}
        results = [{"task": task, "dataset": data, "metrics": rows}]
        values["model-index"] = [{"name": f"drnet-{name}", "results": results}]
    return (
        "---\n" + "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items()) + "---"
    )


def use(facts: Mapping[str, Any]) -> str:
    """Return lines to begin with, in Python where there are weights."""
    model = facts["model"]
    size, channels = model["size"], model["channels"]
    if WEIGHTS not in facts["files"]:
        return "Run the graphs below with PyTorch (`torch.export.load`) or with ONNX Runtime."
    skips, content = "", f"(8, {model['content_dim']})"
    if model["skips"]:
        skips, content = ", skips=True", f"content.vector {content}"
    return f"""```python
import torch
import drnet

model = drnet.from_pretrained("FOLDER-OR-USER/NAME")
frames = torch.zeros(8, {size}, {size}, {channels}, dtype=torch.uint8)  # or floats in [0, 1]
content, pose = model.encode(frames{skips})  # {content}, (8, {model["pose_dim"]})
again = model.decode(content, pose.roll(1, 0))  # (8, {size}, {size}, {channels}) in [0, 1]: each in another's pose
```"""


def file_lines(facts: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return each file with what it takes and gives."""

    def shaped(*names: str) -> str:
        return ", ".join(f"`{name}` ({', '.join(map(str, ('B', *shapes[name])))})" for name in names)

    skips = [name for name in shapes if name.startswith("skip_")]
    says = {
        "content_encoder": f"{shaped('frames')} -> {shaped('content', *skips)}",
        "pose_encoder": f"{shaped('frames')} -> {shaped('pose')}",
        "decoder": f"{shaped('content', 'pose', *skips)} -> {shaped('frames')}",
        "model": "all weights; `config.json` has the settings",
    }
    files = facts["files"]
    lines = [f"* `{name}`: {says[name.rpartition('.')[0]]}. SHA-256 `{files[name]}`" for name in files]
    if any(name.rpartition(".")[0] in NAMES for name in files):
        lines.append("* Graphs take and give float32; B is any number, and frames are in [0, 1], channels first.")
        lines.append(f"* Compared with the model when they were written: no number differs by more than {TOLERANCE:g}.")
    if skips and any(name.endswith(".pt2") for name in files):
        lines.append("* `decoder.pt2` takes the skips as one tuple, its third argument.")
    return lines


def training_lines(facts: Mapping[str, Any], about: Mapping[str, Any]) -> list[str]:
    """Return what the model was trained on, and how."""
    data = facts["data"] or {}
    build = f", build `{str(data['build'])[:12]}`" if data.get("build") else ""
    clips = f", {data['clips']:,} clips" if isinstance(data.get("clips"), int) else ""
    lines = [f"* Data set: {about.get('title', data_name(facts))}{build}{clips}"]
    lines += [f"* {note[:1].upper()}{note[1:]}" for note in about.get("notes", ())]
    lines.append(f"* Preset `{facts['preset']}`, {facts['step']:,} steps, drnet {facts['drnet_version']}")
    return [*lines, f"* Checkpoint: SHA-256 `{facts['checkpoint_sha256']}`"]


def metric_lines(metrics: Mapping[str, float]) -> list[str]:
    """Return a table of the metrics, or that there are none."""
    if not metrics:
        return ["No metrics were logged."]
    rows = [f"| `{name}` | {value:.4g} |" for name, value in metrics.items() if name != "step"]
    head = f"Means over the steps before step {metrics['step']:,}, on training clips:"
    return [head, "", "| metric | value |", "| --- | --- |", *rows]


def licence_line(about: Mapping[str, Any], licence: str | None) -> str:
    """Return what is known of licences."""
    data = f"of the data set: {about['licence']}" if about else "of the data set: see there"
    return f"Licence of the weights: {licence}; {data}" if licence else f"Licence {data}"
