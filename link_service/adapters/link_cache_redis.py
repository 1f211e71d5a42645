"""The links in Redis: the Function library called with deadlines, its replies turned into verdicts [R1 to R7]."""

import logging
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from redis.exceptions import ResponseError

from chassis.clock import Clock
from chassis.errors import Unavailable
from chassis.redis import Redis
from chassis.task_room import TaskRoom
from contracts.cache import (
    LEASE_MS,
    SEEN_MS,
    FunctionCall,
    LeaseToken,
    Mutation,
    decode_entry,
    encode_entry,
    fill_call,
    lease_call,
    mutate_call,
    persisted_call,
    release_call,
    seen_key,
    url_key,
)
from contracts.link import EventId, Link, LinkKey
from contracts.link_codec import UndecodableError
from link_service.adapters.function_library_redis import FunctionLibrary
from link_service.adapters.redis_line import OUTCOME_UNKNOWN, UNAVAILABLE, RedisLine
from link_service.adapters.redis_turns import RedisTurns
from link_service.domain.cache_gate import CacheGate
from link_service.ports import Conflict, Done, Full, Held, Late, Leased, LeaseNeeded, Present, Restoring, Verdict

READ_TIMEOUT_S = 0.05  # a redirect waits for this; DynamoDB answers in less than the rest of its 300 ms
MUTATE_TIMEOUT_S = 0.5  # a group commit of a busy disk fits in; a caller would not wait much longer
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TOKEN_BYTES = 16
logger = logging.getLogger(__name__)

# As `mutate` does it, which looks for a result first and then at the time; both see Redis' clock. Shares its key only.
_REMEMBER = """
local kept = redis.call('GET', KEYS[1])
if kept then
    return kept
end
local time = redis.call('TIME')
if time[1] * 1000 + math.floor(time[2] / 1000) > tonumber(ARGV[2]) then
    return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return ARGV[1]
"""


class RedisLinkCache:
    """The port LinkCache. Reads and mutations have a deadline and a breaker each, so give them a client each:
    one that is slow to sync its log still answers reads, and must not open the breaker of these.

    `outbox_bytes_max`: budget of the outbox [O3]; 0: a share of Redis' memory. `gate`: changes and look-ups pass only
    for the run of Redis that it names [R8]; None: for any, which only suits tests.
    `room`: reads of one turn of the loop share a pipeline that runs there; None: each goes by itself.
    """

    def __init__(
        self,
        *,
        reads: Redis,
        mutations: Redis,
        clock: Clock,
        read_timeout_s: float = READ_TIMEOUT_S,
        mutate_timeout_s: float = MUTATE_TIMEOUT_S,
        outbox_bytes_max: int = 0,
        gate: CacheGate | None = None,
        room: TaskRoom | None = None,
    ) -> None:
        line = RedisLine(reads, clock=clock, timeout_s=read_timeout_s)
        self._reads = RedisTurns(line, room) if room is not None else line
        self._mutations = RedisLine(mutations, clock=clock, timeout_s=mutate_timeout_s, unknown=OUTCOME_UNKNOWN)
        self._library = FunctionLibrary(mutations)
        self._outbox_bytes_max = outbox_bytes_max
        self._gate = gate

    async def get(self, key: LinkKey) -> Link | None:
        """The link, perhaps a tombstone; None: absent or unreadable."""
        return await self._value_at(url_key(key))

    async def mutate(self, mutation: Mutation) -> Verdict:
        """Value and event in one step [R1]."""
        word, value = await self._library.call(self._mutations, self._mutate_call(mutation, self._run_id()))
        return _verdict(mutation, word, value)

    async def mutate_all(self, mutations: Sequence[Mutation]) -> Sequence[Verdict | Unavailable]:
        """The same of many, in one pipeline; each has its own verdict, or what `mutate` would have raised of it."""
        try:
            run_id = self._run_id()
        except Restoring:
            return [Restoring() for _ in mutations]
        calls = [self._mutate_call(mutation, run_id) for mutation in mutations]
        replies = await self._library.call_all(self._mutations, calls)
        return [
            reply if isinstance(reply, Unavailable) else _verdict_of(mutation, reply)
            for mutation, reply in zip(mutations, replies, strict=True)
        ]

    def _mutate_call(self, mutation: Mutation, run_id: str | None) -> FunctionCall:
        return mutate_call(mutation, outbox_bytes_max=self._outbox_bytes_max, run_id=run_id)

    async def lease(self, key: LinkKey, *, lease_ms: int = LEASE_MS) -> Present | Leased | Held:
        """The value, or the right to fill it in [R2]."""
        token = LeaseToken(secrets.token_bytes(_TOKEN_BYTES))
        call = lease_call(key, token, lease_ms=lease_ms, run_id=self._run_id())
        word, value = await self._library.call(self._reads, call)
        match word:
            case "PRESENT":
                return Present(_readable(value))
            case "GRANTED":
                return Leased(token)
            case "HELD":
                return Held()
            case "OTHER_RUN":
                raise Restoring
        raise UndecodableError(f"lease does not answer {word!r}")

    async def release(self, key: LinkKey, token: LeaseToken) -> None:
        """Gives a lease back that will not be used."""
        await self._library.call(self._reads, release_call(key, token))

    async def fill(self, token: LeaseToken, link: Link) -> Link:
        """Stores a link read under the lease if still absent; what is stored now [R3]."""
        call = fill_call(token, link, run_id=self._run_id())
        word, value = await self._library.call(self._reads, call)
        return _readable(value) if word == "PRESENT" else link

    async def persisted(self, link: Link) -> None:
        """The tables hold this version [R4]."""
        await self._library.call(self._mutations, persisted_call(link))

    async def seen(self, key: LinkKey, event_id: EventId) -> Link | None:
        """The remembered result of an event."""
        return await self._value_at(seen_key(key, event_id))

    async def remember(self, key: LinkKey, event_id: EventId, link: Link, not_after: datetime) -> Link | Late:
        """Keeps a result unless there is one; the one that is kept then. Late: there is none, and it is too late."""
        not_after_ms = int(not_after.timestamp() * 1000)
        name, value = seen_key(key, event_id), encode_entry(link)
        kept = await self._mutations.ask("EVAL", _REMEMBER, 1, name, value, not_after_ms, SEEN_MS)
        return _readable(kept) if isinstance(kept, bytes) else Late()

    async def now(self) -> datetime:
        """Redis' clock, aware UTC."""
        match await self._reads.ask("TIME"):
            case [bytes(seconds), bytes(microseconds)]:
                return _EPOCH + timedelta(seconds=int(seconds), microseconds=int(microseconds))
        raise UndecodableError("TIME does not answer with two numbers")

    def _run_id(self) -> str | None:
        """The run of Redis that the next call is for; None: any.

        Raises:
            Restoring: there is none yet.
        """
        if self._gate is None:
            return None
        if self._gate.run_id is None:
            raise Restoring
        return self._gate.run_id

    async def _value_at(self, name: str) -> Link | None:
        try:
            value = await self._reads.ask("GET", name)
            return decode_entry(value) if isinstance(value, bytes) else None
        except UndecodableError:
            return None
        except ResponseError as exc:
            if str(exc).startswith("WRONGTYPE"):
                return None  # no value of ours: a miss, which `lease` finds to be absent
            raise


def _verdict_of(mutation: Mutation, reply: tuple[str, bytes] | Exception) -> Verdict | Unavailable:
    """The verdict on one of many mutations. What nobody expects is this one's failure: Redis did answer it."""
    try:
        if isinstance(reply, Exception):
            raise reply
        return _verdict(mutation, *reply)
    except Unavailable as exc:
        return exc
    except (ResponseError, UndecodableError) as exc:
        logger.error("mutate was answered with %s", exc)  # noqa: TRY400 (the sentence says it all)
        return Unavailable(OUTCOME_UNKNOWN, "Redis gave no verdict.")


def _verdict(mutation: Mutation, word: str, value: bytes) -> Verdict:
    match word:
        case "APPLIED":
            return Done(mutation.event.link)
        case "REPEATED":
            return Done(_readable(value), repeated=True)
        case "LATE":
            return Late()
        case "CONFLICT":
            return Conflict()
        case "LEASE_NEEDED":
            return LeaseNeeded()
        case "FULL":
            return Full(value.decode("ascii", "replace"))
        case "OTHER_RUN":
            raise Restoring
    raise UndecodableError(f"mutate does not answer {word!r}")


def _readable(value: bytes) -> Link:
    """The link of a value that must be there; unreadable is neither present nor absent, hence nobody's to judge on."""
    try:
        return decode_entry(value)
    except UndecodableError as exc:
        raise Unavailable(UNAVAILABLE, "The link's entry cannot be read.") from exc
