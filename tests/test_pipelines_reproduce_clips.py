"""Which clips the figures of actions show: never the same in two figures, long ones first, and what is said of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drnet.datasets.contract import Label
from drnet.pipelines.reproduction.actions import FAR_TIMES
from drnet.pipelines.reproduction.clip_choice import EACH, far_clips, of_actions, told_of_far

NAMES = ("boxing", "running", "walking")


@dataclass(frozen=True)
class Sample:
    key: str
    length: int


class Clips:
    """Clips of (action, person, length)."""

    label_types: Mapping[str, Label] = {"action": Label("category", names=NAMES)}

    def __init__(self, facts: Sequence[tuple[int, int, int]]) -> None:
        self.facts = facts

    def __len__(self) -> int:
        return len(self.facts)

    def sample(self, clip: int) -> Sample:
        return Sample(f"clip{clip}", self.facts[clip][2])

    def labels(self, clip: int) -> dict[str, Any]:
        return {"action": self.facts[clip][0], "person": self.facts[clip][1]}


@dataclass(frozen=True)
class Shown:
    """A scene, as far as clips are chosen from it."""

    clips: Clips
    split: str = "test"

    def key(self, clip: int) -> str:
        return self.clips.sample(clip).key


def scene(*facts: tuple[int, int, int]) -> Any:
    return Shown(Clips(facts))


def plain(names: Sequence[str]) -> list[str]:
    return [name.partition(":")[0] for name in names]


def test_two_figures_never_share_a_clip_while_there_are_two() -> None:
    for count in range(2, 12):
        first, second = far_clips(scene(*((n % 3, n % 2, 20 + 9 * n) for n in range(count))), 10, 60)
        shown = plain([*first, *second])
        assert len(set(shown)) == len(shown) == min(count, 2 * EACH)
        assert 0 <= len(first) - len(second) <= 1
    assert far_clips(scene((0, 0, 50)), 10, 60) == (["clip0"], [])


def test_long_clips_come_first_and_those_that_show_something_else() -> None:
    many = [(n % 3, n // 3, 110 if n < 12 else 40) for n in range(24)]
    first, second = far_clips(scene(*many), 10, 110)
    for shown in (first, second):
        assert all(many[int(name[4:])][2] == 110 for name in shown)
        assert {many[int(name[4:])][0] for name in shown} == {0, 1, 2}
    assert far_clips(scene(*many), 10, 110) == (first, second)
    short = [(0, 21, 75), (0, 21, 128), (0, 21, 83), (0, 21, 79), *((1, 23, length) for length in (32, 33, 29, 31))]
    assert far_clips(scene(*short), 10, 110) == (
        ["clip1:10", "clip5", "clip3", "clip7"],  # the long one from where its middle is seen
        ["clip2", "clip4", "clip0", "clip6"],
    )


def test_clips_without_a_frame_after_the_observed_ones_are_not_shown() -> None:
    first, second = far_clips(scene((0, 0, 10), (0, 0, 11), (0, 1, 9), (1, 0, 30)), 10, 60)
    assert set(first + second) == {"clip1", "clip3"}


def test_how_many_clips_are_long_enough_is_told() -> None:
    here = scene((0, 0, 60), (0, 0, 70), (1, 1, 30))
    assert told_of_far(here, ["clip1:6", "clip2"], 60) == (
        "held-out clips that have all 60 frames, observed and predicted: 2 of 3; of the 2 shown: 1; "
        "beyond the end of a clip only the prediction is shown"
    )
    assert told_of_far(here, ["clip0"], 60).endswith("of the 1 shown: 1")


def test_an_action_that_no_clip_shows_is_replaced_and_told() -> None:
    notes: list[str] = []
    assert of_actions(scene((0, 0, 50), (2, 0, 34)), ("walking", "running"), 30, notes) == ["clip1:3", "clip0:11"]
    assert notes == ["no held-out clip of 30 frames shows running: other actions are shown"]


def test_the_times_are_those_above_the_papers_figure() -> None:
    shown = "1 5 10 11 14 17 20 23 26 29 32 35 38 41 44 47 50 60 70 80 90 100"
    assert list(FAR_TIMES) == [int(time) for time in shown.split()]
