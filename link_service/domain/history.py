"""A link's past: pages of its events, and the search for the version of a time.

Times follow versions [W3], so the version of a time is found by halving. The newest events may not be in the table yet;
they go there in order, so a version without a row has none after it either.
"""

import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import datetime

from contracts.link import LinkKey

PAGE_SIZE_DEFAULT = 50
PAGE_SIZE_MAX = 100
_FORMAT = "1"
_NUMBER = re.compile(r"[1-9][0-9]{0,11}")


class BadTokenError(ValueError):
    """A page token that was not made here for this link."""


def page_size_of(wanted: int) -> int:
    """The size of a page: the default for 0, at most 100."""
    return min(wanted, PAGE_SIZE_MAX) if wanted > 0 else PAGE_SIZE_DEFAULT


def page_token(key: LinkKey, version: int) -> str:
    """The token of the page that begins with this version."""
    return urlsafe_b64encode(f"{_FORMAT} {version} {key}".encode()).decode()


def first_version(token: str, key: LinkKey) -> int:
    """The version that a page begins with; 1 without a token.

    Raises:
        BadTokenError: it is no token for this link.
    """
    if not token:
        return 1
    try:
        text = urlsafe_b64decode(token.encode()).decode()
    except (binascii.Error, ValueError) as exc:
        raise BadTokenError("not a token") from exc
    made_for, _, rest = text.partition(" ")
    number, _, name = rest.partition(" ")
    if made_for != _FORMAT or name != key or not _NUMBER.fullmatch(number):
        raise BadTokenError("not a token of this link")
    version = int(number)
    if token != page_token(key, version):
        raise BadTokenError("not written as we write it")
    return version


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What is known of the version of a time: `low` is not younger than it; `high` is, or (unless `is_certain`) has no
    row yet."""

    asked: datetime
    low: int
    high: int
    is_certain: bool = True

    @property
    def probe(self) -> int | None:
        """Which version to look at next; None: `low` is the answer, if `high` is certain."""
        return (self.low + self.high) // 2 if self.high - self.low > 1 else None

    def narrowed(self, version: int, at: datetime | None) -> "Search":
        """What is known after a look at that version, which was decided then; None: it has no row yet."""
        if at is not None and at <= self.asked:
            return Search(asked=self.asked, low=version, high=self.high, is_certain=self.is_certain)
        return Search(asked=self.asked, low=self.low, high=version, is_certain=at is not None)
