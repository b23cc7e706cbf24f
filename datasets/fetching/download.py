"""One file from one URL: resumed inside the file, cut off where it is too long or too slow, never two versions glued.

A second request asks for the rest with `Range` and `If-Range`, so that a server whose file has changed sends all of it
again; where a server tells neither a strong ETag nor a time of change, every request begins at zero.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urljoin

import requests
from urllib3.exceptions import HTTPError

from drnet.datasets.fetching.part import Part

CHUNK = 1 << 18  # bytes read at most at a time
REDIRECTS = 5  # followed at most
CONNECTIONS = 200  # for one file: a server that sends little and hangs up is not asked for ever
UNREACHED = 2  # attempts in a row without a connection
NEVER = (requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL)
TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}
Told = Callable[[int, int | None], None]  # bytes that lie there; of how many, if known


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for.

    Attributes:
        connect: seconds for a connection.
        answer: seconds between two answers.
        tries: requests in a row that bring nothing new.
        pause: seconds after the first of them; doubled after each.
        window: seconds over which the speed is measured.
        slowest: bytes a second below which the connection is given up.
    """

    connect: float = 10.0
    answer: float = 30.0
    tries: int = 5
    pause: float = 1.0
    window: float = 60.0
    slowest: float = 1024.0


class MirrorFailed(Exception):  # noqa: N818 - another mirror may do
    """A URL does not serve the file; the message says why in a few words."""


class _Again(Exception):  # noqa: N818 - another request may do
    """A request has failed in a way that may pass."""


class _TooSlow(_Again):
    """What a request brings is not worth the time."""


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Leave redirects to `_answer`: requests itself would read the body of each, however long."""


def download(
    url: str, part: Part, size: int | None, limit: int, tell: Told, patience: Patience, session: requests.Session
) -> bool:
    """Receive all that a URL serves, going on with what lies there of the same version.

    Args:
        url: http or https.
        part: to write to.
        size: bytes that there must be, where they are known.
        limit: bytes that are taken at most.
        tell: called with what lies there after each piece.
        patience: with the server.
        session: of `new_session`.

    Returns:
        Whether all of it arrived in one answer.

    Raises:
        MirrorFailed: it does not serve the file, or not in the time allowed.
        DataError: there is no room.
    """
    best, silent = part.size if part.origin()["url"] == url else 0, 0
    for _ in range(CONNECTIONS):
        origin = part.origin()
        if origin["url"] == url and part.size == origin["total"]:
            return False
        try:
            return _receive(session, url, part, size, limit, tell, patience)
        except (_Again, requests.RequestException, HTTPError, UnicodeError) as error:
            news = part.size > best and not isinstance(error, _TooSlow)
            silent, best = 0 if news else silent + 1, max(best, part.size)
            # An address that cannot be reached at all seldom can a moment later.
            allowed = UNREACHED if isinstance(error, requests.ConnectionError) else patience.tries
            if silent >= allowed or isinstance(error, NEVER):
                raise MirrorFailed(_reason(error)) from None
        time.sleep(patience.pause * 2 ** (silent - 1) if silent else 0)
    raise MirrorFailed(f"it has hung up {CONNECTIONS} times")


def new_session() -> requests.Session:
    """Return what `download` asks with."""
    session = _Session()
    # The bytes are checked as they are served: a server must not pack them once more on the way.
    session.headers.update({"Accept-Encoding": "identity", "User-Agent": "drnet", "Accept": "*/*"})
    return session


def _receive(
    session: requests.Session, url: str, part: Part, size: int | None, limit: int, tell: Told, patience: Patience
) -> bool:
    origin, headers = part.origin(), dict[str, str]()
    version = origin["modified"] if origin["etag"].startswith("W/") else origin["etag"] or origin["modified"]
    if part.size and origin["url"] == url and version:
        headers = {"Range": f"bytes={part.size}-", "If-Range": version}
    with _answer(session, url, headers, patience) as response:
        if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and headers:
            part.forget()
            raise _Again("416: its file is shorter than what was received")
        _refuse(response, bool(headers))
        if response.status_code == HTTPStatus.PARTIAL_CONTENT:
            total = _total_of_rest(response, part, origin)
        else:
            length = re.fullmatch(r"\d{1,18}", response.headers.get("Content-Length", ""))
            total = int(length[0]) if length else None
            _refuse_size(total, size, limit)
            part.begin(url, response.headers.get("ETag", ""), response.headers.get("Last-Modified", ""), total)
        _copy(response, part, size or total, limit, tell, patience)
    wanted = total if total is not None else size
    if wanted is not None and part.size < wanted:
        raise _Again(f"it hung up after {part.size:,} of {wanted:,} bytes")
    return response.status_code == HTTPStatus.OK


def _answer(session: requests.Session, url: str, headers: dict[str, str], patience: Patience) -> requests.Response:
    """Return the answer of the last of a few redirects, its body unread."""
    for _ in range(REDIRECTS + 1):
        response = session.get(url, headers=headers, stream=True, timeout=(patience.connect, patience.answer))
        target = response.headers.get("Location")
        if response.status_code not in (301, 302, 303, 307, 308) or not target:
            return response
        response.close()
        url = urljoin(url, target)
        if not url.startswith(("http://", "https://")):
            raise MirrorFailed("it redirects to something else than http or https")
    raise MirrorFailed(f"it redirects more than {REDIRECTS} times")


def _refuse(response: requests.Response, ranged: bool) -> None:
    status = response.status_code
    if status in TRY_AGAIN:
        raise _Again(f"{status} {response.reason}")
    if status != HTTPStatus.OK and not (status == HTTPStatus.PARTIAL_CONTENT and ranged):
        raise MirrorFailed(f"{status} {response.reason}")
    if re.match(r"(text/html|application/xhtml)", response.headers.get("Content-Type", "").strip(), re.IGNORECASE):
        raise MirrorFailed("a web page in place of the file")


def _refuse_size(total: int | None, size: int | None, limit: int) -> None:
    if size is not None and total not in (None, size):
        raise MirrorFailed(f"it announces {total:,} bytes instead of {size:,}")
    if total is not None and total > limit:
        raise MirrorFailed(f"it announces {total:,} bytes; at most {limit:,} are taken")


def _total_of_rest(response: requests.Response, part: Part, origin: dict[str, Any]) -> int | None:
    """Check that a partial answer goes on exactly where, and with what, the part ends; return the whole's size."""
    found = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", response.headers.get("Content-Range", "").strip())
    same = all(
        response.headers.get(header, origin[name]) == origin[name]
        for header, name in (("ETag", "etag"), ("Last-Modified", "modified"))
    )
    total = int(found[2]) if found and found[2] != "*" else origin["total"]
    if not found or int(found[1]) != part.size or total != origin["total"] or not same:
        part.forget()
        raise _Again("it answered with another part of the file, or with a part of another file")
    return total


def _copy(
    response: requests.Response, part: Part, total: int | None, limit: int, tell: Told, patience: Patience
) -> None:
    """Write a body to the part's end, whatever arrives at once: what is there survives the next moment."""
    mark, since = part.size, time.monotonic()
    while chunk := response.raw.read1(CHUNK, decode_content=False):
        if part.size + len(chunk) > limit:
            part.forget()
            raise MirrorFailed(f"it sends more than {limit:,} bytes")
        part.append(chunk)
        tell(part.size, total)
        now = time.monotonic()
        if now - since > patience.window:
            if part.size - mark < patience.slowest * (now - since):
                raise _TooSlow(f"it sends less than {patience.slowest:,.0f} bytes a second")
            mark, since = part.size, now


def _reason(error: Exception) -> str:
    """Say in a few words why there was no answer."""
    if isinstance(error, _Again):
        return str(error)
    if isinstance(error, NEVER):
        return "no http or https address"
    if isinstance(error, requests.exceptions.SSLError):
        return "no secure connection"
    if isinstance(error, requests.Timeout) or "timed out" in str(error).lower():
        return "no answer in time"
    return "no connection" if isinstance(error, requests.ConnectionError) else "the connection broke"
