"""Every named setting in one table: the paper's under its names, tuned ones under names of their own."""

from dataclasses import dataclass

from drnet.model import DrNetConfig
from drnet.trainer import TrainConfig


@dataclass(frozen=True)
class Preset:
    """A named setting.

    Attributes:
        title: one line for `drnet train --help`.
        model: of the networks and losses; size and channels follow the data.
        train: of the training.
        sizes: frame sizes it is meant for.
        reproduces: the number or picture it must reproduce.
    """

    title: str
    model: DrNetConfig
    train: TrainConfig
    sizes: tuple[int, ...]
    reproduces: str


PRESETS: dict[str, Preset] = {
    "mnist": Preset(
        "the paper's settings for two bouncing digits at 64x64 (Sec. 4.1, 4.2)",
        DrNetConfig(pose_dim=5, content_dim=128, width=64, alpha=1.0, beta=0.1),
        TrainConfig(batch_size=100, lr=0.002, horizon=120_000),
        (64,),
        "Fig. 3: swaps and 500-step rollouts of held-out digits",
    ),
    "mnist-small": Preset(
        "digits at 32x32 on a CPU in about a quarter of an hour",
        DrNetConfig(
            size=32,
            pose_dim=10,
            content_dim=24,
            width=32,
            alpha=0.1,
            alpha_start=0.02,
            alpha_warmup=8_000,
            beta=0.01,
            beta_warmup=12_000,
            similarity="whitened",
            centred="content",
            content_pooled=True,
            initialisation="torch",
        ),
        TrainConfig(
            batch_size=64,
            lr=0.002,
            schedule="cosine",
            warmup=300,
            horizon=12_000,
            max_offset=19,
            precision="bf16",
        ),
        (32,),
        "digit accuracy >= .65 from content and <= .2 from pose; position R2 >= .95 from pose, <= .5 from content",
    ),
    "chairs-small": Preset(
        "generated chairs at 64x64 on a CPU in about five minutes",
        DrNetConfig(
            pose_dim=4,
            content_dim=128,
            width=32,
            alpha=1.0,
            beta=0.1,
            detach_target=True,
            detach_first_pose=True,
            centred="both",
            initialisation="torch",
        ),
        TrainConfig(
            batch_size=64,
            lr=0.002,
            schedule="cosine",
            warmup=100,
            horizon=1800,
            max_offset=35,
            cyclic=True,
            precision="bf16",
        ),
        (64,),
        "Fig. 5 (right): held-out chairs turned as another one stands",
    ),
}


def preset(name: str) -> Preset:
    """Return a preset by name; raises ValueError in one line where there is none."""
    if name not in PRESETS:
        raise ValueError(f"preset {name!r} is not known; there are {', '.join(PRESETS)}")
    return PRESETS[name]
