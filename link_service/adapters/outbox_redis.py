"""The outbox streams in Redis, as the relay reads and trims them [O1]."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence

from chassis.clock import Clock
from chassis.redis import Redis, redis_errors
from contracts.cache import BUCKETS, OUTBOX_FIELD, lead_call, outbox_key, resign_call, set_aside_call
from contracts.link_codec import UndecodableError
from link_service.adapters.function_library_redis import FunctionLibrary
from link_service.adapters.redis_line import RedisLine
from link_service.ports import OutboxDepth, Position, QueuedEntry

# Of each stream in one read. 256 entries in all take some 5 ms of the loop that also answers creates.
_ENTRIES_PER_STREAM = 16
_HEAD = ["0-0"] * BUCKETS
_STREAMS = {outbox_key(bucket).encode(): bucket for bucket in range(BUCKETS)}
ANSWER_TIMEOUT_S = 2.0  # longer than `read` may wait (1 s), shorter than the leader lease (3 s)


class RedisOutbox:
    """The port Outbox. `client` is the relay's own, opened with ANSWER_TIMEOUT_S: `read` keeps a connection waiting."""

    def __init__(self, client: Redis, *, clock: Clock) -> None:
        self._client = client
        self._line = RedisLine(client, clock=clock, timeout_s=ANSWER_TIMEOUT_S, in_flight_max=4)
        self._library = FunctionLibrary(client)

    async def lead(self, candidate: str, *, lease_ms: int) -> bool:
        """Takes or renews the leader lease."""
        word, _ = await self._library.call(self._line, lead_call(candidate, lease_ms=lease_ms))
        return word == "LEADING"

    async def resign(self, candidate: str) -> None:
        """Gives the leader lease back."""
        await self._library.call(self._line, resign_call(candidate))

    async def read(self, *, wait_s: float) -> Sequence[QueuedEntry]:
        """The oldest entries of each stream; waits for a first one. Wakes within a millisecond of an XADD."""
        block = ("BLOCK", int(wait_s * 1000)) if wait_s > 0 else ()
        reply = await self._line.ask("XREAD", "COUNT", _ENTRIES_PER_STREAM, *block, "STREAMS", *_STREAMS, *_HEAD)
        return [entry for name, rows in _pairs(reply) for entry in _entries(_STREAMS[name], rows)]

    async def trim(self, through: Mapping[int, Position]) -> None:
        """Removes, per bucket, all entries up to and including this position."""
        if not through:
            return
        replies = await self._line.ask_all(
            [
                ("XTRIM", outbox_key(bucket), "MINID", f"{milliseconds}-{sequence + 1}")
                for bucket, (milliseconds, sequence) in through.items()
            ]
        )
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
            case [bytes(position), [*fields]]:
                pairs = dict(zip(fields[::2], fields[1::2], strict=True))
                data = pairs.get(OUTBOX_FIELD, b"")
                yield QueuedEntry(bucket, _position(position), data if isinstance(data, bytes) else b"")
            case _:
                raise UndecodableError("a stream's row is not a position with fields")


def _position(text: bytes) -> Position:
    milliseconds, _, sequence = text.partition(b"-")
    return Position((int(milliseconds), int(sequence)))
