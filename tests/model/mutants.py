"""The protocol with one safeguard off, each by name and with a suite in which that breaks a promise.

They show that the model can fail: a property that is too weak, or a suite in which nothing happens, lets one live.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chassis.errors import Unavailable
from chassis.kafka.record import Done as Finished
from chassis.kafka.record import Message, Outcome, Record, Rejected
from contracts.cache import Mutation
from contracts.link import EventId, Link, LinkKey
from link_service.domain.reservations import Traces
from link_service.handlers.custom import CustomCreation
from link_service.handlers.reading import Base, Resolved
from link_service.loops.relay import Relay
from link_service.ports import Leased, LeaseNeeded, Present, QueuedEntry, Verdict
from tests.model.actors import Cast, PlainReader
from tests.model.automaton import Call, Ended, Remote
from tests.model.bounds import Suite
from tests.model.broken_stores import (
    AbsentNeedsNoLease,
    AlwaysNewIntent,
    FillWithoutLease,
    ForgetsResults,
    GivenUpByAny,
    KeepsExpiry,
    LeaseSurvivesFill,
    LeaseSurvivesWrite,
    NeverLate,
    NewerOrEqual,
    PersistedOnAbsent,
    ProjectsAnything,
    ReservesOverAnything,
    UnversionedPersisted,
)
from tests.model.stage import CLIENTS, LEFT, LOG, WRITER, Move, State, moved
from tests.model.stores import LogState, Stores
from tests.model.world import IDLE, World
from writer.domain import Result
from writer.handlers import EventWriter, decoded
from writer.ports import StoredEvent

# ---------------------------------------------------------------- link_service


class SeenNotAsked(Remote):
    """Refusals are told without a look at what came of the request before."""

    async def seen(self, key: LinkKey, event_id: EventId) -> Link | None:
        return None


class BaseKept(Remote):
    """After LEASE_NEEDED the old decision is sent again under a new lease."""

    async def mutate(self, mutation: Mutation) -> Verdict:
        verdict: Verdict = await self.ask("mutate", mutation)
        if isinstance(verdict, LeaseNeeded) and mutation.base_version:
            leased = await self.ask("lease", mutation.event.link.key)
            if isinstance(leased, Leased):
                verdict = await self.ask("mutate", replace(mutation, token=leased.token))
        return verdict


class UnknownToldAsNothing(Remote):
    """A change whose answer is lost is told as one that was never made."""

    async def mutate(self, mutation: Mutation) -> Verdict:
        try:
            verdict: Verdict = await self.ask("mutate", mutation)
        except Unavailable as exc:
            raise Unavailable("unavailable", exc.message) from exc
        return verdict


class TellsUnconfirmedAbsence(PlainReader):
    """What the table does not have is told to be nothing, though Redis could not be asked."""

    async def resolve(self, key: LinkKey) -> Resolved:
        try:
            return Resolved(await self.newest(key))
        except Unavailable:
            return Resolved(await self._reads.read(key), unconfirmed=True)


class ReadsBeforeLease(PlainReader):
    """The table is read first; then the lease is taken."""

    async def newest(self, key: LinkKey) -> Link | None:
        read = await self._reads.read(key)
        match await self._cache.lease(key):
            case Present(link):
                return link
            case Leased(token):
                return await self._fill(key, token, read)
        return read

    async def base(self, key: LinkKey) -> Base:
        read = await self._reads.read(key)
        match await self._cache.lease(key):
            case Present(link):
                return Base(link)
            case Leased(token):
                return Base(read, token)
        return await super().base(key)


class TakesOverUnchecked(CustomCreation):
    """A reservation is taken over without a look at what its owner left behind."""

    async def _traces(self, key: LinkKey) -> Traces | None:
        return Traces(has_event_row=False, has_entry=False, oldest_in_outbox=None, oldest_unwritten=None)


class SharedToken(World):
    """The token of a lease is the event's, which a repeat has as well."""

    def _token(self, state: State, seat: int) -> int:
        groups = [client.group for client in self.clients]
        return 10 * groups.index(groups[seat - CLIENTS]) if seat >= CLIENTS else super()._token(state, seat)


# ---------------------------------------------------------------- relay and writer


class TrimsFirst(Relay):
    """What is about to be sent leaves the outbox before the broker has acknowledged it."""

    async def _pass_on(self, entries: Sequence[QueuedEntry]) -> bool:
        await self._outbox.trim({entry.bucket: entry.position for entry in entries})
        return await super()._pass_on(entries)


class SendsPastFailure(World):
    """A failed send does not stop those behind it, and what is acknowledged is counted, not looked at."""

    def _send(self, state: State, seat: int, call: Call) -> Iterator[Move]:
        yield from super()._send(state, seat, call)
        messages: tuple[Message, ...] = call.args[0]
        if len(messages) > 1 and self.get(state, LEFT).sends:
            after = self.sent(self.spend(state, "sends"), messages[1:])
            yield self._arrive(after, seat, call, self.automata.replies.id_of(len(messages) - 1))


class MarksBeforeProjection(EventWriter):
    """Redis is told before the projection has moved."""

    async def __call__(self, records: Sequence[Record]) -> list[Outcome]:
        item = decoded(records[0])
        assert isinstance(item, StoredEvent)
        await self._store([item])
        await self._marker.persisted([item.event.link])
        await self._project([item.event.link])
        return [Finished()]


class DuplicateIsDone(EventWriter):
    """An event row that is there already ends the work on its record."""

    async def __call__(self, records: Sequence[Record]) -> list[Outcome]:
        item = decoded(records[0])
        assert isinstance(item, StoredEvent)
        if (await self._table.insert_events([item]))[0] is Result.EXISTS:
            return [Finished()]
        return await super().__call__(records)


class EventIdsNotCompared(EventWriter):
    """An event row that is there already is taken for this event's."""

    async def _conflicts(self, met: Sequence[StoredEvent]) -> dict[EventId, Rejected]:
        return {}


class CommitsFirst(World):
    """A record is committed when writer takes it, not when it has finished it."""

    def routine(self, state: State) -> Iterator[Move]:
        waiting = self.get(state, LOG).waiting
        for move in super().routine(state):
            after = move.state
            if state[WRITER] < 0 <= after[WRITER]:
                log: LogState = self.get(after, LOG)
                after = self.put(after, LOG, log._replace(waiting=tuple(log.waiting[1:])))
            elif state[WRITER] >= 0 and move.who == "writer commits":
                log = self.get(state, LOG)
                after = self.put(after, LOG, log._replace(waiting=waiting))
            yield move._replace(state=after)

    def _commit(self, state: State, ended: Ended) -> Iterator[Move]:
        yield Move(moved(state, WRITER, IDLE), "writer commits")


class TimeOutIsFault(World):
    """A dependency that is away makes the record a dead letter."""

    def _step(self, state: State, seat: int) -> Iterator[Move]:
        for move in super()._step(state, seat):
            after = move.state
            if seat == WRITER and after[WRITER] < 0:
                log: LogState = self.get(after, LOG)
                letters = (*log.letters, log.waiting[0][0])
                after = self.put(after, LOG, LogState(log.waiting[1:], letters))
            yield move._replace(state=after)


# ---------------------------------------------------------------- all of them


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A broken protocol, the suite of suites.SMALL in which that shows, and how."""

    name: str
    suite: str
    breaks: str  # the rule that is found broken
    stores: Stores = Stores()  # noqa: RUF009 (immutable)
    cast: Cast = Cast()  # noqa: RUF009
    world: Callable[..., World] = World

    def on(self, suite: Suite) -> World:
        """Its world."""
        return self.world(suite, stores=self.stores, cast=self.cast)


def _stores(name: str, suite: str, breaks: str, **fakes: Any) -> Mutant:
    return Mutant(name=name, suite=suite, breaks=breaks, stores=Stores(**fakes))


def _writer(name: str, suite: str, breaks: str, writer: type[EventWriter]) -> Mutant:
    return Mutant(name=name, suite=suite, breaks=breaks, cast=Cast(writer=writer))


MUTANTS = (
    _stores("unversioned persisted", "old writer", "R5", cache=UnversionedPersisted),
    _stores("persisted on an absent key", "old writer", "P2", cache=PersistedOnAbsent),
    _stores("fill without a lease", "readers", "P2", cache=FillWithoutLease),
    _stores("lease survives a change", "generated", "P2", redis=LeaseSurvivesWrite),
    _stores("lease survives a fill", "generated", "P2", redis=LeaseSurvivesWrite, cache=LeaseSurvivesFill),
    _stores("set if newer or equal", "old writer", "P1", cache=NewerOrEqual),
    _stores("absent needs no lease", "old writer", "P1", cache=AbsentNeedsNoLease),
    _stores("change keeps the old expiry", "old writer", "R5", redis=KeepsExpiry),
    _stores("no not_after", "needless", "P6", cache=NeverLate),
    _stores("no not_after, a day later", "next day", "P2", cache=NeverLate),
    _stores("results not kept", "generated again", "P6", cache=ForgetsResults),
    _stores("intent given up by any carrier", "given up", "P6", intents=GivenUpByAny),
    _stores("an event for each repeat", "generated again", "P6", intents=AlwaysNewIntent),
    Mutant(name="preconditions before seen", suite="stale", breaks="P6", cast=Cast(cache=SeenNotAsked)),
    Mutant(name="base kept after LEASE_NEEDED", suite="old writer", breaks="P1", cast=Cast(cache=BaseKept)),
    Mutant(name="read before the lease", suite="readers", breaks="P2", cast=Cast(reader=ReadsBeforeLease)),
    Mutant(name="token = event_id", suite="deleted again", breaks="P1", world=SharedToken),
    Mutant(name="takeover without the checks", suite="forgotten", breaks="P3", cast=Cast(custom=TakesOverUnchecked)),
    Mutant(
        name="unknown outcome told as nothing done", suite="away", breaks="R1", cast=Cast(cache=UnknownToldAsNothing)
    ),
    Mutant(name="unconfirmed absence told", suite="away", breaks="L4", cast=Cast(reader=TellsUnconfirmedAbsence)),
    _stores("reservation put unconditional", "custom", "R5", table=ReservesOverAnything),
    Mutant(name="trim before the acknowledgement", suite="old relay", breaks="P1", cast=Cast(relay=TrimsFirst)),
    Mutant(name="relay sends past a failed send", suite="lost send", breaks="P1", world=SendsPastFailure),
    _writer("persisted before the projection", "old writer", "R5", MarksBeforeProjection),
    _writer("duplicate = commit without projection", "old writer", "W2", DuplicateIsDone),
    _writer("event ids not compared", "clash", "P1", EventIdsNotCompared),
    _stores("projection without set-if-newer", "old writer", "R5", rows=ProjectsAnything),
    Mutant(name="commit before the outcome", suite="old writer", breaks="W2", world=CommitsFirst),
    Mutant(name="time-out treated as the record's fault", suite="late change", breaks="P1", world=TimeOutIsFault),
)
