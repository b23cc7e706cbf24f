"""Frames by their roles, and the discriminator's pairs: never false by a shift, and of other content where asked."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from drnet.pairs import ROLES, other_content, permuted, roles_of, shifted

CPU = torch.device("cpu")


def test_two_frames_serve_all_losses_and_four_have_each_their_own() -> None:
    pair, four = (roles_of(torch.empty(3, count, 1, 4, 4)) for count in (2, 4))
    assert pair == (0, 1, 1, 0, (0, 1))  # content x_t, everything else x_t+k
    assert four == (0, 1, 2, 3, (0, 1))  # content, its target, the pose that is drawn, its partner
    with pytest.raises(ValueError, match=r"^3 frames of each clip are not allowed; supported are 2 and 4$"):
        roles_of(torch.empty(3, 3, 1, 4, 4))
    assert sorted(ROLES) == [2, 4]


@given(st.integers(2, 50))
def test_a_shift_makes_each_place_a_negative_once_and_never_of_itself(count: int) -> None:
    pairs = shifted(count, CPU)
    assert pairs.same.tolist() == pairs.first.tolist() == list(range(count))
    assert sorted(pairs.second.tolist()) == list(range(count))
    assert not bool((pairs.first == pairs.second).any())
    assert pairs.weights is None


def test_a_shift_pairs_each_place_with_the_one_before_it() -> None:
    assert shifted(5, CPU).second.tolist() == [4, 0, 1, 2, 3]


@given(st.lists(st.integers(0, 4), min_size=2, max_size=30))
def test_of_other_content_is_the_nearest_place_before_with_another_key(keys: list[int]) -> None:
    pairs = other_content(torch.tensor(keys))
    assert pairs.weights is not None
    for place, (other, weight) in enumerate(zip(pairs.second.tolist(), pairs.weights.tolist(), strict=True)):
        before = [(place - shift) % len(keys) for shift in range(1, len(keys))]
        wanted = [candidate for candidate in before if keys[candidate] != keys[place]]
        assert weight == bool(wanted)
        if wanted:
            assert other == wanted[0]


def test_with_keys_that_all_differ_it_is_the_shift() -> None:
    assert torch.equal(other_content(torch.arange(7)).second, shifted(7, CPU).second)


@given(st.integers(2, 60), st.integers(0, 10**6))
def test_a_permutation_stays_in_the_first_half_and_the_second_half_is_of_one_clip(count: int, step: int) -> None:
    pairs = permuted(count, step, CPU)
    half = count // 2
    assert pairs.same.tolist() == list(range(half, count))
    assert pairs.first.tolist() == sorted(pairs.second.tolist()) == list(range(half))
    assert torch.equal(pairs.second, permuted(count, step, CPU).second)  # a pure function of the step


def test_a_permutation_has_2_percent_false_negatives_at_a_batch_of_100_and_a_shift_has_none() -> None:
    steps = 2000
    false = sum(int((permuted(100, step, CPU).second == torch.arange(50)).sum()) for step in range(steps))
    assert false / (50 * steps) == pytest.approx(0.02, rel=0.15)  # one of 50, on average
    assert len({tuple(permuted(100, step, CPU).second.tolist()) for step in range(50)}) == 50
