"""The bench of frames in a device's memory."""

from pathlib import Path

from drnet.pipelines.measuring.bench_cache import bench_cache


def test_the_bench_compares_the_device_with_the_stream(digits: Path) -> None:
    found = bench_cache(digits, "cpu", 8, rounds=2, steps=5)
    assert set(found["rates"]) == {"device", "stream"}
    assert all(rate > 0 for rate in found["rates"].values())
    assert len(found["ratios"]["stream"]["rounds"]) == 2
