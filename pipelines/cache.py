"""Remote shards as local files: any fsspec URL is downloaded once into the user's cache.

An entry is keyed by the whole URL and, where it is known, the content's SHA-256, which is checked on every use; two
URLs with the same file name never share an entry.
"""

import hashlib
import shutil
from pathlib import Path

import fsspec

from drnet.datasets.cache import cache_folder
from drnet.datasets.contract import DataError
from drnet.pipelines.files import sha256_file, whole_file


def is_url(text: str) -> bool:
    """Whether a location is a URL (`scheme://...`) and not a local path."""
    return "://" in text


class NotThere(DataError):  # noqa: N818 - says what is with the URL
    """A URL's server answers that there is no such file."""


def entry(url: str, sha256: str = "") -> Path:
    """Return the path of a URL's entry in the cache, present or not."""
    key = hashlib.sha256(f"{url}\n{sha256}".encode()).hexdigest()
    return cache_folder() / "shards" / key[:32] / url.rsplit("/", 1)[-1]


def fetch(url: str, sha256: str = "", path: Path | None = None) -> Path:
    """Return a local file with the content of a URL, downloading it unless the cache has it.

    Args:
        url: of the file.
        sha256: of its content; where it is not known, the file is downloaded again.
        path: where to put it; by default the URL's own entry.

    Raises:
        NotThere: where the URL names no file.
        DataError: where it cannot be read, or its content is not the one with `sha256`.
    """
    path = path or entry(url, sha256)
    if sha256 and path.exists() and sha256_file(path) == sha256:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with fsspec.open(url, "rb") as source, whole_file(path) as target:
            shutil.copyfileobj(source, target, 1 << 20)
    except ImportError as error:
        raise DataError(f"{url}: {error}") from None
    except FileNotFoundError as error:
        if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError):
            raise DataError(f"{url}: cannot be read ({error.__cause__})") from None  # no connection, says fsspec so
        raise NotThere(f"{url}: not found") from None
    except Exception as error:  # each file system of fsspec raises its own kinds
        if isinstance(error, OSError) and error.filename == str(path):
            raise  # the cache's disk, not the URL
        raise DataError(f"{url}: cannot be read ({type(error).__name__}: {error})") from None
    if sha256 and sha256_file(path) != sha256:
        path.unlink()
        raise DataError(f"{url}: its content is not the one the manifest lists; verify the data set where it is stored")
    return path
