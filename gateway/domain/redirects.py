"""How the code of a link is answered: link and time in, status and headers out; or the answer as it is on the wire."""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from http import HTTPStatus
from typing import assert_never

from contracts.codes import RESERVED, is_possible_code
from contracts.link import REDIRECT_STATUSES, Link, LinkState
from contracts.reasons import Reason

Headers = tuple[tuple[bytes, bytes], ...]

# Every click reaches us and a delete takes effect at once: nothing in between may keep the answer.
_HEADERS: Headers = (
    (b"cache-control", b"private, no-store"),
    (b"referrer-policy", b"strict-origin-when-cross-origin"),
    (b"x-robots-tag", b"noindex"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-length", b"0"),
)
_BEHIND_LOCATION = b"".join([b"%b: %b\r\n" % header for header in _HEADERS]) + b"\r\n"
_STATUS_LINES = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode()) for status in REDIRECT_STATUSES
}
_UNSENDABLE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")  # no value of a header may have them


class Outcome(Enum):
    """What became of a request for a code; the value is the label of redirects_total."""

    REDIRECTED = "redirected"
    NOT_FOUND = "not_found"
    DELETED = "deleted"
    EXPIRED = "expired"
    BLOCKED = "blocked"
    UNAVAILABLE = "unavailable"
    RATE_LIMITED = "rate_limited"


@dataclass(frozen=True, slots=True)
class Redirect:
    """Send the visitor on."""

    status: int
    headers: Headers


@dataclass(frozen=True, slots=True)
class Refusal:
    """Tell the visitor why not."""

    outcome: Outcome
    reason: Reason


def code_of_path(path: str) -> str | None:
    """The code a path asks for; None if no link can have it, so that nobody needs to be asked."""
    code = path[1:]
    return code if is_possible_code(code) and code.casefold() not in RESERVED else None


def decide(link: Link | None, now: datetime) -> Redirect | Refusal:
    """The answer to a request for a link's code at that moment; None: there is no such link.

    A link that has not started yet is not there, whatever else it is: its code must not tell that it is taken.
    """
    if link is None or (link.starts_at is not None and now < link.starts_at and link.state is LinkState.ACTIVE):
        return Refusal(Outcome.NOT_FOUND, Reason.LINK_NOT_FOUND)
    state = link.state_at(now)
    match state:
        case LinkState.ACTIVE:
            return Redirect(link.redirect_status, ((b"location", link.long_url.encode()), *_HEADERS))
        case LinkState.DELETED:
            return Refusal(Outcome.DELETED, Reason.LINK_DELETED)
        case LinkState.EXPIRED:
            return Refusal(Outcome.EXPIRED, Reason.LINK_EXPIRED)
        case LinkState.BLOCKED:
            return Refusal(Outcome.BLOCKED, Reason.LINK_BLOCKED)
        case _:
            assert_never(state)


def ready_answer(link: Link, now: datetime) -> bytes | None:
    """The bytes of the redirect to GET or HEAD on a connection that is kept, valid as long as `decide` says the same;
    None: the link does not redirect at that moment, or to nothing that could be sent."""
    return redirect_bytes(link.redirect_status, link.long_url) if isinstance(decide(link, now), Redirect) else None


def redirect_bytes(status: int, long_url: str) -> bytes | None:
    """The bytes of a redirect there; None: it cannot be sent."""
    location = long_url.encode()
    if _UNSENDABLE.search(location):
        return None
    return b"%blocation: %b\r\n%b" % (_STATUS_LINES[status], location, _BEHIND_LOCATION)
