"""Requests to warm the cache: a visitor could not be answered in time, the next one shall be [C6].

Hints: one that is old, or cannot be read, is dropped and counted. Nobody waits for the answer of one.
"""

import asyncio
import logging
from collections.abc import Sequence
from math import inf

from google.protobuf.message import DecodeError

from chassis.errors import NotFound, Unavailable
from chassis.kafka.keyed import KeyedPolicy
from chassis.kafka.record import Done, Outcome, Record, Rejected
from contracts.link import LinkKey
from contracts.link_codec import UndecodableError
from link_service.domain.read_requests import is_stale
from link_service.handlers.decoding import key_of
from link_service.handlers.metrics import READ_REQUESTS
from link_service.handlers.reading import Reader
from link_service.ports import LinkCache
from shortener.events.v1.read_events_pb2 import ReadRequested

_EVENT_TYPE = ReadRequested.DESCRIPTOR.full_name
POLICY = KeyedPolicy(
    batch_records_max=100,  # one BatchGetItem
    lanes=2,
    window_records_max=1000,
    # A consumer of hints that is stuck is no reason to end the process that makes links.
    silence_max_s=inf,
)
logger = logging.getLogger(__name__)


class ReadRequests:
    """Handles batches of read-requests with at most one record of any link."""

    def __init__(self, reader: Reader, cache: LinkCache) -> None:
        self._reader = reader
        self._cache = cache

    async def __call__(self, records: Sequence[Record]) -> list[Outcome]:
        """One outcome a record, in order.

        Raises:
            Unavailable: Redis or the table is away; the requests come again, until they are too old.
        """
        now = await self._cache.now()  # Redis' clock beside the broker's: this process' may be wrong
        async with asyncio.TaskGroup() as tasks:
            started = [
                None if is_stale(record.timestamp_ms, now) else tasks.create_task(self._warm(record))
                for record in records
            ]
        outcomes: list[Outcome] = []
        for task in started:
            if task is None:
                READ_REQUESTS.labels("stale").inc()
                outcomes.append(Done())
            elif isinstance(outcome := task.result(), Unavailable):
                raise outcome
            else:
                outcomes.append(outcome)
        return outcomes

    async def _warm(self, record: Record) -> Outcome | Unavailable:
        key = _decode(record)
        if isinstance(key, Rejected):
            return key
        try:
            warmth = await self._reader.warm(key)
        except Unavailable as exc:
            return exc  # as a value, so that the others of the batch are warmed all the same
        except UndecodableError as exc:
            return Rejected("undecodable", f"the link's row: {exc}")
        READ_REQUESTS.labels(warmth.value).inc()
        return Done()


def tell(ready: bool, why_not: str) -> None:
    """Whether requests are consumed is told in the log alone: without them link_service is as good as with them."""
    logger.info("requests to warm the cache are %s", "consumed" if ready else f"not consumed: {why_not}")


def _decode(record: Record) -> LinkKey | Rejected:
    if record.header("ce_type") != _EVENT_TYPE:
        return Rejected("undecodable", "not a ReadRequested")
    try:
        wanted = ReadRequested.FromString(record.value).link_key
        domain, _, code = wanted.rpartition("/")
        key = key_of(code, domain)
    except DecodeError as exc:
        return Rejected("undecodable", str(exc))
    except NotFound:
        return Rejected("validation", "no link can have that key")
    return key if key.encode() == record.key else Rejected("validation", "key and value of the request do not agree")
