"""One shard: what goes wrong with an item is that item's; what goes wrong with the machine or the code ends the job."""

import errno
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drnet.datasets.contract import About, Clip, DataError, ItemFailed, ItemMissing, Label, LeftOut, SourceFile, Split
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.building import jobs
from drnet.pipelines.building.finish import BuildPlan
from drnet.pipelines.building.jobs import BuilderError, Outcome, done_shard, write_shard
from drnet.pipelines.shards.shard import Fate, read_sidecar


class Grey:
    """Six grey clips; `meet` is called with the index before each."""

    about = About("grey", 1, "grey", "none", "nobody", "number", "number")
    labels: Mapping[str, Label] = {"number": Label("number", unit="id")}

    def __init__(
        self, meet: Callable[[int], Any] = lambda index: None, after: Callable[[int], Any] | None = None
    ) -> None:
        self.meet, self.after = meet, after or (lambda index: None)

    def parameters(self) -> dict[str, Any]:
        return {}

    def sources(self) -> list[SourceFile]:
        return []

    def frame_shape(self) -> tuple[int, int, int]:
        return 4, 4, 1

    def count(self, split: Split) -> int:
        return 6 if split == "train" else 0

    def item(self, split: Split, index: int) -> str:
        return f"film {index}"

    def clips(self, split: Split, index: int) -> Iterator[Clip | LeftOut]:
        self.meet(index)
        yield Clip(f"grey-{index}", np.full((3, 4, 4, 1), index, np.uint8), {"number": index, "half": split})
        self.after(index)


def plan(data: Grey) -> BuildPlan:
    return plan_build(data, "raw", 6)


def written(data: Grey, folder: Path, **options: Any) -> tuple[Outcome, list[Fate]]:
    found = plan(data)
    outcome = write_shard(found.recipe, found.jobs[0], folder, **options)
    return outcome, list(read_sidecar(folder / found.jobs[0].name).fates)


def raising(error: BaseException, at: int = 2) -> Callable[[int], None]:
    def meet(index: int) -> None:
        if index == at:
            raise error

    return meet


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "/media/raw/film.avi"),
            "film.avi: Permission denied",
        ),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (OSError("cannot identify image file '/media/raw/x.png'"), "OSError"),
        (EOFError("cut short"), "EOFError"),
        (zlib.error("invalid block type"), "zlib.error"),
        (MemoryError(), "not enough memory"),
    ],
    ids=["EACCES", "EIO", "a library's", "cut short", "zlib", "memory"],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_item_that_cannot_be_read_fails_alone_and_its_reason_names_no_folder(
    error: Exception, why: str, when: str, tmp_path: Path
) -> None:
    data = Grey(raising(error)) if when == "before" else Grey(after=raising(error))
    outcome, fates = written(data, tmp_path)
    kept = int(when == "after")
    assert fates == [Fate("train", "film 2", "failed", kept, f"cannot be read ({why})")]
    assert outcome == Outcome(True, 1, tuple(fates))
    assert len(read_sidecar(tmp_path / "train-000000.tar").samples) == 5 + kept


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EMFILE])
def test_an_error_of_the_machine_while_an_item_is_read_ends_the_job(number: int, tmp_path: Path) -> None:
    with pytest.raises(OSError) as error:
        written(Grey(raising(OSError(number, os.strerror(number)))), tmp_path)
    assert error.value.filename == str(tmp_path / "train-000000.tar")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [ValueError("odd"), KeyError("odd"), ZeroDivisionError("odd"), RuntimeError("odd")])
def test_an_unexpected_error_of_a_data_set_names_the_item(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(BuilderError, match=r"train item 'film 2': a mistake of data set grey: \w+: '?odd") as found:
        written(Grey(raising(error)), tmp_path)
    assert found.value.__cause__ is error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (Clip("a key", np.zeros((1, 4, 4, 1), np.uint8), {"number": 1}), "key 'a key' is not allowed"),
        (Clip("grey-9", np.zeros((1, 4, 5, 1), np.uint8), {"number": 1}), r"frames of \(4, 5, 1\)"),
        (Clip("grey-9", np.zeros((1, 4, 4, 1), np.uint8), {}), "label 'number' is missing"),
        (Clip("grey-9", np.zeros((1, 4, 4, 1), np.uint8), {"number": 1, "more": {1}}), "not JSON serializable"),
    ],
    ids=["key", "shape", "label", "not JSON"],
)
def test_a_clip_that_breaks_the_format_is_a_mistake_that_names_the_item(
    clip: Clip, message: str, tmp_path: Path
) -> None:
    class Wrong(Grey):
        def clips(self, split: Split, index: int) -> Iterator[Clip | LeftOut]:
            yield clip

    with pytest.raises(BuilderError, match=f"train item 'film 0': a mistake of data set grey: .*{message}"):
        written(Wrong(), tmp_path)


@pytest.mark.parametrize(("names", "message"), [("same", "two items of this name"), ("\x1b[2J", "control characters")])
def test_names_of_items_are_unique_and_harmless(names: str, message: str, tmp_path: Path) -> None:
    class Named(Grey):
        def item(self, split: Split, index: int) -> str:
            return names

    with pytest.raises(BuilderError, match=message):
        written(Named(), tmp_path)


def test_a_reason_is_recorded_without_what_steers_a_terminal_and_can_be_read_back(tmp_path: Path) -> None:
    _, fates = written(Grey(raising(ItemFailed("\x1b[31mred\x00" + "x" * 1000))), tmp_path)
    assert fates[0].why == "\ufffd[31mred\ufffd" + "x" * 491


def test_an_item_that_is_missing_is_no_failure(tmp_path: Path) -> None:
    outcome, fates = written(Grey(raising(ItemMissing("not in this copy"))), tmp_path)
    assert (outcome.failures, fates[0].fate) == (0, "missing")


def test_a_users_mistake_found_while_reading_ends_the_job_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^the folder is gone$"):
        written(Grey(raising(DataError("the folder is gone"))), tmp_path)


def test_another_version_of_a_tool_is_refused_and_named(tmp_path: Path) -> None:
    found = plan(Grey())
    tools = tuple((name, "0.1" if name == "numpy" else version) for name, version in found.tools)
    with pytest.raises(DataError, match=r"the worker on \S* has numpy \S+, not 0.1; install the same everywhere"):
        write_shard(replace(found.recipe, tools=tools), found.jobs[0], tmp_path)
    with pytest.raises(DataError, match=r"has .* not 7; install"):
        write_shard(replace(found.recipe, tools=(*found.tools, ("more", "7"))), found.jobs[0], tmp_path)


def test_a_folder_that_a_worker_does_not_see_is_refused(tmp_path: Path) -> None:
    found = plan(Grey())
    with pytest.raises(DataError, match=r"no such folder on .*all workers share"):
        write_shard(found.recipe, found.jobs[0], tmp_path / "not mounted")


def test_two_threads_never_read_a_data_set_at_the_same_time(tmp_path: Path) -> None:
    inside: list[int] = []

    def meet(index: int) -> None:
        inside.append(index)
        assert len(inside) == 1

    found = plan_build(Grey(meet, lambda index: inside.remove(index)), "raw", 1)
    with ThreadPoolExecutor(4) as threads:
        ends = list(threads.map(lambda job: write_shard(found.recipe, job, tmp_path), found.jobs))
    assert all(outcome.written for outcome in ends)


class TestTwoWritersOfOneShard:
    """A worker that was thought dead ends its job, after another one has written the same shard."""

    def late(self, folder: Path, slow: Grey, quick: Grey) -> tuple[bool, bool]:
        """Write with `quick` while `slow` is at its last item; returns whether each of them wrote the shard."""
        found, ends = plan(quick), []
        slow.after = lambda index: index == 5 and ends.append(write_shard(found.recipe, found.jobs[0], folder))

        class Unlocked:
            def __enter__(self) -> None: ...
            def __exit__(self, *_: object) -> None: ...

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jobs, "_one_at_a_time", Unlocked())  # two processes, here in one
            outcome = write_shard(found.recipe if slow is quick else plan(slow).recipe, found.jobs[0], folder)
        return outcome.written, ends[0].written

    def test_the_second_leaves_the_first_ones_untouched(self, tmp_path: Path) -> None:
        assert self.late(tmp_path, Grey(), Grey()) == (False, True)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["train-000000.json", "train-000000.tar"]
        assert done_shard(tmp_path / "train-000000.tar", plan(Grey()).build)

    def test_one_that_could_read_more_wins(self, tmp_path: Path) -> None:
        failing = Grey(raising(OSError(errno.EIO, "Input/output error")))
        assert self.late(tmp_path, Grey(), failing) == (True, True)
        sidecar = done_shard(tmp_path / "train-000000.tar", plan(Grey()).build)
        assert sidecar is not None
        assert not sidecar.fates

    def test_one_that_could_read_less_loses(self, tmp_path: Path) -> None:
        failing = Grey(raising(OSError(errno.EIO, "Input/output error")))
        assert self.late(tmp_path, failing, Grey()) == (False, True)
        sidecar = done_shard(tmp_path / "train-000000.tar", plan(Grey()).build)
        assert sidecar is not None
        assert not sidecar.fates


@pytest.mark.parametrize("name", ["split_key", "content_key"])
def test_a_key_that_no_label_has_ends_the_build_at_the_first_clip(tmp_path: Path, name: str) -> None:
    data = BouncingDigits("optdigits", clips=4, frames=2, size=16)
    data.about = replace(data.about, **{name: "dit"})
    with pytest.raises(BuilderError, match=rf"{name} 'dit' is none of its labels \(digit_red"):
        build(plan_build(data, "raw"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
