"""Where a code leads, from link_service: one call for all who ask for the same code at nearly the same time."""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chassis.clock import Clock
from chassis.errors import Internal, NotFound, ServiceError, Unavailable
from contracts.link import LinkKey
from contracts.link_codec import UndecodableError, link_from_message
from gateway.ports import Resolved
from shortener.link.v1.link_service_pb2 import ResolveLinkRequest

if TYPE_CHECKING:  # these classes exist for type checkers only
    from shortener.link.v1.link_service_pb2_grpc import LinkServiceAsyncStub

TIMEOUT_S = 0.3
_JOIN_S = 0.05  # below the 100 ms after which a delete elsewhere must be seen [P2]
_FLIGHTS_MAX = 1024  # codes asked for at a time; a flood of unknown codes must not bury link_service
logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Flight:
    began: float
    waiters: list[asyncio.Future[Resolved]] = field(default_factory=list)


class GrpcResolver:
    """A Resolver. `tasks` runs the calls and outlives this object."""

    def __init__(
        self, links: "LinkServiceAsyncStub", *, clock: Clock, tasks: asyncio.TaskGroup, flights_max: int = _FLIGHTS_MAX
    ) -> None:
        self._flights_max = flights_max
        self._links = links
        self._clock = clock
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._flights: dict[LinkKey, _Flight] = {}
        self._in_flight = 0

    async def resolve(self, key: LinkKey) -> Resolved:
        """Where a code leads.

        Raises:
            ServiceError: no answer within 300 ms, too many questions under way, or link_service's own.
        """
        flight = self._flights.get(key)
        now = self._clock.monotonic()
        if flight is None or now - flight.began > _JOIN_S:
            if self._in_flight >= self._flights_max:
                raise Unavailable("unavailable", "Too many codes are being looked for.", retry_after_s=1)
            flight = self._flights[key] = _Flight(now)
            self._in_flight += 1
            self._tasks.create_task(self._fly(key, flight), name="resolve")
        answer: asyncio.Future[Resolved] = self._loop.create_future()  # one each: who is cancelled takes nobody along
        flight.waiters.append(answer)
        return await answer

    def forget(self, key: LinkKey) -> None:
        """Nobody joins the flight under way any more; those aboard get its answer."""
        self._flights.pop(key, None)

    async def _fly(self, key: LinkKey, flight: _Flight) -> None:
        failure: ServiceError = Unavailable("unavailable", "The answer was given up.", retry_after_s=1)
        result: Resolved | None = None
        try:
            result = await self._ask(key)
        except ServiceError as exc:
            failure = exc
        except Exception:  # the tasks are everybody's: what got out of here would end the gateway
            logger.exception("a look-up failed")
            failure = Internal("internal", "Something went wrong on our side.")
        finally:
            self._in_flight -= 1
            if self._flights.get(key) is flight:
                del self._flights[key]
            for answer in flight.waiters:
                if answer.done():
                    continue
                if result is None:
                    answer.set_exception(failure.again())
                else:
                    answer.set_result(result)

    async def _ask(self, key: LinkKey) -> Resolved:
        try:
            response = await self._links.ResolveLink(ResolveLinkRequest(short_code=key), timeout=TIMEOUT_S)
            return Resolved(link_from_message(response.link), response.unconfirmed)
        except NotFound:
            return Resolved(None)
        except UndecodableError as exc:
            raise Internal("internal", "link_service sent no link.") from exc
