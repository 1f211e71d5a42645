"""Loading the Function library, and checking that Redis is as durable as an acknowledgement says [R6]."""

from collections.abc import Sequence
from importlib import resources

from redis.exceptions import ResponseError

from chassis.errors import Unavailable
from chassis.redis import Redis, redis_errors
from contracts.cache import LIBRARY, LIBRARY_FILE, FunctionCall, reply_of
from contracts.link_codec import UndecodableError
from link_service.adapters.redis_line import RedisLine
from link_service.adapters.redis_turns import RedisTurns
from link_service.ports import MemoryUse

_WANTED = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
_LIMIT = "maxmemory"


class FunctionLibrary:
    """The library on one Redis master; only link_service loads it."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._body = resources.files("contracts").joinpath(LIBRARY_FILE).read_text("utf-8")

    async def call(self, line: RedisLine | RedisTurns, call: FunctionCall) -> tuple[str, bytes]:
        """The word and the value of a Function's reply. A Redis that was emptied or replaced gets the library first.

        Raises:
            Unavailable: as `line.ask`.
            redis.exceptions.ResponseError: the Function refused its arguments.
        """
        try:
            return reply_of(await line.ask("FCALL", *call.arguments))
        except ResponseError as exc:
            if not is_missing(exc):
                raise
        await self.load()
        return reply_of(await line.ask("FCALL", *call.arguments))  # no repetition: the first one did nothing

    async def call_all(
        self, line: RedisLine, calls: Sequence[FunctionCall]
    ) -> list[tuple[str, bytes] | Unavailable | ResponseError | UndecodableError]:
        """The same of many calls in one pipeline. What `call` would raise of one of them is its value here."""
        replies = await line.ask_all([("FCALL", *call.arguments) for call in calls])
        missing = [place for place, reply in enumerate(replies) if is_missing(reply)]
        if missing:
            try:
                await self.load()
            except (Unavailable, ResponseError) as exc:
                again: list[object] = [exc] * len(missing)
            else:  # no repetition: these did nothing
                again = await line.ask_all([("FCALL", *calls[place].arguments) for place in missing])
            for place, reply in zip(missing, again, strict=True):
                replies[place] = reply
        return [_word(reply) for reply in replies]

    async def load(self) -> None:
        """Loads the library if there is none. Never replaces one: an older process may be running on it.

        Raises:
            Unavailable: Redis is away.
        """
        try:
            with redis_errors():
                await self._client.function_load(self._body)
        except ResponseError as exc:
            if "already exists" not in str(exc):
                raise

    async def problem(self) -> str | None:
        """Loads the library where it is missing; why this Redis must not be used, or None.

        Raises:
            Unavailable: Redis is away.
        """
        await self.load()
        return await self._another_body() or await self._not_durable()

    async def memory(self) -> MemoryUse:
        """How full Redis is.

        Raises:
            Unavailable: Redis is away.
        """
        with redis_errors():
            found = await self._client.info("memory")
        return MemoryUse(used_bytes=int(found["used_memory"]), limit_bytes=int(found["maxmemory"]))

    async def _another_body(self) -> str | None:
        with redis_errors():
            found: object = await self._client.function_list(LIBRARY, withcode=True)
        if self._body.encode() in _leaves(found):
            return None
        return f"Redis has another text under the name {LIBRARY}: a changed library needs a new name"

    async def _not_durable(self) -> str | None:
        try:
            with redis_errors():
                found = await self._client.config_get(*_WANTED, _LIMIT)
        except ResponseError:
            return "Redis does not tell its configuration; appendfsync always and noeviction are needed"
        wrong = [f"{name} {value}" for name, value in _WANTED.items() if found.get(name) != value]
        if found.get(_LIMIT) in (None, "0"):
            wrong.append(f"a {_LIMIT}")  # without one it never refuses in time, and ends for want of memory
        return f"Redis needs {', '.join(wrong)}" if wrong else None


def is_missing(reply: object) -> bool:
    """Whether a Function was refused because Redis has no library."""
    return isinstance(reply, ResponseError) and "Function not found" in str(reply)


def _word(reply: object) -> tuple[str, bytes] | Unavailable | ResponseError | UndecodableError:
    if isinstance(reply, Unavailable | ResponseError):
        return reply
    try:
        return reply_of(reply)
    except UndecodableError as exc:
        return exc


def _leaves(reply: object) -> list[object]:
    """All that is in a nested reply; its shape differs between versions of the protocol."""
    if isinstance(reply, dict):
        return [leaf for part in (*reply.keys(), *reply.values()) for leaf in _leaves(part)]
    if isinstance(reply, list | tuple):
        return [leaf for part in reply for leaf in _leaves(part)]
    return [reply]
