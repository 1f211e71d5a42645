"""How many dead letters each group has left within the hour, and whether it has stopped itself; asked of the broker."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta

from chassis.clock import SystemClock
from chassis.errors import Unavailable
from chassis.kafka.admin import Admin
from chassis.kafka.dead_letter_breaker import LOOK_BACK_MS, Breaker
from chassis.kafka.dead_letter_counts import severity
from contracts.topics import GROUPS, WITH_DEAD_LETTERS, dead_letter_topic

_TIMEOUT_S = 3.0  # `status` is to answer also while the broker is away
_RECORDS_MAX = 200_000


def counted_now(about: Mapping[str, object]) -> list[dict[str, object]] | None:
    """Return each group that has dead letters, in the system that told this about itself; None: Kafka is away."""
    addresses = about.get("addresses")
    if not isinstance(addresses, dict) or "kafka" not in addresses:
        return None
    try:
        return asyncio.run(_ask(str(addresses["kafka"])))
    except Unavailable:
        return None


async def _ask(bootstrap: str) -> list[dict[str, object]]:
    clock = SystemClock()
    since = clock.now() - timedelta(milliseconds=LOOK_BACK_MS)
    topics = [dead_letter_topic(topic) for topic in WITH_DEAD_LETTERS]
    async with Admin(bootstrap, client_id="linkmesh-status", timeout_s=_TIMEOUT_S) as admin:
        records = await admin.records_since(topics, since, limit=_RECORDS_MAX)
    told: list[dict[str, object]] = []
    for group in GROUPS:
        breaker = Breaker(group)
        breaker.note(records)
        count = breaker.lately(now_ms=int(clock.now().timestamp() * 1000))
        if count or breaker.tripped:
            kind = severity(count).value
            told.append({"group": group, "last_hour": count, "severity": kind, "stopped": breaker.tripped})
    return told
