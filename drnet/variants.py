"""Where the paper and the authors' code differ: one row for each item, what either says, and which settings follow.

`--variant` switches them all at once; each setting can also be given alone. The authors have two codes, Lua (the paper's
time) and Python (later). `authors` is the Python one, the one that is in use, but for what is plainly a slip in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from drnet.guess import guess


@dataclass(frozen=True)
class Difference:
    """One item on which the paper and the authors' code differ.

    Attributes:
        item: what it is.
        paper: settings of `paper`; a row of the preset table may say more, where it is named in `by_preset`.
        authors: settings of `authors`.
        reason: what either says, and why the choice is so.
        by_preset: settings whose `paper` value is the preset's own.
    """

    item: str
    paper: Mapping[str, Any]
    authors: Mapping[str, Any]
    reason: str
    by_preset: tuple[str, ...] = ()


VARIANTS = ("paper", "authors")

DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "loss scale",
        {"reconstruction": "mean", "similarity": "mean"},
        {"reconstruction": "mean", "similarity": "mean"},
        "Eq. 1 and 2 are sums of squares, both codes take means. Means in either variant: the paper's alpha and beta fit "
        "only them, since at 3x64x64 a sum is 12,288 times larger. `reconstruction` and `similarity` take `sum`.",
    ),
    Difference(
        "target of the similarity",
        {"detach_target": False},
        {"detach_target": True},
        "Eq. 2 is symmetric; both codes hold the second content vector constant.",
    ),
    Difference(
        "adversarial gradient",
        {"detach_first_pose": False},
        {"detach_first_pose": True},
        "Eq. 4 trains the encoder through both poses; both codes through the pose of the reconstructed frame alone.",
    ),
    Difference(
        "beta on the discriminator's own loss",
        {"discriminator_beta": True},
        {"discriminator_beta": False},
        "Eq. 5 has it, neither code does. Adam is nearly blind to it: only its epsilon, 1e-8, sees the scale of a loss.",
    ),
    Difference(
        "negatives",
        {"negatives": "shift", "inverted_labels": False},
        {"negatives": "permuted", "inverted_labels": True},
        "Eq. 3 takes another video j, here the one before it in the batch, so that none is false. Both codes permute half "
        "of the batch in itself: one of its clips, on average, stays beside itself. The Python code labels that half 1 "
        "(Lua: 0); Eq. 4 aims at 1/2 and cannot tell.",
    ),
    Difference(
        "frames drawn",
        {"frames": "pair"},
        {"frames": "window", "max_offset": 11, "cyclic": False},
        "The paper draws x_t and x_t+k, k up to K, and gives no K: 11, as the Lua code's clips of 12, or the whole turn of "
        "a turntable. Both codes draw four frames, the first of a window of K + 1 for content and three others of it. For "
        "digits the Python code has come to use the first four frames of every clip, a slip, so `authors` keeps the "
        "window; for KTH it draws four anywhere in the clip (`clip`).",
        by_preset=("max_offset", "cyclic"),
    ),
    Difference(
        "Adam's beta1",
        {"adam_beta1": 0.9},
        {"adam_beta1": 0.5},
        "The paper gives none, so Adam's own default; Lua's option has no effect (0.9, too); Python has 0.5.",
    ),
    Difference(
        "beta",
        {},
        {"beta": 0.0001},
        "Sec. 4.1: 0.1, and 0.0001 for KTH. The codes' defaults: Lua 0, Python 0.0001 for every data set.",
        by_preset=("beta",),
    ),
    Difference(
        "last layer of the encoders",
        {"unit_norm": True},
        {"unit_norm": False},
        "Sec. 4.1: unit norm. Both codes: BatchNorm and tanh, with the norm as an option that is off.",
    ),
    Difference(
        "skips",
        {},
        {"skips": True},
        "Sec. 4.1 has them for KTH alone; the Python code by default on digits too, between DCGAN networks. A ResNet "
        "content encoder has none in any of them.",
        by_preset=("skips",),
    ),
    Difference(
        "initial weights",
        {"initialisation": "own"},
        {"initialisation": "dcgan"},
        "The paper says nothing, so each network as its own source: DCGAN from N(0, 0.02), ResNet's and VGG's stages by "
        "fan-out. The codes draw all from N(0, 0.02) and BatchNorm scales from N(1, 0.02), over the ResNet's own.",
    ),
    Difference(
        "ResNet-18 for 128x128",
        {"fifth_stage": False},
        {"fifth_stage": True},
        "The paper says ResNet-18, whose map is 4x4 there; the Python code adds a fifth stage of 1024 channels, Lua has "
        "no ResNet for 128.",
    ),
    Difference(
        "batch and iterations",
        {"batch_size": 100, "horizon": 120_000},
        {"batch_size": 100, "horizon": 120_000},
        "The paper gives neither; Lua 100 and about 100,000 to 150,000, Python 100 and 120,000.",
    ),
)


def changes(variant: str, preset: str, paper: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a variant switches, by field name; what both agree on is not among them.

    Args:
        variant: `paper` or `authors`.
        preset: name of a row of the preset table.
        paper: that row's settings, of model and training.

    Raises:
        ValueError: for another variant.
    """
    rows = [row for row in DIFFERENCES if row.paper != row.authors]
    if variant == "paper":
        return {name: paper[name] for row in rows for name in (*row.paper, *row.by_preset)}
    if variant != "authors":
        raise ValueError(
            f"variant {variant!r} is not known{guess(variant, VARIANTS)}; there are {' and '.join(VARIANTS)}"
        )
    found = {name: value for row in rows for name, value in row.authors.items()}
    found["skips"] = paper["content_network"] == paper["decoder_network"]
    if preset.startswith("kth"):
        found["frames"] = "clip"
    return found
