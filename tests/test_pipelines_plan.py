"""The order of training: golden values, purity, and what every batch must hold."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drnet.datasets.draws import key_of, words
from drnet.pipelines import plan as module
from drnet.pipelines.plan import Plan, filled, frame_fours, frame_pairs, in_parts, keep_apart, part_of, share_of

GOLDEN_CLIPS = [[11, 4, 9, 3], [5, 10, 7, 8], [1, 0, 2, 6], [5, 3, 4, 2]]
GOLDEN_RAW = [2679561997797555857, 14967489484277388555, 4386316806699426570, 1419280638919549640]
GOLDEN_PAIRS = [[2, 8], [16, 17], [0, 0], [0, 0]]


def stream(plan: Plan, steps: int) -> list[int]:
    return np.concatenate([plan.batch(step).clips for step in range(steps)]).tolist()


def test_the_order_of_format_1_is_fixed_for_ever() -> None:
    plan = Plan("key", 7, [3, 4, 5], 4)
    assert [plan.batch(step).clips.tolist() for step in (0, 1, 2, 1000)] == GOLDEN_CLIPS
    raw = plan.batch(5).raw
    assert raw.shape == (4, 4)
    assert raw[:, 0].tolist() == GOLDEN_RAW
    assert frame_pairs(raw, [20, 20, 3, 1], 11).tolist() == GOLDEN_PAIRS


@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=80).filter(lambda counts: sum(counts) >= 4),
    batch=st.integers(4, 30),
    seed=st.integers(0, 2**40),
)
@settings(max_examples=60, deadline=None)
def test_every_clip_comes_exactly_once_an_epoch(counts: list[int], batch: int, seed: int) -> None:
    plan, clips = Plan("k", seed, counts, batch), sum(counts)
    for epoch in (0, 1, 7):
        assert sorted(plan.order(epoch * clips, clips).tolist()) == list(range(clips))


@given(clips=st.integers(2, 12), batch=st.integers(2, 25), seed=st.integers(0, 1000), step=st.integers(0, 500))
@settings(max_examples=300, deadline=None)
def test_a_clip_never_stands_beside_itself_in_a_batch(clips: int, batch: int, seed: int, step: int) -> None:
    if clips == 2 and batch % 2:
        with pytest.raises(ValueError, match="it must be even"):
            Plan("k", seed, [clips], batch)
        return
    plan = Plan("k", seed, [clips], batch)
    chosen = plan.batch(step).clips
    assert (chosen != np.roll(chosen, 1)).all()
    assert Counter(chosen.tolist()) == Counter(plan.order(step * batch, batch).tolist())


def test_a_batch_without_neighbours_of_one_clip_keeps_the_streams_order() -> None:
    chosen = np.array([5, 1, 5, 2, 3])
    assert keep_apart(chosen) is chosen
    assert sorted(keep_apart(np.array([5, 1, 2, 3, 5])).tolist()) == [1, 2, 3, 5, 5]


@given(
    size=st.integers(2, 9),
    world=st.integers(1, 6),
    more=st.integers(0, 20),
    seed=st.integers(0, 99),
    step=st.integers(0, 99),
)
@settings(max_examples=300, deadline=None)
def test_a_clip_never_stands_beside_itself_in_a_part(size: int, world: int, more: int, seed: int, step: int) -> None:
    batch = max(4, size * world) // world * world
    chosen = Plan("k", seed, [batch + more], batch).batch(step).clips
    parts = [part_of(chosen, rank, world) for rank in range(world)]
    assert sorted(np.concatenate(parts).tolist()) == list(range(batch))
    for places in parts:
        assert (chosen[places] != np.roll(chosen[places], 1)).all()


def test_parts_follow_one_another_where_no_clip_meets_itself_in_one() -> None:
    assert [part_of(np.array([5, 1, 5, 2, 3, 5]), rank, 2).tolist() for rank in (0, 1)] != [[0, 1, 2], [3, 4, 5]]
    assert [part_of(np.array([5, 1, 2, 5, 3, 1]), rank, 2).tolist() for rank in (0, 1)] == [[0, 1, 2], [3, 4, 5]]


@given(
    rows=st.integers(4, 9),
    world=st.integers(1, 4),
    parts=st.integers(1, 3),
    more=st.integers(0, 20),
    step=st.integers(0, 99),
    bad=st.sets(st.integers(0, 200), max_size=12),
)
@settings(max_examples=300, deadline=None)
def test_a_share_is_filled_to_its_size_with_its_own_readable_clips_and_none_meets_itself(
    rows: int, world: int, parts: int, more: int, step: int, bad: set[int]
) -> None:
    batch = rows * world * parts
    chosen = Plan("k", 1, [batch + more], batch).batch(step).clips
    clips = chosen[in_parts(chosen, parts)]
    for rank in range(world):
        share = share_of(batch, rank, world, parts)
        readable = np.array([clip not in bad for clip in clips[share].tolist()])
        order = filled(clips, share, readable, parts)
        if order is None:
            assert len(set(clips[share][readable].tolist())) < 3  # with three there is always one that differs from two
            continue
        assert order.shape == share.shape
        assert readable[order].all()
        assert np.array_equal(order[readable], np.flatnonzero(readable))  # where they were
        together = clips.copy()  # with what the others planned
        together[share] = clips[share[order]]
        for part in together.reshape(parts, -1):
            meets = part == np.roll(part, 1)
            assert not meets.any()


def test_a_batch_may_span_two_epochs_and_none_is_cut_short() -> None:
    plan = Plan("k", 0, [5, 5], 8)
    assert all(len(plan.batch(step).clips) == 8 for step in range(10))
    assert Counter(stream(plan, 5)) == Counter(dict.fromkeys(range(10), 4))  # 40 samples: four epochs of 10
    second = plan.batch(1).clips.tolist()
    assert set(second) >= set(range(10)) - set(plan.batch(0).clips.tolist())  # the rest of the first epoch is in it


def test_epochs_differ_and_so_do_seeds_and_shards() -> None:
    plan = Plan("k", 0, [16] * 4, 8)
    epochs = {tuple(plan.order(64 * epoch, 64).tolist()) for epoch in range(5)}
    others = {tuple(Plan(key, seed, [16] * 4, 8).order(0, 64).tolist()) for key, seed in (("k", 1), ("l", 0))}
    assert len(epochs | others) == 7


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_any_step_is_the_same_whatever_was_asked_before(steps: list[int]) -> None:
    used = Plan("k", 3, [4, 9, 2, 6], 5)
    for step in steps:
        fresh = Plan("k", 3, [4, 9, 2, 6], 5).batch(step)
        again = used.batch(step)
        assert again.clips.tolist() == fresh.clips.tolist()
        assert again.raw.tolist() == fresh.raw.tolist()


@given(first=st.integers(0, 10**7), count=st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_a_piece_of_the_stream_equals_the_stream(first: int, count: int) -> None:
    plan = Plan("k", 1, [7] * 40, 6)
    one_by_one = [int(plan.order(place, 1)[0]) for place in range(first, first + count)]
    assert plan.order(first, count).tolist() == one_by_one


def test_choices_are_numbered_by_sample_not_by_step() -> None:
    plan = Plan("k", 2, [50], 10)
    raw = words(key_of("k", 2, "choices"), 0, 40)
    assert np.array_equal(np.concatenate([plan.batch(step).raw for step in range(4)]), raw)


@pytest.mark.parametrize("step", [0, 1_000_000, 10**12])
def test_a_late_step_costs_what_the_first_one_costs(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(module, "permutation", lambda key, size: drawn.append(size) or np.arange(size))
    monkeypatch.setattr(module, "words", lambda key, first, count: drawn.append(count) or words(key, first, count))
    Plan("k", 0, [10] * 320, 100).batch(step)
    assert sorted(drawn)[:3] == [100, 320, 320]  # the choices, the shards' order, and one or two windows of 32 shards
    assert sum(drawn) <= 100 + 2 * (320 + 320)


def test_clips_of_far_shards_do_not_meet_in_a_window() -> None:
    plan = Plan("k", 0, [10] * 96, 16)
    shards = plan.order(0, 960) // 10
    windows = [set(shards[at : at + 320].tolist()) for at in (0, 320, 640)]
    assert all(len(window) == 32 for window in windows)
    assert set.union(*windows) == set(range(96))
    assert set((plan.order(960, 320) // 10).tolist()) != windows[0]  # the next epoch draws its windows anew


def test_first_frames_and_offsets_are_uniform() -> None:
    raw = words(key_of("uniform"), 0, 40_000)
    pairs = frame_pairs(raw, np.full(len(raw), 10), 4)
    first, offset = pairs[:, 0], pairs[:, 1] - pairs[:, 0]
    assert np.allclose(np.bincount(first, minlength=10) / len(raw), 0.1, atol=0.01)
    for time in range(10):
        most = min(4, 9 - time)
        seen = np.bincount(offset[first == time])
        assert len(seen) == most + 1
        assert np.allclose(seen / seen.sum(), 1 / (most + 1), atol=0.03)


@given(lengths=st.lists(st.integers(1, 400), min_size=1, max_size=50), most=st.integers(0, 500), key=st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_both_frames_lie_in_the_clip(lengths: list[int], most: int, key: int) -> None:
    first, second = frame_pairs(words(key, 0, len(lengths)), lengths, most).T
    assert (first >= 0).all()
    assert (first <= second).all()
    assert (second - first <= most).all()
    assert (second < np.array(lengths)).all()


def test_a_whole_turn_goes_on_at_its_first_frame() -> None:
    raw = words(key_of("turn"), 0, 20_000)
    first, second = frame_pairs(raw, np.full(len(raw), 12), 5, cyclic=True).T
    offset = (second - first) % 12
    assert offset.max() == 5
    for time in (0, 6, 11):
        seen = np.bincount(offset[first == time], minlength=6)
        assert np.allclose(seen / seen.sum(), 1 / 6, atol=0.03)
    assert set(frame_pairs(raw, np.full(len(raw), 3), 50, cyclic=True)[:, 1].tolist()) == {0, 1, 2}


def test_a_clip_of_one_frame_is_paired_with_itself() -> None:
    assert frame_pairs(words(1, 0, 3), [1, 1, 1], 11).tolist() == [[0, 0]] * 3


@pytest.mark.parametrize(
    ("counts", "batch", "said"), [([9], 1, "batch size 1"), ([1], 4, "1 clip is not"), ([], 4, "0 clip")]
)
def test_too_little_for_a_negative_pair_is_refused(counts: list[int], batch: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Plan("k", 0, counts, batch)


RAW = words(key_of("fours"), 0, 4000)


def test_the_four_frames_of_a_window_are_its_first_and_three_after_it() -> None:
    times = frame_fours(RAW, [20] * 4000, 12)
    first, others = times[:, :1], times[:, 1:]
    assert sorted(set((others - first).ravel().tolist())) == list(range(1, 12))
    assert set(first.ravel().tolist()) == set(range(9))  # a whole window fits behind each
    for column in range(3):
        counts = np.bincount((others - first)[:, column])[1:]
        assert counts.min() > 0.8 * 4000 / 11
    assert not np.array_equal(others[:, 0], others[:, 1])


def test_in_a_turn_a_window_passes_the_end_and_a_clip_shorter_than_it_is_all_of_it() -> None:
    times = frame_fours(RAW, [20] * 4000, 12, cyclic=True)
    assert set(times[:, 0].tolist()) == set(range(20))
    assert set(((times[:, 1:] - times[:, :1]) % 20).ravel().tolist()) == set(range(1, 12))
    short = frame_fours(RAW, np.resize([1, 2, 5], 4000), 12)
    assert not short[:, 0].any()
    assert not short[::3].any()
    assert set(short[1::3, 1:].ravel().tolist()) == {1}
    assert set(short[2::3, 1:].ravel().tolist()) == {1, 2, 3, 4}


def test_four_frames_of_a_clip_are_drawn_alone_from_all_of_it() -> None:
    times = frame_fours(RAW, [30] * 4000, None)
    for column in times.T:
        assert set(column.tolist()) == set(range(30))
    assert np.abs(np.corrcoef(times.T) - np.eye(4)).max() < 0.06
