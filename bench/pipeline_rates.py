"""Creates at a fixed rate through the whole system: how long an answer takes, and how long until the table has the row.

Open loop: creates begin when their time has come, whether or not earlier ones were answered, and are timed from then.
Of the links made some are looked for in the table, all those that wait in one BatchGetItem.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aiohttp

from chassis.dynamodb import open_dynamodb
from contracts.link import LinkKey
from contracts.link_rows import row_key
from contracts.tables import LINKS, event_sk, link_pk

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient

_LOOK_S = 0.004
_SAMPLES_PER_S = 25
_KEYS_MAX = 100
_PATIENCE_S = 15.0


@dataclass(frozen=True, slots=True)
class RateFigures:
    """Milliseconds. `create`: from the moment a create was due to its answer; `table`: from the answer to the row.

    `late`: rows that were not there 15 s after the last create; the rate is more than the machine can take.
    """

    rate_per_s: int
    answered: int
    failed: int
    create_p50_ms: float
    create_p99_ms: float
    samples: int
    late: int
    table_p50_ms: float
    table_p99_ms: float

    @property
    def good(self) -> bool:
        """Whether every create was answered, and every row that was looked for came in time."""
        return not self.failed and not self.late


@dataclass
class _Run:
    """What is known while it goes on."""

    creates_s: list[float] = field(default_factory=list)
    failed: int = 0
    wanted: dict[str, float] = field(default_factory=dict)  # codes looked for, and when they were answered
    rows_s: list[float] = field(default_factory=list)
    over: bool = False


async def measure(
    gateway: str, api_key: str, dynamodb: str, *, rate_per_s: int, duration_s: float, warm_up_s: float = 2.0
) -> RateFigures:
    """One rate; what happens in the first seconds does not count."""
    headers = {"authorization": f"Bearer {api_key}"}
    connector = aiohttp.TCPConnector(limit=256)
    async with (
        aiohttp.ClientSession(headers=headers, connector=connector) as session,
        open_dynamodb(dynamodb, timeout_s=5) as table,
    ):
        await _play(session, table, f"{gateway}/api/links", rate_per_s, warm_up_s)
        run = await _play(session, table, f"{gateway}/api/links", rate_per_s, duration_s)
    return RateFigures(
        rate_per_s=rate_per_s,
        answered=len(run.creates_s),
        failed=run.failed,
        create_p50_ms=percentile_ms(run.creates_s, 0.5),
        create_p99_ms=percentile_ms(run.creates_s, 0.99),
        samples=len(run.rows_s),
        late=len(run.wanted),
        table_p50_ms=percentile_ms(run.rows_s, 0.5),
        table_p99_ms=percentile_ms(run.rows_s, 0.99),
    )


def percentile_ms(values_s: list[float], share: float) -> float:
    """The value below which this share lies, in ms; 0 when there are none."""
    ordered = sorted(values_s)
    return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


async def _play(
    session: aiohttp.ClientSession, table: "DynamoDBClient", url: str, rate_per_s: int, duration_s: float
) -> _Run:
    run, every = _Run(), max(1, rate_per_s // _SAMPLES_PER_S)
    began = time.perf_counter()
    async with asyncio.TaskGroup() as looking:
        looking.create_task(_look(table, run))
        async with asyncio.TaskGroup() as creating:
            for number in range(int(rate_per_s * duration_s)):
                due = began + number / rate_per_s
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                creating.create_task(_create(session, url, run, due, sampled=number % every == 0))
        run.over = True
    return run


async def _create(session: aiohttp.ClientSession, url: str, run: _Run, due: float, *, sampled: bool) -> None:
    try:
        async with asyncio.timeout(10), session.post(url, json={"long_url": "https://example.com/rate"}) as answer:
            made = await answer.json()
    except (aiohttp.ClientError, TimeoutError):
        run.failed += 1
        return
    if answer.status != 201:
        run.failed += 1
        return
    now = time.perf_counter()
    run.creates_s.append(now - due)
    if sampled:
        run.wanted[made["short_code"]] = now


async def _look(table: "DynamoDBClient", run: _Run) -> None:
    """Until all that was looked for is there, or nobody waits any longer."""
    ended_at: float | None = None
    while run.wanted or not run.over:
        if run.over:
            ended_at = ended_at or time.perf_counter()
            if time.perf_counter() - ended_at > _PATIENCE_S:
                return
        if run.wanted:
            await _ask(table, run)
        await asyncio.sleep(_LOOK_S)


async def _ask(table: "DynamoDBClient", run: _Run) -> None:
    codes: Mapping[str, str] = {link_pk(LinkKey(code)): code for code in list(run.wanted)[:_KEYS_MAX]}
    keys = [row_key(LinkKey(code), event_sk(1)) for code in codes.values()]
    answer = await table.batch_get_item(
        RequestItems={LINKS.name: {"Keys": keys, "ConsistentRead": True, "ProjectionExpression": "pk"}}
    )
    now = time.perf_counter()
    for row in answer["Responses"].get(LINKS.name, []):
        run.rows_s.append(now - run.wanted.pop(codes[row["pk"]["S"]]))
