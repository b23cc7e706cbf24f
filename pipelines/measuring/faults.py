"""What a build survives: it is killed at random points, finds a full disk or a source that cannot be read, and goes on.

One process of its own does it all, by forking: it has no threads, and a build starts in a hundredth of a second. After
each fault the folder may hold whole shards only, and nothing finished may ever be written again; after the last, the
folder must be the one an uninterrupted build makes, byte for byte.
"""

import errno
import itertools
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from drnet.datasets.contract import Clip, DataSet, LeftOut, SourceFile, Split
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.build import BuildPlan, build, plan_build, retry
from drnet.pipelines.building.workers import local_pool
from drnet.pipelines.files import is_temporary
from drnet.pipelines.measuring.bench import scratch
from drnet.pipelines.progress import Progress, Silent

FILE_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.listdir", "os.scandir", "fcntl.flock"}
MOST_IN_A_ROW = 4  # faults before a build may end
ORPHANS_END = 5.0  # seconds in which the workers of a killed build must be gone


class Unreadable:
    """A data set of which some items cannot be read. All else is the data set's own, its build id too.

    Args:
        data: the data set.
        items: for a split and an item's index, the error's number (`errno.EIO`).
    """

    def __init__(self, data: DataSet, items: Mapping[tuple[str, int], int]) -> None:
        self.data, self.items = data, dict(items)
        self.about, self.labels = data.about, data.labels

    def parameters(self) -> dict[str, Any]:
        """Return the data set's settings."""
        return self.data.parameters()

    def sources(self) -> list[SourceFile]:
        """Return the data set's raw files."""
        return self.data.sources()

    def frame_shape(self) -> tuple[int, int, int]:
        """Return (H, W, C)."""
        return self.data.frame_shape()

    def count(self, split: Split) -> int:
        """Return the number of items."""
        return self.data.count(split)

    def item(self, split: Split, index: int) -> str:
        """Return the item's name."""
        return self.data.item(split, index)

    def clips(self, split: Split, index: int) -> Iterator[Clip | LeftOut]:
        """Yield the item's clips, or raise the error that reading it meets."""
        if number := self.items.get((split, index)):
            raise OSError(number, os.strerror(number), f"/media/raw/{split}-{index}.bin")
        yield from self.data.clips(split, index)


@dataclass
class Findings:
    """What happened, and what was wrong after it.

    Attributes:
        faults: how many of each kind; some come when the build has ended already.
        killed: builds that a SIGKILL did end.
        different: files under a final name that are not the uninterrupted build's.
        rewritten: finished shards that were written again.
        strays: files that were left when the build was whole.
        orphans: workers that went on without their parent.
    """

    faults: Counter[str] = field(default_factory=Counter)
    killed: int = 0
    different: int = 0
    rewritten: int = 0
    strays: int = 0
    orphans: int = 0

    @property
    def wrong(self) -> int:
        """Everything that must not be."""
        return self.different + self.rewritten + self.strays + self.orphans


def bench_faults(
    kills: int = 200, seed: int = 0, folder: Path | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Hurt builds in many ways, and look at what is left.

    Args:
        kills: builds that a SIGKILL must have ended; other faults come between.
        seed: of when and how.
        folder: where to build; by default a temporary folder, in memory where that exists.
        progress: told of each kill.

    Returns:
        `faults`: how many of each kind; `killed`; `different`, `rewritten`, `strays`, `orphans` (see `Findings`; all 0
        where it is right); `wrong`, their sum; `seconds`.
    """
    progress = progress or Silent()
    began = time.monotonic()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    progress.start("hurting builds", kills, "kills")
    with tempfile.TemporaryDirectory(dir=folder or scratch(), prefix="drnet-faults-") as name:
        process = context.Process(target=_serve, args=(theirs, Path(name), kills, seed))
        process.start()
        theirs.close()
        try:
            while isinstance(message := ours.recv(), int):
                progress.advance(message)
        except EOFError:
            raise RuntimeError("the process that hurts builds has ended itself; see its traceback above") from None
        finally:
            progress.stop()
            process.terminate()
            process.join()
    found: Findings = message
    counts = {"killed": found.killed, "different": found.different, "rewritten": found.rewritten}
    rest = {"strays": found.strays, "orphans": found.orphans, "wrong": found.wrong}
    return {"faults": dict(found.faults), **counts, **rest, "seconds": time.monotonic() - began}


def _serve(pipe: Connection, folder: Path, kills: int, seed: int) -> None:
    data = BouncingDigits("optdigits", clips=60, test_clips=6, frames=4, size=16)
    pipe.send(Trials(plan_build(data, "raw", 3), folder, random.Random(seed)).run(kills, pipe.send))


class Trials:
    """Hurts builds of one plan in a folder.

    Args:
        plan: small, so that each build takes a moment.
        folder: to work in.
        draw: decides when and how.
    """

    def __init__(self, plan: BuildPlan, folder: Path, draw: random.Random) -> None:
        self.plan, self.out, self.draw = plan, folder / "out", draw
        self.groups: list[int] = []
        build(plan, folder / "whole")
        self.whole = contents(folder / "whole")
        counter = folder / "events"
        began = time.monotonic()
        self._wait(self._fork(lambda: self._counted(folder / "counted", counter)))
        self.seconds = time.monotonic() - began
        self.events = int(counter.read_text())
        self.found = Findings()
        self.kinds: dict[str, Callable[[int], bool]] = {
            "SIGKILL after a time": self._kill_at_a_time,
            "SIGKILL at an operation on files": self._kill_at_an_event,
            "SIGKILL of a worker": self._kill_a_worker,
            "SIGKILL of all processes": self._kill_all,
            "disk full": self._full,
            "source unreadable": self._unreadable,
        }

    def run(self, kills: int, tell: Callable[[int], None]) -> Findings:
        """Go on until a SIGKILL has ended that many builds; tells of each by a 1."""
        weights = (4, 6, 1, 1, 2, 2)
        while self.found.killed < kills:
            row = self.draw.choices(list(self.kinds), weights, k=self.draw.randint(1, MOST_IN_A_ROW))
            unreadable = False
            for kind in row:
                before = stamps(self.out)
                ended = self.kinds[kind](self.draw.choice((1, 1, 2)))
                unreadable |= kind == "source unreadable"
                self.found.faults[kind] += 1
                if ended and kind.startswith("SIGKILL") and self.found.killed < kills:
                    self.found.killed += 1
                    tell(1)
                self._look(before, unreadable)
            self._end(unreadable)
        return self.found

    def _look(self, before: Mapping[str, tuple[int, int]], unreadable: bool) -> None:
        """After a fault: shards under their final names are whole and right, and those of before are untouched."""
        after = stamps(self.out)
        self.found.rewritten += sum(after.get(name) != stamp for name, stamp in before.items())
        if not unreadable:  # what could not be read is missing from its shard, which is as it should be
            right = [(self.out / name).read_bytes() == self.whole[name] for name in after]
            self.found.different += right.count(False)

    def _end(self, unreadable: bool) -> None:
        """Let the build end, and compare everything."""
        before = stamps(self.out)
        self._count_orphans()
        if unreadable:
            self._wait(self._fork(lambda: build(self.plan, self.out)))
        self._wait(self._fork(lambda: retry(self.plan, self.out) if unreadable else build(self.plan, self.out)))
        if not unreadable:
            self.found.rewritten += sum(stamps(self.out).get(name) != stamp for name, stamp in before.items())
        ends = contents(self.out)
        self.found.strays += len(ends.keys() - self.whole.keys())
        self.found.different += sum(ends.get(name) != data for name, data in self.whole.items())
        shutil.rmtree(self.out)

    def _kill_at_a_time(self, workers: int) -> bool:
        return self._killed(workers, os.kill)

    def _kill_all(self, workers: int) -> bool:
        return self._killed(workers, os.killpg)

    def _killed(self, workers: int, kill: Callable[[int, int], None]) -> bool:
        child = self._fork(lambda: self._built(workers))
        time.sleep(self.draw.uniform(0, self.seconds))
        kill(child, signal.SIGKILL)
        return self._wait(child) != 0

    def _kill_a_worker(self, _: int) -> bool:
        child = self._fork(lambda: self._built(2))
        time.sleep(self.draw.uniform(0, self.seconds))
        with suppress(ProcessLookupError, FileNotFoundError, IndexError):
            os.kill(self.draw.choice(_children(child)), signal.SIGKILL)
        return self._wait(child) != 0

    def _kill_at_an_event(self, workers: int) -> bool:
        at = self.draw.randint(1, self.events)
        return self._wait(self._fork(lambda: self._built(workers, at))) != 0

    def _full(self, workers: int) -> bool:
        largest = max(map(len, self.whole.values()))
        limit = self.draw.randrange(1, largest)

        def full() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            self._built(workers)

        return self._wait(self._fork(full)) != 0

    def _unreadable(self, workers: int) -> bool:
        count = self.plan.data.count("train")
        numbers = (errno.EIO, errno.EACCES, errno.ENOENT, errno.ESTALE)
        items = {("train", self.draw.randrange(count)): self.draw.choice(numbers) for _ in range(3)}
        plan = plan_build(Unreadable(self.plan.data, items), self.plan.codec, self.plan.clips_per_shard)
        return self._wait(self._fork(lambda: self._built(workers, plan=plan))) != 0

    def _built(self, workers: int, kill_at: int = 0, plan: BuildPlan | None = None) -> None:

        def kill(number: int) -> None:
            if number == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        if kill_at:
            _at_event(self.out, kill)
        if workers == 1:
            build(plan or self.plan, self.out)
        else:
            with local_pool(workers, start="fork") as pool:
                build(plan or self.plan, self.out, executor=pool)

    def _counted(self, out: Path, counter: Path) -> None:
        seen = [0]
        _at_event(out, lambda number: seen.__setitem__(0, number))
        build(self.plan, out)
        counter.write_text(str(seen[0]))

    def _fork(self, work: Callable[[], Any]) -> int:
        """Run a call in a new process, the head of a group of its own; returns its id."""
        child = os.fork()
        if child:
            with suppress(ProcessLookupError, PermissionError):
                os.setpgid(child, child)
            return child
        try:
            os.setpgid(0, 0)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what a killed build says is no news here
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)

    def _wait(self, child: int) -> int:
        """Return how a process ended. The next may start while workers of this one are still about to end."""
        self.groups.append(child)
        return os.waitpid(child, 0)[1]

    def _count_orphans(self) -> None:
        end = time.monotonic() + ORPHANS_END
        while (left := _members(self.groups)) and time.monotonic() < end:
            time.sleep(0.002)
        self.found.orphans += len(left)
        for process in left:
            os.kill(process, signal.SIGKILL)
        self.groups.clear()


def _at_event(folder: Path, call: Callable[[int], Any]) -> None:
    """Call with 1, 2, 3, ... before each operation of this process, and of its forked children, on a folder's files."""
    numbers, beginning = itertools.count(1), str(folder)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in FILE_EVENTS and (event == "fcntl.flock" or str(arguments[0]).startswith(beginning)):
            call(next(numbers))

    sys.addaudithook(hook)


def _members(groups: list[int]) -> list[int]:
    """Return the living processes of some process groups."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, _, of = stat.read_text().rpartition(")")[2].split()[:3]
            if int(of) in groups and state != "Z":
                found.append(int(stat.parent.name))
    return found


def _children(process: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Return inode and time of each finished shard; a folder that is not there has none."""
    tars = folder.glob("t*.tar") if folder.is_dir() else ()
    return {tar.name: (tar.stat().st_ino, tar.stat().st_mtime_ns) for tar in tars if not is_temporary(tar, ())}
