"""What idempotency keys stand for, in Redis [I1]."""

import json
from datetime import datetime

from contracts.cache import intent_key
from contracts.link import EventId, LinkKey, UserId
from contracts.link_codec import UndecodableError
from link_service.adapters.redis_line import RedisLine
from link_service.domain.intents import Intent

KEPT_S = 86_400  # as long as an idempotency key is honoured

_SWAP = """
local stored = redis.call('GET', KEYS[1])
if stored == ARGV[1] then
    redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
    return ARGV[2]
end
return stored
"""


class RedisIntents:
    """The port Intents."""

    def __init__(self, line: RedisLine) -> None:
        self._line = line

    async def begin(self, user_id: UserId, idempotency_key: str, intent: Intent) -> Intent:
        """Stores the intent if there is none; the one that is stored then.

        Raises:
            Unavailable: Redis is away.
        """
        name = intent_key(user_id, idempotency_key)
        stored = await self._line.ask("SET", name, _encode(intent), "NX", "GET", "EX", KEPT_S)
        return _decode(stored) if isinstance(stored, bytes) else intent

    async def swap(self, user_id: UserId, idempotency_key: str, *, old: Intent, new: Intent) -> Intent | None:
        """Replaces exactly `old` by `new`; the one that is stored then, None if it has expired.

        Raises:
            Unavailable: Redis is away.
        """
        name = intent_key(user_id, idempotency_key)
        stored = await self._line.ask("EVAL", _SWAP, 1, name, _encode(old), _encode(new), KEPT_S)
        return _decode(stored) if isinstance(stored, bytes) else None


def _encode(intent: Intent) -> bytes:
    fields = [1, intent.body_hash, intent.event_id, intent.key, intent.not_after.isoformat()]  # 1: the format
    return json.dumps(fields, separators=(",", ":")).encode()


def _decode(data: bytes) -> Intent:
    match json.loads(data):
        case [1, str(body_hash), str(event_id), str(key), str(not_after)]:
            return Intent(
                body_hash=body_hash,
                event_id=EventId(event_id),
                key=LinkKey(key),
                not_after=datetime.fromisoformat(not_after),
            )
    raise UndecodableError("not an intent of a known format")
