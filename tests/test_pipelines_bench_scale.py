"""The bench of very many clips: what it measures of a build is there, and does not grow where it must not."""

from pathlib import Path

from drnet.pipelines.build import build, plan_build
from drnet.pipelines.looking.dots import Dots
from drnet.pipelines.measuring.bench_scale import bench_scale
from drnet.pipelines.verify import verify_data


def test_what_is_sent_with_a_job_and_kept_in_memory_does_not_grow_with_the_clips(tmp_path: Path) -> None:
    small, large = bench_scale(((100, 10), (4000, 10)), tmp_path)
    assert (small["shards"], large["shards"]) == (10, 400)
    assert large["message"] <= small["message"] + 10  # bytes: only the shard's number is longer
    assert large["memory"] < small["memory"] + 5  # MB
    assert large["manifest"] < 40 * small["manifest"]
    assert large["load"] < 1
    assert not list(tmp_path.iterdir())


def test_its_data_set_is_a_right_one(tmp_path: Path) -> None:
    build(plan_build(Dots(25, frames=2), "raw", 10), tmp_path)
    assert verify_data(tmp_path)[0] == []
