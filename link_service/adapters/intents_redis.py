"""What idempotency keys stand for, in Redis: `<number of carriers>|<intent as JSON>` [I1, I3].

An intent that an older version stored has no number: its carriers are not known, so it is never removed by them.
"""

import json
import re
from datetime import datetime

from contracts.cache import intent_key
from contracts.link import EventId, LinkKey, UserId
from contracts.link_codec import UndecodableError
from link_service.adapters.redis_line import RedisLine
from link_service.domain.intents import Intent

KEPT_S = 86_400  # as long as an idempotency key is honoured
_CARRIERS = re.compile(rb"\d+\|")

# Of a stored value: the number of carriers (none in older ones), and the intent. allow-oom: however full Redis is, a
# repeat must get its answer and a refusal free its key; what a new key adds is gone with the refusal of its change.
_READ = """#!lua flags=allow-oom
local stored = redis.call('GET', KEYS[1])
local carriers, intent
if stored then
    carriers, intent = string.match(stored, '^(%d+)|(.*)$')
    intent = intent or stored
end
local function keep(number)
    redis.call('SET', KEYS[1], string.format('%d|', number) .. intent, 'KEEPTTL')
end
local function carry(request)
    if carriers and string.sub(intent, 1, #request) == request then
        keep(carriers + 1)
    end
    return intent
end
"""
_BEGIN = f"""{_READ}
if stored then
    return carry(ARGV[1])
end
redis.call('SET', KEYS[1], '1|' .. ARGV[2], 'EX', ARGV[3])
return ARGV[2]
"""
_SWAP = f"""{_READ}
if not stored then
    return false
end
if intent ~= ARGV[4] then
    return carry(ARGV[1])
end
redis.call('SET', KEYS[1], '1|' .. ARGV[2], 'EX', ARGV[3])
return ARGV[2]
"""
_GIVE_UP = f"""{_READ}
if not carriers or intent ~= ARGV[1] then
    return 0
end
if tonumber(carriers) > 1 then
    keep(carriers - 1)
    return 0
end
return redis.call('DEL', KEYS[1])
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
        stored = await self._line.ask("EVAL", _BEGIN, 1, name, _request(intent), _encode(intent), KEPT_S)
        return _decode(stored) if isinstance(stored, bytes) else intent

    async def swap(self, user_id: UserId, idempotency_key: str, *, old: Intent, new: Intent) -> Intent | None:
        """Replaces exactly `old` by `new`; the one that is stored then, None if it has expired.

        Raises:
            Unavailable: Redis is away.
        """
        name = intent_key(user_id, idempotency_key)
        stored = await self._line.ask("EVAL", _SWAP, 1, name, _request(new), _encode(new), KEPT_S, _encode(old))
        return _decode(stored) if isinstance(stored, bytes) else None

    async def find(self, user_id: UserId, idempotency_key: str) -> Intent | None:
        """The intent that is stored.

        Raises:
            Unavailable: Redis is away.
        """
        stored = await self._line.ask("GET", intent_key(user_id, idempotency_key))
        return _decode(stored.removeprefix(_number(stored))) if isinstance(stored, bytes) else None

    async def give_up(self, user_id: UserId, idempotency_key: str, intent: Intent) -> bool:
        """Takes a carrier off; removes the intent with the last one, and tells whether.

        Raises:
            Unavailable: Redis is away; the carrier may still be counted.
        """
        name = intent_key(user_id, idempotency_key)
        return await self._line.ask("EVAL", _GIVE_UP, 1, name, _encode(intent)) == 1


def _number(stored: bytes) -> bytes:
    """The number of carriers at the front of a value, with its bar; empty in older values."""
    found = _CARRIERS.match(stored)
    return found.group() if found else b""


def _request(intent: Intent) -> bytes:
    """What the JSON of all intents of the same request begins with."""
    return json.dumps([1, intent.body_hash], separators=(",", ":")).encode()[:-1] + b","


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
