"""The cache's size limit: who goes, who stays, and what a killed process leaves."""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from drnet.datasets.contract import DataError
from drnet.pipelines.files import whole_file
from drnet.pipelines.remote import room
from drnet.pipelines.remote.cache import Entry

SIZE = 1000
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of at most 3 files, and the memory file system with 9."""
    monkeypatch.setenv("DRNET_CACHE", str(tmp_path))
    limit(monkeypatch, 3 * SIZE)
    system = fsspec.filesystem("memory")
    system.store.clear()
    for number in range(9):
        system.pipe(f"/{number}.tar", bytes([number]) * SIZE)
    yield tmp_path / "shards"
    system.store.clear()


def limit(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Let the cache have `size` bytes beside the notes of its entries, which are about 200 bytes each."""
    monkeypatch.setenv(room.LIMIT, str(size + 4 * 200))


def fetch(number: int, give_up: Callable[[], None] = lambda: None) -> Path:
    with Entry(f"memory://{number}.tar") as entry:
        path = entry.content(give_up=give_up)
    os.utime(path.parent / room.LOCK, (number, number))  # used in this order, however fast the clock
    return path


def there(root: Path) -> list[int]:
    return sorted(int(path.stem) for path in root.rglob("*.tar"))


def hold(path: Path) -> int:
    """Open a shard as a reader does."""
    descriptor = os.open(path, os.O_RDONLY)
    room.share(descriptor)
    return descriptor


@pytest.mark.parametrize(
    ("text", "size"),
    [("200GB", 200 * 10**9), ("1.5 TiB", 3 << 39), ("512mib", 1 << 29), ("7", 7), ("7 B", 7), ("2k", 2000), ("0", 0)],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert room.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1e9", "ten", "1 PB", "1GB 2GB", "1,5GB"])
def test_other_sizes_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(DataError, match=r"^DRNET_CACHE_LIMIT '.*' is not allowed; write a size such as 200GB") as error:
        room.parse_size(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2 * 10**12, "2 TB")])
def test_sizes_are_shown_in_units(size: int, text: str) -> None:
    assert room.size_text(size) == text


def test_a_wrong_limit_is_told_where_something_is_fetched(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(room.LIMIT, "much")
    with pytest.raises(DataError, match="DRNET_CACHE_LIMIT 'much' is not allowed"):
        fetch(1)


def test_the_least_recently_used_goes_first(root: Path) -> None:
    for number in (1, 2, 3):
        fetch(number)
    os.utime(fetch(1).parent / room.LOCK, (9, 9))  # used again
    fetch(4)
    assert there(root) == [1, 3, 4]
    fetch(5)
    assert there(root) == [1, 4, 5]
    assert len([path for path in root.iterdir() if path.is_dir()]) == 3, "with all that belongs to them"


def test_a_shard_and_its_sidecar_go_together(root: Path) -> None:
    for number in (1, 2):
        path = fetch(number)
        path.with_suffix(".json").write_bytes(bytes(SIZE // 2))
    fetch(3)
    assert there(root) == [2, 3]
    assert [path.name for path in root.rglob("*.json")] == ["2.json"]


def test_what_is_being_read_stays_and_everything_else_goes_before_the_limit_is_passed(root: Path) -> None:
    held = [hold(fetch(number)) for number in (1, 2)]
    for number in (3, 4):
        fetch(number)
    assert there(root) == [1, 2, 4]
    held.append(hold(fetch(4)))
    fetch(5)
    assert there(root) == [1, 2, 4, 5], "all in use: the new one comes all the same"
    for descriptor in held:
        os.close(descriptor)
    fetch(6)
    assert there(root) == [4, 5, 6]


def test_a_process_is_asked_to_close_what_it_needs_no_more(root: Path) -> None:
    held = [hold(fetch(number)) for number in (1, 2, 3)]
    asked = []

    def give_up() -> None:
        asked.append(len(held))
        while held:
            os.close(held.pop())

    fetch(4, give_up)
    assert asked == [3]
    assert there(root) == [2, 3, 4]
    fetch(5, give_up)
    assert asked == [3], "only where there is no room"


def test_what_another_process_reads_or_fetches_stays(root: Path) -> None:
    path, ready, stop = fetch(1), FORK.Event(), FORK.Event()

    def work() -> None:
        hold(path)
        with Entry("memory://2.tar") as entry:
            entry.content()
            os.utime(entry.path.parent / room.LOCK, (2, 2))
            ready.set()
            stop.wait(20)

    process = FORK.Process(target=work)
    process.start()
    assert ready.wait(20)
    for number in (3, 4, 5):
        fetch(number)
    assert there(root) == [1, 2, 5]
    stop.set()
    process.join()
    os.utime(root / Entry("memory://2.tar").path.parent / room.LOCK, (2, 2))
    fetch(6)
    fetch(7)
    assert there(root) == [5, 6, 7]


def test_an_open_shard_is_read_on_even_where_somebody_deletes_it(root: Path) -> None:
    path = fetch(3)
    descriptor = hold(path)
    path.unlink()
    assert os.pread(descriptor, SIZE, 0) == bytes([3]) * SIZE
    os.close(descriptor)


def test_what_is_being_fetched_counts_with_all_that_will_come(root: Path) -> None:
    fetch(1)
    fetch(2)
    with Entry("memory://3.tar") as entry, whole_file(entry.path) as file:
        assert room.reserve(root, file, 2 * SIZE, "it") == 2 * SIZE
        assert there(root) == [2]
        room.reserve(root, file, 2 * SIZE, "it again")
        assert there(root) == [2], "counted once"
        fetch(4)
        assert there(root) == [4]


def test_a_shard_larger_than_the_cache_is_one_clear_line(root: Path) -> None:
    fetch(1)
    fsspec.filesystem("memory").pipe("/8.tar", bytes(9 * SIZE))
    with pytest.raises(DataError) as error:
        fetch(8)
    assert str(error.value) == (
        "memory://8.tar: its 9 kB do not fit into the cache of 3.8 kB; set DRNET_CACHE_LIMIT higher"
    )
    assert there(root) == [1], "nothing went for it"


def test_a_twentieth_of_the_disk_stays_free(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SMALL", 0)
    free = [5 * SIZE]

    def usage(_: Path) -> Any:
        used = sum(path.stat().st_size for path in root.rglob("*.tar"))
        return type("Usage", (), {"total": 40 * SIZE, "free": free[0] - used})

    monkeypatch.setattr("shutil.disk_usage", usage)
    for number in (1, 2, 3, 4):
        fetch(number)
    assert there(root) == [2, 3, 4]
    free[0] = int(3.5 * SIZE)
    fetch(5)
    assert there(root) == [5]
    free[0] = SIZE
    with pytest.raises(DataError, match=r"memory://6.tar: the disk of .* needs .* more, 5% left free; .*DRNET_CACHE"):
        fetch(6)


def test_the_limit_holds_while_several_processes_fetch(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(seed: int) -> None:
        for turn in range(24):
            number = (turn * (seed + 1) + seed) % 9
            with Entry(f"memory://{number}.tar") as entry, entry.content().open("rb") as file:
                pass
            if file.closed and turn % 3 == 0:
                continue
            with Entry(f"memory://{number}.tar") as entry:
                assert entry.content().read_bytes() == bytes([number]) * SIZE

    processes = [FORK.Process(target=work, args=(seed,)) for seed in range(4)]
    for process in processes:
        process.start()
    most = 0
    while any(process.is_alive() for process in processes):
        sizes = []
        for folder, _, names in os.walk(root):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    sizes.append((Path(folder) / name).stat().st_size)
        most = max(most, sum(sizes))
        time.sleep(0.001)
    assert [process.exitcode for process in processes] == [0] * 4
    assert most <= 3 * SIZE + 4 * 200 + 9 * 200  # and a note or two more
    assert 1 <= len(there(root)) <= 3
    assert not list(root.rglob("*.tmp"))


def test_what_a_killed_process_leaves_is_cleared_away_and_what_a_living_one_writes_is_not(root: Path) -> None:
    ready, place = FORK.Event(), Entry("memory://1.tar").path

    def work() -> None:
        with Entry("memory://1.tar"), whole_file(place) as file:
            file.write(bytes(SIZE))
            file.flush()
            ready.set()
            time.sleep(60)

    process = FORK.Process(target=work)
    process.start()
    assert ready.wait(20)
    (temporary,) = place.parent.glob(".*.tmp")
    fetch(2)
    assert temporary.exists()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert temporary.exists()
    fetch(3)
    assert not temporary.exists(), "by the next download, whatever it is"
    assert fetch(1).read_bytes() == bytes([1]) * SIZE


def test_a_file_system_without_locks_is_good_enough(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", none)
    for number in (1, 2, 3, 4):
        with Entry(f"memory://{number}.tar") as entry:
            entry.content()
    assert there(root) == [1, 2, 3, 4], "nobody knows who reads what, so nothing young goes"
    for path in root.rglob(room.LOCK):
        os.utime(path, (0, 0))
    fetch(5)
    assert 5 in there(root)
    assert len(there(root)) <= 3
