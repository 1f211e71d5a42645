"""Traces, and how a trace crosses a process boundary (W3C Trace Context). It never blocks and never grows [P8].

Span and attribute names follow the OpenTelemetry semantic conventions 1.44; no URL, key or address is an attribute.
"""

import contextlib
import random
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from urllib.parse import urljoin

from opentelemetry import trace
from opentelemetry.context import Context, attach, create_key, detach, get_value, set_value
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import Link as SpanLink
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, TraceFlags, TraceState
from opentelemetry.util.types import Attributes as OtelAttributes

from chassis.config import ProcessConfig
from chassis.logs import start_logs

Attributes = Mapping[str, str | int | float | bool]
_QUEUE_SPANS_MAX = 4096  # about 4 MB; more are dropped
_EXPORT_TIMEOUT_S = 2
_FLUSH_TIMEOUT_S = 3.0  # at the end; grace and this together stay below Kubernetes' 30 s
_tracer = trace.get_tracer("linkmesh")
_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_KEPT = create_key("linkmesh-kept")


@contextlib.contextmanager
def start_telemetry(service: str, settings: ProcessConfig) -> Iterator[None]:
    """Starts logs and traces of this process; flushes what is left on the way out, for at most a few seconds."""
    start_logs(service, current_trace_id)
    if not settings.otlp_endpoint:
        yield
        return
    with open_provider(service, settings) as provider:
        trace.set_tracer_provider(provider)
        yield


@contextlib.contextmanager
def open_provider(service: str, settings: ProcessConfig) -> Iterator[TracerProvider]:
    """What sends this process' spans to its receiver; leaving flushes for at most _FLUSH_TIMEOUT_S seconds."""
    ratio = keep_ratio(settings)
    resource = Resource.create({"service.name": service, "service.instance.id": settings.instance})
    provider = TracerProvider(resource=resource, sampler=ParentBased(_RootSampler(ratio)), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(urljoin(settings.otlp_endpoint, "/v1/traces"), timeout=_EXPORT_TIMEOUT_S)
    provider.add_span_processor(
        BatchSpanProcessor(
            exporter, max_queue_size=_QUEUE_SPANS_MAX, schedule_delay_millis=500, max_export_batch_size=512
        )
    )
    try:
        yield provider
    finally:
        # Its own shutdown waits for each batch in turn: 16 s for a full queue and a receiver that hangs.
        ending = threading.Thread(target=provider.shutdown, name="telemetry-end", daemon=True)
        ending.start()
        ending.join(_FLUSH_TIMEOUT_S)
        if ending.is_alive():
            # What is still queued fails at once; the threads would go on trying, in somebody else's time.
            exporter.shutdown()  # type: ignore[no-untyped-call]  # the library forgot


def keep_ratio(settings: ProcessConfig) -> float:
    """The share of new traces that are kept, 0 … 1: all in development, none without a receiver."""
    if not settings.otlp_endpoint:
        return 0.0
    return 1.0 if settings.environment == "development" else settings.trace_ratio


def start_trace(
    name: str,
    kind: SpanKind = SpanKind.SERVER,
    *,
    keep_ratio: float,
    links: Sequence[str] = (),
    attributes: Attributes | None = None,
) -> contextlib.AbstractContextManager[Span]:
    """The first span of a new trace around a block, current inside, whatever was current before.

    Whether the trace is kept (`keep_ratio`, 0 … 1) is decided first: one that is not gets ids to pass on and to show
    in errors, but no span is built, which is most of what an unsampled span costs.
    """
    if random.random() >= keep_ratio:  # noqa: S311 (chance, no secret)
        return _UnkeptTrace()
    return _kept_trace(name, kind, links, attributes)


class _UnkeptTrace:
    """Ids that are current inside the block; every request that is not kept pays for this."""

    __slots__ = ("_token",)

    def __enter__(self) -> Span:
        ids = SpanContext(random.getrandbits(128) or 1, random.getrandbits(64) or 1, is_remote=False)
        unkept = NonRecordingSpan(ids)
        self._token = attach(trace.set_span_in_context(unkept))
        return unkept

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        detach(self._token)


@contextlib.contextmanager
def _kept_trace(name: str, kind: SpanKind, links: Sequence[str], attributes: Attributes | None) -> Iterator[Span]:
    others = [SpanLink(other) for link in links if (other := parse_traceparent(link)) is not None]
    with _tracer.start_as_current_span(
        name,
        set_value(_KEPT, True, Context()),  # noqa: FBT003 (the library's own signature)
        kind,
        attributes,
        others,
        record_exception=False,
        set_status_on_exception=False,
    ) as current:
        try:
            yield current
        except Exception as exc:
            current.set_status(StatusCode.ERROR)
            current.set_attribute("error.type", type(exc).__name__)
            raise


@contextlib.contextmanager
def span(
    name: str,
    kind: SpanKind = SpanKind.INTERNAL,
    *,
    parent: str | None = None,
    links: Sequence[str] = (),
    attributes: Attributes | None = None,
) -> Iterator[Span]:
    """A span around a block, current inside it. `parent` and `links` are traceparents; no parent: the current span.

    An exception that leaves the block marks the span as failed by its type; its text is not recorded.
    """
    context = context_of(parent)
    others = [SpanLink(other) for link in links if (other := parse_traceparent(link)) is not None]
    with _tracer.start_as_current_span(
        name, context, kind, attributes, others, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield current
        except Exception as exc:
            current.set_status(StatusCode.ERROR)
            current.set_attribute("error.type", type(exc).__name__)
            raise


def begin_span(
    name: str, kind: SpanKind = SpanKind.INTERNAL, *, parent: str | None, attributes: Attributes | None = None
) -> Span | None:
    """A span of a kept trace, for one of many things done together: it is not current, and its owner calls `end()`.

    None where the trace is not kept: there is nothing to tell then, and the parent itself is what is passed on.
    """
    if not is_sampled(parent):
        return None
    return _tracer.start_span(
        name, context_of(parent), kind, attributes, record_exception=False, set_status_on_exception=False
    )


def unkept_traceparent() -> str:
    """The traceparent of a new trace that is not kept, for what makes no span at all."""
    return f"00-{random.getrandbits(128) or 1:032x}-{random.getrandbits(64) or 1:016x}-00"


def current_traceparent() -> str | None:
    """The traceparent of the current span; None without one."""
    return traceparent_of(trace.get_current_span())


def traceparent_of(current: Span) -> str | None:
    """The traceparent of a span; None if it is no real one."""
    context = current.get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def current_trace_id() -> str:
    """The current trace's id, 32 hex digits; empty without one."""
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else ""


def trace_id_of(traceparent: str | None) -> str:
    """The trace's id of a traceparent, 32 hex digits; empty without one."""
    return traceparent[3:35] if traceparent else ""


def is_traceparent(value: str) -> bool:
    """Whether it names a span, at a fifth of what parsing it costs."""
    return _TRACEPARENT.fullmatch(value) is not None and value[3:35] != _NO_TRACE and value[36:52] != _NO_SPAN


def parse_traceparent(value: str) -> SpanContext | None:
    """The span a traceparent names (W3C Trace Context level 1, version 00); None if it is malformed."""
    parts = value.split("-")
    if len(parts) != 4 or parts[0] != "00" or [len(part) for part in parts[1:]] != [32, 16, 2]:
        return None
    try:
        trace_id, span_id, flags = (int(part, 16) for part in parts[1:])
    except ValueError:
        return None
    context = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
    return context if context.is_valid else None


def is_sampled(traceparent: str | None) -> bool:
    """Whether a traceparent asks for its trace to be kept; other flags (level 2's random-trace-id) do not matter."""
    if traceparent is None or traceparent.endswith("-00"):
        return False  # nearly all of them
    context = parse_traceparent(traceparent) if traceparent else None
    return context is not None and context.trace_flags.sampled


def context_of(traceparent: str | None) -> Context | None:
    """The OpenTelemetry context of a traceparent; None (the current one) if it is None or malformed."""
    parent = parse_traceparent(traceparent) if traceparent else None
    return trace.set_span_in_context(NonRecordingSpan(parent)) if parent else None


class _RootSampler(Sampler):
    """By ratio where a trace begins by chance; always where `start_trace` has decided already."""

    def __init__(self, ratio: float) -> None:
        self._by_ratio = TraceIdRatioBased(ratio)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: OtelAttributes = None,
        links: Sequence[SpanLink] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """The decision for one span."""
        decided = parent_context is not None and get_value(_KEPT, parent_context) is not None
        sampler = ALWAYS_ON if decided else self._by_ratio
        return sampler.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """What this sampler calls itself."""
        return f"Root{{{self._by_ratio.get_description()}}}"
