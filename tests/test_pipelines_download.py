"""Downloads from a real web server with the faults that servers have: the content is right, or one line says why not."""

import io
import time
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
from faulty_server import HTML, Fault, Server, changes, cut, hang, reset, says, serving, without_length, zipped
from hypothesis import given, settings
from hypothesis import strategies as st

from drnet.datasets.contract import DataError
from drnet.pipelines.files import sha256_of
from drnet.pipelines.remote.download import PATIENT, Download, NotThere, Refused, download

DATA = np.random.default_rng(0).bytes(200_000)


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    running.files, running.ranges, running.etags = {"/x": DATA}, True, True
    running.faults.clear()
    running.asked.clear()
    running.careless = False
    return running


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """No waiting: what would have been slept."""
    times: list[float] = []
    monkeypatch.setattr("drnet.pipelines.remote.download.time", SimpleNamespace(sleep=times.append))
    return times


def fetched(server: Server, sha256: str = "", path: str = "/x") -> bytes:
    file = io.BytesIO()
    got = download(server.url + path, file, sha256)
    data = file.getvalue()
    assert got == Download(len(data), sha256_of(data), got.version)
    return data


@pytest.mark.parametrize("etags", [True, False])
@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("sha256", ["", sha256_of(DATA)], ids=["unknown", "known"])
@settings(max_examples=12, deadline=None)
@given(cuts=st.lists(st.integers(0, len(DATA)), max_size=6))
def test_a_connection_may_be_cut_at_any_byte(
    running: Server, cuts: list[int], sha256: str, ranges: bool, etags: bool
) -> None:
    running.files, running.ranges, running.etags = {"/x": DATA}, ranges, etags
    running.faults["/x"] = [cut(keep) for keep in cuts]
    assert fetched(running, sha256) == DATA
    running.faults.clear()


@pytest.mark.parametrize(("etags", "sha256"), [(True, ""), (False, sha256_of(DATA)), (True, sha256_of(DATA))])
def test_what_was_received_is_not_asked_for_again(server: Server, etags: bool, sha256: str) -> None:
    server.etags = etags
    server.faults["/x"] = [cut(70_000, 0.05), cut(50_000, 0.05), cut(0)]
    assert fetched(server, sha256) == DATA
    assert [asked for _, asked in server.asked] == ["", "bytes=70000-", "bytes=120000-", "bytes=120000-"]


def test_without_hash_and_version_nothing_is_put_together_from_two_answers(server: Server) -> None:
    server.etags = False
    server.faults["/x"] = [changes(DATA[::-1], 70_000)]
    assert fetched(server) == DATA[::-1]
    assert [asked for _, asked in server.asked] == ["", ""]


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("etags", [True, False])
@pytest.mark.parametrize("sha256", ["", "new"])
@pytest.mark.parametrize("newer", [DATA[::-1], DATA[:60_000], DATA[:10], b"", DATA * 2], ids=len)
def test_content_that_changes_between_requests_is_never_mixed(
    server: Server, newer: bytes, sha256: str, etags: bool, ranges: bool
) -> None:
    server.ranges, server.etags = ranges, etags
    server.faults["/x"] = [changes(newer, 70_000)]
    assert fetched(server, sha256 and sha256_of(newer)) == newer


@pytest.mark.parametrize("newer", [DATA[::-1], DATA[:100_000], DATA * 2], ids=len)
def test_a_server_that_mixes_versions_by_itself_is_not_trusted(server: Server, newer: bytes) -> None:
    server.careless = True
    server.faults["/x"] = [changes(newer, 70_000)]
    assert fetched(server) == newer


@pytest.mark.parametrize("etags", [True, False])
def test_content_that_changed_from_what_is_listed_is_refused(server: Server, etags: bool) -> None:
    server.etags = etags
    server.faults["/x"] = [changes(DATA[::-1], 70_000)]
    with pytest.raises(DataError, match=r"^http://.*/x: its content is not the one that is listed; verify"):
        fetched(server, sha256_of(DATA))
    assert len(server.asked) <= 3


def test_each_new_attempt_waits_longer_and_some_time_there_is_none(server: Server, slept: list[float]) -> None:
    server.faults["/x"] = [says(500)] * 100
    with pytest.raises(DataError, match=r"^http://127.0.0.1:\d+/x: cannot be read \(500 Internal Server Error\)$"):
        fetched(server)
    assert slept == list(PATIENT) == sorted(PATIENT)
    assert len(server.asked) == len(PATIENT) + 1


@pytest.mark.parametrize("fault", [says(500), says(503), says(429), says(408), reset, cut(0)])
def test_trouble_that_passes_is_waited_out(server: Server, fault: Fault) -> None:
    server.faults["/x"] = [fault, fault, cut(1000), fault]
    assert fetched(server) == DATA


def test_attempts_are_counted_anew_where_there_is_progress(
    server: Server, slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drnet.pipelines.remote.download.PROGRESS", 10_000)
    server.faults["/x"] = [cut(10_000, 0.03)] * 19
    assert fetched(server) == DATA
    assert set(slept) == {PATIENT[0]}
    assert len(slept) == 19


@pytest.mark.parametrize("status", [404, 410])
def test_what_is_not_there_is_asked_for_once(server: Server, status: int) -> None:
    server.faults["/x"] = [says(status, HTML)]
    with pytest.raises(NotThere, match=r"^http://127.0.0.1:\d+/x: not found$"):
        fetched(server)
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [400, 401, 403])
def test_what_is_refused_is_asked_for_once(server: Server, status: int) -> None:
    server.faults["/x"] = [says(status, HTML)]
    with pytest.raises(Refused, match=rf"^http://127.0.0.1:\d+/x: cannot be read \({status} "):
        fetched(server)
    assert len(server.asked) == 1


@pytest.mark.parametrize("sha256", ["", sha256_of(DATA)], ids=["unknown", "known"])
def test_a_web_page_is_no_content(server: Server, sha256: str) -> None:
    server.faults["/x"] = [says(200, HTML)]
    assert fetched(server, sha256) == DATA
    server.faults["/x"] = [says(200, HTML)] * 2
    with pytest.raises(DataError, match=r"^http://.*/x: the server sent a web page, not the file; open the URL in a"):
        fetched(server, sha256)


@pytest.mark.parametrize("wrong", [-1, -70_000, 1, 70_000])
def test_a_wrong_length_gives_the_content_or_one_line(server: Server, wrong: int) -> None:
    fault = lambda handler: handler.answer(length=len(DATA) + wrong)  # noqa: E731
    server.faults["/x"] = [fault]
    assert fetched(server, sha256_of(DATA)) == DATA
    server.faults["/x"] = [fault] * 100
    with pytest.raises(DataError, match=r"^http://\S+/x: (cannot be read|its content is not the one)") as error:
        fetched(server, sha256_of(DATA))
    assert "\n" not in str(error.value)


def test_an_answer_without_length_is_read_to_its_end(server: Server) -> None:
    server.faults["/x"] = [without_length]
    assert fetched(server) == DATA


def test_a_server_that_likes_to_compress_is_asked_not_to(server: Server) -> None:
    server.faults["/x"] = [zipped]
    assert fetched(server, sha256_of(DATA)) == DATA
    assert len(server.asked) == 1


def test_an_answer_without_end_is_ended(server: Server) -> None:
    server.faults["/x"] = [without_length]
    with pytest.raises(DataError, match="more than the 1000 bytes that there is room for"):
        download(f"{server.url}/x", io.BytesIO(), room=lambda size: size or 1000)


def test_a_slow_answer_is_waited_for_and_a_dead_one_is_not(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drnet.pipelines.remote.answers.SILENCE", 0.3)
    server.faults["/x"] = [lambda handler: handler.answer(pause=0.15), hang]
    assert fetched(server) == DATA
    assert len(server.asked) == 1
    start = time.monotonic()
    assert fetched(server) == DATA
    assert time.monotonic() - start < 0.75
    assert len(server.asked) == 3


def test_a_redirection_is_followed(server: Server) -> None:
    server.faults["/old"] = [says(302, Location="/x")]
    assert fetched(server, path="/old") == DATA


def test_a_signature_arrives_as_it_was_written_and_is_shown_nowhere(server: Server) -> None:
    query = "X-Amz-Credential=a%2Fb%2fc&sig=aB%2B/+%3D=secret&x={1,2}"
    assert fetched(server, path=f"/x?{query}") == DATA
    assert server.asked == [(f"/x?{query}", "")]
    for faults in (
        [says(500)] * 100,
        [says(403)],
        [says(404)],
        [says(200, HTML)] * 2,
        [says(302, Location="ftp://h/?secret")] * 100,
    ):
        server.faults["/x"] = list(faults)
        with pytest.raises(DataError) as error:
            fetched(server, path=f"/x?{query}")
        assert "secret" not in str(error.value)
        assert "Credential" not in str(error.value)
    server.faults.clear()
