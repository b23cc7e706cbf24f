"""Items that fail: counted, told, allowed or not, and tried again; whatever fails, the sums are right."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drnet.datasets.contract import DataError, SourceFile, Split
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.build import build, plan_build, retry
from drnet.pipelines.building import jobs
from drnet.pipelines.building.failures import Budget, parse_budget
from drnet.pipelines.measuring.faults import Unreadable, contents, stamps
from drnet.pipelines.progress import Silent
from drnet.pipelines.shards.manifest import ACCOUNTING, MANIFEST, read_manifest

PER_SHARD = 4


def digits() -> BouncingDigits:
    return BouncingDigits("optdigits", clips=20, test_clips=4, frames=3, size=16)


class Heard(Silent):
    """Progress that keeps its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, line: str) -> None:
        self.notes.append(line)


def failing(*train: int, number: int = errno.EIO) -> Unreadable:
    return Unreadable(digits(), {("train", index): number for index in train})


def built(data: Any, folder: Path, **options: Any) -> Any:
    return build(plan_build(data, "raw", PER_SHARD), folder, **options)


def check_sums(folder: Path, data: Any) -> None:
    """Every source item has one line; lines, sums, shards and clips add up."""
    manifest = read_manifest(folder)
    rows = [json.loads(line) for line in (folder / ACCOUNTING).read_text().splitlines()]
    for split in ("train", "test"):
        mine = [row for row in rows if row["split"] == split]
        assert [row["item"] for row in mine] == [data.item(split, index) for index in range(data.count(split))]
        assert sum(manifest.accounting[split].values()) == data.count(split)
        fates = [row["fate"] for row in mine]
        assert manifest.accounting[split] == {fate: fates.count(fate) for fate in set(fates)}
        assert sum(row["clips"] for row in mine) == manifest.clips(split)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("0", Budget()),
        ("5", Budget(5)),
        (" 12 ", Budget(12)),
        ("2%", parse_budget("2.0%")),
        ("100%", parse_budget("100%")),
    ],
)
def test_a_budget_is_a_number_or_a_part(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget
    assert parse_budget(str(budget)) == budget


@pytest.mark.parametrize("text", ["", "-1", "1.5", "101%", "%", "five", "1e3", "2 %", "1,5%", "nan%", "\u0665"])
def test_another_budget_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(DataError, match=r"is not allowed; give a number of items such as 5, or a part such as 2%"):
        parse_budget(text)


@given(st.integers(0, 10**6), st.integers(1, 10**6), st.integers(0, 100))
def test_a_part_allows_just_its_part(failed: int, items: int, percent: int) -> None:
    assert parse_budget(f"{percent}%").allows(failed, items) == (100 * failed <= percent * items)


def test_what_can_be_built_is_built_and_the_report_says_what_failed(tmp_path: Path) -> None:
    data = failing(1, 2, 9, 17, number=errno.EACCES)
    report = built(data, tmp_path)
    assert (report.failed, report.over_budget) == (4, True)
    assert report.counts == {"train": {"failed": 4, "written": 16}, "test": {"written": 4}}
    why = "cannot be read (train-{}.bin: Permission denied)"
    named = "; ".join(f"train item '{digits().item('train', n)}': {why.format(n)}" for n in (1, 2, 9))
    assert report.line == (
        f"4 of 24 items failed, and --max-failures is 0 ({named}; and 1 more); all that could be built is: "
        f"allow them with --max-failures; after a passing error of reading try `drnet data retry {tmp_path}` with "
        "the --source of the build; repaired files are another build, into another --out"
    )
    check_sums(tmp_path, data)


@pytest.mark.parametrize(("budget", "over"), [("3", True), ("4", False), ("16%", True), ("17%", False)])
def test_failures_within_the_budget_are_no_failure(budget: str, over: bool, tmp_path: Path) -> None:
    report = built(failing(1, 2, 9, 17), tmp_path, budget=parse_budget(budget))
    assert (report.failed, report.over_budget, bool(report.line)) == (4, over, over)


def test_running_again_keeps_failed_items_and_still_says_so(tmp_path: Path) -> None:
    built(failing(3), tmp_path)
    report = built(failing(3), tmp_path)
    assert (report.written, report.failed, report.over_budget) == (0, 1, True)


def test_the_first_failures_are_told_as_they_happen_and_the_others_counted(tmp_path: Path) -> None:
    heard = Heard()
    built(failing(*range(1, 9)), tmp_path, progress=heard)
    names = [digits().item("train", index) for index in range(1, 6)]
    told = [f"failed: train item '{name}': cannot be read (train-{n}.bin" for n, name in enumerate(names, 1)]
    assert [note.rpartition(":")[0] for note in heard.notes[:5]] == told
    assert heard.notes[5:] == [f"failed: 3 more; {ACCOUNTING} lists them all"]


class TestRetry:
    """`retry` writes the shards of which items failed, and no others."""

    def test_an_error_that_passes_leaves_the_data_set_an_undisturbed_build_makes(self, tmp_path: Path) -> None:
        built(digits(), tmp_path / "whole")
        built(failing(1, 2, 9), tmp_path / "out")
        before = stamps(tmp_path / "out")
        report = retry(plan_build(digits(), "raw", PER_SHARD), tmp_path / "out")
        assert (report.written, report.failed, report.over_budget, report.line) == (2, 0, False, "")
        assert contents(tmp_path / "out") == contents(tmp_path / "whole")
        changed = {name for name, stamp in stamps(tmp_path / "out").items() if before[name] != stamp}
        assert changed == {"train-000000.tar", "train-000002.tar"}
        check_sums(tmp_path / "out", digits())

    def test_what_fails_again_stays_as_it_was(self, tmp_path: Path) -> None:
        built(failing(1, 9), tmp_path)
        before, times = contents(tmp_path), stamps(tmp_path)
        report = retry(plan_build(failing(1, 9), "raw", PER_SHARD), tmp_path)
        assert (report.written, report.failed) == (0, 2)
        assert (contents(tmp_path), stamps(tmp_path)) == (before, times)

    def test_a_source_that_fails_more_than_before_takes_nothing_away(self, tmp_path: Path) -> None:
        built(failing(1), tmp_path)
        before = contents(tmp_path)
        report = retry(plan_build(failing(*range(20)), "raw", PER_SHARD), tmp_path)
        assert (report.written, report.failed) == (0, 1)
        assert contents(tmp_path) == before

    def test_a_data_set_without_failures_is_left_alone(self, tmp_path: Path) -> None:
        built(digits(), tmp_path)
        before, times = contents(tmp_path), stamps(tmp_path)
        assert retry(plan_build(digits(), "raw", PER_SHARD), tmp_path).written == 0
        assert (contents(tmp_path), stamps(tmp_path)) == (before, times)

    def test_a_source_that_was_repaired_is_another_build(self, tmp_path: Path) -> None:
        class Repaired(Unreadable):
            def sources(self) -> list[SourceFile]:
                return [SourceFile("digits", 7, "0" * 64)]

        built(failing(1), tmp_path)
        with pytest.raises(DataError, match=r"its sources are not the files it was built from.*another --out"):
            retry(plan_build(Repaired(digits(), {}), "raw", PER_SHARD), tmp_path)
        with pytest.raises(DataError, match=r"its settings are not the recorded ones.*another --out"):
            retry(plan_build(digits(), "zstd", PER_SHARD), tmp_path)

    def test_a_folder_without_a_finished_build_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="not a data set built by drnet"):
            retry(plan_build(digits(), "raw", PER_SHARD), tmp_path)

    @pytest.mark.parametrize("at", range(1, 8))
    def test_one_that_is_stopped_anywhere_is_ended_by_another(
        self, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        built(digits(), tmp_path / "whole")
        built(failing(1, 9), tmp_path / "out")
        plan, calls, real = plan_build(digits(), "raw", PER_SHARD), iter(range(1, 1000)), os.replace

        def stop(*names: Any, **options: Any) -> None:
            if next(calls) == at:
                raise KeyboardInterrupt
            real(*names, **options)

        with monkeypatch.context() as patch:
            patch.setattr("os.replace", stop)
            try:
                retry(plan, tmp_path / "out")
            except KeyboardInterrupt:
                retry(plan, tmp_path / "out")
        assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def _encode(patch: pytest.MonkeyPatch) -> None:
    def encode(self: Any, clip: Any, item: str) -> None:
        raise MemoryError

    patch.setattr(jobs.ShardWriter, "append", encode)


def _write(patch: pytest.MonkeyPatch) -> None:
    real, calls = jobs.ShardWriter.append, iter(range(100))

    def append(self: Any, clip: Any, item: str) -> None:
        if next(calls) == 9:
            raise OSError(errno.EIO, "Input/output error")
        real(self, clip, item)

    patch.setattr(jobs.ShardWriter, "append", append)


def _finish(name: str) -> Callable[[pytest.MonkeyPatch], None]:
    def hurt(patch: pytest.MonkeyPatch) -> None:
        real = os.replace

        def replace(source: Any, target: Any, **options: Any) -> None:
            if Path(target).name == name:
                raise OSError(errno.ENOSPC, "No space left on device", str(source))
            real(source, target, **options)

        patch.setattr("os.replace", replace)

    return hurt


@pytest.mark.parametrize(
    "hurt", [_encode, _write, _finish(ACCOUNTING), _finish(MANIFEST)], ids=["encode", "write", "accounting", "manifest"]
)
def test_a_stage_that_fails_ends_the_build_without_a_manifest_and_the_next_one_adds_up(
    hurt: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = failing(2, 11)
    built(data, tmp_path / "whole")
    with monkeypatch.context() as patch:
        hurt(patch)
        with pytest.raises((OSError, DataError)) as error:
            built(data, tmp_path / "out")
    assert "\n" not in str(error.value)
    if (tmp_path / "out").exists():
        names = contents(tmp_path / "out").keys()
        assert MANIFEST not in names
        assert not [name for name in names if name.startswith(".")]
    built(data, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    check_sums(tmp_path / "out", data)


def test_a_data_set_that_names_its_items_otherwise_at_the_end_is_told(tmp_path: Path) -> None:
    class Renamed(Unreadable):
        def item(self, split: Split, index: int) -> str:
            self.asked = getattr(self, "asked", 0) + 1
            return f"{split}-{index}-{self.asked > 24}"

    with pytest.raises(ValueError, match=r"train-000000.tar: its items do not add up to its 4 clips"):
        built(Renamed(digits(), {}), tmp_path)
