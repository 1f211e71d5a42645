"""Bodies of requests: whole, small, and in time, or refused before anybody parses them."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

from chassis.http_server import Receive, Scope
from contracts.reasons import Reason
from gateway.domain.problems import Problem
from gateway.handlers.answers import header
from gateway.ports import SHORTCUTS, Shortcuts

BODY_BYTES_MAX = 64 << 10
BATCH_BYTES_MAX = 512 << 10  # of a hundred links
_DRAIN_BYTES_MAX = 1 << 20  # read and thrown away, so that the sender lives to read why it was refused
_TIMEOUT_S = 10.0  # a body of 64 KiB that takes longer is there to hold the connection


class BodyRefused(Exception):
    """The body is not taken. `drained`: all of it was read, the connection can go on."""

    def __init__(self, problem: Problem, *, drained: bool) -> None:
        super().__init__(problem.reason.code)
        self.problem = problem
        self.drained = drained


async def read_body(scope: Scope, receive: Receive, *, bytes_max: int = BODY_BYTES_MAX) -> bytes:
    """The body of a request, at most `bytes_max`.

    Raises:
        BodyRefused: larger, or not there after ten seconds.
    """
    shortcuts: Shortcuts | None = scope.get(SHORTCUTS)
    if shortcuts is not None and (whole := shortcuts.whole_body()) is not None:
        if len(whole) > bytes_max:
            raise BodyRefused(_too_large(bytes_max), drained=True)
        return whole
    declared = header(scope, b"content-length")
    if declared.isdigit() and int(declared) > _DRAIN_BYTES_MAX:
        raise BodyRefused(_too_large(bytes_max), drained=False)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise BodyRefused(_LATE, drained=False)  # the client is gone, nobody reads this
                size += len(message.get("body", b""))
                if size <= bytes_max:
                    chunks.append(message.get("body", b""))
                if size > _DRAIN_BYTES_MAX:
                    raise BodyRefused(_too_large(bytes_max), drained=False)
                if not message.get("more_body"):
                    break
    except TimeoutError:
        raise BodyRefused(_LATE, drained=False) from None
    if size > bytes_max:
        raise BodyRefused(_too_large(bytes_max), drained=True)
    return b"".join(chunks)


def replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read, then what the connection says."""
    given = False

    async def again() -> MutableMapping[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _too_large(bytes_max: int) -> Problem:
    return Problem(Reason.REQUEST_TOO_LARGE, f"The body is larger than {bytes_max >> 10} KiB.")


_LATE = Problem(Reason.MALFORMED_REQUEST, "The body did not arrive in time.")
