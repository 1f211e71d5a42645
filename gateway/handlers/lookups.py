"""Where a code leads: this process' memory, then Redis, then link_service [L1 to L5].

Look-ups of one code at nearly the same time are one flight. What a flight brings is kept if nothing has been said of
its link since it began; gateway.domain.near_cache decides that, and what may be served when.
"""

import asyncio
import contextvars
import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from opentelemetry import trace
from prometheus_client import Counter, Gauge

from chassis.clock import Clock
from chassis.errors import DeadlineExceeded, Internal, ResourceExhausted, ServiceError, Unavailable
from chassis.telemetry import current_traceparent, start_trace
from contracts.cache import decode_entry, encode_entry, entry_message
from contracts.link import Link, LinkKey, UserId, link_key
from contracts.link_codec import UndecodableError, link_from_message
from gateway.domain.issued import IssuedCodes
from gateway.domain.misses import MissBudget
from gateway.domain.near_cache import Entry, Flight, Limits, NearCache
from gateway.domain.redirects import ready_answer, redirect_bytes
from gateway.handlers.metrics import LOOKUPS
from gateway.ports import (
    ClickTarget,
    LinkCache,
    ReadRequests,
    ReadyRedirect,
    Resolved,
    Resolver,
    TooManyMissesError,
)
from shortener.link.v1 import link_pb2

CORRUPT = Counter("link_cache_corrupt_total", "Values in Redis that could not be decoded; treated as absent")
ENTRIES = Gauge("near_links", "Links that are kept in this process")
EVICTED = Counter("near_links_evicted", "Links that had to go for others")
FLUSHES = Counter("near_links_flushes", "Times that all links kept here were given up")
MARKED = Counter("redirect_lookups_marked", "Look-ups whose link changed, or may have, while they were under way")
_NOT_IN_TIME = (Unavailable, DeadlineExceeded, ResourceExhausted)  # a later try may find an answer
logger = logging.getLogger(__name__)


class Source(Enum):
    """Who knew the answer; the value is the label of redirect_lookup_total."""

    NEAR = "near"  # this process: a link
    NEAR_ABSENT = "near_absent"  # this process: there is none
    NEVER_ISSUED = "never_issued"
    REDIS = "redis"
    LINK_SERVICE = "link_service"
    UNCONFIRMED = "unconfirmed"
    STALE = "stale"


_COUNTED = {source: LOOKUPS.labels(source.value) for source in Source}


class Looked(NamedTuple):  # made for each look-up; a frozen dataclass takes four times as long
    """The answer to a look-up. `ready`: its redirect, if it redirects at this moment and the bytes are there."""

    source: Source
    value: bytes | None = None  # as in Redis; None: there is no such link
    ready: ReadyRedirect | None = None

    @property
    def link(self) -> Link | None:
        """The link, decoded anew each time."""
        return None if self.value is None else decode_entry(self.value)


Told = Looked | ServiceError
Tell = Callable[[Told], None]


class _Trip(Flight):
    """A flight with its passengers. The context is of who began it: calls belong to that trace; None: to none that is
    kept."""

    __slots__ = ("aboard", "context", "key")

    def __init__(self, path: bytes, key: LinkKey, began: float, context: contextvars.Context | None) -> None:
        super().__init__(path, began)
        self.key = key
        self.aboard: list[tuple[str, Tell]] = []
        self.context = context


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where answers come from, and who is told when there is none in time. `serve_unconfirmed`: answer also with what
    Redis could not vouch for [L4]."""

    cache: LinkCache
    resolver: Resolver
    read_requests: ReadRequests
    issued: IssuedCodes
    budget: MissBudget
    limits: Limits
    serve_unconfirmed: bool = True


class Lookups:
    """Looks codes up. It is a ReadyRedirects, a TrackedLinks, and a Resolver whose `forget` reaches all of it. `tasks`
    runs the questions to link_service and outlives this object."""

    def __init__(self, sources: Sources, *, tasks: asyncio.TaskGroup, clock: Clock) -> None:
        self._sources = sources
        self._tasks = tasks
        self._clock = clock
        self._near: NearCache[bytes, ReadyRedirect, _Trip] = NearCache(
            sources.limits, monotonic=clock.monotonic, now=clock.now
        )
        self.get = self._near.get  # a ReadyRedirects, without a call in between
        self.turned = self._near.turned
        self.heard = self._near.heard
        self.is_overdue = self._near.is_overdue
        self.learn_issued = sources.issued.learn
        ENTRIES.set_function(lambda: self._near.size)

    async def look_up(self, key: LinkKey, client: str = "") -> Looked:
        """What is known of a code; at most 350 ms. `client`: the address that asks.

        Raises:
            TooManyMissesError: the client's network has to wait first.
            ServiceError: no answer in time, or none that is safe to give.
        """
        answer: asyncio.Future[Looked | ServiceError] = asyncio.get_running_loop().create_future()

        def settle(told: Looked | ServiceError) -> None:
            if not answer.done():
                answer.set_result(told)

        told = self.begin(key, client, settle) or await answer
        if isinstance(told, ServiceError):
            raise told
        return told

    def begin(self, key: LinkKey, client: str, tell: Tell, *, traced: bool = True) -> Looked | None:
        """The same without waiting: an answer that is known, or None, and `tell` is called later with it. `traced`:
        what is done for it belongs to the trace of this moment; else to one that is not kept.

        Raises:
            TooManyMissesError: `tell` will not be called.
        """
        path = b"/" + key.encode()
        entry = self._near.find(path)
        if entry is not None:
            return self._found(Source.NEAR, self._renewed(entry))
        now = self._clock.monotonic()
        wait_s = self._sources.budget.wait_s(client, now)
        if wait_s:
            raise TooManyMissesError("rate_limited", "Too many codes that nobody has.", retry_after_s=wait_s)
        if self._near.is_absent(path):
            return self._missed(Source.NEAR_ABSENT, client)
        if self._sources.issued.rules_out(key):
            return self._missed(Source.NEVER_ISSUED, client)
        trip = self._near.board(path)
        if trip is None:
            trip = _Trip(path, key, now, contextvars.copy_context() if traced else None)
            self._near.depart(trip)
            self._fly(trip)
        trip.aboard.append((client, tell))
        return None

    async def resolve(self, key: LinkKey) -> Resolved:
        """link_service's own answer.

        Raises:
            ServiceError: as look_up.
        """
        return await self._sources.resolver.resolve(key)

    def forget(self, key: LinkKey) -> None:
        """A mutation of this link has been acknowledged, or may have been: what is known of it is void [L1]."""
        self.changed(key)

    # ------------------------------------------------------------ what Redis tells

    def changed(self, key: LinkKey) -> None:
        """Lets go of a link; its look-up under way is for those aboard alone."""
        if self._near.invalidate(b"/" + key.encode()) is not None:
            MARKED.inc()
        self._sources.resolver.forget(key)  # also of a trip that was marked before: its question began since then

    def flush(self) -> None:
        """Lets go of everything."""
        FLUSHES.inc()
        self._leave_alone(self._near.flush())

    def subscribed(self, asked_at: float) -> None:
        """From now on changes are heard of, and answers may be kept."""
        FLUSHES.inc()
        self._leave_alone(self._near.subscribed(asked_at))

    def lost(self) -> None:
        """Changes are not heard of any more."""
        self._leave_alone(self._near.lost())

    def _leave_alone(self, trips: list[_Trip]) -> None:
        for trip in trips:
            self._sources.resolver.forget(trip.key)  # else a new trip would join the old one's question there
        MARKED.inc(len(trips))

    # ------------------------------------------------------------ flights

    def _fly(self, trip: _Trip) -> None:
        try:
            self._sources.cache.begin(trip.key, lambda value: self._receive(trip, value))
        except Unavailable:
            self._ask(trip, redis_answered=False)
        except Exception:
            self._near.land(trip)  # nobody may board what never took off
            raise

    def _receive(self, trip: _Trip, value: bytes | Unavailable | None) -> None:
        """What Redis said."""
        if not isinstance(value, bytes):
            self._ask(trip, redis_answered=value is None)
            return
        try:
            entry = self._entry_of_message(trip.path, value, entry_message(value))
        except UndecodableError:
            CORRUPT.inc()
            self._ask(trip, redis_answered=True)
        except Exception:  # those aboard would wait for ever
            logger.exception("a look-up failed")
            self._land(trip, Internal("internal", "Something went wrong on our side."), None)
        else:
            self._land(trip, Looked(Source.REDIS, value, entry.ready), entry)

    def _ask(self, trip: _Trip, *, redis_answered: bool) -> None:
        if trip.context is None:
            with start_trace("look up", keep_ratio=0.0):
                trip.context = contextvars.copy_context()
        self._tasks.create_task(self._resolve(trip, redis_answered), name="look up", context=trip.context)

    async def _resolve(self, trip: _Trip, redis_answered: bool) -> None:
        """What link_service says. When it does not say so in time, it is asked to have the answer ready next time."""
        told: Looked | ServiceError = Unavailable("unavailable", "The answer was given up.", retry_after_s=1)
        entry: Entry[bytes, ReadyRedirect] | None = None
        try:
            told, entry = self._judge(trip, await self._sources.resolver.resolve(trip.key))
        except _NOT_IN_TIME as exc:
            self._sources.read_requests.put(trip.key, _kept_traceparent())
            told = (None if redis_answered else self._stale(trip)) or exc
        except ServiceError as exc:
            told = exc
        except Exception:  # the tasks are everybody's: what got out of here would end the gateway
            logger.exception("a look-up failed")
            told = Internal("internal", "Something went wrong on our side.")
        finally:
            self._land(trip, told, entry)

    def _judge(
        self, trip: _Trip, resolved: Resolved
    ) -> tuple[Looked | ServiceError, Entry[bytes, ReadyRedirect] | None]:
        """The answer, and what may be kept of it."""
        if resolved.unconfirmed and not self._sources.serve_unconfirmed:
            _COUNTED[Source.UNCONFIRMED].inc()
            return Unavailable("unavailable", "The answer cannot be confirmed now.", retry_after_s=1), None
        source = Source.UNCONFIRMED if resolved.unconfirmed else Source.LINK_SERVICE
        if resolved.link is None:
            return Looked(source), None
        value = encode_entry(resolved.link)
        entry = self._entry(trip.path, value, resolved.link)
        return Looked(source, value, entry.ready), None if resolved.unconfirmed else entry

    def _stale(self, trip: _Trip) -> Looked | None:
        """What was known when Redis was last heard of: better than nothing, for a while [L4]."""
        entry = self._near.stale(trip.path) if self._sources.serve_unconfirmed else None
        return None if entry is None else Looked(Source.STALE, entry.value, self._renewed(entry).ready)

    def _land(self, trip: _Trip, told: Looked | ServiceError, entry: Entry[bytes, ReadyRedirect] | None) -> None:
        """Keeps what may be kept, and tells those aboard."""
        if self._near.land(trip):
            if entry is not None:
                if self._near.keep(entry):
                    EVICTED.inc()
            elif isinstance(told, Looked) and told.value is None and told.source is not Source.UNCONFIRMED:
                self._near.keep_absent(trip.path)
        if isinstance(told, ServiceError):
            for _, tell in trip.aboard:
                _tell(tell, told.again())
            return
        _COUNTED[told.source].inc(len(trip.aboard))
        for client, tell in trip.aboard:
            if told.value is None:
                self._sources.budget.missed(client, self._clock.monotonic())
            _tell(tell, told)

    # ------------------------------------------------------------ answers

    def _found(self, source: Source, entry: Entry[bytes, ReadyRedirect]) -> Looked:
        _COUNTED[source].inc()
        return Looked(source, entry.value, entry.ready)

    def _missed(self, source: Source, client: str) -> Looked:
        _COUNTED[source].inc()
        self._sources.budget.missed(client, self._clock.monotonic())
        return Looked(source)

    def _entry(self, path: bytes, value: bytes, link: Link) -> Entry[bytes, ReadyRedirect]:
        answer = ready_answer(link, self._clock.now())
        ready = None if answer is None else ReadyRedirect(answer, ClickTarget(link.key, link.user_id))
        return Entry(path, value, ready, link.expires_at, size_bytes=_size_of(value))

    def _entry_of_message(self, path: bytes, value: bytes, message: link_pb2.Link) -> Entry[bytes, ReadyRedirect]:
        """The same; most links redirect as long as nobody says otherwise, and of these little is needed."""
        if (
            message.state != link_pb2.LINK_STATE_ACTIVE
            or message.HasField("expires_at")
            or message.HasField("starts_at")
        ):
            return self._entry(path, value, link_from_message(message))
        answer = redirect_bytes(message.redirect_status or 302, message.long_url)
        target = ClickTarget(link_key(message.short_code, message.domain), UserId(message.user_id))
        ready = None if answer is None else ReadyRedirect(answer, target)
        return Entry(path, value, ready, None, size_bytes=_size_of(value))

    def _renewed(self, entry: Entry[bytes, ReadyRedirect]) -> Entry[bytes, ReadyRedirect]:
        """The entry with what holds at this moment: a link may have begun, or ended, since it was kept."""
        if entry.ready is None or entry.until is not None:
            entry.ready = self._entry(entry.path, entry.value, decode_entry(entry.value)).ready
        return entry


def _size_of(value: bytes) -> int:
    """About what an entry takes: the destination is in the value and in the answer; the rest was measured."""
    return 600 + 2 * len(value)


def _tell(tell: Tell, told: Looked | ServiceError) -> None:
    try:
        tell(told)
    except Exception:  # those behind it wait for theirs
        logger.exception("the answer to a look-up could not be given")


def _kept_traceparent() -> str | None:
    return current_traceparent() if trace.get_current_span().is_recording() else None
