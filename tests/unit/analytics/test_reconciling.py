"""Reconciliation: every spool of every partition, from the memory of its owner, page by page."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from analytics.domain.book import Book
from analytics.domain.checkpoints import Checkpoint
from analytics.domain.clicks import Arrival, Totals
from analytics.domain.ledger import Accounts
from analytics.domain.sequences import Spool
from analytics.handlers.owners import Owners
from analytics.handlers.reconciling import Reconciling
from analytics.ports import OwnedSpools
from chassis.errors import InvalidArgument, Unavailable
from shortener.analytics.v1 import analytics_service_pb2 as pb
from tests.fakes.analytics_clicks import SPOOL, T0_MS, arrival, click
from tests.fakes.analytics_ports import FakeCheckpoints, FakeLog, FakePeers
from tests.fakes.kafka_time import VirtualClock, run_virtual


class Process:
    """One that is asked: partition 0 is its own, 1 another's, 2 nobody's."""

    def __init__(self) -> None:
        self.book = Book(rows_max=1000, dirty_max=1000)
        self.log, self.peers, self.checkpoints = FakeLog(3), FakePeers(), FakeCheckpoints()
        self.log.owners |= {0: "us:1", 1: "them:2"}
        owners = Owners(self.book, log=self.log, address="us:1", clock=VirtualClock())
        self.reconciling = Reconciling(self.book, checkpoints=self.checkpoints, owners=owners, peers=self.peers)

    def own(self, arrivals: Sequence[Arrival]) -> None:
        """Own partition 0, and fold these."""
        self.book.assign(Checkpoint(0))
        self.book.admit(self.book.missing(arrivals), {})
        self.book.fold(arrivals)

    async def all(self, page_size: int) -> tuple[list[pb.SpoolAccount], list[pb.PartitionAccount]]:
        """All pages; none but the last has another length."""
        spools: list[pb.SpoolAccount] = []
        partitions: list[pb.PartitionAccount] = []
        token = ""
        while True:
            page = await self.reconciling.page(page_size, token)
            spools += page.spools
            partitions += page.partitions
            token = page.next_page_token
            if not token:
                return spools, partitions
            assert len(page.spools) == page_size


def totals(offset: int, spool: str, recorded: int, *, dropped: int = 0, closed: bool = False) -> Arrival:
    """What a spool's books say."""
    return replace(arrival(offset), content=Totals(SPOOL + spool, recorded, dropped, closed))


@pytest.mark.rule("A10", "S4")
def test_what_became_of_each_click() -> None:
    """Recorded, shipped, counted, repeats, what is missing and what was dropped; clicks without a spool apart."""

    async def scenario() -> None:
        process = Process()
        process.own(
            [
                arrival(0, click(), click(), spool="1", first=1),
                arrival(1, click(), click(), spool="1", first=2),  # the first of them again
                arrival(2, click(), spool="2", first=4),  # three before it never came
                arrival(3, click()),  # sent without a spool
                totals(4, "1", 3, closed=True),
                totals(5, "2", 6, dropped=2),
            ]
        )

        spools, partitions = await process.all(10)

        assert list(spools) == [
            pb.SpoolAccount(
                spool_id=SPOOL + "1", partition=0, recorded=3, closed=True, shipped=3, counted=3, repeats=1
            ),
            pb.SpoolAccount(spool_id=SPOOL + "2", partition=0, recorded=6, dropped=2, shipped=4, counted=1, missing=3),
        ]
        assert [(each.partition, each.owned, each.without_spool) for each in partitions] == [
            (0, True, 1), (1, False, 0), (2, False, 0),
        ]  # fmt: skip
        assert partitions[0].counted_until.ToMilliseconds() == T0_MS

    run_virtual(scenario())


@pytest.mark.rule("A7", "A10")
def test_every_partition_is_told_of_by_who_knows_best() -> None:
    """Our own from memory, another's by asking it, nobody's from the last checkpoint; the same on pages of any size."""

    async def scenario() -> None:
        process = Process()
        process.own([arrival(n, click(), spool=str(n)) for n in range(4)])
        theirs = {f"{SPOOL}{n}": Spool(last=n, counted=n, repeats=n, buried=n) for n in range(3)}
        process.peers.spools["them:2", 1] = OwnedSpools(theirs, T0_MS + 7, 11, T0_MS - 5)
        nobodys = {f"{SPOOL}{n}": Spool(last=9, counted=8) for n in range(2)}
        await process.checkpoints.save(Checkpoint(2, offset=5, time_ms=T0_MS, accounts=Accounts(nobodys, loose=3)))

        whole, partitions = await process.all(5000)

        assert [(each.partition, each.spool_id[-1]) for each in whole] == [
            (0, "0"), (0, "1"), (0, "2"), (0, "3"), (1, "0"), (1, "1"), (1, "2"), (2, "0"), (2, "1"),
        ]  # fmt: skip
        assert (whole[6].shipped, whole[6].counted, whole[6].repeats, whole[6].buried) == (2, 2, 2, 2)
        assert whole[8].missing == 1
        assert [(each.owned, each.counted_until.ToMilliseconds(), each.without_spool) for each in partitions] == [
            (True, T0_MS, 0), (True, T0_MS + 7, 11), (False, T0_MS, 3),
        ]  # fmt: skip
        assert partitions[1].forgotten_until.ToMilliseconds() == T0_MS - 5
        for page_size in range(1, 11):
            assert await process.all(page_size) == (whole, partitions)

    run_virtual(scenario())


@pytest.mark.rule("A10")
def test_an_owner_that_is_away_is_replaced_by_the_table() -> None:
    """Its last checkpoint is told, as such; without the table there is no answer."""

    async def scenario() -> None:
        process = Process()
        await process.checkpoints.save(
            Checkpoint(1, offset=5, time_ms=T0_MS, accounts=Accounts({SPOOL + "1": Spool(last=2, counted=2)}))
        )
        process.peers.away = True

        spools, partitions = await process.all(10)

        assert [(each.partition, each.counted) for each in spools] == [(1, 2)]
        assert not any(each.owned for each in partitions)
        process.checkpoints.away = True
        with pytest.raises(Unavailable):
            await process.all(10)

    run_virtual(scenario())


@pytest.mark.parametrize(
    ("page_size", "token", "field"),
    [(-1, "", "page_size"), (5001, "", "page_size"), (1, "x/", "page_token"), (1, "٣/", "page_token")],
)
def test_bad_pages_are_told(page_size: int, token: str, field: str) -> None:
    """The field at fault is named."""
    with pytest.raises(InvalidArgument) as told:
        run_virtual(Process().reconciling.page(page_size, token))
    assert [each.field for each in told.value.fields] == [field]
