"""Who acts on the link: programs made of the product's own flows, with nothing behind their ports.

What is put in place of product code is named here, and is all there is of it: ids and codes that are alike in each run
(`_Ids`), work that is done where it is asked for (`_HereAndNow`), and reads of the table that go out one by one
(`PlainReader`; that flights are boarded in time [R3] is proven in tests/unit/link_service).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from chassis.errors import Unavailable
from chassis.task_room import TaskRoom
from contracts.cache import LeaseToken
from contracts.codes import CodePermutation
from contracts.link import EventId, Link, LinkEvent, LinkKey
from contracts.link_rows import Reservation
from link_service.domain.ids import IdStock
from link_service.handlers.attempts import Attempts, Repeatable
from link_service.handlers.changing import Changes, GeneratedCreation
from link_service.handlers.custom import CustomCreation, CustomStores
from link_service.handlers.reading import Reader, Resolved
from link_service.handlers.table_reads import TableReads
from link_service.loops.relay import Relay
from tests.fakes.kafka_time import START
from tests.model.automaton import Program, Remote, Work
from tests.model.events import CODE, IDS_EACH, KEY, Client, decision_of, event_id_of, record_of, terms_of
from writer.handlers import EventWriter


@dataclass(frozen=True, slots=True)
class Found:
    """What a visitor was told. `unconfirmed`: without Redis."""

    link: Link | None
    unconfirmed: bool


class StillClock:
    """A process' clock, which stands: event times follow versions by themselves [W3]. Sleeping lets others run."""

    def now(self) -> Any:
        """Always the same."""
        return START

    def monotonic(self) -> float:
        """Always the same."""
        return 0.0

    async def sleep(self, delay_s: float) -> None:
        """As long as it takes."""
        await Remote("clock").ask("sleep")


class PlainReader(Reader):
    """The reads of one caller alone."""

    async def _read_leased(self, key: LinkKey, token: LeaseToken) -> Link | None:
        try:
            return await self._reads.read(key)
        except Unavailable:
            await self._release(key, token)
            raise


class _PlainReads(TableReads):
    async def read(self, key: LinkKey) -> Link | None:
        found = await self._table.read(key)
        return None if isinstance(found, Reservation) else found


class _HereAndNow(TaskRoom):
    async def finish(self, work: Work, *, timeout_s: float) -> Any:
        return await work


class _Ids:
    """Event ids and numbers of codes, of one actor: the same ones in each run."""

    def __init__(self, actor: int) -> None:
        self._first = IDS_EACH * actor
        self.drawn = (0, 0)

    def event_id(self) -> EventId:
        """The next."""
        events, codes = self.drawn
        self.drawn = (events + 1, codes)
        return event_id_of(self._first + events)

    def take(self) -> int:
        """The number of the next code; the first one of the first actor is the link that all suites are about."""
        events, codes = self.drawn
        self.drawn = (events, codes + 1)
        return self._first + codes

    @staticmethod
    def code_of(number: int) -> str:
        """As CodePermutation, but readable."""
        return f"code-{number - IDS_EACH + 1}"


class _NamedAttempts(Attempts):
    ids: _Ids
    assert callable(Attempts._event_id), "the name of what is overridden here"

    def _event_id(self) -> EventId:
        return self.ids.event_id()


@dataclass(frozen=True)
class Cast:
    """The classes that act; mutants bring their own."""

    reader: type[Reader] = PlainReader
    changes: type[Changes] = Changes
    generated: type[GeneratedCreation] = GeneratedCreation
    custom: type[CustomCreation] = CustomCreation
    writer: type[EventWriter] = EventWriter
    relay: type[Relay] = Relay
    cache: Callable[[str], Any] = Remote

    def client(self, client: Client, actor: int) -> Program:
        """A client's call, as the gateway and link_service carry it out."""
        ids = _Ids(actor)
        cache, clock, table = self.cache("cache"), StillClock(), _port("table")
        reader = self.reader(cache, _PlainReads(table, _HereAndNow()), clock)
        attempts = _NamedAttempts(cache, _port("intents"), clock)
        attempts.ids = ids
        request = Repeatable(user_id=client.user_id, idempotency_key=client.request, body_hash=client.group)
        begin: Callable[[], Work]
        if client.does == "read":
            begin = self._look_up(reader)
        elif client.does == "create":
            codes = cast("CodePermutation", ids)
            creation = self.generated(cache, attempts, cast("IdStock", ids), codes, clock)
            begin = lambda: creation.create(terms_of(""), request)  # noqa: E731 (one of four)
        elif client.does == "custom":
            stores = CustomStores(cache=cache, server=_port("server"), table=table, log=_port("log"))
            custom = self.custom(stores, reader, attempts, _HereAndNow(), clock)
            begin = lambda: custom.create(terms_of(CODE), request)  # noqa: E731
        else:
            flow, decide = self.changes(cache, reader, attempts), decision_of(client)
            begin = lambda: flow.apply(KEY, request, decide)  # noqa: E731

        def again() -> Work:
            ids.drawn = (0, 0)
            return begin()

        return Program(client.name, again, lambda: ids.drawn)

    def _look_up(self, reader: Reader) -> Callable[[], Work]:
        """A visitor's look-up as gateways do it without their own memory: Redis, then link_service. Their flights run
        in tasks and cannot be begun again from the middle, so the two steps are written down here once more."""
        cache, resolver = _port("cache"), _Resolver(reader)

        async def look_up() -> Found:
            resolver.unconfirmed = False
            try:
                link = await cache.get(KEY)
            except Unavailable:
                link = None
            if link is None:
                link = (await resolver.resolve(KEY)).link
            return Found(link, resolver.unconfirmed)

        return look_up

    def writing(self, event: LinkEvent) -> Program:
        """writer with one record in hand."""
        handler = self.writer(_port("rows"), _port("marker"))
        record = record_of(event)
        return Program(f"writer, {event.event_id}", lambda: handler([record]))

    def relaying(self) -> Program:
        """The relay's leader with what stands at the head of the outbox."""
        outbox = _port("outbox")
        relay = self.relay(outbox=outbox, sender=_port("sender"), clock=StillClock(), candidate="relay")

        async def pass_on() -> bool:
            return await relay._pass_on(await outbox.read(wait_s=0))

        return Program("relay", pass_on)


class _Resolver:
    """The gateway's way to link_service."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.unconfirmed = False

    async def resolve(self, key: LinkKey) -> Any:
        found: Resolved = await self._reader.resolve(key)
        self.unconfirmed = found.unconfirmed
        return found


def _port(name: str) -> Any:
    return Remote(name)
