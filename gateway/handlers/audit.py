"""/api/audit: the provable record."""

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse

from chassis.auth import Principal, principal_to_message
from gateway.handlers.access import Authenticated
from gateway.handlers.models import AuditEntryList, CheckpointBody
from gateway.handlers.shapes import audit_entry_json
from shortener.audit.v1 import audit_service_pb2 as pb

if TYPE_CHECKING:  # these classes exist for type checkers only
    from shortener.audit.v1.audit_service_pb2_grpc import AuditServiceAsyncStub

READ_TIMEOUT_S = 1.0
_PARTITION_MAX = 1023


def audit_router(*, audit: "AuditServiceAsyncStub", authenticated: Authenticated) -> APIRouter:
    """The routes of the audit log."""
    router = APIRouter(prefix="/api/audit", tags=["audit"])

    @router.get("/entries", response_model=AuditEntryList, summary="What was recorded about a code or the account")
    async def entries(
        short_code: Annotated[str, Query(max_length=64)] = "",
        page_size: Annotated[int, Query(ge=1, le=100)] = 50,
        page_token: Annotated[str, Query(max_length=2048)] = "",
        principal: Principal = authenticated,
    ) -> Response:
        """Of a code: oldest first; of the account: newest first. Entries of other accounts are left out."""
        request = pb.ListEntriesRequest(
            principal=principal_to_message(principal),
            short_code=short_code,
            page_size=page_size,
            page_token=page_token,
        )
        response = await audit.ListEntries(request, timeout=READ_TIMEOUT_S)
        items = [audit_entry_json(item) for item in response.entries]
        return JSONResponse({"items": items, "next_page_token": response.next_page_token})

    @router.get("/checkpoint", response_model=CheckpointBody, summary="The newest signed checkpoint of a log")
    async def checkpoint(
        partition: Annotated[int, Query(ge=0, le=_PARTITION_MAX)] = 0, principal: Principal = authenticated
    ) -> Response:
        """One log for each partition of links-events."""
        request = pb.GetCheckpointRequest(principal=principal_to_message(principal), partition=partition)
        response = await audit.GetCheckpoint(request, timeout=READ_TIMEOUT_S)
        return JSONResponse({"partition": partition, "size": response.size, "checkpoint": response.checkpoint})

    return router
