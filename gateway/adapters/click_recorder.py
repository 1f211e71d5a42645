"""Records clicks before they are answered: one look at the headers, a few cached pieces, one write into a spool.

Everything here is on the way of every redirect, a few microseconds in all. So it is written for speed: what repeats
(a link, a browser, a millisecond) is encoded once and kept, in bounded caches that are emptied when they are full.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from contracts.topics import click_partition
from gateway.domain.click_wire import (
    CLICK_TAG,
    LENGTHS,
    REFERRER_TAG,
    VISITOR_TAG,
    agent_fields,
    at_field,
    country_field,
    link_fields,
    referrer_field,
)
from gateway.domain.visitors import (
    TEXT_BYTES_MAX,
    Visit,
    Visitors,
    classify,
    client_address,
    country_of,
    cut,
    daily_key,
    is_prefetch,
    visitor_hasher,
)
from gateway.ports import ClickTarget

if TYPE_CHECKING:
    from hashlib import blake2b

_LINKS_MAX = 16_384  # some 300 bytes each
_AGENTS_MAX = 2_048  # about a kilobyte each
_ADDRESSES_MAX = 32_768  # whose country is kept, 150 bytes each
_DAY_MS = 86_400_000
_NOTHING = [b""] * 6  # of the headers that are looked for
_Agent = tuple["blake2b", bytes, bytes, bytes]  # half a visitor's hash; fields of a GET, of a HEAD, of a prefetch
_Link = tuple[str, bytes, int]  # whose it is, the fields of its clicks, its partition
Append = Callable[[int, bytes, str | None], bool]


class SpoolClickRecorder:
    """A ClickRecorder. `append` puts a click of a partition into its spool; `now_ms` is the time since 1970;
    `country_at` tells the country of an address, where no proxy states it.
    """

    def __init__(
        self,
        append: Append,
        *,
        partitions: int,
        visitors: Visitors,
        now_ms: Callable[[], int],
        country_at: Callable[[str], str] | None = None,
    ) -> None:
        self._append = append
        self._partitions = partitions
        self._visitors = visitors
        self._now_ms = now_ms
        self._places = {b"user-agent": 0, b"referer": 1, b"sec-purpose": 2, b"purpose": 3}  # of what is looked for
        if visitors.trusted_proxies > 0:
            self._places[b"x-forwarded-for"] = 4
        if visitors.country_header:
            self._places[visitors.country_header] = 5
        self._country_at = None if country_at is None else _remembered(country_at)
        self._links: dict[str, _Link] = {}
        self._agents: dict[bytes, _Agent] = {}
        self._ms = self._day = -1
        self._at = self._key = b""

    def record(
        self,
        target: ClickTarget,
        method: str,
        headers: Sequence[tuple[bytes, bytes]],
        peer: str,
        traceparent: str | None,
    ) -> bool:
        """Records a click; what is recorded when this returns outlives the process. False: no room [S6]."""
        found = _NOTHING.copy()
        place_of = self._places.get
        for name, value in headers:
            place = place_of(name)
            if place is not None:
                found[place] = found[place] + b", " + value if found[place] else value
        user_agent, referrer, sec_purpose, purpose, forwarded, country = found
        now_ms = self._now_ms()
        if now_ms != self._ms:
            self._turn(now_ms)
        link = self._links.get(target.link_key)
        if link is None or link[0] != target.user_id:
            link = self._link(target)
        hasher, fields, head_fields, prefetch_fields = self._agents.get(user_agent) or self._agent(user_agent)
        if method == "HEAD":
            fields = head_fields
        if (sec_purpose or purpose) and is_prefetch((sec_purpose or purpose).decode("latin-1")):
            fields = prefetch_fields
        if forwarded:
            peer = client_address(peer, forwarded.decode("latin-1"), self._visitors.trusted_proxies)
        visitor = hasher.copy()
        visitor.update(peer.encode())
        if referrer:
            referrer = _referrer(referrer)
        if country:
            country = _country(country)
        if not country and self._country_at is not None:
            country = self._country_at(peer)
        body = b"".join((link[1], self._at, VISITOR_TAG, visitor.digest(), fields, referrer, country))
        return self._append(link[2], CLICK_TAG + LENGTHS[len(body)] + body, traceparent)

    def _turn(self, now_ms: int) -> None:
        """Another millisecond, and once a day another key."""
        self._ms, self._at = now_ms, at_field(now_ms)
        day = now_ms // _DAY_MS
        if day != self._day:
            self._day = day
            self._key = daily_key(self._visitors.key, datetime.fromtimestamp(now_ms / 1000, UTC).date())
            self._agents.clear()

    def _link(self, target: ClickTarget) -> _Link:
        if len(self._links) >= _LINKS_MAX:
            self._links.clear()
        made = (
            target.user_id,
            link_fields(target.link_key, target.user_id),
            click_partition(target.link_key, self._partitions),
        )
        self._links[target.link_key] = made
        return made

    def _agent(self, user_agent: bytes) -> _Agent:
        if len(self._agents) >= _AGENTS_MAX:
            self._agents.clear()
        text = cut(user_agent.decode("latin-1"))
        visits = (Visit("GET", text, ""), Visit("HEAD", text, ""), Visit("GET", text, "prefetch"))
        get, head, prefetch = (agent_fields(text, classify(visit)) for visit in visits)
        made = (visitor_hasher(self._key, text), get, head, prefetch)
        if len(user_agent) <= TEXT_BYTES_MAX:  # longer ones would make the cache large, and no browser has them
            self._agents[user_agent] = made
        return made


def _referrer(value: bytes) -> bytes:
    if len(value) <= TEXT_BYTES_MAX and value.isascii():
        return REFERRER_TAG + LENGTHS[len(value)] + value
    return referrer_field(cut(value.decode("latin-1")))


@lru_cache(maxsize=1024)
def _country(stated: bytes) -> bytes:
    return country_field(country_of(stated.decode("latin-1")))


def _remembered(country_at: Callable[[str], str]) -> Callable[[str], bytes]:
    """The field of an address' country. Those of late are kept here, in memory, and nowhere else."""
    return lru_cache(maxsize=_ADDRESSES_MAX)(lambda address: country_field(country_at(address)))
