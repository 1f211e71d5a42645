"""AuditService: checkpoints as they are on disk, and entries as their owner may see them."""

from collections.abc import Sequence

import grpc

from audit.domain.leaf import IndexRow
from audit.domain.listing import (
    BadTokenError,
    Cursor,
    collapse,
    cursor_after,
    decode_token,
    encode_token,
    may_repeat,
    own,
    page_size_of,
)
from audit.domain.merkle import TILE_WIDTH
from audit.domain.tiles import CHECKPOINT, CorruptError, log_name
from audit.handlers.leaf_codec import decode_leaf, leaf_to_message
from audit.handlers.recorder import OpenLog
from audit.ports import EntryIndex, LogStoppedError, LogStorage
from chassis.auth import principal_of
from chassis.errors import FieldViolation, InvalidArgument, NotFound
from chassis.grpc_server import Service
from contracts.link import UserId, link_key
from contracts.reasons import Reason
from contracts.scopes import AUDIT_READ
from shortener.audit.v1 import audit_service_pb2 as audit_pb
from shortener.audit.v1 import audit_service_pb2_grpc as audit_grpc

_Context = grpc.aio.ServicerContext


class AuditServicer(audit_grpc.AuditServiceServicer):
    """Answers from the files and the index; never from the recorder's memory: a waiting process answers, too."""

    def __init__(self, *, topic: str, storage: LogStorage, open_log: OpenLog, index: EntryIndex) -> None:
        self._topic = topic
        self._storage = storage
        self._open_log = open_log
        self._index = index

    async def GetCheckpoint(  # noqa: N802 (a name of the contract)
        self,
        request: audit_pb.GetCheckpointRequest,
        _context: "_Context[audit_pb.GetCheckpointRequest, audit_pb.GetCheckpointResponse]",
    ) -> audit_pb.GetCheckpointResponse:
        """The newest signed checkpoint of a log."""
        principal_of(request.principal, AUDIT_READ)
        log = log_name(self._topic, request.partition)
        note = await self._storage.read(log, CHECKPOINT)
        if note is None:
            raise NotFound(Reason.LOG_NOT_FOUND.code, "There is no such log, or it has no checkpoint yet.")
        size = await self._open_log(log).size()
        return audit_pb.GetCheckpointResponse(checkpoint=note.decode(), size=size)

    async def ListEntries(  # noqa: N802 (a name of the contract)
        self,
        request: audit_pb.ListEntriesRequest,
        _context: "_Context[audit_pb.ListEntriesRequest, audit_pb.ListEntriesResponse]",
    ) -> audit_pb.ListEntriesResponse:
        """A page of the principal's own entries, each event once [O2]. A page may be short."""
        user_id = UserId(principal_of(request.principal, AUDIT_READ).user_id)
        limit = page_size_of(request.page_size)
        subject = f"code {request.short_code}" if request.short_code else f"account {user_id}"
        try:
            after = decode_token(request.page_token, subject)
        except BadTokenError as exc:
            raise InvalidArgument(
                Reason.INVALID_FIELD.code, f"{exc}.", fields=(FieldViolation("page_token", str(exc)),)
            ) from exc
        rows = await self._rows(request.short_code, user_id, limit=limit + 1, after=after)
        page = rows[:limit]
        # Where nothing is the principal's own, neither is the token: it tells of the last row.
        has_next = len(rows) > limit and bool(own(page, user_id))
        shown = [row for row in collapse(own(page, user_id), after) if not await self._was_shown(row, after)]
        return audit_pb.ListEntriesResponse(
            entries=await self._entries(shown),
            next_page_token=encode_token(cursor_after(subject, page, after)) if has_next else "",
        )

    async def _rows(self, code: str, user_id: UserId, *, limit: int, after: Cursor | None) -> Sequence[IndexRow]:
        if code:
            return await self._index.of_link(link_key(code), limit=limit, after=after)
        return await self._index.of_account(user_id, limit=limit, after=after)

    async def _was_shown(self, row: IndexRow, after: Cursor | None) -> bool:
        """Whether an earlier page of a link had the event; an account's repeats are neighbours, and collapsed."""
        by_link = after is not None and after.subject.startswith("code ")
        return by_link and may_repeat(row, after) and await self._index.has_earlier(row, row.event_id)

    async def _entries(self, rows: Sequence[IndexRow]) -> list[audit_pb.AuditEntry]:
        """The entries of rows, read from the tiles; those that no checkpoint covers yet are left out."""
        sizes: dict[int, int] = {}
        bundles: dict[tuple[int, int], tuple[bytes, ...]] = {}
        entries = []
        for row in rows:
            log = log_name(self._topic, row.partition)
            files = self._open_log(log)
            if row.partition not in sizes:
                sizes[row.partition] = await files.size()
            if row.leaf_index >= sizes[row.partition]:
                continue
            index, at = divmod(row.leaf_index, TILE_WIDTH)
            if (row.partition, index) not in bundles:
                bundles[row.partition, index] = await files.bundle(index, sizes[row.partition])
            try:
                entries.append(_entry(row, bundles[row.partition, index][at]))
            except CorruptError as exc:
                raise LogStoppedError(log, str(exc)) from exc
        return entries


def audit_service(servicer: AuditServicer) -> Service:
    """The service as a server takes it, with what each method demands."""
    return Service(
        descriptor=audit_pb.DESCRIPTOR.services_by_name["AuditService"],
        add=lambda server: audit_grpc.add_AuditServiceServicer_to_server(servicer, server),
        policies={"GetCheckpoint": AUDIT_READ, "ListEntries": AUDIT_READ},
    )


def _entry(row: IndexRow, entry: bytes) -> audit_pb.AuditEntry:
    leaf = decode_leaf(entry)
    if leaf.offset != row.offset:
        raise CorruptError(f"the index says that leaf {row.leaf_index} is of record {row.offset}, but it is not")
    return audit_pb.AuditEntry(
        leaf=leaf_to_message(leaf),
        leaf_index=row.leaf_index,
        short_code=row.short_code,
        version=row.version,
        user_id=row.user_id,
    )
