"""Consistent reads of projections: one flight for all who want the same link, one call for all flights of a turn.

A caller boards a flight only once it has been told "absent" by Redis itself, and only while the flight's read has not
been sent [R3]: a read may be older than what somebody knows who comes later.
"""

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from itertools import islice

from chassis.errors import Internal, ServiceError, Unavailable
from chassis.task_room import TaskRoom
from contracts.link import Link, LinkKey
from contracts.link_codec import UndecodableError
from contracts.link_rows import Reservation
from link_service.handlers.metrics import TABLE_READS
from link_service.ports import READS_MAX, LinkTable

READ_TIMEOUT_S = 2.0  # of one call of the table; callers have their own, shorter deadlines
_CALLS_MAX = 4  # at a time; while they are under way others board, so the busier it is the fuller are the flights
_BOARDING_MAX = 4096  # links; beyond, the database is as good as away

Landing = Link | UndecodableError | ServiceError | None  # None: there is no such link, or only a reservation
Flight = asyncio.Future[Landing]
logger = logging.getLogger(__name__)


class TableReads:
    """Flights to the table. `room` runs the calls, which end with none of their passengers."""

    def __init__(self, table: LinkTable, room: TaskRoom) -> None:
        self._table = table
        self._room = room
        self._boarding: dict[LinkKey, Flight] = {}
        self._sent: set[LinkKey] = set()
        self._calls = 0
        self._leaving = False

    async def read(self, key: LinkKey) -> Link | None:
        """The link as a read that begins now, or later, finds it; None: there is none, or only a reservation.

        Raises:
            Unavailable: the database is away, throttles, did not answer within 2 s, or there is too much to read.
            UndecodableError: the row is not one of ours.
        """
        return await landed(self.board(key))

    def board(self, key: LinkKey) -> Flight:
        """A place on the flight whose read is sent next; to be waited for by `landed`.

        While one for this link is under way, the next one waits for it: a code that everybody asks for costs one read
        at a time.

        Raises:
            Unavailable: too much is waiting.
        """
        flight = self._boarding.get(key)
        if flight is None:
            if len(self._boarding) >= _BOARDING_MAX:
                raise Unavailable("unavailable", "Too many links are being looked for.", retry_after_s=1)
            flight = self._boarding[key] = asyncio.get_running_loop().create_future()
            self._leave_soon()
        return flight

    def go_on(self, work: Coroutine[None, None, object]) -> None:
        """Does what should not end with its caller, unless the process is ending or has too much to do."""
        with suppress(Unavailable):
            self._room.start(work, timeout_s=2 * READ_TIMEOUT_S)

    def _leave_soon(self) -> None:
        """At the end of this turn of the loop, so that all who board in it are in one call."""
        if self._boarding and not self._leaving:
            self._leaving = True
            asyncio.get_running_loop().call_soon(self._leave)

    def _leave(self) -> None:
        self._leaving = False
        while self._calls < _CALLS_MAX:
            ready = list(islice((key for key in self._boarding if key not in self._sent), READS_MAX))
            if not ready:
                return
            flights = {key: self._boarding.pop(key) for key in ready}
            self._sent.update(flights)
            self._calls += 1
            try:
                self._room.start(self._fly(flights), timeout_s=2 * READ_TIMEOUT_S)
            except Unavailable as exc:
                self._land(flights, exc)

    async def _fly(self, flights: dict[LinkKey, Flight]) -> None:
        failure: ServiceError = Unavailable("unavailable", "The answer was given up.", retry_after_s=1)
        try:
            TABLE_READS.labels("one" if len(flights) == 1 else "batch").inc()
            async with asyncio.timeout(READ_TIMEOUT_S):
                async for part in self._table.read_many(list(flights)):
                    for key, found in part.items():
                        self._sent.discard(key)
                        _settle(flights[key], None if isinstance(found, Reservation) else found)
                    self._leave_soon()  # for those who waited until these landed
        except TimeoutError:
            failure = Unavailable("unavailable", "The database does not answer.", retry_after_s=1)
        except ServiceError as exc:
            failure = exc
        except Exception:
            logger.exception("the table could not be read")
            failure = Internal("internal", "The link could not be read.")
        finally:
            self._land(flights, failure)

    def _land(self, flights: dict[LinkKey, Flight], failure: ServiceError) -> None:
        """The end of a call: whoever has no answer yet gets this failure."""
        self._calls -= 1
        for key, flight in flights.items():
            if not flight.done():
                self._sent.discard(key)
                _settle(flight, failure)
        self._leave_soon()


async def landed(flight: Flight) -> Link | None:
    """What the flight brought; who gives up waiting takes nobody along.

    Raises:
        Unavailable: the database is away, throttles, or did not answer in time.
        UndecodableError: the row is not one of ours.
    """
    await asyncio.wait([flight])  # unlike awaiting it, this leaves the flight alone when this caller is cancelled
    match flight.result():
        case ServiceError() as failure:
            raise failure.again() from failure
        case UndecodableError() as failure:
            raise UndecodableError(str(failure)) from failure
        case found:
            return found


def _settle(flight: Flight, landing: Landing) -> None:
    if not flight.done():
        flight.set_result(landing)
