"""A link's past, from its event rows.

The newest events reach the table mostly 0.1 s after their change was answered (writer, W1), and Redis keeps only the
newest link, not its events. So a history tells how far it ought to reach, and a question about a time is answered only
where the rows, or the newest link itself, settle it.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from chassis.errors import Unavailable
from contracts.link import Link, LinkEvent, LinkKey, UserId
from link_service.domain.history import BadTokenError, Search, first_version, page_size_of, page_token
from link_service.handlers.reading import Reader
from link_service.handlers.refusals import invalid_field, not_found
from link_service.handlers.table_reads import READ_TIMEOUT_S
from link_service.ports import LinkTable

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Events, oldest first; the token of the next page (empty: none); the newest acknowledged version."""

    events: tuple[LinkEvent, ...]
    next_page_token: str
    current_version: int


class History:
    """Reads what a link was."""

    def __init__(self, reader: Reader, table: LinkTable) -> None:
        self._reader = reader
        self._table = table

    async def page(self, key: LinkKey, user_id: UserId, *, page_size: int, token: str) -> HistoryPage:
        """A page of the events that are in the table.

        Raises:
            NotFound: there is no such link in this account.
            InvalidArgument: the token is none of this link's.
            Unavailable: Redis or the table is away.
        """
        try:
            first = first_version(token, key)
        except BadTokenError as exc:
            raise invalid_field("page_token", "This is no token of this link's history.") from exc
        current = await self._own(key, user_id)
        events = await in_time(self._table.list_events(key, first=first, count=page_size_of(page_size)))
        reached = events[-1].version if events else first - 1
        newest = max(current.version, reached)
        is_last = not events or reached == newest  # else there is more, or will be in a moment
        return HistoryPage(tuple(events), "" if is_last else page_token(key, reached + 1), newest)

    async def at(self, key: LinkKey, user_id: UserId, asked: datetime) -> Link:
        """The link as it was then: its newest version that is not younger, in the state of that time.

        Raises:
            NotFound: there is no such link in this account, or it was not made yet.
            Unavailable: Redis or the table is away, or the events of that time are not in the table yet.
        """
        current = await self._own(key, user_id)
        if asked < current.created_at:
            raise not_found()
        link = current if asked >= current.updated_at else await self._version_at(current, asked)
        return replace(link, state=link.state_at(asked))

    async def _version_at(self, current: Link, asked: datetime) -> Link:
        search = Search(asked=asked, low=1, high=current.version)
        found: LinkEvent | None = None
        while (version := search.probe) is not None:
            event = await in_time(self._table.read_event(current.key, version))
            search = search.narrowed(version, event.at if event is not None else None)
            if event is not None and search.low == version:
                found = event
        if found is None and search.is_certain:
            found = await in_time(self._table.read_event(current.key, search.low))
        if found is None or not search.is_certain:
            raise Unavailable("unavailable", "The events of that time are not in the table yet.", retry_after_s=1)
        return found.link

    async def _own(self, key: LinkKey, user_id: UserId) -> Link:
        current = await self._reader.newest(key)
        if current is None or current.user_id != user_id:
            raise not_found()
        return current


async def in_time(reading: Awaitable[Answer]) -> Answer:
    """The answer of the table.

    Raises:
        Unavailable: there was none in 2 s.
    """
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            return await reading
    except TimeoutError as exc:
        raise Unavailable("unavailable", "The database does not answer.", retry_after_s=1) from exc
