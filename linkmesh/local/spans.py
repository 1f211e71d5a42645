"""Spans: read from OTLP, written as Zipkin v2 JSON. Pure.

Zipkin keeps no links and no resource, so links become tags `link.0=<trace>/<span>`, and the other end of a call is
derived from the attributes that name it: then its dependency page shows service → kafka → service.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

_KINDS = {
    trace_pb2.Span.SPAN_KIND_SERVER: "SERVER",
    trace_pb2.Span.SPAN_KIND_CLIENT: "CLIENT",
    trace_pb2.Span.SPAN_KIND_PRODUCER: "PRODUCER",
    trace_pb2.Span.SPAN_KIND_CONSUMER: "CONSUMER",
}
# Whom a span talks to, most telling attribute first.
_REMOTE = ("peer.service", "messaging.system", "db.system.name")


@dataclass(frozen=True, slots=True)
class Span:
    """One finished span. Ids are hex, times nanoseconds since 1970; `kind` is empty for an internal one."""

    trace_id: str
    span_id: str
    parent_id: str
    service: str
    name: str
    kind: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, str]
    links: tuple[tuple[str, str], ...]
    error: str  # empty: it did not fail


def spans_of(request: ExportTraceServiceRequest) -> list[Span]:
    """Return the spans of an export request, in its order."""
    found = []
    for group in request.resource_spans:
        service = _attributes(group.resource.attributes).get("service.name", "unknown")
        found += [_span(span, service) for scope in group.scope_spans for span in scope.spans]
    return found


def zipkin_span(span: Span) -> dict[str, object]:
    """Return a span as Zipkin v2 JSON takes it (times in microseconds, a duration of at least one)."""
    tags = dict(span.attributes)
    tags |= {f"link.{number}": "/".join(link) for number, link in enumerate(span.links)}
    if span.error:
        tags["error"] = span.error
    written: dict[str, object] = {
        "traceId": span.trace_id,
        "id": span.span_id,
        "name": span.name,
        "timestamp": span.start_ns // 1000,
        "duration": max(1, (span.end_ns - span.start_ns) // 1000),
        "localEndpoint": {"serviceName": span.service},
        "tags": tags,
    }
    if span.parent_id:
        written["parentId"] = span.parent_id
    if span.kind:
        written["kind"] = span.kind
    remote = next((span.attributes[name] for name in _REMOTE if name in span.attributes), None)
    if remote and span.kind in ("CLIENT", "PRODUCER", "CONSUMER"):
        written["remoteEndpoint"] = {"serviceName": remote}
    return written


def _span(span: trace_pb2.Span, service: str) -> Span:
    failed = span.status.code == trace_pb2.Status.STATUS_CODE_ERROR
    attributes = _attributes(span.attributes)
    return Span(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        service=service,
        name=span.name,
        kind=_KINDS.get(span.kind, ""),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=attributes,
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        error=(span.status.message or attributes.get("error.type", "error")) if failed else "",
    )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, str]:
    return {pair.key: _text(pair.value) for pair in pairs}


def _text(value: AnyValue) -> str:
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value
        case "bool_value":
            return "true" if value.bool_value else "false"
        case "int_value":
            return str(value.int_value)
        case "double_value":
            return repr(value.double_value)
        case "bytes_value":
            return value.bytes_value.hex()
        case "array_value":
            return ",".join(_text(item) for item in value.array_value.values)
        case "kvlist_value":
            return ",".join(f"{pair.key}={_text(pair.value)}" for pair in value.kvlist_value.values)
    return ""
