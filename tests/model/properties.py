"""What must hold in every state that can be reached; the ids are those of docs/PROTOCOLS.md."""

from typing import NamedTuple

from contracts.link import EventType, Link, LinkEvent
from contracts.link_codec import decode_event
from contracts.outbox_entries import decode_outbox_entry
from link_service.ports import QueuedEntry
from tests.model.actors import Found
from tests.model.automaton import Ended
from tests.model.events import KEY, actor_of
from tests.model.stores import LogState, RedisState, TableState


class Ghost(NamedTuple):
    """What only an observer knows: which group was told which link, what readers may not fall behind, who found by
    `seen` that nothing had come of its request, and who was told for good that nothing was done."""

    acks: frozenset[tuple[str, Link]] = frozenset()
    floors: tuple[int, ...] = ()
    cleared: frozenset[int] = frozenset()
    denied: frozenset[str] = frozenset()

    @property
    def newest(self) -> int:
        """The highest version of the link that anybody was told of."""
        return max((link.version for _, link in self.acks if link.key == KEY), default=0)


class Violation(NamedTuple):
    """A rule that does not hold."""

    rule: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.sentence}"


class Applied(NamedTuple):
    """Where the events are: those on their way, and those at their goal."""

    under_way: tuple[LinkEvent, ...]
    stored: tuple[LinkEvent, ...]
    letters: tuple[LinkEvent, ...]

    @property
    def all(self) -> frozenset[LinkEvent]:
        """Each event that was ever applied, once."""
        return frozenset(self.under_way + self.stored + self.letters)


def applied(redis: RedisState, table: TableState, log: LogState) -> Applied:
    """The events in the outbox and the topic, in the table, in the dead letters."""
    outbox = tuple(event_of(entry) for entry in redis.outbox)
    return Applied(outbox + tuple(event for event, _ in log.waiting), tuple(e for _, _, e in table.rows), log.letters)


_events: dict[bytes, LinkEvent] = {}


def event_of(entry: QueuedEntry) -> LinkEvent:
    """The event of an outbox entry."""
    if entry.data not in _events:
        decoded = decode_outbox_entry(entry.data)
        _events[entry.data] = decode_event(decoded.event_type, decoded.value)
    return _events[entry.data]


class Rules:
    """Judges states. `groups`: of each actor, by number. `lossy`: Redis has forgotten something before the beginning,
    which excuses old answers (P2, R5) and dead letters, but neither silence about a loss nor a second owner."""

    def __init__(self, groups: tuple[str, ...], *, lossy: bool = False) -> None:
        self._groups = groups
        self._lossy = lossy

    def of_state(
        self, redis: RedisState, table: TableState, log: LogState, ghost: Ghost, *, quiet: bool
    ) -> Violation | None:
        """What is wrong in this state. `quiet`: relay and writer have nothing to do."""
        events = applied(redis, table, log)
        return (
            self._of_acks(events, ghost)
            or self._of_events(events, ghost)
            or self._of_redis(redis, table, events, ghost)
            or (self._of_quiet(redis, table, log, ghost) if quiet else None)
        )

    def _of_acks(self, events: Applied, ghost: Ghost) -> Violation | None:
        by_group: dict[str, Link] = {}
        by_version: dict[tuple[str, int], Link] = {}
        for group, link in sorted(ghost.acks, key=lambda ack: ack[0]):
            if by_group.setdefault(group, link) != link:
                return Violation("P6", f"request {group} was answered in two ways")
            if by_version.setdefault((link.key, link.version), link) != link:
                rule = "P3" if link.version == 1 else "P1"
                return Violation(rule, f"version {link.version} was told as two different links")
        kept = {event.link for event in events.under_way + events.stored + events.letters}
        for group, link in ghost.acks:
            if link not in kept:
                return Violation("P1", f"what {group} was told is neither on its way nor in the table")
        return None

    def _of_events(self, events: Applied, ghost: Ghost) -> Violation | None:
        every = events.all
        created = [event.link.key for event in every if event.type is EventType.CREATED]
        if len(set(created)) < len(created):
            return Violation("P3", "the link was created twice")
        if len({event.event_id for event in every}) < len(every):
            return Violation("P6", "one event made two versions")
        by_group: dict[str, LinkEvent] = {}
        for event in sorted(every, key=lambda item: item.event_id):
            if by_group.setdefault(self.group_of(event), event) != event:
                return Violation("P6", f"request {self.group_of(event)} had two effects")
        for group, link in ghost.acks:
            if group in by_group and by_group[group].link != link and not self._lossy:
                return Violation("P6", f"request {group} had an effect that it was not told of")
        for group in ghost.denied & by_group.keys():
            return Violation("R1", f"request {group} was told that nothing was done, and it was applied")
        if events.letters and not self._lossy:
            return Violation("P1", "an event became a dead letter")
        for key in {event.link.key for event in events.stored}:
            versions = [event.version for event in events.stored if event.link.key == key]
            times = [event.at for event in events.stored if event.link.key == key]
            if versions != list(range(1, len(versions) + 1)):
                return Violation("O1", "the event rows have a gap")
            if times != sorted(set(times)):
                return Violation("W3", "the times of the event rows do not follow their versions")
        return None

    def _of_redis(self, redis: RedisState, table: TableState, events: Applied, ghost: Ghost) -> Violation | None:
        value = redis.value(KEY)
        if value is not None:
            if value.version < ghost.newest and not self._lossy:
                return Violation("P2", f"Redis has version {value.version} after {ghost.newest} was told")
            return None
        if self._lossy:
            return None
        found = table.projection(KEY)
        version = found.version if isinstance(found, Link) else 0
        if version < ghost.newest:
            return Violation("R5", f"Redis has nothing, the table version {version}, and {ghost.newest} was told")
        return None

    def _of_quiet(self, redis: RedisState, table: TableState, log: LogState, ghost: Ghost) -> Violation | None:
        rows = table.events(KEY)
        found, value = table.projection(KEY), redis.value(KEY)
        newest = rows[-1].link if rows else None
        if (found if isinstance(found, Link) else None) != newest:
            return Violation("W2", "all is quiet, and the projection is not what the newest event says")
        if value is not None and value != newest and not self._lossy:
            return Violation("P1", "all is quiet, and Redis has something else than the table")
        if any(not expires for _, _, expires in redis.values) and not self._lossy:
            return Violation("R4", "all is quiet, and the entry has no expiry")
        stored = {event.link for _, _, event in table.rows}
        stored |= {event.link for event in log.letters}
        if any(link not in stored for _, link in ghost.acks):
            return Violation("P1", "all is quiet, and something acknowledged is not in the table")
        return None

    def of_refusal(self, group: str, ended: Ended, events: Applied) -> Violation | None:
        """What is wrong with telling a client no: nothing if nothing came of its request."""
        if self.came_of(group, events):
            return Violation("P6", f"request {group} was refused ({ended.reason}) after it had been applied")
        return None

    def came_of(self, group: str, events: Applied) -> bool:
        """Whether an event of this request was applied."""
        return any(self.group_of(event) == group for event in events.all)

    def of_look_up(self, found: Found, floor: int) -> Violation | None:
        """What is wrong with what a visitor was told, when version `floor` had been acknowledged before it asked."""
        version = found.link.version if found.link else 0
        if found.unconfirmed and found.link is None:
            return Violation("L4", "a look-up was told that there is no link, and Redis could not confirm it")
        if version < floor and not found.unconfirmed:
            told = f"version {version}" if version else "nothing"
            return Violation("P2", f"a look-up that began after version {floor} was acknowledged was told {told}")
        return None

    def group_of(self, event: LinkEvent) -> str:
        """Whose request made an event; those before the beginning are each their own."""
        actor = actor_of(event.event_id)
        return self._groups[actor - 1] if actor else event.event_id
