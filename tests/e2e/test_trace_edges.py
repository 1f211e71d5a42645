"""One trace over all processes: the edges that must be there, no orphans, nothing that identifies a person."""

import re
import time
from typing import NamedTuple

import httpx
import pytest

from linkmesh.local.spans import Span
from tests.e2e.receiver import receiving
from tests.e2e.waiting import eventually
from tests.system import RunningSystem

LINK_SERVICE = "shortener.link.v1.LinkService"


class Edge(NamedTuple):
    """A span and the one that it was made under: (service, name) each; no parent for the root."""

    service: str
    name: str
    parent_service: str | None
    parent_name: str | None


CREATE = [
    Edge("gateway", "POST /api/links", None, None),
    Edge("gateway", f"{LINK_SERVICE}/CreateLink", "gateway", "POST /api/links"),
    Edge("link_service", f"{LINK_SERVICE}/CreateLink", "gateway", f"{LINK_SERVICE}/CreateLink"),
    Edge("link_service", "send links-events", "link_service", f"{LINK_SERVICE}/CreateLink"),
    Edge("writer", "process links-events", "link_service", "send links-events"),
    Edge("webhook", "process links-events", "link_service", "send links-events"),
    Edge("audit", "process links-events", "link_service", "send links-events"),
    Edge("webhook", "POST webhook", "webhook", "process links-events"),
]
REDIRECT = [
    Edge("gateway", "GET /{code}", None, None),
    Edge("gateway", "send analytics-events", "gateway", "GET /{code}"),
    Edge("analytics", "process analytics-events", "gateway", "send analytics-events"),
]
FORBIDDEN = re.compile(r"://|lk_live_|whsec_|\b\d+\.\d+\.\d+\.\d+\b|example\.org|Mozilla")


def edges_of(spans: list[Span]) -> set[Edge]:
    """The edges of a trace. A span whose parent is in no trace is an orphan, and fails."""
    by_id = {span.span_id: span for span in spans}
    edges = set()
    for span in spans:
        parent = by_id.get(span.parent_id)
        assert parent is not None or not span.parent_id, f"orphan: {span.service} {span.name}"
        edges.add(Edge(span.service, span.name, *((parent.service, parent.name) if parent else (None, None))))
    return edges


def complete(system: RunningSystem, root: str, since_ns: int, expected: list[Edge]) -> list[Span] | None:
    """The spans of a trace with that root, begun since then, that has every expected edge; None while there is none."""
    for span in reversed(system.collector.spans):
        if span.name != root or span.parent_id or span.start_ns < since_ns:
            continue
        spans = system.collector.trace(span.trace_id)
        known = {item.span_id for item in spans}
        if all(not item.parent_id or item.parent_id in known for item in spans) and set(expected) <= edges_of(spans):
            return spans
    return None


@pytest.mark.parametrize(("root", "expected"), [("POST /api/links", CREATE), ("GET /{code}", REDIRECT)])
def test_one_trace_from_the_request_to_the_last_consumer(
    system: RunningSystem, root: str, expected: list[Edge]
) -> None:
    """Every edge of the table is in one trace, no span hangs in the air, and no attribute tells too much."""
    headers = {"authorization": f"Bearer {system.api_key}"}
    since_ns = time.time_ns()
    with receiving() as receiver, httpx.Client(base_url=system.gateway, headers=headers, trust_env=False) as client:
        hook = client.post("/api/webhooks", json={"url": receiver.url}).raise_for_status().json()
        code = (
            client.post("/api/links", json={"long_url": "https://example.org/"}).raise_for_status().json()["short_code"]
        )
        assert client.get(f"/{code}", headers={"user-agent": "Mozilla/5.0"}).status_code == 302

        spans = eventually(lambda: complete(system, root, since_ns, expected))

        client.delete(f"/api/webhooks/{hook['endpoint_id']}").raise_for_status()
    assert edges_of(spans) >= set(expected)
    if root == "POST /api/links":
        told = [
            item
            for item in receiver.requests
            if item.headers.get("traceparent", "").startswith(f"00-{spans[0].trace_id}")
        ]
        assert told, "the webhook request belongs to the trace"
    for span in system.collector.spans:
        for name, value in span.attributes.items():
            assert not FORBIDDEN.search(value), f"{span.service} {span.name}: {name}={value}"


def test_the_trace_store_shows_it(system: RunningSystem) -> None:
    """The trace that the demo redirect made is in Zipkin, and its dependency graph has all six processes and Kafka."""
    zipkin = system.address("zipkin")
    wanted = {"gateway", "link_service", "writer", "analytics", "webhook", "audit"}

    def services() -> bool:
        return wanted <= set(httpx.get(f"{zipkin}/api/v2/services", trust_env=False).json())

    eventually(services)
