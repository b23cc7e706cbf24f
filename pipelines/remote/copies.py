"""The files of a data set to check, wherever it is: those of a folder, or what a URL's server has now, in the cache."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from drnet.datasets.contract import DataError
from drnet.datasets.reading.source_files import sha256_file
from drnet.pipelines.remote.cache import Entry
from drnet.pipelines.remote.download import NotThere, OtherContent, Refused
from drnet.pipelines.remote.room import LIMIT, limit, size_text
from drnet.pipelines.remote.urls import inside, is_url, shown, with_suffix
from drnet.pipelines.shards.manifest import ShardRow


class NoAccess(DataError):  # noqa: N818 - says what is with the URL
    """A file cannot be fetched, for a reason that says nothing of the data set: no network, or no room."""


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Raise NoAccess for every error that is not about the content of a URL: this machine's disk is one of them."""
    try:
        yield
    except (NotThere, Refused, OtherContent):
        raise
    except DataError as error:
        raise NoAccess(str(error)) from None
    except OSError as error:
        raise NoAccess(f"{shown(url)}: cannot be kept in the cache ({error.strerror or error})") from None


@contextmanager
def entered(url: str, sha256: str = "") -> Iterator[Entry]:
    """Hold a URL's place in the cache. Raises NoAccess where there can be none."""
    with ExitStack() as stack:
        with reaching(url):
            entry = stack.enter_context(Entry(url, sha256))
        yield entry


def fetched(entry: Entry, ask: bool = False) -> Path:
    """Return the file of an entry, see `Entry.content`.

    Raises:
        NotThere, Refused, OtherContent: for what the server answers.
        NoAccess: where it cannot be asked, or the answer cannot be kept.
    """
    with reaching(entry.url):
        return entry.content(ask=ask)


class Copy(NamedTuple):
    """A shard's files on this machine: the tar, and the path of a tar that the sidecar lies beside."""

    tar: Path
    beside: Path


class Copies(Protocol):
    """Where the files of a data set are read."""

    def shown(self, name: str) -> str:
        """Return a file's place for people to see."""

    @contextmanager
    def shard(self, row: ShardRow) -> Iterator[Copy]:
        """Yield a shard's files, present or not. Raises DataError where the server has none or another, or NoAccess."""

    @contextmanager
    def beside(self, name: str) -> Iterator[Path]:
        """Yield the path of a tar that the sidecar of the shard `name` lies beside. Raises as `shard` does."""

    @contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """Yield the path of another file, present or not. Raises NoAccess."""


def copies_of(base: str) -> Copies:
    """Return what reads the data set in a folder or behind a URL."""
    return There(base) if is_url(base) else Here(Path(base))


class Here:
    """A folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def shown(self, name: str) -> str:
        """Return the path."""
        return str(self.folder / name)

    @contextmanager
    def shard(self, row: ShardRow) -> Iterator[Copy]:
        """Yield the shard and its sidecar, as they lie there."""
        yield Copy(self.folder / row.name, self.folder / row.name)

    @contextmanager
    def beside(self, name: str) -> Iterator[Path]:
        """Yield the shard's path."""
        yield self.folder / name

    @contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """Yield the path."""
        yield self.folder / name


class There:
    """A URL. The server is asked for every file, also for those that the cache has: is it still this version?"""

    def __init__(self, url: str) -> None:
        self.url = url

    def shown(self, name: str) -> str:
        """Return the URL without its secrets."""
        return shown(inside(self.url, name))

    @contextmanager
    def shard(self, row: ShardRow) -> Iterator[Copy]:
        """Yield the shard and its sidecar; they stay in the cache as long as they are read."""
        with entered(inside(self.url, row.name), row.sha256) as entry, self.beside(row.name) as beside:
            path = fetched(entry, ask=True)
            with reaching(entry.url):
                damaged = sha256_file(path) != row.sha256  # on the cache's disk, behind the file system's back
                if damaged:
                    path.unlink()
            yield Copy(fetched(entry) if damaged else path, beside)

    @contextmanager
    def beside(self, name: str) -> Iterator[Path]:
        """Yield a path beside the sidecar."""
        with entered(with_suffix(inside(self.url, name), ".tar", ".json")) as entry:
            yield fetched(entry).with_suffix(".tar")

    @contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """Yield the path in the cache; nothing lies there where the server has nothing, or a web page in its place."""
        with entered(inside(self.url, name)) as entry:
            try:
                fetched(entry)
            except (NotThere, Refused, OtherContent):
                entry.path.unlink(missing_ok=True)
            yield entry.path

    def announce(self, rows: Sequence[ShardRow]) -> str:
        """Say what will be fetched to read some shards.

        Raises:
            DataError: where a shard is larger than the cache may be.
        """
        most = limit()
        if large := next((row for row in rows if row.size > most), None):
            raise DataError(
                f"{self.shown(large.name)}: its {size_text(large.size)} do not fit into the cache of {size_text(most)}; "
                f"set {LIMIT} higher"
            )
        absent = [row for row in rows if not self._is_known(row)]
        size = sum(row.size for row in absent)
        less = f"; the cache holds {size_text(most)} of them at most" if size > most else ""
        return f"to fetch: {size_text(size)} in {len(absent):,} of {len(rows):,} shards, and their sidecars{less}"

    def _is_known(self, row: ShardRow) -> bool:
        """Whether the cache has a shard and can ask the server whether it still is this version."""
        with Entry(inside(self.url, row.name), row.sha256) as entry:
            return entry.is_known()
