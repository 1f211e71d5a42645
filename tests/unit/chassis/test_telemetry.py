"""Traces: how they cross, and that they cannot hurt."""

import json
import logging
import socket
import threading
import time

import pytest
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from chassis import telemetry
from chassis.config import ProcessConfig
from chassis.logs import JsonFormatter
from chassis.telemetry import is_sampled, is_traceparent, parse_traceparent

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
    assert is_traceparent(value) == (sampled is not None)
    if context is not None:
        assert f"{context.trace_id:032x}" == TRACE


@pytest.mark.rule("P8")
def test_a_receiver_that_hangs_blocks_nobody_and_the_queue_is_bounded() -> None:
    """With a receiver that accepts and never answers, spans are opened and closed at once, those above the bound are
    dropped, and the process ends within seconds although the queue is full; nothing goes on trying behind its back.
    """
    before = set(threading.enumerate())
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        settings = ProcessConfig(
            environment="development",
            grpc_port=1,
            admin_port=2,
            otlp_endpoint=f"http://127.0.0.1:{mute.getsockname()[1]}",
        )
        with telemetry.open_provider("test", settings) as provider:
            tracer = provider.get_tracer("test")
            started = time.monotonic()
            for _ in range(20_000):
                tracer.start_span("work").end()
            took_s = time.monotonic() - started
            [processor] = provider._active_span_processor._span_processors
            assert isinstance(processor, BatchSpanProcessor)
            queued = len(processor._batch_processor._queue)
            ended = time.monotonic()
        ending_s = time.monotonic() - ended

    assert took_s < 15  # a single wait for the receiver per span would be hours
    assert 1_000 < queued <= 4_096
    assert ending_s < 6
    deadline = time.monotonic() + 4
    while left := set(threading.enumerate()) - before:
        assert time.monotonic() < deadline, f"still there: {left}"
        next(iter(left)).join(0.1)


def test_a_log_line_is_json_and_carries_the_failure(caplog: pytest.LogCaptureFixture) -> None:
    """One object a line, with service, level and stack."""
    formatter = JsonFormatter("writer", telemetry.current_trace_id)
    try:
        raise ValueError("why")
    except ValueError:
        with caplog.at_level(logging.ERROR):
            logging.getLogger("x").exception("failed %d times", 3)

    line = json.loads(formatter.format(caplog.records[-1]))

    assert (line["service"], line["level"], line["message"]) == ("writer", "error", "failed 3 times")
    assert "ValueError: why" in line["exception"]
