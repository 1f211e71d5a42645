"""LinkAdminService: what operators do to the links of all accounts."""

from chassis.auth import Access, principal_of
from contracts.link import LinkKey
from contracts.scopes import OPERATE
from link_service.handlers.rebuilding import Rebuilding
from link_service.handlers.refusals import invalid_field
from link_service.ports import BadCursorError
from shortener.link.v1 import link_admin_service_pb2 as pb
from shortener.link.v1 import link_admin_service_pb2_grpc as pb_grpc

POLICIES: dict[str, str | Access] = {"RebuildLinks": OPERATE}
_ROWS, _ROWS_MAX = 50, 100


class LinkAdminHandlers(pb_grpc.LinkAdminServiceServicer):
    """The RPCs of LinkAdminService."""

    def __init__(self, rebuilding: Rebuilding) -> None:
        self._rebuilding = rebuilding

    async def RebuildLinks(self, request: pb.RebuildLinksRequest, _context: object) -> pb.RebuildLinksResponse:  # noqa: N802 (named by the proto)
        """Repairs the projections of a page of links."""
        principal_of(request.principal, OPERATE)
        rows = min(request.page_size, _ROWS_MAX) if request.page_size > 0 else _ROWS
        try:
            page = await self._rebuilding.page(request.page_token, rows=rows)
        except BadCursorError as exc:
            raise invalid_field("page_token", "This is no token of a page before.") from exc
        failures = []
        for failed in page.failures:
            short_code, domain = _name_of(failed.key)
            reason, message = failed.error.reason.upper(), failed.error.message
            failures.append(pb.RebuildFailure(short_code=short_code, domain=domain, reason=reason, message=message))
        return pb.RebuildLinksResponse(
            rebuilt=page.rebuilt, unchanged=page.unchanged, failures=failures, next_page_token=page.cursor
        )


def _name_of(key: LinkKey) -> tuple[str, str]:
    """Code and domain of a link key."""
    domain, slash, short_code = key.rpartition("/")
    return (short_code, domain) if slash else (key, "")
