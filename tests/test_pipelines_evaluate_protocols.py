"""Protocols by name, and the windows they choose."""

from types import SimpleNamespace
from typing import Any

import pytest

from drnet.datasets.contract import DataError, Label
from drnet.pipelines.evaluation.protocols import Window, differences, protocol_of, windows_of

ACTIONS = ("walking", "jogging", "running", "boxing")


def clips(*lengths: int, action: int = 0, **changes: Any) -> Any:
    """A stand-in for a collection of KTH, with clips of these lengths."""
    manifest = SimpleNamespace(
        about={"data_set": changes.pop("data_set", "kth")},
        parameters={"test_persons": changes.pop("persons", "17-25")},
        accounting={"test": {"written": len(lengths)} | changes.pop("accounting", {})},
    )
    return SimpleNamespace(
        sample=lambda clip: SimpleNamespace(length=lengths[clip]),
        labels=lambda clip: {"action": action},
        label_types={"action": Label("category", names=ACTIONS)},
        frame_shape=(128, 128, 1),
        manifest=manifest,
    )


def test_drnet_takes_the_beginning_of_every_clip_as_far_as_it_goes() -> None:
    found = windows_of(protocol_of("drnet", "kth"), clips(200, 40, 10), [0, 1, 2], 0, endless=False)
    assert found.chosen == (Window(0, 0, 100), Window(1, 0, 30))
    assert found.left_out == 1


def test_digits_are_predicted_for_500_steps_whatever_their_clips_length() -> None:
    protocol = protocol_of("drnet", "mnist")
    assert (protocol.observe, protocol.steps, protocol.means) == (5, 500, (10, 100, 500))
    found = windows_of(protocol, clips(20, 4), [0, 1], 0, endless=True)
    assert found.chosen == (Window(0, 0, 500),)
    assert found.left_out == 1


@pytest.mark.parametrize(("action", "skip"), [(0, 20), (1, 3), (2, 3), (3, 20)])
def test_mcnet_has_a_window_every_20_frames_and_every_3_where_persons_are_fast(action: int, skip: int) -> None:
    found = windows_of(protocol_of("mcnet", "kth"), clips(100, action=action), [0], 0, endless=False)
    assert [window.start for window in found.chosen] == list(range(0, 68, skip))
    assert {window.future for window in found.chosen} == {20}
    assert all(99 - window.start >= 32 for window in found.chosen)


def test_mcnets_windows_need_clips_of_33_frames() -> None:
    collection = clips(33, 32)
    found = windows_of(protocol_of("mcnet", "kth"), collection, [0, 1], 0, endless=False)
    assert found.chosen == (Window(0, 0, 20),)
    assert found.left_out == 1
    with pytest.raises(DataError, match="none of 1 clips has the 33 frames that protocol mcnet needs; choose fewer"):
        windows_of(protocol_of("mcnet", "kth"), collection, [1], 0, endless=False)


def test_svg_draws_one_window_of_each_clip_by_the_seed() -> None:
    protocol = protocol_of("svg", "kth")
    collection = clips(*[300] * 20, 40, 39)
    found = windows_of(protocol, collection, range(22), 0, endless=False)
    assert found == windows_of(protocol, collection, range(22), 0, endless=False)
    assert found != windows_of(protocol, collection, range(22), 1, endless=False)
    assert [window.clip for window in found.chosen] == list(range(21))
    assert found.chosen[20] == Window(20, 0, 30)
    assert all(0 <= window.start <= 260 for window in found.chosen)
    assert len({window.start for window in found.chosen}) > 10
    assert found.left_out == 1
    assert "N is 1" in protocol.about
    assert protocol.to_json()["samples"] == 1


def test_lengths_can_be_changed_and_are_told() -> None:
    protocol = protocol_of("mcnet", "kth", observe=5, steps=40)
    assert (protocol.observe, protocol.steps, protocol.means) == (5, 40, (20, 40))
    assert differences(protocol, clips(50)) == [
        "observed frames are 5, in the protocol 10",
        "steps are 40, in the protocol 20",
    ]


def test_data_that_the_literatures_numbers_are_not_of_is_told() -> None:
    assert differences(protocol_of("mcnet", "kth"), clips(50)) == []
    assert differences(protocol_of("drnet", "kth"), clips(50, persons="1-3")) == []
    assert differences(protocol_of("svg", "kth"), clips(50, accounting={"missing": 3})) == [
        "test persons are 17-25, in the protocol 21-25",
        "3 of 4 test videos are missing or failed",
        "frames are 128x128, in the protocol 64x64",
    ]
    assert differences(protocol_of("mcnet", "chairs"), clips(50, data_set="chairs")) == [
        "the clips are of chairs, the protocol is for kth"
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            ("mcnets", None, None),
            r"protocol 'mcnets' is not known \(did you mean 'mcnet'\?\); supported are drnet, mcnet, svg",
        ),
        (("drnet", 0, None), "observe 0 is not allowed; it must be from 1 to 10000"),
        (("drnet", None, 20_000), "steps 20000 is not allowed; it must be from 1 to 10000"),
    ],
)
def test_a_setting_that_is_not_allowed_is_one_line(given: tuple[str, int | None, int | None], said: str) -> None:
    with pytest.raises(DataError, match=said):
        protocol_of(given[0], "kth", *given[1:])
