"""What the model's Redis did, once more on a real server: the same state, the same call, by the product's own adapters.

An adapter is a coroutine that asks once. It is run to its question, all questions of many pairs travel in one pipeline,
each behind the commands that load its state and before those that look at what became of it, and then each adapter gets
its own reply. Times are moved: what is too late in the model is an hour ago on the server, what is not is in an hour.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from chassis.clock import SystemClock
from chassis.redis import Redis
from contracts.cache import (
    OUTBOX_FIELD,
    LeaseToken,
    Mutation,
    decode_entry,
    encode_entry,
    intent_key,
    lease_key,
    outbox_key,
    seen_key,
    trim_call,
    url_key,
)
from link_service.adapters.cache_server_redis import RedisCacheServer
from link_service.adapters.function_library_redis import FunctionLibrary
from link_service.adapters.intents_redis import RedisIntents, _encode
from link_service.adapters.link_cache_redis import RedisLinkCache
from link_service.adapters.outbox_redis import RedisOutbox, entries_of, heads_command
from link_service.ports import Leased, QueuedEntry
from tests.model.automaton import Call, Pairs, Remote, Work, frozen
from tests.model.stores import RedisState
from tests.model.world import World

Command = tuple[Any, ...]
PAIRS_A_PIPELINE = 200
_ENTRY_MS, _LEASE_MS = 3_600_000, 600_000
_HOUR = timedelta(hours=1)
_UNTOLD = frozenset({"now", "run_id"})  # the server has a clock and a run of its own


class Pair(NamedTuple):
    """A call at a state, and what the model says of it."""

    before: RedisState
    call: Call
    after: RedisState
    reply: Any


@dataclass
class _Asking:
    """A pair whose adapter waits for the reply of its command; `first` is where that stands in the pipeline."""

    pair: Pair
    work: Work
    first: int
    names: list[Command]


def pairs_of(worlds: Iterable[World]) -> list[Pair]:
    """Every distinct (state, call) that these explorations met, and that is about what Redis holds."""
    found: dict[tuple[RedisState, Call], Pair] = {}
    for world in worlds:
        states, calls, replies = world.states_of_redis, world.automata.calls.items, world.automata.replies.items
        for (before, call, _), (after, reply) in world.redis_pairs.items():
            if calls[call].name not in _UNTOLD and calls[call].args != (Pairs(()),):  # to trim nothing asks nothing
                pair = Pair(states[before], calls[call], states[after], replies[reply])
                found.setdefault((pair.before, pair.call), pair)
    return list(found.values())


class Replay:
    """A server that is used for nothing else."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        line, clock = Remote("line"), SystemClock()
        cache = RedisLinkCache(reads=client, mutations=client, clock=clock)
        outbox = RedisOutbox(client, clock=clock)
        for adapter, names in ((cache, ("_reads", "_mutations")), (outbox, ("_line",))):
            for name in names:
                assert hasattr(adapter, name)
                setattr(adapter, name, line)
        asked: Any = line
        self._cache, self._outbox = cache, outbox
        self._intents, self._server = RedisIntents(asked), RedisCacheServer(asked)
        self._now = clock.now()

    async def differences(self, pairs: Sequence[Pair]) -> list[str]:
        """Each pair that ends in another way on the server, in words."""
        await FunctionLibrary(self._client).load()
        found: list[str] = []
        for start in range(0, len(pairs), PAIRS_A_PIPELINE):
            found += await self._replay(pairs[start : start + PAIRS_A_PIPELINE])
        return found

    async def _replay(self, pairs: Sequence[Pair]) -> list[str]:
        pipeline: list[Command] = []
        asking: list[_Asking] = []
        for pair in pairs:
            pipeline += self._load(pair.before)
            work, command = self._ask(pair)
            names = _names(pair.after)
            asking.append(_Asking(pair, work, len(pipeline), names))
            pipeline += [command, ("KEYS", "*"), *names]
        replies = await self._all(pipeline)
        return [text for item in asking for text in _compared(item, replies)]

    async def _all(self, pipeline: list[Command]) -> list[Any]:
        """The replies as they come over the wire, which is how the adapters read them."""
        connection = await self._client.connection_pool.get_connection()  # type: ignore[no-untyped-call]  # the library forgot
        try:
            await connection.send_packed_command(connection.pack_commands(pipeline))
            replies: list[Any] = []
            for _ in pipeline:
                try:
                    replies.append(await connection.read_response())
                except ResponseError as error:
                    replies.append(error)
            return replies
        finally:
            await self._client.connection_pool.release(connection)

    def _load(self, state: RedisState) -> list[Command]:
        commands: list[Command] = [("FLUSHDB", "SYNC")]
        for key, link, expires in state.values:
            commands.append(("SET", url_key(key), encode_entry(link), *(("PX", _ENTRY_MS) if expires else ())))
        commands += [("SET", lease_key(key), token, "PX", _LEASE_MS) for key, token in state.leases]
        commands += [("SET", seen_key(link.key, event), encode_entry(link)) for event, link in state.results]
        for entry in state.outbox:
            position = "{}-{}".format(*entry.position)
            commands.append(("XADD", outbox_key(entry.bucket), position, OUTBOX_FIELD, entry.data))
        commands += [("SET", name, value) for name, value in _intents(state).items()]
        return commands

    def _ask(self, pair: Pair) -> tuple[Work, Command]:
        """The adapter at work, and its command."""
        call, args = pair.call, [self._moved(item, pair.before) for item in pair.call.args]
        port: Any
        match call.port:
            case "cache":
                port = self._cache
            case "marker":
                port, (args,) = self._cache, args
            case "intents":
                port = self._intents
            case "server":
                port = self._server
            case "outbox":
                port = self if call.name in ("read", "trim") else self._outbox
            case _:
                raise AssertionError(call)
        work: Work = getattr(port, call.name)(*args, **dict(call.kwargs))
        asked: Call = work.send(None)
        return work, (asked.name, *asked.args)

    async def read(self, *, wait_s: float) -> Sequence[QueuedEntry]:
        """As RedisOutbox.read, which asks for the run, too."""
        name, *arguments = heads_command(wait_s)
        return entries_of(await Remote("line").ask(str(name), *arguments))

    async def trim(self, through: Pairs) -> None:
        """As RedisOutbox.trim, which has a pipeline of its own."""
        ((bucket, (milliseconds, sequence)),) = through.items
        await Remote("line").ask("FCALL", *trim_call(bucket, f"{milliseconds}-{sequence + 1}", "").arguments)

    def _moved(self, item: Any, state: RedisState) -> Any:
        """An argument with its time, as far as it is compared with the clock, on the same side of the server's."""
        if isinstance(item, Mutation) and item.not_after is not None:
            return replace(item, not_after=self._moved(item.not_after, state))
        if isinstance(item, datetime):
            return self._now + (_HOUR if item >= state.now else -_HOUR)
        return item


def _names(state: RedisState) -> list[Command]:
    """What to look at in a state."""
    commands: list[Command] = []
    for key, _, _ in state.values:
        commands += [("GET", url_key(key)), ("PTTL", url_key(key))]
    commands += [("GET", lease_key(key)) for key, _ in state.leases]
    commands += [("GET", seen_key(link.key, event)) for event, link in state.results]
    commands += [("GET", name) for name in _intents(state)]
    commands += [("XRANGE", outbox_key(bucket), "-", "+") for bucket in sorted({item.bucket for item in state.outbox})]
    return commands


def _compared(asking: _Asking, replies: list[Any]) -> list[str]:
    """What differs of one pair."""
    pair, place = asking.pair, asking.first
    raw, keys = replies[place], replies[place + 1]
    looked = dict(zip(asking.names, replies[place + 2 :], strict=False))
    try:
        asking.work.throw(raw) if isinstance(raw, Exception) else asking.work.send(raw)
        return [f"{pair.call}: the adapter asks twice"]
    except StopIteration as end:
        reply = frozen(end.value)
    except Exception as error:  # noqa: BLE001 (whatever it is, it is what the pair ended with)
        reply = error
    expected, after = pair.reply, pair.after
    if pair.call.port == "outbox" and isinstance(reply, tuple):
        reply = reply[: len(expected)]  # the model's batch is smaller
    if isinstance(reply, Leased) and isinstance(expected, Leased):
        after = after._replace(leases=tuple((key, _granted(token, expected, reply)) for key, token in after.leases))
        reply = expected
    found = [] if reply == expected or pair.call.port == "marker" else [f"{pair.call}: {reply}, not {expected}"]
    wanted = {command[1] for command in asking.names}
    if wanted != {key.decode() for key in keys if not (key.startswith(b"outbox:") and not after.outbox)}:
        found.append(f"{pair.call}: there are {keys}, not {sorted(wanted)}")
    return found + [f"{pair.call}: {name} is {looked[name]}" for name in _wrong(after, looked)]


def _granted(token: LeaseToken, expected: Leased, reply: Leased) -> LeaseToken:
    return reply.token if token == expected.token else token


def _wrong(state: RedisState, looked: dict[Command, Any]) -> Iterable[Command]:
    """What does not hold what it should."""
    for key, link, expires in state.values:
        value, ttl = ("GET", url_key(key)), ("PTTL", url_key(key))
        if looked[value] is None or decode_entry(looked[value]) != link:
            yield value
        if (looked[ttl] > 0) != expires:
            yield ttl
    wanted: dict[Command, bytes] = {("GET", lease_key(key)): token for key, token in state.leases}
    wanted |= {("GET", seen_key(link.key, event)): encode_entry(link) for event, link in state.results}
    wanted |= {("GET", name): value for name, value in _intents(state).items()}
    yield from (name for name, value in wanted.items() if looked[name] != value)
    for bucket in {entry.bucket for entry in state.outbox}:
        name = ("XRANGE", outbox_key(bucket), "-", "+")
        if [fields[1] for _, fields in looked[name]] != [item.data for item in state.outbox if item.bucket == bucket]:
            yield name


def _intents(state: RedisState) -> dict[str, bytes]:
    """What stands in Redis for idempotency keys."""
    parts = {name: dict(pairs) for name, pairs in state.intents}
    return {
        intent_key(*name): b"%d|" % parts["carriers"][name] + _encode(intent)
        for name, intent in parts.get("stored", {}).items()
    }
