"""Repairing a projection from the event rows, which are the truth [W1]."""

from dataclasses import dataclass

from chassis.errors import FailedPrecondition, Unavailable
from contracts.link import FieldChange, Link, LinkKey, UserId
from contracts.link_codec import UndecodableError
from contracts.reasons import Reason
from link_service.domain.projection import Ahead, repairs
from link_service.handlers.history import in_time
from link_service.handlers.refusals import not_found
from link_service.ports import LinkCache, LinkTable

_RACES_MAX = 8  # each is lost to a newer version


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The link, and what was wrong with its projection."""

    link: Link
    changes: tuple[FieldChange, ...]


class Rebuilding:
    """Rebuilds projections. Beside a writer that is at work: both only ever move them on [W2]."""

    def __init__(self, table: LinkTable, cache: LinkCache) -> None:
        self._table = table
        self._cache = cache

    async def rebuild(self, key: LinkKey, user_id: UserId) -> Rebuilt:
        """The link of the newest event row, once the projection is the same. Redis is told as the writer tells it [R4]:
        an entry that was filled from an older projection is replaced.

        Raises:
            NotFound: the account has no such link, as far as the event rows tell.
            FailedPrecondition: the projection is newer than the event rows.
            Unavailable: the table or Redis is away; the projection may have been repaired.
        """
        for _ in range(_RACES_MAX):
            event = await in_time(self._table.newest_event(key))
            if event is None or event.link.user_id != user_id:
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
