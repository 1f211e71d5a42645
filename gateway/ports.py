"""What the gateway needs of the world, and what it may expect."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from chassis.auth import Principal
from chassis.errors import ResourceExhausted, Unavailable
from contracts.link import Link, LinkKey, UserId
from gateway.domain.spools import Shipment
from shortener.link.v1 import link_pb2
from shortener.link.v1.link_service_pb2 import CreateLinkRequest

TellValue = Callable[[bytes | Unavailable | None], None]


class LinkCache(Protocol):
    """The values of links in Redis (contracts.cache says what they are). Reading is safe to repeat."""

    def begin(self, key: LinkKey, tell: TellValue) -> None:
        """Asks for the newest acknowledged version. `tell` is called later, once: with the value, None where there is
        none, or Unavailable; at most 50 ms later [R7].

        Raises:
            Unavailable: not asked, because there was no answer a moment ago; `tell` will not be called.
        """


@dataclass(frozen=True, slots=True)
class Resolved:
    """What link_service said. `link` None: there is no such link. `unconfirmed`: Redis could not vouch for it [L4]."""

    link: Link | None
    unconfirmed: bool = False


class Resolver(Protocol):
    """link_service's answer for a code that Redis has not. Safe to repeat."""

    async def resolve(self, key: LinkKey) -> Resolved:
        """Where a code leads; at most 300 ms. Callers that ask at nearly the same time may share one answer.

        Raises:
            ServiceError: no answer in time, or no answer that is safe to give.
        """

    def forget(self, key: LinkKey) -> None:
        """From now on nobody joins a flight that is under way: a mutation has been acknowledged since it began."""


class LinkCreator(Protocol):
    """Makes links. None is asked for twice [R1]."""

    async def create(self, request: CreateLinkRequest) -> link_pb2.Link:
        """The link as stored; at most 2 s. A caller that is cancelled, or whose request is bad, disturbs no other.

        Raises:
            ServiceError: there is none; or, as `may_have_happened` says, there may be.
        """

    def begin(self, request: CreateLinkRequest, traceparent: str) -> "asyncio.Future[link_pb2.Link]":
        """The same without waiting, for one with neither chosen code nor idempotency key, in a trace that is not kept.

        Raises:
            ServiceError: nothing was begun.
        """


class ReadRequests(Protocol):
    """Asks link_service to warm the cache, for the next try of a visitor who could not be answered in time [L4]."""

    def put(self, key: LinkKey, traceparent: str | None = None) -> bool:
        """Takes a request, without waiting; at most one a second is sent for a code, at most once. False: dropped and
        counted."""


KEPT = "linkmesh.kept"  # where a request's scope says whether its trace is kept, if that was decided before
LOOKED = "linkmesh.looked"  # where it has what came of its look-up, if that was made before
SHORTCUTS = "linkmesh.shortcuts"  # where a request's scope has them, if it came through our own protocol


class Shortcuts(Protocol):
    """What ASGI takes a third of a small request's time for, where there is nothing to wait for."""

    def whole_body(self) -> bytes | None:
        """Takes the body, if all of it is there already; None: `receive` it."""

    def answer(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> bool:
        """Writes the whole answer at once; False: nothing was written, `send` it. The headers have no line breaks."""


class ClickTarget(NamedTuple):
    """Whose click it is, made once for each cached link."""

    link_key: LinkKey
    user_id: UserId


class ReadyRedirect(NamedTuple):
    """A redirect as it goes over the wire. `answer` is all of it for GET on a kept HTTP/1.1 connection (HEAD: the same,
    a redirect has no body)."""

    answer: bytes
    target: ClickTarget


class TooManyMissesError(ResourceExhausted):
    """This client's network has asked for too many codes that nobody has [L5]."""


class TrackedLinks(Protocol):
    """What is kept of Redis' values here, as who hears Redis' invalidations sees it. Times are monotonic seconds."""

    def turned(self) -> bool:
        """The loop turns; to be said every gateway.domain.near_cache.TURN_S. True: it stood still, a beat is needed."""

    def subscribed(self, asked_at: float) -> None:
        """From some moment after `asked_at` on every change is told."""

    def lost(self) -> None:
        """No change is told any more."""

    def heard(self, sent_at: float) -> None:
        """All that was said before `sent_at` has been told."""

    def is_overdue(self) -> bool:
        """Whether beats have been missing for too long."""

    def changed(self, key: LinkKey) -> None:
        """The value of this link is another one now, or gone."""

    def flush(self) -> None:
        """Any value may be another one now."""

    def learn_issued(self, mark: int | None) -> None:
        """Which ids have been leased, as far as Redis knows [L5]; None: it does not."""


class ReadyRedirects(Protocol):
    """What this process may answer without asking anybody."""

    def get(self, path: bytes) -> ReadyRedirect | None:
        """The redirect for a request's target as it came off the wire, if it may be served at this moment; None: it
        must be looked up. Costs well under a microsecond."""


class ClickRecorder(Protocol):
    """Takes clicks before they are answered."""

    def record(
        self,
        target: ClickTarget,
        method: str,
        headers: Sequence[tuple[bytes, bytes]],
        peer: str,
        traceparent: str | None,
    ) -> bool:
        """Takes a click, without waiting; the answer may go out when this returns. `headers` have lower-case names;
        `peer` is the address the connection comes from, empty if unknown; `traceparent` is set if the trace is kept.
        False: no room, it was dropped and counted [S6]."""


class ClickSpool(Protocol):
    """Recorded clicks, as who sends them sees it. They outlive the process [S1]."""

    @property
    def empty(self) -> bool:
        """Whether everything was acknowledged, and nothing more comes."""

    def shipments(self) -> Sequence[Shipment]:
        """What is to be sent now; of each partition one batch, in order [S3]. It comes again until it is
        acknowledged, perhaps in other pieces."""

    def acknowledge(self, shipment: Shipment) -> None:
        """The broker has this one of the last `shipments`, and those of its partition before it."""

    async def wait(self) -> None:
        """Returns when there may be something to be sent, or nothing more comes; at the latest after some seconds."""

    async def closed(self) -> None:
        """Returns when nothing is recorded any more."""

    def clicks(self) -> int:
        """How many clicks are recorded and not acknowledged."""

    def finish(self) -> None:
        """Nothing will be sent any more."""


class Keys(Protocol):
    """Whom API keys stand for."""

    async def verify(self, key: str) -> Principal:
        """The principal of a key. An answer may be up to 1 s old. At most 1 s.

        Raises:
            Unauthenticated: no such key.
            Unavailable: nobody can tell now.
        """

    def known(self, key: str) -> Principal | None:
        """The principal of a key that was verified in the last second; None: `verify` it."""
