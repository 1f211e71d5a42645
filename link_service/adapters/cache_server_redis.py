"""What the primary Redis knows beside the links: the mark of ids, its run id, the age of its outbox."""

from datetime import UTC, datetime

from contracts.cache import IDS_HIGH, outbox_key
from contracts.link import LinkKey, bucket_of
from contracts.link_codec import UndecodableError
from link_service.adapters.redis_line import RedisLine

# A maximum needs no version and no library: the script is the same for ever.
_RAISE = """#!lua flags=allow-oom
local mark = tonumber(redis.call('GET', KEYS[1]) or '0')
if tonumber(ARGV[1]) > mark then redis.call('SET', KEYS[1], ARGV[1]) end
return redis.status_reply('OK')
"""


class RedisCacheServer:
    """The port CacheServer."""

    def __init__(self, line: RedisLine) -> None:
        self._line = line

    async def ids_high(self) -> int:
        """The known mark; 0 when it was never set.

        Raises:
            Unavailable: Redis is away.
        """
        value = await self._line.ask("GET", IDS_HIGH)
        return int(value) if isinstance(value, bytes) else 0

    async def raise_ids_high(self, mark: int) -> None:
        """Raises the mark to at least `mark`.

        Raises:
            Unavailable: Redis is away; it may have been raised.
        """
        await self._line.ask("EVAL", _RAISE, 1, IDS_HIGH, mark)

    async def run_id(self) -> str:
        """The name of this run of the primary, as the library makes it [R8].

        Raises:
            Unavailable: Redis is away.
        """
        match await self._line.ask("INFO", "server", "replication"):
            case bytes(text):
                found = dict(line.split(b":", 1) for line in text.splitlines() if b":" in line)
                if b"run_id" in found and b"master_replid" in found:
                    return (found[b"run_id"] + b":" + found[b"master_replid"]).decode("ascii", "replace")
        raise UndecodableError("INFO does not tell the run")

    async def oldest_in_outbox(self, key: LinkKey) -> datetime | None:
        """When the oldest event entered the outbox stream of this link's bucket; None: it is empty.

        Raises:
            Unavailable: Redis is away.
        """
        match await self._line.ask("XRANGE", outbox_key(bucket_of(key)), "-", "+", "COUNT", 1):
            case [[bytes(position), _]]:
                milliseconds = int(position.split(b"-")[0])  # stream ids begin with Redis' milliseconds
                return datetime.fromtimestamp(milliseconds / 1000, UTC)
            case []:
                return None
        raise UndecodableError("XRANGE does not answer with entries")
