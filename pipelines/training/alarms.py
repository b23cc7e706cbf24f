"""Alarms: the ways in which training fails, what each means, and what to try.

Each is told when it appears, and again when it returns. Those that follow from another one are kept back: a constant
pose is said to be constant, and not also to be ignored.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from drnet.health import STILL
from drnet.trainer import TrainConfig

LAST = 3  # checks in a row that must find an alarm's cause gone; near its threshold it would else come and go
NEARLY_CONSTANT = 1e-5  # of a variance of at most 1: numbers then differ by .001, which bfloat16 rounds away; a pose of
# .001 was seen to tell positions with R2 .98
KNOWN_CLIPS = 0.95  # accuracy of the discriminator; runs whose swaps are good had .5 to .8
GAP = 1.5  # held-out error with running statistics over that with a batch's; good runs had .98 to 1.2
CONTENT_LEAK = 0.4  # R2 of content told from the pose; good runs had -.2 to .3, runs without beta .35 to .5
POSE_LEAK = 0.5  # R2 of the pose told from content; good runs had 0 to .45, runs without alpha .7, of .75 that can be
POSE_IGNORED = 0.01  # of how far frames should change with the pose; good runs had .1 to .6 after 100 steps
ONE_DIRECTION = 1.35  # in how many directions training contents differ; KTH with alpha 1 had 1.0, good runs 2.6 to 8
CONTENT_IGNORED = 0.001  # the same with the content, with a pose held; good runs had .005 to .5 after 400 steps


@dataclass(frozen=True)
class Patience:
    """From which step on things are expected of a run: what is not there yet is no reason for an alarm.

    Attributes:
        early: vectors differ from frame to frame.
        fair: frames come out better than the mean frame, and change with both vectors.
        alike: the same, and a similarity loss draws the contents of a clip together; never where it has no weight.
        late: frames come out better than a copy.
        adversarial, similarity: the same, and the losses that keep content out of the pose, and pose out of the content,
            have at least half their weight; never where they have none.
    """

    early: float
    fair: float
    alike: float
    late: float
    adversarial: float
    similarity: float


def patience_of(train: TrainConfig, model: Any) -> Patience:
    """Return what may be expected of a run with some settings; a model's that has no such losses may lack theirs."""
    early = 200.0 + train.warmup
    fair = max(early, train.warmup + min(1000, train.horizon // 10))
    if train.ema:
        fair = max(fair, 3 / (1 - train.ema))  # steps until the average has forgotten the first weights
    late = max(fair, min(5000, train.horizon // 2))

    def since(weight: str) -> float:
        if model is None:
            return late
        ends = getattr(model, f"{weight}_warmup", 0) / 2
        return max(late, ends) if getattr(model, weight, 0) > 0 else math.inf

    alike = fair if model is None or getattr(model, "alpha", 0) > 0 else math.inf
    return Patience(early, fair, alike, late, since("beta"), since("alpha"))


@dataclass(frozen=True)
class Alarm:
    """A way in which training fails.

    Attributes:
        name: a few words.
        reads: the metrics that tell.
        wrong: of these, whether it fails so.
        since: field of `Patience`, the step from which it is told.
        says: what it means and what to try, with places for the metrics.
        follows: alarms that explain it: it is not told while one of them stands.
    """

    name: str
    reads: tuple[str, ...]
    wrong: Callable[..., bool]
    since: str
    says: str
    follows: tuple[str, ...] = ()


DEAD = ("pose constant", "content constant")
BAD_FRAMES = (*DEAD, "mean frame", "BatchNorm gap")

ALARMS = (
    Alarm(
        "pose constant",
        ("variance/pose",),
        lambda variance: variance < NEARLY_CONSTANT,
        "early",
        "the pose is nearly constant (variance {:.1e}), and a discriminator at chance (BCE 0.693) then is no good sign: "
        "it sees nothing; try a smaller --beta",
    ),
    Alarm(
        "content constant",
        ("variance/content",),
        lambda variance: variance < NEARLY_CONSTANT,
        "early",
        "the content is nearly constant (variance {:.1e}), which satisfies the similarity loss too; "
        "try a smaller --alpha",
    ),
    Alarm(
        "mean frame",
        ("loss/reconstruction", "baseline/mean_frame"),
        lambda error, mean: error >= mean,
        "fair",
        "training frames come out no better ({:.4f}) than as the mean frame ({:.4f}); try a lower --lr",
        DEAD,
    ),
    Alarm(
        "BatchNorm gap",
        ("held_out/bn_gap",),
        lambda gap: gap > GAP,
        "fair",
        "held-out frames come out {:.1f} times worse with BatchNorm's running statistics, which pictures and exports "
        "use, than with those of a batch; try a larger --batch-size or a lower --lr",
        ("mean frame",),
    ),
    Alarm(
        "unseen clips",
        ("held_out/reconstruction", "held_out/mean_frame"),
        lambda error, mean: error >= mean,
        "fair",
        "held-out frames come out no better ({:.4f}) than as their mean frame ({:.4f}), but training frames do: the model "
        "knows its training clips by heart; try more clips, or a smaller --width",
        (*BAD_FRAMES, "pose ignored"),
    ),
    Alarm(
        "pose ignored",
        ("held_out/pose_used",),
        lambda used: used < POSE_IGNORED,
        "fair",
        "the decoder ignores the pose: with another one its frame changes by {:.1%} of what it should, as when skips show "
        "it the frame itself; try a larger --max-offset, or a preset without skips",
        BAD_FRAMES,
    ),
    Alarm(
        "content ignored",
        ("held_out/content_used",),
        lambda used: used < CONTENT_IGNORED,
        "adversarial",
        "the decoder ignores the content: with another clip's its frame changes by {:.2%} of what it should, so the pose "
        "holds everything; try a smaller --pose-dim or a larger --beta",
        (*BAD_FRAMES, "unseen clips"),
    ),
    Alarm(
        "content on one line",
        ("participation/content",),
        lambda directions: directions < ONE_DIRECTION,
        "alike",
        "the contents of all clips lie nearly on one line ({:.2f} directions of variance): they tell one thing about a clip, "
        "say how bright it is, which satisfies the similarity loss; try a smaller --alpha, say a hundredth, or --similarity "
        "whitened with a --content-dim below --batch-size",
        (*DEAD, "unseen clips", "content ignored"),
    ),
    Alarm(
        "copying",
        ("held_out/reconstruction", "held_out/copy", "held_out/mean_frame"),
        lambda error, copy, mean: copy > STILL * mean and error >= copy,
        "late",
        "held-out frames come out no better ({:.4f}) than as a copy of the frame the content is from ({:.4f}); "
        "try a larger --max-offset, a larger --pose-dim, or more steps",
        (*BAD_FRAMES, "unseen clips", "pose ignored"),
    ),
    Alarm(
        "discriminator wins",
        ("discriminator/accuracy",),
        lambda accuracy: accuracy > KNOWN_CLIPS,
        "adversarial",
        "the discriminator knows a clip by its pose (accuracy {:.2f}), so the pose holds content; "
        "try a larger --beta or a smaller --pose-dim",
        ("pose constant",),
    ),
    Alarm(
        "content in pose",
        ("held_out/content_from_pose",),
        lambda score: score > CONTENT_LEAK,
        "adversarial",
        "held-out poses tell the content of their clip (R2 {:.2f}), though the discriminator may be at chance; "
        "try a larger --beta or a smaller --pose-dim",
        (*DEAD, "BatchNorm gap", "discriminator wins"),
    ),
    Alarm(
        "pose in content",
        ("held_out/pose_from_content",),
        lambda score: score > POSE_LEAK,
        "similarity",
        "held-out contents tell the pose of their frame (R2 {:.2f}); try a larger --alpha or a larger --max-offset",
        (*DEAD, "BatchNorm gap"),
    ),
)


class Alarms:
    """Which alarms stand, and which of them have been told.

    Args:
        patience: from which step on what is expected.
    """

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self._gone: dict[str, int] = {}  # of alarms that stand: how many checks in a row have found their cause gone
        self._told: set[str] = set()

    @property
    def standing(self) -> list[str]:
        """Names of the alarms that stand and do not follow from another one."""
        return [a.name for a in ALARMS if a.name in self._gone and not any(name in self._gone for name in a.follows)]

    def check(self, step: int, metrics: Mapping[str, float]) -> list[str]:
        """Return the alarms that have appeared, one line each; one whose metrics are not there stays as it is."""
        for alarm in ALARMS:
            if step >= getattr(self.patience, alarm.since) and all(name in metrics for name in alarm.reads):
                self._judge(alarm.name, alarm.wrong(*(metrics[name] for name in alarm.reads)))
        self._told &= self._gone.keys()
        standing = self.standing
        lines = []
        for alarm in ALARMS:
            known = all(name in metrics for name in alarm.reads)
            if alarm.name in standing and alarm.name not in self._told and known:
                self._told.add(alarm.name)
                lines.append(f"alarm at step {step}: " + alarm.says.format(*(metrics[name] for name in alarm.reads)))
        return lines

    def _judge(self, name: str, wrong: bool) -> None:
        if wrong:
            self._gone[name] = 0
        elif name in self._gone:
            self._gone[name] += 1
            if self._gone[name] == LAST:
                del self._gone[name]
