"""The outbox streams in Redis, as the relay reads and trims them [O1]."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence

from chassis.clock import Clock
from chassis.redis import Redis, redis_errors
from chassis.redis_wire import Command
from contracts.cache import (
    BUCKETS,
    OUTBOX_FIELD,
    lead_call,
    outbox_key,
    reply_of,
    resign_call,
    set_aside_call,
    trim_call,
)
from contracts.link_codec import UndecodableError
from contracts.restoring import standing_call
from link_service.adapters.function_library_redis import FunctionLibrary, is_missing
from link_service.adapters.redis_line import RedisLine
from link_service.ports import OutboxDepth, Position, QueuedEntry

# Of each stream in one read. 256 entries in all take some 5 ms of the loop that also answers creates.
_ENTRIES_PER_STREAM = 16
_HEAD = ["0-0"] * BUCKETS
_NAMES = [outbox_key(bucket) for bucket in range(BUCKETS)]
_STREAMS = {name.encode(): bucket for bucket, name in enumerate(_NAMES)}
ANSWER_TIMEOUT_S = 2.0  # longer than `read` may wait (1 s), shorter than the leader lease (3 s)


class RedisOutbox:
    """The port Outbox. `client` is the relay's own, opened with ANSWER_TIMEOUT_S: `read` keeps a connection waiting."""

    def __init__(self, client: Redis, *, clock: Clock) -> None:
        self._client = client
        self._line = RedisLine(client, clock=clock, timeout_s=ANSWER_TIMEOUT_S, in_flight_max=4)
        self._library = FunctionLibrary(client)
        self._run_id = ""  # the run of Redis in which the last read began

    async def lead(self, candidate: str, *, lease_ms: int) -> bool:
        """Takes or renews the leader lease."""
        word, _ = await self._library.call(self._line, lead_call(candidate, lease_ms=lease_ms))
        return word == "LEADING"

    async def resign(self, candidate: str) -> None:
        """Gives the leader lease back."""
        await self._library.call(self._line, resign_call(candidate))

    async def read(self, *, wait_s: float) -> Sequence[QueuedEntry]:
        """The oldest entries of each stream; waits for a first one. Wakes within a millisecond of an XADD."""
        # The run is asked for first: what is read then may be of a later one, but not of an earlier one.
        commands = [("FCALL", *standing_call().arguments), heads_command(wait_s)]
        run, reply = await self._line.ask_all(commands)
        if is_missing(run):  # a Redis that was emptied or replaced
            await self._library.load()
            run, reply = await self._line.ask_all(commands)
        for answer in (run, reply):
            if isinstance(answer, Exception):
                raise answer
        self._run_id = reply_of(run)[1].decode("ascii", "replace")
        return entries_of(reply)

    async def trim(self, through: Mapping[int, Position]) -> None:
        """Removes, per bucket, all entries through this position, if Redis is still at the run of the last read."""
        if not through:
            return
        calls = [
            trim_call(bucket, f"{milliseconds}-{sequence + 1}", self._run_id)
            for bucket, (milliseconds, sequence) in through.items()
        ]
        replies = await self._line.ask_all([("FCALL", *call.arguments) for call in calls])
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply

    async def set_aside(self, entry: QueuedEntry) -> None:
        """Keeps a copy of an entry that cannot be read, under its own position."""
        milliseconds, sequence = entry.position
        call = set_aside_call(entry.bucket, entry.data, f"{milliseconds}-{sequence}")
        await self._library.call(self._line, call)  # a plain XADD is refused at maxmemory, and the relay would stand

    async def depth(self) -> OutboxDepth:
        """Entries, bytes and age of what waits in all streams together."""
        with redis_errors():
            async with asyncio.timeout(ANSWER_TIMEOUT_S), self._client.pipeline(transaction=False) as pipe:
                for bucket in range(BUCKETS):
                    name = outbox_key(bucket)
                    pipe.xlen(name)
                    pipe.memory_usage(name)
                    pipe.xrange(name, count=1)
                pipe.time()
                *answers, (seconds, microseconds) = await pipe.execute()
        now_ms = seconds * 1000 + microseconds // 1000
        heads = [_position(rows[0][0])[0] for rows in answers[2::3] if rows]
        return OutboxDepth(
            entries=sum(answers[0::3]),
            size_bytes=sum(size or 0 for size in answers[1::3]),
            oldest_age_s=max(0, now_ms - min(heads)) / 1000 if heads else 0.0,
        )


def heads_command(wait_s: float) -> Command:
    """Asks for the oldest entries of each stream."""
    block = ("BLOCK", int(wait_s * 1000)) if wait_s > 0 else ()
    return ("XREAD", "COUNT", _ENTRIES_PER_STREAM, *block, "STREAMS", *_NAMES, *_HEAD)


def entries_of(reply: object) -> list[QueuedEntry]:
    """The entries of its answer.

    Raises:
        UndecodableError: it is none.
    """
    return [entry for name, rows in _pairs(reply) for entry in _entries(_STREAMS[name], rows)]


def _pairs(reply: object) -> Iterator[tuple[bytes, object]]:
    """Streams and their rows: a map in RESP3, a list of pairs in RESP2, nil after waiting in vain."""
    found = reply.items() if isinstance(reply, dict) else reply if isinstance(reply, list) else ()
    for name, rows in found:
        if not isinstance(name, bytes):
            raise UndecodableError("a stream's name is not bytes")
        yield name, rows


def _entries(bucket: int, rows: object) -> Iterator[QueuedEntry]:
    if not isinstance(rows, list):
        raise UndecodableError("a stream's rows are not a list")
    for row in rows:
        match row:
            case [bytes(position), [field, bytes(data)]] if field == OUTBOX_FIELD:  # as all are that we write
                yield QueuedEntry(bucket, _position(position), data)
            case [bytes(position), [*fields]]:
                pairs = dict(zip(fields[::2], fields[1::2], strict=True))
                data = pairs.get(OUTBOX_FIELD, b"")
                yield QueuedEntry(bucket, _position(position), data if isinstance(data, bytes) else b"")
            case _:
                raise UndecodableError("a stream's row is not a position with fields")


def _position(text: bytes) -> Position:
    milliseconds, _, sequence = text.partition(b"-")
    return Position((int(milliseconds), int(sequence)))
