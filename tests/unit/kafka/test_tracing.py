"""Spans of sending and processing: one trace from the sender to each handler, with an edge at every hop."""

from collections.abc import Iterator, Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from chassis import telemetry
from chassis.kafka import tracing
from chassis.kafka.record import Message, Record

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SAMPLED = f"00-{TRACE}-00f067aa0ba902b7-01"
UNSAMPLED = f"00-{TRACE}-00f067aa0ba902b7-00"


class Spans:
    """What was finished."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def finished(self) -> Sequence[ReadableSpan]:
        """The spans that have ended, in order."""
        return self._exporter.get_finished_spans()


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    """Spans of this test alone: the process-wide provider can be set once only, so the module's tracer is swapped."""
    collected = Spans()
    monkeypatch.setattr(tracing, "_tracer", collected.provider.get_tracer("linkmesh"))
    yield collected
    collected.provider.shutdown()


def record(number: int, traceparent: str | None) -> Record:
    """A record, with a trace or without."""
    headers = (("ce_id", b"1"),) if traceparent is None else (("ce_id", b"1"), ("traceparent", traceparent.encode()))
    return Record("t", 0, number, 0, b"secret-key", b"", headers)


def id_of(span: ReadableSpan) -> int:
    """The span's id."""
    assert span.context is not None
    return int(span.context.span_id)


def test_a_send_is_a_child_of_its_message_and_the_parent_of_its_record(spans: Spans) -> None:
    """The message leaves with the send span's context, which is a child of the context it came with."""
    messages = [Message("t", b"k", b"v", (("traceparent", SAMPLED.encode()),)), Message("t", b"k", b"v")]

    sent, opened = tracing.start_sends(messages)
    tracing.end_sends(opened, acknowledged=2)

    (span,) = spans.finished()
    assert (span.name, span.kind) == ("send t", SpanKind.PRODUCER)
    assert span.parent is not None
    assert span.parent.span_id == 0x00F067AA0BA902B7
    ((name, value),) = sent[0].headers
    assert (name, value[:-2]) == ("traceparent", f"00-{TRACE}-{id_of(span):016x}-".encode())
    assert telemetry.is_sampled(value.decode())
    assert sent[1] is messages[1]
    attributes = dict(span.attributes or {})
    assert attributes["messaging.system"] == "kafka"
    assert attributes["messaging.destination.name"] == "t"
    assert attributes["peer.service"] == "kafka"


def test_what_was_not_acknowledged_has_failed(spans: Spans) -> None:
    """Spans behind the last acknowledged message end as errors."""
    messages = [Message("t", b"k", b"v", (("traceparent", SAMPLED.encode()),)) for _ in range(3)]

    _, opened = tracing.start_sends(messages)
    tracing.end_sends(opened, acknowledged=1)

    assert [span.status.status_code for span in spans.finished()] == [
        StatusCode.UNSET, StatusCode.ERROR, StatusCode.ERROR,
    ]  # fmt: skip


def test_a_single_records_span_is_current(spans: Spans) -> None:
    """With one record what the handler does hangs under its process span."""
    with tracing.processing([record(0, SAMPLED)], "g") as handed:
        current = telemetry.current_traceparent()

    (span,) = spans.finished()
    assert (span.name, span.kind) == ("process t", SpanKind.CONSUMER)
    assert current is not None
    assert f"{id_of(span):016x}" in current
    assert handed[0].header("traceparent") == current
    assert span.attributes is not None
    assert span.attributes["messaging.consumer.group.name"] == "g"


def test_of_a_batch_each_record_has_its_own_child_span_and_none_is_current(spans: Spans) -> None:
    """Every sampled record continues its own trace, told by its header; unsampled ones cost nothing."""
    before = telemetry.current_traceparent()
    with tracing.processing(
        [record(0, SAMPLED), record(1, None), record(2, UNSAMPLED), record(3, SAMPLED)], "g"
    ) as handed:
        inside = telemetry.current_traceparent()

    finished = spans.finished()
    assert len(finished) == 2
    assert inside == before
    for span, of in zip(finished, (handed[0], handed[3]), strict=True):
        assert f"{id_of(span):016x}" in (of.header("traceparent") or "")
    assert handed[1] == record(1, None)
    assert handed[2] == record(2, UNSAMPLED)


def test_spans_of_a_batch_are_bounded_and_the_rest_is_linked(spans: Spans) -> None:
    """Of 50 sampled records 32 have spans of their own; one more span links the other 18."""
    with tracing.processing([record(n, SAMPLED) for n in range(50)], "g"):
        pass

    finished = spans.finished()
    assert len(finished) == 33
    assert sorted(len(span.links) for span in finished)[-1] == 18


def test_a_failed_call_marks_its_spans_and_keys_are_never_attributes(spans: Spans) -> None:
    """An exception ends the spans as errors; neither its text nor the record's key is told."""
    with pytest.raises(KeyError), tracing.processing([record(0, SAMPLED)], "g"):
        raise KeyError("secret")

    (span,) = spans.finished()
    assert span.status.status_code is StatusCode.ERROR
    assert "secret" not in str(span.to_json())
