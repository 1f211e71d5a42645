"""How an error is told over HTTP: RFC 9457 problem details, one form for every error everywhere."""

from dataclasses import dataclass
from math import ceil

from contracts.reasons import Reason

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """A field of the request and what is wrong with it."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as its reader sees it. `detail` may be empty: the title says it all then."""

    reason: Reason
    detail: str = ""
    errors: tuple[FieldProblem, ...] = ()
    retry_after_s: float | None = None
    allow: tuple[str, ...] = ()  # the methods that would have been right, with 405


def body_of(problem: Problem, trace_id: str) -> dict[str, object]:
    """The members of the problem document; `type` is a name, not an address, and as stable as `code`."""
    reason = problem.reason
    return {
        "type": f"urn:linkmesh:problem:{reason.code}",
        "title": reason.title,
        "status": reason.http_status,
        "detail": problem.detail or f"{reason.title}.",
        "code": reason.code,
        "errors": [{"field": item.field, "description": item.description} for item in problem.errors],
        "trace_id": trace_id,
    }


def headers_of(problem: Problem) -> list[tuple[bytes, bytes]]:
    """The headers that belong to an error: how to authenticate, which methods are allowed, when to come again."""
    headers = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
    if problem.reason is Reason.UNAUTHENTICATED:
        headers.append((b"www-authenticate", b'Bearer realm="linkmesh"'))
    if problem.allow:
        headers.append((b"allow", ", ".join(problem.allow).encode()))
    retry_after_s = problem.retry_after_s
    if retry_after_s is None and problem.reason is Reason.UNAVAILABLE:
        retry_after_s = 1.0  # what is away is looked for each second
    if retry_after_s is not None:
        headers.append((b"retry-after", str(max(1, ceil(retry_after_s))).encode()))
    return headers
