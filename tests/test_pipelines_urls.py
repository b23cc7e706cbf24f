"""Parts of URLs: which are allowed, what their neighbours are called, and what of them is shown."""

import pytest

from drnet.datasets.contract import DataError
from drnet.pipelines.remote import urls


@pytest.mark.parametrize(
    ("text", "url"), [("s3://b/x.tar", True), ("http://h/x.tar", True), ("/a/x.tar", False), ("a:b/x", False)]
)
def test_a_url_is_told_from_a_path(text: str, url: bool) -> None:
    assert urls.is_url(text) is url


@pytest.mark.parametrize(
    "url", ["https://h/x.tar", "s3://b/a::b.tar", "http://[::1]:80/x", "hf://datasets/a/b@c/x.tar"]
)
def test_what_is_allowed_passes(url: str) -> None:
    assert urls.check_url(url) == url.partition("://")[0]


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("simplecache::s3://b/x.tar", "a chained URL"),
        ("zip://x.tar::s3://b/x.zip", "a chained URL"),
        ("memory://x.tar::file:///etc/passwd", "a chained URL"),
        ("dask://x.tar", "dask://"),
        ("ssh://h/x.tar", "ssh://"),
        ("local:///x.tar", "local://"),
        ("file://host/x.tar", "file://"),
        ("nosuch://h/x.tar", "nosuch://"),
    ],
)
def test_what_is_not_allowed_is_refused_in_one_line(url: str, what: str) -> None:
    with pytest.raises(DataError) as error:
        urls.check_url(url)
    assert str(error.value).startswith(f"{url}: {what} is not allowed; allowed are http://, https://, s3://, ")
    assert "\n" not in str(error.value)


def test_a_query_stays_behind_the_path() -> None:
    url = "https://h/d/x.tar?sig=a/b.tar&c"
    assert urls.without_query(url) == "https://h/d/x.tar"
    assert urls.with_suffix(url, ".tar", ".json") == "https://h/d/x.json?sig=a/b.tar&c"
    assert urls.sibling(url, "m.json") == "https://h/d/m.json?sig=a/b.tar&c"
    assert urls.inside("https://h/d/?sig=a/b", "m.json") == "https://h/d/m.json?sig=a/b"
    assert urls.inside("s3://b/d", "m.json") == "s3://b/d/m.json"
    assert urls.inside("/a?b/", "m.json") == "/a?b/m.json"
    assert urls.name_of(url) == "x.tar"


def test_a_name_is_the_one_on_a_disk() -> None:
    assert urls.name_of("https://h/a%20b.tar") == "a b.tar"
    assert urls.name_of("s3://b/a%20b.tar") == "a%20b.tar"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:secret@h/x.tar?sig=secret", "https://h/x.tar?..."),
        ("https://secret@h/x.tar", "https://h/x.tar"),
        ("s3://key:secret@b/x.tar", "s3://b/x.tar"),
        ("hf://datasets/a/b@main/x.tar", "hf://datasets/a/b@main/x.tar"),
        ("abfs://container@account/x.tar", "abfs://container@account/x.tar"),
    ],
)
def test_secrets_are_not_shown(url: str, shown: str) -> None:
    assert urls.shown(url) == shown


def test_a_file_url_is_a_path() -> None:
    assert urls.local_path("file:///a/b?c") == "/a/b?c"
    assert urls.local_path("/a/b") == "/a/b"
    assert urls.local_path("s3://a/b") == "s3://a/b"
