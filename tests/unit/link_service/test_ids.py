"""Ids in hand, and the loop that leases them."""

import asyncio

import pytest

from chassis.health import Readiness
from contracts.codes import ID_BLOCK
from link_service.domain.ids import IdBlock, IdStock
from link_service.loops.id_blocks import IdBlocks
from tests.fakes.kafka_time import run_virtual
from tests.fakes.link_service_ports import FakeCacheServer, FakeIdCounter


class Bench:
    """The loop with its fakes."""

    def __init__(self) -> None:
        self.stock = IdStock()
        self.counter = FakeIdCounter()
        self.server = FakeCacheServer()
        self.readiness = Readiness()
        self.loop = IdBlocks(self.stock, self.counter, self.server, self.readiness.declare("ids"))

    async def for_s(self, seconds: float) -> None:
        """Lets the loop run for so long, in virtual time."""
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(seconds, stop.set)
        await self.loop.run(stop)


@pytest.mark.rule("K1")
def test_ids_come_from_blocks_in_order_without_gap_or_repeat() -> None:
    """K1: each id of a leased block is given out once, then those of the next block."""
    stock = IdStock()
    assert stock.take() is None
    stock.add(IdBlock(ID_BLOCK))
    stock.add(IdBlock(7 * ID_BLOCK))

    taken = [stock.take() for _ in range(ID_BLOCK + 2)]

    assert taken[:2] == [ID_BLOCK, ID_BLOCK + 1]
    assert taken[-3:] == [2 * ID_BLOCK - 1, 7 * ID_BLOCK, 7 * ID_BLOCK + 1]
    assert len(set(taken)) == len(taken)
    assert stock.left == ID_BLOCK - 2


@pytest.mark.rule("K1")
def test_a_whole_spare_block_is_always_in_hand() -> None:
    """K1: the next block is leased while a whole one is in hand; the mark in Redis follows."""

    async def scenario() -> None:
        bench = Bench()
        await bench.for_s(1)
        assert bench.readiness.ready
        assert bench.stock.take() == 0

        await bench.for_s(1)

        assert bench.stock.left == 2 * ID_BLOCK - 1
        assert bench.server.mark == bench.counter.next == 2 * ID_BLOCK

    run_virtual(scenario())


@pytest.mark.rule("K1", "P7")
def test_without_the_table_creates_go_on_with_what_is_in_hand() -> None:
    """K1: a block in hand keeps the process ready while the table is away; afterwards it leases again by itself."""

    async def scenario() -> None:
        bench = Bench()
        await bench.for_s(1)
        bench.stock.take()
        bench.counter.away = True
        await bench.for_s(60)
        assert bench.readiness.ready
        assert bench.stock.left == ID_BLOCK - 1

        bench.counter.away = False
        await bench.for_s(10)

        assert bench.stock.left == 2 * ID_BLOCK - 1

    run_virtual(scenario())


@pytest.mark.rule("K1")
def test_a_start_without_the_table_is_not_ready() -> None:
    """K1: a restart while the table is away has no ids to give out, says so, and recovers by itself."""

    async def scenario() -> None:
        bench = Bench()
        bench.counter.away = True
        await bench.for_s(3)
        assert bench.readiness.reasons == {"ids": "no ids in hand: Unavailable"}

        bench.counter.away = False
        await bench.for_s(10)

        assert bench.readiness.ready

    run_virtual(scenario())


@pytest.mark.rule("K1", "P3")
def test_a_counter_that_went_back_makes_unready_and_gives_no_ids() -> None:
    """K1: a lease below `ids:high` means the counter came from a backup; its ids were issued before."""

    async def scenario() -> None:
        bench = Bench()
        bench.server.mark = 5 * ID_BLOCK
        bench.counter.next = 2 * ID_BLOCK
        await bench.for_s(10)

        assert bench.readiness.reasons.keys() == {"ids"}
        assert bench.stock.take() is None
        assert bench.counter.next == 2 * ID_BLOCK

        bench.counter.next = 5 * ID_BLOCK  # a person repaired it
        await bench.for_s(10)

        assert bench.readiness.ready
        assert bench.stock.take() == 5 * ID_BLOCK

    run_virtual(scenario())


@pytest.mark.rule("K1")
def test_another_instance_that_leases_meanwhile_is_no_alarm() -> None:
    """K1: instances lease in any order; only a mark from *before* the lease tells of a counter that went back."""

    async def scenario() -> None:
        bench = Bench()
        overtaking = bench.counter.lease

        async def lease(*, at_least: int) -> IdBlock | None:
            mine = await overtaking(at_least=at_least)
            other = await overtaking(at_least=at_least)  # another instance, and it raises the mark first
            assert other is not None
            await bench.server.raise_ids_high(other.end)
            return mine

        bench.counter.lease = lease  # type: ignore[method-assign]  # the world between two steps of ours
        await bench.for_s(1)

        assert bench.readiness.ready
        assert bench.stock.take() == 0

    run_virtual(scenario())
