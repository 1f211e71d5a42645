"""The shipper on real spools, and a broker that misbehaves by a script: every click arrives, in order."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from chassis.kafka.record import Message
from gateway.adapters.click_spools import ClickSpools
from gateway.domain.spool_format import Run
from gateway.domain.spools import Shipment, SpoolTotals
from gateway.loops import ClickShipper, encode
from shortener.events.v1 import click_events_pb2 as pb
from tests.fakes.gateway_peers import AT
from tests.fakes.gateway_ports import FakeClock
from tests.fakes.spools import TRACE, Wanted, kept, open_spools, until

SPOOL = "019b7d3e-0000-7000-8000-000000000001"


class ScriptedSender:
    """A Sender that acknowledges as many of each call as the script says, all when it is at its end. What is not
    acknowledged may have arrived all the same: `stored` is what the broker has, `calls` what each call was given."""

    def __init__(self, *script: int, ghosts: bool = False) -> None:
        self.script = list(script)
        self.ghosts = ghosts
        self.stored: list[Message] = []
        self.calls: list[list[Message]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.under_way = 0
        self.most_under_way = 0

    async def send_in_order(self, messages: Sequence[Message], *, timeout_s: float) -> int:
        """How many leading ones are acknowledged."""
        assert timeout_s <= 5
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await self.open.wait()
        await asyncio.sleep(0)
        self.calls.append(list(messages))
        acknowledged = min(self.script.pop(0), len(messages)) if self.script else len(messages)
        self.stored += messages if self.ghosts else messages[:acknowledged]
        self.under_way -= 1
        return acknowledged

    def clicks(self, partition: int = 0) -> list[tuple[int, str]]:
        """Sequence and code of each click of a partition, as the broker has them."""
        found = []
        for message in self.stored:
            if (
                dict(message.headers)["ce_type"] == b"shortener.events.v1.LinksAccessed"
                and message.partition == partition
            ):
                content = pb.LinksAccessed.FromString(message.value)
                found += [(n, click.link_key) for n, click in enumerate(content.clicks, content.first_sequence)]
        return found


def shipping(
    root: Path,
    sender: ScriptedSender,
    scenario: Callable[[ClickSpools, asyncio.Event], Awaitable[None]],
    *,
    paused: bool = False,
    drain_s: float = 5.0,
    segment_bytes: int = 4096,
    partitions: int = 2,
) -> FakeClock:
    """Runs a shipper around a scenario, then ends as a process does: the signal, the last request, the drain."""
    clock = FakeClock()

    async def main() -> None:
        stop = asyncio.Event()
        wanted = Wanted(partitions=partitions, clock=clock, segment_bytes=segment_bytes, bytes_max=256 * segment_bytes)
        async with open_spools(root, wanted) as spools, asyncio.TaskGroup() as tasks:
            shipper = ClickShipper(spools, sender, topic="clicks", clock=clock, paused=paused, drain_s=drain_s)
            shipped = tasks.create_task(shipper.run(stop))
            await scenario(spools, stop)
            stop.set()
            spools.close()
            async with asyncio.timeout(30):
                await shipped

    asyncio.run(main())
    return clock


def record(spools: ClickSpools, numbers: range, partition: int = 0) -> None:
    """Records these clicks."""
    assert [number for number in numbers if not spools.append(partition, kept(number), None)] == []


def expected(count: int) -> list[tuple[int, str]]:
    """Clicks 0 to count under the sequences they must have."""
    return [(number + 1, f"code{number}") for number in range(count)]


def first_arrivals(clicks: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Without those whose sequence is not beyond what was there, as the counter leaves them out [S4]."""
    found: list[tuple[int, str]] = []
    for click in clicks:
        if not found or click[0] > found[-1][0]:
            found.append(click)
    return found


@pytest.mark.rule("S3")
@pytest.mark.parametrize("ghosts", [False, True])
@pytest.mark.parametrize("script", [(), (0,), (0, 0, 0), (1, 0, 2, 0, 1), (2, 2, 0, 3), (0, 1) * 6])
def test_every_click_arrives_in_order_whatever_the_broker_does(
    tmp_path: Path, script: tuple[int, ...], ghosts: bool
) -> None:
    """Calls fail as a whole or in the middle, and what failed may have arrived: first arrivals are dense and in order,
    and nothing is missing; there is one call at a time."""
    sender = ScriptedSender(*script, ghosts=ghosts)

    async def scenario(spools: ClickSpools, _stop: asyncio.Event) -> None:
        for begin in range(0, 200, 20):
            record(spools, range(begin, begin + 20), 0)
            record(spools, range(begin, begin + 20), 1)
            assert spools.append(0, kept(1000 + begin), TRACE)
            await asyncio.sleep(0.002)

    shipping(tmp_path, sender, scenario)

    wanted = [f"code{n}" for begin in range(0, 200, 20) for n in (*range(begin, begin + 20), 1000 + begin)]
    assert first_arrivals(sender.clicks(0)) == list(enumerate(wanted, 1))
    assert first_arrivals(sender.clicks(1)) == expected(200)
    assert sender.most_under_way == 1
    assert ghosts or sender.clicks(1) == expected(200)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.rule("S3")
def test_a_partition_has_one_batch_under_way(tmp_path: Path) -> None:
    """While a call is unanswered nothing else is sent, however much is recorded; the next begins where it ended."""
    sender = ScriptedSender()

    async def scenario(spools: ClickSpools, _stop: asyncio.Event) -> None:
        sender.open.clear()
        record(spools, range(10))
        await until(lambda: sender.under_way == 1)
        record(spools, range(10, 20))
        await asyncio.sleep(0.05)
        assert (sender.most_under_way, sender.calls) == (1, [])
        sender.open.set()
        await until(lambda: len(sender.clicks()) == 20)

    shipping(tmp_path, sender, scenario)

    assert sender.clicks() == expected(20)


def test_failures_are_waited_for_longer_and_longer(tmp_path: Path) -> None:
    """A broker that is away is not asked in a tight loop: 0.1 s, doubled, at most 2 s."""
    sender = ScriptedSender(*[0] * 8)

    async def scenario(spools: ClickSpools, _stop: asyncio.Event) -> None:
        record(spools, range(1))
        await until(lambda: len(sender.clicks()) == 1)

    clock = shipping(tmp_path, sender, scenario)

    assert clock.elapsed_s >= 0.1 + 0.2 + 0.4 + 0.8 + 1.6 + 2 + 2 + 2
    assert clock.elapsed_s < 12


def test_a_lone_click_is_sent_at_once(tmp_path: Path) -> None:
    """A click wakes the shipper; nothing waits for company where there is none."""
    sender = ScriptedSender()

    async def scenario(spools: ClickSpools, _stop: asyncio.Event) -> None:
        for number in range(5):
            before = len(sender.calls)
            record(spools, range(number, number + 1))
            for _ in range(20):  # turns of the loop; no time passes
                await asyncio.sleep(0)
            assert len(sender.calls) == before + 1

    shipping(tmp_path, sender, scenario)

    assert sender.clicks() == expected(5)


def test_many_clicks_wait_for_company_and_a_backlog_does_not(tmp_path: Path) -> None:
    """The more were sent, the longer the next ones wait, at most 50 ms; what is more than fits into one call goes
    without a pause, or a link that everybody follows would fall behind for ever."""
    sender, waited = ScriptedSender(), list[float]()

    async def scenario(spools: ClickSpools, _stop: asyncio.Event) -> None:
        clock = spools._clock
        for count in (10, 2000, 60_000):
            began, sent = clock.monotonic(), len(sender.clicks())
            record(spools, range(count))
            await until(lambda sent=sent, count=count: len(sender.clicks()) == sent + count)  # type: ignore[misc]
            await asyncio.sleep(0.02)  # the shipper passes its pause, which takes no time
            waited.append(clock.monotonic() - began)

    shipping(tmp_path, sender, scenario, segment_bytes=1 << 20)

    few, many, most = waited
    assert few == pytest.approx(0.001)
    assert 0.05 <= many < 0.12
    assert most < 0.2
    assert len(sender.calls) > 5


def test_requests_in_flight_may_still_click_after_stop(tmp_path: Path) -> None:
    """The shipper ends behind the last request, not at the signal, and sends what came in between."""
    sender = ScriptedSender()

    async def scenario(spools: ClickSpools, stop: asyncio.Event) -> None:
        stop.set()
        await asyncio.sleep(0.05)
        record(spools, range(3))

    shipping(tmp_path, sender, scenario)

    assert sender.clicks() == expected(3)


@pytest.mark.rule("S1")
@pytest.mark.parametrize("paused", [False, True])
def test_what_cannot_be_sent_waits_for_the_next_start(tmp_path: Path, paused: bool) -> None:
    """With the broker away, or shipping paused, the process ends in time; the next one sends every click."""
    away, back = ScriptedSender(*[0] * 1_000_000), ScriptedSender()

    async def record_some(spools: ClickSpools, _stop: asyncio.Event) -> None:
        record(spools, range(50))

    async def nothing(spools: ClickSpools, _stop: asyncio.Event) -> None:
        await until(lambda: len(back.clicks()) == 50)

    shipping(tmp_path, away, record_some, paused=paused, drain_s=0.2)
    assert (away.calls == []) == paused
    shipping(tmp_path, back, nothing)

    assert back.clicks() == expected(50)
    assert list(tmp_path.iterdir()) == []


def test_clicks_and_totals_as_records() -> None:
    """CloudEvents headers, the spool's id as key, the spool's partition; a trace goes along, and no address."""
    clicks = Run(41, 2, kept(1) + kept(2), TRACE, 0)
    message = encode(Shipment(SPOOL, 7, clicks), topic="clicks", source="s", now=AT)
    totals = encode(Shipment(SPOOL, 7, SpoolTotals(42, 3, closed=True)), topic="clicks", source="s", now=AT)

    headers = dict(message.headers)
    assert (message.topic, message.key, message.partition) == ("clicks", SPOOL.encode(), 7)
    assert headers["ce_type"] == b"shortener.events.v1.LinksAccessed"
    assert (headers["ce_subject"], headers["traceparent"]) == (SPOOL.encode(), TRACE.encode())
    content = pb.LinksAccessed.FromString(message.value)
    assert (content.spool_id, content.first_sequence) == (SPOOL, 41)
    assert [click.link_key for click in content.clicks] == ["code1", "code2"]
    assert dict(totals.headers)["ce_type"] == b"shortener.events.v1.SpoolTotals"
    assert "traceparent" not in dict(totals.headers)
    told = pb.SpoolTotals(spool_id=SPOOL, partition=7, recorded=42, dropped=3, closed=True)
    assert pb.SpoolTotals.FromString(totals.value) == told


class OnePartitionAway(ScriptedSender):
    """A broker where these partitions have no leader: what is sent there gets no answer, all else is stored, and only
    what leads up to the first that is missing is known to be."""

    def __init__(self, *away: int) -> None:
        super().__init__()
        self.away = set(away)

    async def send_in_order(self, messages: Sequence[Message], *, timeout_s: float) -> int:
        """How many leading ones are acknowledged."""
        assert timeout_s <= 5
        await asyncio.sleep(0)
        self.calls.append(list(messages))
        self.stored += [message for message in messages if message.partition not in self.away]
        return next((n for n, each in enumerate(messages) if each.partition in self.away), len(messages))


@pytest.mark.rule("S3")
@pytest.mark.parametrize("away", [(0,), (1,), (0, 1)])
def test_a_partition_that_is_away_holds_up_no_other(tmp_path: Path, away: tuple[int, ...]) -> None:
    """Clicks of the others arrive, are acknowledged, and are not sent again and again; its own follow when it is
    back."""
    sender = OnePartitionAway(*away)

    async def scenario(spools: ClickSpools, _stop: asyncio.Event) -> None:
        for partition in range(3):
            record(spools, range(10), partition)
        await until(lambda: spools.clicks() == 10 * len(away))
        await until(lambda: len(sender.calls) > 20)
        sender.away.clear()
        await until(lambda: spools.clicks() == 0)

    shipping(tmp_path, sender, scenario, partitions=3)

    for partition in range(3):
        assert first_arrivals(sender.clicks(partition)) == expected(10)
        assert partition in away or len(sender.clicks(partition)) <= 10 * (1 + len(away))
