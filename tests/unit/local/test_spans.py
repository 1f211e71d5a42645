"""OTLP in, Zipkin v2 JSON out."""

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Status
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

from linkmesh.local.otlp_bridge import Collector
from linkmesh.local.spans import Span, spans_of, zipkin_span


def request_of(span: OtlpSpan, service: str = "writer") -> ExportTraceServiceRequest:
    resource = Resource(attributes=[KeyValue(key="service.name", value=AnyValue(string_value=service))])
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(resource=resource, scope_spans=[ScopeSpans(spans=[span])])]
    )


def otlp_span(**fields: object) -> OtlpSpan:
    span = OtlpSpan(
        trace_id=bytes(range(16)),
        span_id=bytes(range(8)),
        name="process links-events",
        kind=OtlpSpan.SPAN_KIND_CONSUMER,
        start_time_unix_nano=5_000_000,
        end_time_unix_nano=9_000_500,
    )
    for name, value in fields.items():
        setattr(span, name, value)
    return span


def test_a_span_keeps_its_ids_times_and_service() -> None:
    """Ids become hex, nanoseconds microseconds, the resource's service the local endpoint."""
    [span] = spans_of(request_of(otlp_span(parent_span_id=b"\x01" * 8)))

    written = zipkin_span(span)

    assert written["traceId"] == "000102030405060708090a0b0c0d0e0f"
    assert (written["id"], written["parentId"]) == ("0001020304050607", "01" * 8)
    assert (written["timestamp"], written["duration"]) == (5000, 4000)
    assert written["localEndpoint"] == {"serviceName": "writer"}
    assert written["kind"] == "CONSUMER"


def test_a_root_span_has_no_parent_and_a_moment_lasts_a_microsecond() -> None:
    """Zipkin refuses an empty parent and a zero duration."""
    [span] = spans_of(request_of(otlp_span(end_time_unix_nano=5_000_000, kind=OtlpSpan.SPAN_KIND_INTERNAL)))

    written = zipkin_span(span)

    assert "parentId" not in written
    assert "kind" not in written
    assert written["duration"] == 1


@pytest.mark.parametrize(
    ("attributes", "kind", "remote"),
    [
        ({"messaging.system": "kafka"}, OtlpSpan.SPAN_KIND_CONSUMER, "kafka"),
        ({"messaging.system": "kafka", "peer.service": "kafka-eu"}, OtlpSpan.SPAN_KIND_PRODUCER, "kafka-eu"),
        ({"db.system.name": "redis"}, OtlpSpan.SPAN_KIND_CLIENT, "redis"),
        ({"db.system.name": "redis"}, OtlpSpan.SPAN_KIND_INTERNAL, None),
        ({}, OtlpSpan.SPAN_KIND_CLIENT, None),
    ],
)
def test_the_other_end_is_named_for_the_dependency_page(
    attributes: dict[str, str], kind: "OtlpSpan.SpanKind", remote: str | None
) -> None:
    """peer.service before messaging.system before db.system.name, and only for spans that cross a boundary."""
    otlp = otlp_span(kind=kind)
    otlp.attributes.extend(KeyValue(key=k, value=AnyValue(string_value=v)) for k, v in attributes.items())

    written = zipkin_span(spans_of(request_of(otlp))[0])

    assert written.get("remoteEndpoint") == ({"serviceName": remote} if remote else None)


def test_links_errors_and_values_become_tags() -> None:
    """What Zipkin has no field for is kept as text."""
    otlp = otlp_span()
    otlp.status.code = Status.STATUS_CODE_ERROR
    otlp.links.add(trace_id=b"\x0a" * 16, span_id=b"\x0b" * 8)
    values = {
        "n": AnyValue(int_value=3),
        "b": AnyValue(bool_value=True),
        "f": AnyValue(double_value=0.5),
        "l": AnyValue(array_value=ArrayValue(values=[AnyValue(int_value=1), AnyValue(string_value="x")])),
        "error.type": AnyValue(string_value="Unavailable"),
    }
    otlp.attributes.extend(KeyValue(key=k, value=v) for k, v in values.items())

    tags = zipkin_span(spans_of(request_of(otlp))[0])["tags"]

    assert tags == {
        "n": "3",
        "b": "true",
        "f": "0.5",
        "l": "1,x",
        "error.type": "Unavailable",
        "error": "Unavailable",
        "link.0": f"{'0a' * 16}/{'0b' * 8}",
    }


def span(number: int) -> Span:
    return Span(f"{number:032x}", f"{number:016x}", "", "s", "n", "", 0, 1, {}, (), "")


@pytest.mark.rule("P8")
def test_a_full_line_drops_the_oldest_and_counts_them() -> None:
    """P8: a trace store that is away costs spans, counted, and never memory."""
    collector = Collector(kept_max=4, waiting_max=3)

    collector.add([span(n) for n in range(5)])

    assert [s.span_id for s in collector.next_batch()] == [span(n).span_id for n in (2, 3, 4)]
    assert (collector.received, collector.dropped) == (5, 2)
    assert len(collector.spans) == 4


@pytest.mark.rule("P8")
def test_a_refused_batch_returns_to_the_head_as_far_as_there_is_room() -> None:
    """P8: what Zipkin refused is tried again before newer spans, within the bound."""
    collector = Collector(waiting_max=3)
    collector.add([span(1), span(2)])
    batch = collector.next_batch()
    collector.add([span(3), span(4)])

    collector.put_back(batch)

    assert [s.span_id for s in collector.next_batch()] == [span(n).span_id for n in (2, 3, 4)]
    assert collector.dropped == 1
