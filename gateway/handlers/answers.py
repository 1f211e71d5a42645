"""An HTTP answer as a value, and how an error becomes one."""

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass

from chassis.errors import ServiceError
from chassis.http_server import Scope, Send
from contracts.reasons import Reason, reason_of
from gateway.domain.problems import MEDIA_TYPE, FieldProblem, Problem, body_of, headers_of
from gateway.ports import SHORTCUTS, Shortcuts

_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:34rem;
margin:20vh auto 0;padding:0 1rem}}small{{color:#666}}</style></head>
<body><h1>{title}</h1><p>{detail}</p><p><small>{status} · {code} · {trace_id}</small></p></body></html>
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers and the whole body."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes = b""


async def send_answer(send: Send, answer: Answer, scope: Scope | None = None) -> None:
    """Writes an answer; by the shortcut of the request's scope, if there is one."""
    shortcuts: Shortcuts | None = scope.get(SHORTCUTS) if scope is not None and scope["method"] != "HEAD" else None
    if shortcuts is not None and shortcuts.answer(answer.status, answer.headers, answer.body):
        return
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": answer.body})


def content(status: int, media_type: str, body: bytes, *headers: tuple[bytes, bytes]) -> Answer:
    """An answer with a body."""
    return Answer(status, [*_about(media_type, body), *headers], body)


def problem_of(error: ServiceError) -> Problem:
    """The problem that a service's error is to an HTTP client."""
    return Problem(
        reason_of(error.reason),
        error.message,
        tuple(FieldProblem(item.field, item.description) for item in error.fields),
        error.retry_after_s,
    )


def problem_answer(problem: Problem, trace_id: str) -> Answer:
    """A problem as problem+json."""
    body = json.dumps(body_of(problem, trace_id)).encode()
    return Answer(problem.reason.http_status, [*_about(MEDIA_TYPE, body), *headers_of(problem)], body)


def problem_page(problem: Problem, trace_id: str) -> Answer:
    """A problem as a page of its own for a person with a browser."""
    members = {name: html.escape(str(value)) for name, value in body_of(problem, trace_id).items()}
    body = _PAGE.format(**members).encode()
    headers = [
        *_about("text/html; charset=utf-8", body),
        *headers_of(problem),
        (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'"),
        (b"x-robots-tag", b"noindex"),
    ]
    return Answer(problem.reason.http_status, headers, body)


def header(scope: Scope, name: bytes) -> str:
    """The value of a request's header, its lines joined by commas; empty without it."""
    values = [value for key, value in scope["headers"] if key == name]
    return b", ".join(values).decode("latin-1") if values else ""


def prefers_html(scope: Scope) -> bool:
    """Whether the client is a browser, as far as it says."""
    return "text/html" in header(scope, b"accept")


INTERNAL = Problem(Reason.INTERNAL)


def _about(media_type: str, body: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", media_type.encode()), (b"content-length", str(len(body)).encode())]
