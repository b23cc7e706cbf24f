"""The same global batches for any number of processes, workers and shards, from any step on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from drnet.pipelines import plan as plan_module
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.loader import PlannedFrames
from drnet.pipelines.looking.dots import Dots
from drnet.pipelines.plan import Plan
from drnet.pipelines.source import Collection, open_shards

BATCH, STEPS, OFFSET = 96, 13, 3
CLIPS = 1000  # an epoch is 10.4 batches
Rows = list[tuple[int, int, int, int]]  # step, clip, t, t + k

# three workers are more than some machines have cores
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The same clips in one shard and in a thousand."""
    found = {}
    for shards in (1, 1000):
        found[shards] = tmp_path_factory.mktemp("elastic") / "dots"
        build(plan_build(Dots(CLIPS), "raw", CLIPS // shards), found[shards])
    return found


def plan_of(shards: Collection, seed: int = 5) -> Plan:
    return Plan(shards.order_key, seed, [place.clips for place in shards.places], BATCH)


def rows_of(samples: list[dict[str, Any]]) -> Rows:
    return [(int(s["step"]), int(s["clip"]), *(int(t) for t in s["times"])) for s in samples]


def read_rank(shards: Collection, rank: int, world: int, workers: int, first: int, last: int) -> list[Rows]:
    """The batches of steps [first, last) that one process gets from its loader."""
    frames = PlannedFrames(shards, plan_of(shards), OFFSET, first, rank=rank, world_size=world)
    loader: DataLoader[Any] = DataLoader(
        frames,
        batch_size=frames.batch_size,
        num_workers=workers,
        collate_fn=rows_of,
        multiprocessing_context="fork" if workers else None,
    )
    batches = iter(loader)
    return [next(batches) for _ in range(last - first)]


def global_batches(folder: Path, world: int, workers: int, first: int = 0, last: int = STEPS) -> list[Rows]:
    """What all processes together see, step by step."""
    shards = open_shards(folder)
    parts = [read_rank(shards, rank, world, workers, first, last) for rank in range(world)]
    assert len({len(part) for part in parts}) == 1
    return [sum((part[at] for part in parts), start=list[Any]()) for at in range(last - first)]


@pytest.fixture(scope="module")
def truth(folders: dict[int, Path]) -> dict[int, list[Rows]]:
    return {shards: global_batches(folder, 1, 0) for shards, folder in folders.items()}


@pytest.mark.parametrize("shards", [1, 1000])
@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("world", [1, 2, 3, 4, 6])
def test_global_batches_do_not_depend_on_processes_or_workers(
    folders: dict[int, Path], truth: dict[int, list[Rows]], shards: int, workers: int, world: int
) -> None:
    last = STEPS if not workers else 5  # starting workers is what takes the time
    assert global_batches(folders[shards], world, workers, 0, last) == truth[shards][:last]


@pytest.mark.parametrize("shards", [1, 1000])
def test_an_epoch_has_every_clip_exactly_once(truth: dict[int, list[Rows]], shards: int) -> None:
    seen = [clip for batch in truth[shards] for _, clip, _, _ in batch]
    assert sorted(seen[:CLIPS]) != seen[:CLIPS]
    # The batch that spans two epochs may be put in another order inside, so that no clip stands beside itself.
    whole = CLIPS // BATCH * BATCH
    spanning = seen[whole : whole + BATCH]
    assert len(set(seen[:whole])) == whole
    assert set(range(CLIPS)) - set(seen[:whole]) <= set(spanning)


def test_the_number_of_processes_may_change_in_the_middle(
    folders: dict[int, Path], truth: dict[int, list[Rows]]
) -> None:
    folder = folders[1000]
    parts = (
        global_batches(folder, 4, 0, 0, 5),
        global_batches(folder, 6, 3, 5, 7),
        global_batches(folder, 1, 1, 7, STEPS),
    )
    assert sum(parts, start=list[Any]()) == truth[1000]


def test_the_frames_are_those_of_the_clips_named(folders: dict[int, Path]) -> None:
    shards = open_shards(folders[1000])
    for rank in range(3):
        batch = PlannedFrames(shards, plan_of(shards), OFFSET, rank=rank, world_size=3).read(4)
        assert (batch.frames == (batch.clips % 251).astype(np.uint8)[:, None, None, None, None]).all()


@pytest.mark.parametrize("world", [2, 3, 4])
def test_processes_together_have_every_batch_of_one_in_its_order_also_over_two_epochs(
    tmp_path: Path, world: int
) -> None:
    build(plan_build(Dots(13), "raw", 5), tmp_path)
    shards = open_shards(tmp_path)
    plan = Plan(shards.order_key, 0, [place.clips for place in shards.places], 12)
    one, *shares = [PlannedFrames(shards, plan, OFFSET, rank=r, world_size=w) for w in (1, world) for r in range(w)]
    twice = 0
    for step in range(100):
        whole, found = one.read(step), [share.read(step) for share in shares]
        for batch in found:
            assert (batch.frames == batch.clips.astype(np.uint8)[:, None, None, None, None]).all()
            twice += batch.clips[0] == batch.clips[-1]  # no neighbours where the processes' rows are gathered
        assert np.array_equal(np.concatenate([batch.clips for batch in found]), whole.clips)
        assert np.array_equal(np.concatenate([batch.times for batch in found]), whole.times)
    assert twice, "no step put the rule to the test"


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_batch_in_parts_is_the_same_for_any_number_of_processes_and_no_clip_meets_itself_in_one(
    tmp_path: Path, world: int
) -> None:
    build(plan_build(Dots(13), "raw", 5), tmp_path)
    shards, parts = open_shards(tmp_path), 2
    plan = Plan(shards.order_key, 0, [place.clips for place in shards.places], 12)
    one, *shares = [
        PlannedFrames(shards, plan, OFFSET, rank=r, world_size=w, parts=parts) for w in (1, world) for r in range(w)
    ]
    dealt = 0
    for step in range(100):
        whole, found = one.read(step).clips, [share.read(step).clips.reshape(parts, -1) for share in shares]
        for number, part in enumerate(whole.reshape(parts, -1)):
            assert (part != np.roll(part, 1)).all()
            assert np.array_equal(np.concatenate([clips[number] for clips in found]), part)  # as they are gathered
        assert sorted(whole.tolist()) == sorted(plan.batch(step).clips.tolist())
        dealt += not np.array_equal(whole, plan.batch(step).clips)
    assert dealt, "no step put the rule to the test"


def test_parts_must_give_each_process_as_many_clips_and_two_at_least(folders: dict[int, Path]) -> None:
    shards = open_shards(folders[1])
    for world, parts in ((2, 36), (3, 20), (2, 32)):
        with pytest.raises(ValueError, match=f"with {world} processes and accumulate {parts}; it must give each"):
            PlannedFrames(shards, plan_of(shards), OFFSET, world_size=world, parts=parts)


@pytest.mark.parametrize(
    ("rank", "world", "said"),
    [
        (2, 2, "rank 2 is not allowed; it must be from 0 to 1"),
        (0, 5, "batch size 96 is not allowed with 5 processes"),
        (0, 96, "batch size 96 is not allowed with as many processes; each needs 2 clips or more"),
    ],
)
def test_a_part_that_is_none_is_refused(folders: dict[int, Path], rank: int, world: int, said: str) -> None:
    shards = open_shards(folders[1])
    with pytest.raises(ValueError, match=said):
        PlannedFrames(shards, plan_of(shards), OFFSET, rank=rank, world_size=world)


def test_a_far_step_costs_what_the_first_one_costs(folders: dict[int, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    shards = open_shards(folders[1000])
    drawn: list[int] = []
    permute = plan_module.permutation
    monkeypatch.setattr(plan_module, "permutation", lambda key, n: drawn.append(n) or permute(key, n))
    costs = []
    for step in (0, 1_000_000):
        drawn.clear()
        PlannedFrames(shards, plan_of(shards), OFFSET).read(step)
        costs.append(sum(drawn))
    assert costs[1] <= costs[0] + 2 * (1000 + plan_module.WINDOW)  # one more epoch and window, if the batch spans two


def test_another_seed_gives_another_order(folders: dict[int, Path]) -> None:
    shards = open_shards(folders[1])
    one, two = (PlannedFrames(shards, plan_of(shards, seed), OFFSET).read(0) for seed in (5, 6))
    assert not torch.equal(torch.from_numpy(one.clips), torch.from_numpy(two.clips))
