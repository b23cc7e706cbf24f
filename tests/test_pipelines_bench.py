"""Benchmarks measure what they say, whatever the speed is."""

import itertools

from drnet.pipelines.measuring.bench import interleaved


def test_rates_are_medians_and_ratios_are_of_the_medians() -> None:
    seconds = iter([0, 1, 0, 1, 0, 1, 0, 2, 0, 4, 0, 1, 0, 2, 0, 8])  # two warm-ups, then three rounds of two
    found = interleaved("t", {"ours": lambda _: 8, "theirs": lambda _: 4}, 3, clock=lambda: next(seconds))
    assert found["rates"] == {"ours": 4, "theirs": 2}
    assert found["ratios"] == {"theirs": {"ratio": 2, "rounds": [4, 0.5, 8]}}


def test_the_works_take_turns_and_the_warm_up_is_round_zero() -> None:
    seen, clock = [], itertools.count()
    works = {name: lambda n, name=name: seen.append((name, n)) or 1 for name in "ab"}
    interleaved("t", works, 2, clock=lambda: next(clock))
    assert seen == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]
