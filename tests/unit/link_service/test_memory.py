"""R6: what an operator is told as Redis fills up, and when."""

import asyncio
import logging
from dataclasses import dataclass

import pytest
from prometheus_client import REGISTRY

from chassis.errors import Unavailable
from chassis.health import Readiness
from link_service.domain.memory import MemoryLevel, level_of
from link_service.loops.cache_guard import CacheGuard
from link_service.ports import MemoryUse
from tests.fakes.kafka_time import run_virtual


@dataclass
class Fitness:
    """A Redis that is as full as it is told to be."""

    share: float = 0.1
    complaint: str | None = None
    away: bool = False

    async def problem(self) -> str | None:
        self._answer()
        return self.complaint

    async def memory(self) -> MemoryUse:
        self._answer()
        return MemoryUse(used_bytes=int(self.share * 1000), limit_bytes=1000)

    def _answer(self) -> None:
        if self.away:
            raise Unavailable("unavailable", "Redis does not answer.", retry_after_s=1)


@pytest.mark.rule("R6")
@pytest.mark.parametrize(
    ("share", "level"),
    [
        (0.0, MemoryLevel.WELL),
        (0.499, MemoryLevel.WELL),
        (0.5, MemoryLevel.SHORTENED),
        (0.7, MemoryLevel.SHORTEST),
        (0.849, MemoryLevel.SHORTEST),
        (0.85, MemoryLevel.NO_CREATES),
        (0.95, MemoryLevel.NO_CHANGES),
        (1.3, MemoryLevel.NO_CHANGES),
    ],
)
def test_the_level_of_a_share(share: float, level: MemoryLevel) -> None:
    """R6: each level begins exactly at its share."""
    assert level_of(share) is level


@pytest.mark.rule("R6", "O3")
def test_the_guard_meters_memory_and_says_when_its_level_changes(caplog: pytest.LogCaptureFixture) -> None:
    """R6: once a change, as an error when something is refused; relief is said, too."""

    async def main() -> None:
        fitness, readiness, stop = Fitness(), Readiness(), asyncio.Event()
        guard = CacheGuard(fitness=fitness, set_ready=readiness.declare("redis"))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(guard.run(stop))
            for share in (0.1, 0.72, 0.9, 0.97, 0.2):
                fitness.share = share
                await asyncio.sleep(5)
                assert REGISTRY.get_sample_value("redis_memory_used_ratio") == pytest.approx(share)
            fitness.away = True
            await asyncio.sleep(5)
            fitness.away = False
            await asyncio.sleep(5)
            stop.set()
        assert readiness.ready
        assert REGISTRY.get_sample_value("outbox_bytes_max") == pytest.approx(400)

    with caplog.at_level(logging.INFO, logger="link_service.loops.cache_guard"):
        run_virtual(main())

    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in told] == ["WARNING", "ERROR", "ERROR", "WARNING"]
    assert "90 %" in told[1][1]
    assert "creates are refused" in told[1][1]
    assert "all is well" in told[3][1]


@pytest.mark.rule("R6")
def test_a_redis_that_becomes_unfit_is_found_out() -> None:
    """R6: somebody changes the configuration of a running server: within ten seconds the process is not ready."""

    async def main() -> None:
        fitness, readiness, stop = Fitness(), Readiness(), asyncio.Event()
        guard = CacheGuard(fitness=fitness, set_ready=readiness.declare("redis"), outbox_bytes_max=77)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(guard.run(stop))
            await asyncio.sleep(1)
            assert readiness.ready
            assert REGISTRY.get_sample_value("outbox_bytes_max") == 77
            fitness.complaint = "Redis needs appendfsync always"
            await asyncio.sleep(11)
            assert readiness.reasons == {"redis": "Redis needs appendfsync always"}
            stop.set()

    run_virtual(main())
