"""Spans of one test alone, kept in memory."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased

from chassis import telemetry


class Spans:
    """What was finished."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=ParentBased(ALWAYS_ON), shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def finished(self) -> Sequence[ReadableSpan]:
        """The spans that have ended, in order."""
        return self._exporter.get_finished_spans()


@contextmanager
def spans_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    """The process-wide provider can be set once only, so the module's tracer is swapped."""
    collected = Spans()
    monkeypatch.setattr(telemetry, "_tracer", collected.provider.get_tracer("linkmesh"))
    yield collected
    collected.provider.shutdown()


def traceparent_of(span: ReadableSpan) -> str:
    """The traceparent that names a span."""
    assert span.context is not None
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{span.context.trace_flags:02x}"


def parent_of(span: ReadableSpan) -> str:
    """The id of its parent, 16 hex digits; empty for a root."""
    return f"{span.parent.span_id:016x}" if span.parent else ""
