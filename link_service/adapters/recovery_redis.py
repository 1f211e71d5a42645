"""Redis as those see it who put back what it may have forgotten [R8]."""

import asyncio
from collections.abc import Sequence

from redis.exceptions import ResponseError

from chassis.clock import Clock
from chassis.redis import Redis, redis_errors
from contracts.cache import FunctionCall, lead_call, persisted_call, reply_of, url_key
from contracts.link import Link, LinkKey
from contracts.link_codec import UndecodableError
from contracts.restoring import (
    NOTED,
    RESTORER,
    UNSETTLED,
    decode_offsets,
    note_call,
    restore_call,
    restored_calls,
    settled_call,
    standing_call,
)
from link_service.adapters.function_library_redis import FunctionLibrary
from link_service.adapters.redis_line import RedisLine
from link_service.domain.recovery import Offsets, Remembered, Standing

ANSWER_TIMEOUT_S = 2.0  # of a pipeline of some hundred calls


class RedisRecovery:
    """The ports RecoveringRedis and UnsettledLinks. `client` is opened with ANSWER_TIMEOUT_S."""

    def __init__(self, client: Redis, *, clock: Clock) -> None:
        self._client = client
        self._line = RedisLine(client, clock=clock, timeout_s=ANSWER_TIMEOUT_S, in_flight_max=4)
        self._library = FunctionLibrary(client)

    async def standing(self) -> Standing:
        """Which run answers; loads the library where it is missing."""
        word, run_id = await self._library.call(self._line, standing_call())
        return Standing(run_id.decode("ascii", "replace"), restored=word == "RESTORED")

    async def lead(self, candidate: str, *, lease_ms: int) -> bool:
        """Takes or renews the lease of the one who restores."""
        word, _ = await self._library.call(self._line, lead_call(candidate, lease_ms=lease_ms, key=RESTORER))
        return word == "LEADING"

    async def remembered(self) -> Remembered:
        """What this Redis was told of the log."""
        return Remembered(noted=await self._offsets(NOTED), unsettled=await self.unsettled())

    async def restore(self, links: Sequence[Link], run_id: str) -> int | None:
        """Stores those that are absent or older; how many. None: it is over."""
        words = await self._all([restore_call(link, run_id) for link in links])
        return None if "OVER" in words else words.count("STORED")

    async def complete(self, run_id: str, *, unsettled: Offsets) -> bool:
        """This run is restored; False: it is another one."""
        return "OVER" not in await self._all(restored_calls(run_id, unsettled=unsettled))

    async def note(self, run_id: str, ends: Offsets) -> None:
        """Remembers where the log ended before this call."""
        await self._library.call(self._line, note_call(run_id, ends))

    async def unsettled(self) -> Offsets:
        """From where on the log has links that were put back and may have no expiry; empty: none."""
        return await self._offsets(UNSETTLED)

    async def settled(self, unsettled: Offsets) -> None:
        """They all have one, or will get it from the writer."""
        await self._library.call(self._line, settled_call(unsettled))

    async def without_expiry(self, keys: Sequence[LinkKey]) -> Sequence[LinkKey]:
        """Those of these links that are there and have no expiry."""
        with redis_errors():
            async with asyncio.timeout(ANSWER_TIMEOUT_S), self._client.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.pttl(url_key(key))
                answers = await pipe.execute()
        return [key for key, answer in zip(keys, answers, strict=True) if answer == -1]

    async def persisted(self, links: Sequence[Link]) -> None:
        """The tables hold these versions [R4]."""
        await self._all([persisted_call(link) for link in links])

    async def _offsets(self, name: str) -> Offsets:
        value = await self._line.ask("GET", name)
        try:
            return decode_offsets(value) if isinstance(value, bytes) else {}
        except UndecodableError:
            return {}

    async def _all(self, calls: Sequence[FunctionCall]) -> list[str]:
        """The words of the replies, of one pipeline."""
        with redis_errors():
            async with asyncio.timeout(ANSWER_TIMEOUT_S), self._client.pipeline(transaction=False) as pipe:
                for call in calls:
                    pipe.execute_command("FCALL", *call.arguments)
                try:
                    replies = await pipe.execute()
                except ResponseError as exc:
                    if "Function not found" not in str(exc):
                        raise
                    await self._library.load()  # Redis was emptied under us; `standing` finds out
                    return ["OVER"]
        return [reply_of(reply)[0] for reply in replies]
