"""URLs of shards: which are allowed, their parts, and how they are shown.

What stands in a URL's query or before its host (signatures, tokens, passwords) never appears in a message.
"""

import re
from urllib.parse import unquote

from drnet.datasets.contract import DataError

# What a URL may begin with, and the package it needs. Nothing else of fsspec: chained URLs (`simplecache::s3://...`),
# archives (`zip://`) and machines (`ssh://`, `dask://`) stay out. `file://` is a path, see `local_path`.
PROTOCOLS = {
    "http": "aiohttp",
    "https": "aiohttp",
    "s3": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "hf": "huggingface_hub",
    "memory": "fsspec",
}


def is_url(text: str) -> bool:
    """Whether a location is a URL (`scheme://...`) and not a local path."""
    return "://" in text


def local_path(text: str) -> str:
    """Return the path in a `file://` URL; any other text as it is."""
    return text.removeprefix("file://") if text.startswith("file:///") else text


def without_query(url: str) -> str:
    """Return what stands before a URL's query."""
    return url.partition("?")[0]


def with_suffix(url: str, old: str, new: str) -> str:
    """Return a URL whose path ends differently; its query stays."""
    path, mark, query = url.partition("?")
    return path.removesuffix(old) + new + mark + query


def inside(url: str, name: str) -> str:
    """Return the URL of a file in the folder that a URL names (its query stays at the end), or that of a path."""
    path, mark, query = url.partition("?") if is_url(url) else (url, "", "")
    return f"{path.rstrip('/')}/{name}{mark}{query}"


def sibling(url: str, name: str) -> str:
    """Return the URL of another file in the same folder; the query stays at the end."""
    path, mark, query = url.partition("?")
    return inside(path.rpartition("/")[0] + mark + query, name)


def name_of(url: str) -> str:
    """Return the name of the file that a URL names, as it is called on a disk."""
    name = without_query(url).rsplit("/", 1)[-1]
    return unquote(name) if url.startswith("http") else name


def shown(url: str) -> str:
    """Return a URL for people to see: without its query, user and password."""
    path, mark, _ = url.partition("?")
    path = re.sub(r"^(\w+://)[^/@]*:[^/@]*@|^(https?://)[^/@]*@", r"\1\2", path)
    return path + mark + ("..." if mark else "")


def check_url(url: str) -> str:
    """Return a URL's protocol. Raises DataError for one that is not allowed."""
    protocol = url.partition("://")[0]
    if protocol in PROTOCOLS and not re.search(r"::\w+://", url):
        return protocol
    what = "a chained URL" if "::" in url else f"{protocol}://"
    raise DataError(f"{shown(url)}: {what} is not allowed; allowed are {', '.join(f'{p}://' for p in PROTOCOLS)}")
