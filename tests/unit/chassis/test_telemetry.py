"""Traces: how they cross, and that they cannot hurt."""

import json
import logging
import socket
import time

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from chassis import telemetry
from chassis.telemetry import is_sampled, parse_traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("value", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),  # random-trace-id, as the SDK sets it
        (f"00-{TRACE}-{SPAN}-02", False),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"01-{TRACE}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}", None),
        (f"00-{TRACE[:-1]}g-{SPAN}-01", None),
        ("", None),
        ("garbage", None),
    ],
)
def test_a_traceparent_is_read_as_the_w3c_says(value: str, sampled: bool | None) -> None:
    """Well-formed ones name a span and whether it is kept; anything else is no parent, and no error."""
    context = parse_traceparent(value)

    assert (context is not None) == (sampled is not None)
    assert is_sampled(value) == bool(sampled)
    if context is not None:
        assert f"{context.trace_id:032x}" == TRACE


@pytest.mark.rule("P8")
def test_a_receiver_that_hangs_blocks_nobody_and_the_queue_is_bounded() -> None:
    """With a receiver that accepts and never answers, 20 000 spans are opened and closed at once, most are dropped."""
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        exporter = OTLPSpanExporter(f"http://127.0.0.1:{mute.getsockname()[1]}/v1/traces", timeout=1)
        provider = TracerProvider(shutdown_on_exit=False)
        processor = BatchSpanProcessor(exporter, max_queue_size=512, schedule_delay_millis=50)
        provider.add_span_processor(processor)
        tracer = provider.get_tracer("test")
        started = time.monotonic()
        for _ in range(20_000):
            tracer.start_span("work").end()
        took_s = time.monotonic() - started
        queued = len(processor._batch_processor._queue)
        provider.shutdown()

    assert took_s < 15  # a single wait for the receiver per span would be hours
    assert queued <= 512


def test_a_log_line_is_json_and_carries_the_failure(caplog: pytest.LogCaptureFixture) -> None:
    """One object a line, with service, level and stack."""
    formatter = telemetry._JsonFormatter("writer")
    try:
        raise ValueError("why")
    except ValueError:
        with caplog.at_level(logging.ERROR):
            logging.getLogger("x").exception("failed %d times", 3)

    line = json.loads(formatter.format(caplog.records[-1]))

    assert (line["service"], line["level"], line["message"]) == ("writer", "error", "failed 3 times")
    assert "ValueError: why" in line["exception"]
