"""How much of every experiment is done: `tiny` on two CPU cores, `small` in an hour of one GPU, `paper` in full.

All numbers that a scale consists of are in the table at the end: settings of the data sets by role, presets and steps of
the runs, steps of the predictors, what is scored.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from drnet.datasets.contract import DataError
from drnet.guess import guess
from drnet.pipelines.training.loop import Logging

TURNS = {"toys": "turns", "classes": "turns"}  # both roles are trained alike: with small NORB they are the same runs


@dataclass(frozen=True)
class RunPlan:
    """A run.

    Attributes:
        preset: row of `drnet.presets.PRESETS`.
        steps: of its training, which is the length of its schedules too.
        changes: settings that differ from the preset's.
        predictor: steps of its predictor, where one is asked for.
    """

    preset: str
    steps: int
    changes: Mapping[str, Any] = field(default_factory=dict)
    predictor: int = 0


@dataclass(frozen=True)
class Scale:
    """A scale.

    Attributes:
        name, title: what it is called, and what it is for.
        judged: whether its numbers are compared with the paper's.
        data: settings of each role's data set.
        runs: by role and variant (`kth`, `kth-ae24`); `turns` are those of the roles `toys` and `classes`.
        predictor: settings of predictors that differ from the default.
        logging: of the runs.
        seeds: runs of every row of Table 1.
        far_digits, far: predicted frames of digits and of actions.
        scored: held-out clips of digits that are scored; None: all that the protocol takes.
        sections: of `drnet evaluate`, for digits.
        persons, draws, hidden: of Fig. 8.
        fits: of each classifier of Table 1.
        searched: training clips that neighbours are looked for in.
    """

    name: str
    title: str
    judged: bool
    data: Mapping[str, Mapping[str, Any]]
    runs: Mapping[str, RunPlan]
    predictor: Mapping[str, Any] = field(default_factory=dict)
    logging: Logging = field(default_factory=Logging)
    seeds: int = 1
    far_digits: int = 500
    far: int = 100
    scored: int | None = None
    sections: tuple[str, ...] = ("frames", "swap", "position", "disentanglement", "identity")
    persons: tuple[int, ...] = tuple(range(1, 13))
    draws: int = 5
    hidden: int | None = None
    fits: int = 3
    searched: int = 2000

    def plan(self, role: str, variant: str = "") -> RunPlan:
        """Return the plan of a role's run."""
        base = TURNS.get(role, role)
        return self.runs[f"{base}-{variant}" if variant else base]


CODE_128 = {"pose_dim": 128}

TINY = Scale(
    name="tiny",
    title="everything on two CPU cores in under 40 minutes; judges nothing against the paper",
    judged=False,
    data={
        "digits": {"clips": 10_000, "test_clips": 500, "size": 32},
        "chairs": {"clips": 300, "test_clips": 30, "size": 64},
        "toys": {"size": 64},
        "classes": {"size": 64},
        "kth": {"size": 64},
    },
    runs={
        "digits": RunPlan("mnist-small", 3000, predictor=1000),
        "chairs": RunPlan("chairs-small", 800),
        "turns": RunPlan("chairs-small", 400, {"pose_dim": 10}),
        "turns-beta0": RunPlan("chairs-small", 400, {"pose_dim": 10, "beta": 0.0}),
        "kth": RunPlan("kth-small", 1000, predictor=500),
        "kth-actions": RunPlan("kth-small", 500, {"pose_dim": 24}),
        "kth-ae24": RunPlan("kth-small-autoencoder", 500, predictor=500),
        "kth-ae128": RunPlan("kth-small-autoencoder", 500, CODE_128, predictor=500),
    },
    logging=Logging(checkpoint_every=500, sample_every=500),
    scored=32,
    sections=("frames", "swap", "position"),
    draws=2,
    hidden=256,
    fits=2,
)

_DATA: Mapping[str, Mapping[str, Any]] = {
    "digits": {"clips": 60_000, "test_clips": 1000, "size": 64},
    "chairs": {"clips": 1500, "test_clips": 100, "size": 64},
    "toys": {"size": 64},
    "classes": {"size": 64},
    "kth": {"size": 128},
}

SMALL = Scale(
    name="small",
    title="the paper's networks, for an hour of one GPU",
    judged=True,
    data={**_DATA, "digits": {"clips": 20_000, "test_clips": 1000, "size": 64}},
    runs={
        "digits": RunPlan("mnist", 20_000, {"precision": "tf32"}, predictor=5000),
        "chairs": RunPlan("chairs", 4000, {"precision": "tf32"}),
        "turns": RunPlan("norb", 4000, {"precision": "tf32"}),
        "turns-beta0": RunPlan("norb", 4000, {"precision": "tf32", "beta": 0.0}),
        "kth": RunPlan("kth", 6000, {"precision": "tf32"}, predictor=5000),
        "kth-actions": RunPlan("kth-actions", 4000, {"precision": "tf32"}),
        "kth-ae24": RunPlan("kth-autoencoder", 3000, {"precision": "tf32"}, predictor=3000),
        "kth-ae128": RunPlan("kth-autoencoder", 3000, {"precision": "tf32"} | CODE_128, predictor=3000),
    },
    scored=100,
    draws=3,
)

PAPER = Scale(
    name="paper",
    title="the full protocol",
    judged=True,
    data=_DATA,
    runs={
        "digits": RunPlan("mnist", 120_000, predictor=20_000),
        "chairs": RunPlan("chairs", 120_000),
        "turns": RunPlan("norb", 120_000),
        "turns-beta0": RunPlan("norb", 120_000, {"beta": 0.0}),
        "kth": RunPlan("kth", 120_000, predictor=20_000),
        "kth-actions": RunPlan("kth-actions", 120_000),
        "kth-ae24": RunPlan("kth-autoencoder", 120_000, predictor=20_000),
        "kth-ae128": RunPlan("kth-autoencoder", 120_000, CODE_128, predictor=20_000),
    },
    seeds=3,
    fits=5,
    searched=100_000,
)

SCALES = {scale.name: scale for scale in (TINY, SMALL, PAPER)}


def scale_of(name: str) -> Scale:
    """Return a scale by name; raises DataError in one line where there is none."""
    if name not in SCALES:
        raise DataError(f"scale {name!r} is not known{guess(name, SCALES)}; there are {', '.join(SCALES)}")
    return SCALES[name]
