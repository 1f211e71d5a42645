"""What happened to a link, hop by hop: its event rows keep the id of the trace that made them, Zipkin has the spans."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx

from chassis.dynamodb import dynamodb_errors, open_dynamodb
from contracts.link import link_key
from contracts.link_rows import Row
from contracts.tables import LINKS, link_pk
from linkmesh.local.errors import LocalError

_TIMEOUT_S = 5.0
_EVENTS_MAX = 100
_CLICK_TRACES_MAX = 5


@dataclass(frozen=True, slots=True)
class Hop:
    """One span, placed in its trace: `depth` below the root, `after_ms` behind the trace's begin."""

    depth: int
    service: str
    name: str
    kind: str
    after_ms: float
    duration_ms: float
    error: str


@dataclass(frozen=True, slots=True)
class LinkTrace:
    """One trace that has to do with a link. `what` is the event's type and version, or a click."""

    what: str
    at: str
    trace_id: str
    page: str
    hops: tuple[Hop, ...]


async def traces_of_link(*, dynamodb: str, zipkin: str, code: str, domain: str = "") -> list[LinkTrace]:
    """Return the traces of a link's events, oldest first, then those of its newest clicks.

    Raises:
        LocalError: Zipkin or the database does not answer.
        Unavailable: the database does not answer.
    """
    events = await _events(dynamodb, link_pk(link_key(code, domain)))
    async with httpx.AsyncClient(base_url=zipkin, timeout=_TIMEOUT_S, trust_env=False) as client:
        try:
            found = [
                _trace(zipkin, what, at, trace_id, await _spans(client, trace_id)) for what, at, trace_id in events
            ]
            query = {"annotationQuery": f"short_code={code}", "serviceName": "gateway", "limit": "50"}
            answer = await client.get("/api/v2/traces", params=query)
            known = {trace.trace_id for trace in found}
            clicks = [spans for spans in answer.json() if spans and spans[0]["traceId"] not in known]
        except (httpx.HTTPError, ValueError) as error:
            raise LocalError(f"Zipkin does not answer at {zipkin}: {error}", "linkmesh status") from error
    return found + [
        _trace(zipkin, "request", "", str(spans[0]["traceId"]), spans) for spans in clicks[:_CLICK_TRACES_MAX]
    ]


def place(spans: Sequence[Mapping[str, object]]) -> tuple[Hop, ...]:
    """Return a trace's spans (Zipkin v2 JSON) as a tree in reading order: parents before children, by begin."""
    ids = {str(span["id"]) for span in spans}
    children: dict[str, list[Mapping[str, object]]] = {}
    for span in sorted(spans, key=_begin):
        parent = str(span.get("parentId", ""))
        children.setdefault(parent if parent in ids else "", []).append(span)
    first = min((_begin(span) for span in spans), default=0)
    hops: list[Hop] = []
    waiting = [(span, 0) for span in reversed(children.get("", []))]
    while waiting:
        span, depth = waiting.pop()
        hops.append(_hop(span, depth, first))
        waiting += [(child, depth + 1) for child in reversed(children.get(str(span["id"]), []))]
    return tuple(hops)


async def _events(endpoint: str, pk: str) -> list[tuple[str, str, str]]:
    """Return type and version, time and trace id of each event row."""
    async with asyncio.timeout(_TIMEOUT_S), open_dynamodb(endpoint) as client:
        with dynamodb_errors():
            answer = await client.query(
                TableName=LINKS.name,
                KeyConditionExpression="pk = :pk AND begins_with(sk, :e)",
                ExpressionAttributeValues={":pk": {"S": pk}, ":e": {"S": "E#"}},
                Limit=_EVENTS_MAX,
            )
    return [(_what(row), row["at"]["S"], row["trace_id"].get("S", "")) for row in answer["Items"]]


def _what(row: Row) -> str:
    kind = row["type"]["S"].removeprefix("shortener.events.v1.")
    return f"{kind} (version {int(row['sk']['S'].removeprefix('E#'))})"


async def _spans(client: httpx.AsyncClient, trace_id: str) -> list[Mapping[str, object]]:
    if not trace_id:
        return []
    answer = await client.get(f"/api/v2/trace/{trace_id}")
    spans: list[Mapping[str, object]] = answer.json() if answer.status_code == 200 else []
    return spans


def _trace(zipkin: str, what: str, at: str, trace_id: str, spans: Sequence[Mapping[str, object]]) -> LinkTrace:
    page = f"{zipkin}/zipkin/traces/{trace_id}" if trace_id else ""
    return LinkTrace(what, at, trace_id, page, place(spans))


def _hop(span: Mapping[str, object], depth: int, first: int) -> Hop:
    endpoint, tags, duration = span.get("localEndpoint"), span.get("tags"), span.get("duration")
    return Hop(
        depth=depth,
        service=str(endpoint.get("serviceName", "")) if isinstance(endpoint, dict) else "",
        name=str(span.get("name", "")),
        kind=str(span.get("kind", "")),
        after_ms=(_begin(span) - first) / 1000,
        duration_ms=duration / 1000 if isinstance(duration, int) else 0.0,
        error=str(tags.get("error", "")) if isinstance(tags, dict) else "",
    )


def _begin(span: Mapping[str, object]) -> int:
    value = span.get("timestamp")
    return value if isinstance(value, int) else 0
