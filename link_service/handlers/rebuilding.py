"""Repairing a projection from the event rows, which are the truth [W1]."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from chassis.errors import FailedPrecondition, Internal, NotFound, ServiceError, Unavailable
from contracts.link import FieldChange, Link, LinkKey, UserId
from contracts.link_codec import UndecodableError
from contracts.reasons import Reason
from link_service.domain.projection import Ahead, repairs
from link_service.handlers.history import in_time
from link_service.handlers.refusals import not_found
from link_service.ports import LinkCache, LinkKeys, LinkTable

_RACES_MAX = 8  # each is lost to a newer version
_AT_ONCE_MAX = 8  # links of a page: enough to hide the way to the table, and no load beside that of users


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The link, and what was wrong with its projection."""

    link: Link
    changes: tuple[FieldChange, ...]


@dataclass(frozen=True, slots=True)
class RebuildFailed:
    """A link that needs a person, and why."""

    key: LinkKey
    error: ServiceError


@dataclass(frozen=True, slots=True)
class RebuiltPage:
    """What came of the links of a page, and where the next one begins (empty: nowhere)."""

    rebuilt: int
    unchanged: int
    failures: tuple[RebuildFailed, ...]
    cursor: str


class Rebuilding:
    """Rebuilds projections. Beside a writer that is at work: both only ever move them on [W2]."""

    def __init__(self, table: LinkTable, cache: LinkCache, keys: LinkKeys) -> None:
        self._table = table
        self._cache = cache
        self._keys = keys

    async def page(self, cursor: str, *, rows: int) -> RebuiltPage:
        """Rebuilds the links of the next rows of the table, whoever owns them.

        Raises:
            BadCursorError: no page ended with this cursor.
            Unavailable: the table or Redis is away; some may have been repaired, and the page may be repeated.
        """
        page = await in_time(self._keys.page(cursor, rows=rows))
        turns = asyncio.Semaphore(_AT_ONCE_MAX)

        async def one(key: LinkKey) -> Rebuilt | RebuildFailed | None:
            async with turns:
                return await self._one_of_all(key)

        try:
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(one(key)) for key in page.keys]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures  # the page is repeated as a whole
        return _summary([task.result() for task in running], page.cursor)

    async def _one_of_all(self, key: LinkKey) -> Rebuilt | RebuildFailed | None:
        """None: a code that is only reserved."""
        try:
            return await self.rebuild(key, None)
        except NotFound as exc:
            return None if await self._stored(key) is None else RebuildFailed(key, exc)
        except FailedPrecondition as exc:
            return RebuildFailed(key, exc)
        except UndecodableError:
            return RebuildFailed(key, Internal(Reason.INTERNAL.code, "An event row cannot be read."))

    async def rebuild(self, key: LinkKey, user_id: UserId | None) -> Rebuilt:
        """The link of the newest event row, once the projection is the same. Redis is told as the writer tells it [R4]:
        an entry that was filled from an older projection is replaced.

        Raises:
            NotFound: the account (None: any account) has no such link, as far as the event rows tell.
            FailedPrecondition: the projection is newer than the event rows.
            Unavailable: the table or Redis is away; the projection may have been repaired.
        """
        for _ in range(_RACES_MAX):
            event = await in_time(self._table.newest_event(key))
            if event is None or user_id not in (None, event.link.user_id):
                raise not_found()
            found = repairs(await self._stored(key), event.link)
            if isinstance(found, Ahead):
                sentence = "The projection is newer than the event rows; nothing was changed."
                raise FailedPrecondition(Reason.STATE_CONFLICT.code, sentence)
            if not found or await in_time(self._table.project(event.link)):
                await self._cache.persisted(event.link)
                return Rebuilt(event.link, found)
        raise Unavailable("unavailable", "The link changes too often just now.", retry_after_s=1)

    async def _stored(self, key: LinkKey) -> Link | None:
        try:
            found = await in_time(self._table.read(key))
        except UndecodableError:
            return None  # to be replaced
        return found if isinstance(found, Link) else None


def _summary(results: Sequence[Rebuilt | RebuildFailed | None], cursor: str) -> RebuiltPage:
    done = [result for result in results if isinstance(result, Rebuilt)]
    repaired = sum(bool(result.changes) for result in done)
    failures = tuple(result for result in results if isinstance(result, RebuildFailed))
    return RebuiltPage(repaired, len(done) - repaired, failures, cursor)
