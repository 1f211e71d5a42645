"""Spans around sending and processing, such that create → broker → consumer is one trace with an edge each.

Names and attributes follow the OpenTelemetry semantic conventions 1.44 for messaging; keys are never attributes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from opentelemetry import trace
from opentelemetry.trace import Link, Span, SpanKind, StatusCode

from chassis import telemetry
from chassis.kafka.codec import TRACEPARENT, with_traceparent
from chassis.kafka.record import Message, Record

SPANS_PER_BATCH_MAX = 32
_tracer = trace.get_tracer("linkmesh")


def _attributes(operation: str, topic: str) -> dict[str, str | int]:
    return {
        "messaging.system": "kafka",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": topic,
        "peer.service": "kafka",
    }


def start_sends(messages: Sequence[Message]) -> tuple[Sequence[Message], Sequence[Span | None]]:
    """Open a `send <topic>` span for each message whose `traceparent` is sampled, and put its own context in there.

    Returns the messages to send and, at the same places, the spans to end by `end_sends`.
    """
    sent: list[Message] = []
    spans: list[Span | None] = []
    for message in messages:
        parent = _sampled(message.headers)
        if parent is None:
            sent.append(message)
            spans.append(None)
            continue
        span = _start("send", message.topic, SpanKind.PRODUCER, parent)
        own = telemetry.traceparent_of(span) or parent
        sent.append(message._replace(headers=with_traceparent(message.headers, own)))
        spans.append(span)
    return sent, spans


def end_sends(spans: Sequence[Span | None], acknowledged: int) -> None:
    """End the spans; those behind the acknowledged ones have failed."""
    for place, span in enumerate(spans):
        if span is not None:
            _end(span, failed=place >= acknowledged)


@contextmanager
def processing(records: Sequence[Record], group: str) -> Iterator[Sequence[Record]]:
    """`process <topic>` spans around a handler call: one per record with a sampled `traceparent`, as its child.

    Yields the records with the span's context as their `traceparent`. A single record's span is current inside. Of a
    batch the first 32 have spans of their own and none is current; the others are linked from one more span.
    """
    handed: list[Record] = []
    spans: list[Span] = []
    rest: list[tuple[int, str]] = []
    for place, record in enumerate(records):
        parent = _sampled(record.headers)
        handed.append(record)
        if parent is None:
            continue
        if len(spans) == SPANS_PER_BATCH_MAX:
            rest.append((place, parent))
            continue
        span = _start("process", record.topic, SpanKind.CONSUMER, parent, group)
        spans.append(span)
        handed[place] = _under(record, span, parent)
    if rest:
        spans.append(_start_linked(records[rest[0][0]].topic, [parent for _, parent in rest], group))
    failed = True
    try:
        if len(records) == 1 and spans:
            with trace.use_span(spans[0], record_exception=False, set_status_on_exception=False):
                yield handed
        else:
            yield handed
        failed = False
    finally:
        for span in spans:
            _end(span, failed=failed)


def _sampled(headers: Sequence[tuple[str, bytes]]) -> str | None:
    for name, value in reversed(headers):
        if name == TRACEPARENT:
            parent = value.decode("ascii", "replace")
            return parent if telemetry.is_sampled(parent) else None
    return None


def _under(record: Record, span: Span, parent: str) -> Record:
    return replace(record, headers=with_traceparent(record.headers, telemetry.traceparent_of(span) or parent))


def _start(operation: str, topic: str, kind: SpanKind, parent: str, group: str | None = None) -> Span:
    attributes = _attributes(operation, topic)
    if group is not None:
        attributes["messaging.consumer.group.name"] = group
    return _tracer.start_span(f"{operation} {topic}", telemetry.context_of(parent), kind, attributes)


def _start_linked(topic: str, parents: Sequence[str], group: str) -> Span:
    links = [Link(other) for parent in parents if (other := telemetry.parse_traceparent(parent)) is not None]
    attributes = _attributes("process", topic)
    attributes.update({"messaging.consumer.group.name": group, "messaging.batch.message_count": len(parents)})
    context = trace.set_span_in_context(trace.NonRecordingSpan(links[0].context))
    return _tracer.start_span(f"process {topic}", context, SpanKind.CONSUMER, attributes, links)


def _end(span: Span, *, failed: bool) -> None:
    if failed:
        span.set_status(StatusCode.ERROR)
    span.end()
