"""What our protocol stands on in uvicorn has no promise to stay: here it is written down, so that another version fails
at once and not on the wire.

A test that fails here is no reason to change the table. Read what became of the method, then what gateway/fastpath.py
and gateway/adapters/http_protocol.py make of it, and run tests/integration/gateway; then write the new value down.
"""

import ast
import asyncio
import hashlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from chassis.http_server import HttpServer
from gateway.adapters.http_protocol import LimitedHttpProtocol
from gateway.adapters.taken import Taken
from gateway.fastpath import FastHttpProtocol

METHODS: list[tuple[type, str, str]] = [
    (HttpToolsProtocol, "__init__", "eefda6875ebd"),
    (HttpToolsProtocol, "connection_made", "c8b2230c91b4"),
    (HttpToolsProtocol, "connection_lost", "1b99df458c3b"),
    (HttpToolsProtocol, "eof_received", "1db22b08a5f3"),
    (HttpToolsProtocol, "_unset_keepalive_if_required", "df160182c46a"),
    (HttpToolsProtocol, "_unsupported_upgrade_warning", "5714fc909d7f"),
    (HttpToolsProtocol, "_should_upgrade", "33b213065ffa"),
    (HttpToolsProtocol, "_should_upgrade_to_ws", "6761f0aba563"),
    (HttpToolsProtocol, "data_received", "e74b210e3c04"),
    (HttpToolsProtocol, "send_400_response", "769895267c15"),
    (HttpToolsProtocol, "on_message_begin", "453ed691ca9d"),
    (HttpToolsProtocol, "on_url", "5ffd0eec34d7"),
    (HttpToolsProtocol, "on_header", "b89cbbc6db2a"),
    (HttpToolsProtocol, "on_headers_complete", "f48ec6bbe75d"),
    (HttpToolsProtocol, "_start_asgi_task", "62f5730cb4eb"),
    (HttpToolsProtocol, "on_body", "a02fa52bdf33"),
    (HttpToolsProtocol, "on_message_complete", "87e5be1faf50"),
    (HttpToolsProtocol, "on_response_complete", "4dfe4f257f50"),
    (HttpToolsProtocol, "shutdown", "3fc90dd3d36a"),
    (HttpToolsProtocol, "pause_writing", "942adeb76e2e"),
    (HttpToolsProtocol, "resume_writing", "5211cfcc7289"),
    (HttpToolsProtocol, "timeout_keep_alive_handler", "16ae57aa33cd"),
    (RequestResponseCycle, "__init__", "f882611e893b"),
    (RequestResponseCycle, "run_asgi", "0a5f7f242f6a"),
    (RequestResponseCycle, "send", "089bd8725f6a"),
    (RequestResponseCycle, "receive", "e7a392a4367a"),
    (FlowControl, "__init__", "205e7309fe60"),
    (FlowControl, "drain", "397c6ec19f93"),
    (FlowControl, "pause_reading", "65a646cf743e"),
    (FlowControl, "resume_reading", "3137b7d01378"),
    (FlowControl, "pause_writing", "608d2b58f3ee"),
    (FlowControl, "resume_writing", "dbb406e8a105"),
]
OURS = ("gateway/adapters/http_protocol.py", "gateway/adapters/taken.py", "gateway/fastpath.py")
ROOT = Path(__file__).resolve().parents[3]


def digest(function: Callable[..., object]) -> str:
    """The first 12 digits of the SHA-256 of a function's source without white space."""
    return hashlib.sha256("".join(inspect.getsource(function).split()).encode()).hexdigest()[:12]


@pytest.mark.parametrize(("owner", "name", "expected"), METHODS)
def test_the_methods_we_stand_on_are_the_ones_we_know(owner: type, name: str, expected: str) -> None:
    """The source of each method that we replace, call, or whose order of events we count on."""
    assert digest(getattr(owner, name)) == expected, (
        f"uvicorn {uvicorn.__version__} has another {owner.__name__}.{name}"
    )


def test_every_method_we_replace_is_written_down() -> None:
    """What our classes override of uvicorn's is in the table above."""
    known = {name for owner, name, _ in METHODS if owner is HttpToolsProtocol}
    own = {name for cls in FastHttpProtocol.__mro__ if cls.__module__.startswith("gateway") for name in vars(cls)}

    assert own & set(vars(HttpToolsProtocol)) - known <= {"__module__", "__doc__", "__annotations__", "__firstlineno__"}


def test_the_names_we_use_are_there() -> None:
    """Whatever our files look up on the connection, and do not define themselves, uvicorn's object has."""
    protocol = _protocol()
    try:
        used = {name for path in OURS for name in _names_on_self((ROOT / path).read_text())}
        missing = {name for name in used if not hasattr(protocol, name)} - _NOT_OF_THE_CONNECTION
        assert missing == set()
        for name in ("cycle", "timeout_keep_alive_task", "headers", "scope"):
            assert getattr(protocol, name) is None, f"{name} says something else before the first request"
    finally:
        protocol.loop.close()


def test_the_names_of_a_request_are_there() -> None:
    """What the shortcuts of a request, and a look at whether it is answered, use."""
    names = set(inspect.signature(RequestResponseCycle.__init__).parameters)
    source = inspect.getsource(RequestResponseCycle.__init__)

    for name in ("response_started", "response_complete", "disconnected", "more_body", "body", "message_event"):
        assert f"self.{name} = " in source or name in names
    for name in ("keep_alive", "flow", "transport", "on_response", "scope"):
        assert f"self.{name} = " in source or name in names
    assert STATUS_LINE[302] == b"HTTP/1.1 302 Found\r\n"


def test_what_was_taken_is_a_request_as_far_as_anybody_asks() -> None:
    """What is looked up on the state of a request that is under way, by uvicorn or by us, its stand-in has."""
    sources = [
        inspect.getsource(getattr(HttpToolsProtocol, name))
        for name in ("connection_lost", "shutdown", "on_headers_complete", "on_response_complete")
    ]
    sources += [inspect.getsource(LimitedHttpProtocol._end_idle), inspect.getsource(FastHttpProtocol)]
    asked = {name for source in sources for name in re.findall(r"\b(?:self\.|existing_)?cycle\.(\w+)", source)}

    assert {"response_complete", "disconnected", "message_event", "keep_alive"} <= asked
    assert {name for name in asked if not hasattr(Taken(), name)} == set()
    Taken().message_event.set()


def test_the_server_adds_nothing_to_our_answers() -> None:
    """No header of uvicorn's own, no limit on connections, no root path: ready answers would lack them."""
    server = HttpServer(_app, host="127.0.0.1", port=0)
    config = server._config
    config.load()

    assert config.encoded_headers == []
    assert (config.limit_concurrency, config.limit_max_requests, config.root_path) == (None, None, "")
    assert config.ws_protocol_class is None


_NOT_OF_THE_CONNECTION = {  # of other classes, or there from a certain moment on
    "url",
    "_cycle",
    "_protocol",
    "_peer",
    "_ready",
    "_record",
    "_keep_ratio",
    "_held_headers",
    "creates",
    "redirects",
    "disconnected",  # of Taken, as the next two
    "keep_alive",
    "response_complete",
}


def _names_on_self(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            yield node.attr


def _protocol() -> FastHttpProtocol:
    config = uvicorn.Config(_app, ws="none", log_config=None, lifespan="off")
    return FastHttpProtocol(config, ServerState(), {}, asyncio.new_event_loop())


async def _app(_scope: Any, _receive: Any, _send: Any) -> None:
    """Answers nothing."""
