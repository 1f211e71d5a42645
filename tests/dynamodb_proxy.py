"""A proxy in front of DynamoDB that does to its clients what the service may do: throttle, leave undone, delay.

    with dynamodb_proxy(dynamodb.endpoint) as proxy:
        async with open_dynamodb(proxy.endpoint) as client: ...
        proxy.rule = throttled("BatchGetItem", times=3)     # the next three calls are refused as a whole
        proxy.rule = unprocessed_reads(times=2, keep=1)     # two BatchGetItems answer only their first key
        proxy.rule = throttled_statements(times=1, keep=0)  # every statement of a batch has its own throttling error
        proxy.calls["GetItem"]                              # calls so far, by operation
        proxy.requests                                      # each call: operation and decoded body

A rule sees each call before the engine does. It may answer in its place (`Reply`), change what the engine is asked and
what the client is told (`Detour`), or let the call pass (None). Rules run in the proxy's threads, one at a time.
It stands for any engine whose endpoint is plain HTTP. One thread a connection; all of them end with the context.
"""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_UPSTREAM_TIMEOUT_S = 60.0
_ENVELOPE = "com.amazonaws.dynamodb.v20120810#"

Body = dict[str, Any]  # a request or an answer of DynamoDB's JSON protocol


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that the engine does not hear of."""

    status: int
    body: Body


@dataclass(frozen=True, slots=True)
class Detour:
    """`ask` goes to the engine instead of the request (None: nothing does, and the engine's answer is taken for `{}`);
    `tell` makes the client's answer of the engine's. `delay_s` before the engine is asked."""

    ask: Body | None
    tell: Callable[[Body], Body]
    delay_s: float = 0.0


Rule = Callable[[str, Body], Reply | Detour | None]


@dataclass
class DynamoDBProxy:
    """What a test sees of the proxy."""

    endpoint: str
    rule: Rule | None = None
    calls: Counter[str] = field(default_factory=Counter)
    requests: list[tuple[str, Body]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def judge(self, operation: str, body: Body) -> Reply | Detour | None:
        """Notes a call, and what the rule makes of it."""
        with self.lock:
            self.calls[operation] += 1
            self.requests.append((operation, body))
            return None if self.rule is None else self.rule(operation, body)

    def clear(self) -> None:
        """Forgets the calls so far, and lets all pass."""
        with self.lock:
            self.rule = None
            self.calls.clear()
            self.requests.clear()


@contextmanager
def dynamodb_proxy(upstream: str) -> Iterator[DynamoDBProxy]:
    """A proxy in front of that endpoint, on a free port of this machine."""
    target = urlsplit(upstream).netloc
    proxy = DynamoDBProxy("")

    class Handler(_Handler):
        seen = proxy
        upstream = target

    class Server(ThreadingHTTPServer):
        daemon_threads = True  # a connection that a client leaves open must not keep the test from ending

    with Server(("127.0.0.1", 0), Handler) as server:
        proxy.endpoint = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="dynamodb proxy")
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()


def throttled(operation: str, *, times: int) -> Rule:
    """Refuses the next calls of an operation as a whole, the way a table over its throughput does."""
    left = _Left(times)

    def rule(name: str, _body: Body) -> Reply | None:
        if name != operation or not left.take():
            return None
        kind = f"{_ENVELOPE}ProvisionedThroughputExceededException"
        return Reply(400, {"__type": kind, "message": "The level of configured throughput was exceeded."})

    return rule


def unprocessed_reads(*, times: int, keep: int) -> Rule:
    """The next BatchGetItems answer the first `keep` keys of each table and leave the others unprocessed."""
    left = _Left(times)

    def rule(name: str, body: Body) -> Detour | None:
        if name != "BatchGetItem" or not left.take():
            return None
        asked: Body = body["RequestItems"]
        now = {table: spec | {"Keys": spec["Keys"][:keep]} for table, spec in asked.items() if spec["Keys"][:keep]}
        later = {table: spec | {"Keys": spec["Keys"][keep:]} for table, spec in asked.items() if spec["Keys"][keep:]}
        return Detour(
            {**body, "RequestItems": now} if now else None,
            lambda told: {"Responses": told.get("Responses", {}), "UnprocessedKeys": later},
        )

    return rule


def unprocessed_writes(*, times: int, keep: int) -> Rule:
    """The next BatchWriteItems do the first `keep` requests of each table and leave the others unprocessed."""
    left = _Left(times)

    def rule(name: str, body: Body) -> Detour | None:
        if name != "BatchWriteItem" or not left.take():
            return None
        asked: Body = body["RequestItems"]
        now = {table: requests[:keep] for table, requests in asked.items() if requests[:keep]}
        later = {table: requests[keep:] for table, requests in asked.items() if requests[keep:]}
        return Detour({**body, "RequestItems": now} if now else None, lambda _told: {"UnprocessedItems": later})

    return rule


def throttled_statements(*, times: int, keep: int) -> Rule:
    """The next BatchExecuteStatements do their first `keep` statements; each other one has a throttling error of its
    own, under HTTP 200."""
    left = _Left(times)

    def rule(name: str, body: Body) -> Detour | None:
        if name != "BatchExecuteStatement" or not left.take():
            return None
        statements = body["Statements"]
        error = {"Error": {"Code": "ProvisionedThroughputExceeded", "Message": "Throughput was exceeded."}}
        refused = [error for _ in statements[keep:]]
        return Detour(
            {**body, "Statements": statements[:keep]} if statements[:keep] else None,
            lambda told: {**told, "Responses": [*told.get("Responses", []), *refused]},
        )

    return rule


def delayed(operation: str, delay_s: float) -> Rule:
    """Every call of an operation reaches the engine only after `delay_s` seconds."""

    def rule(name: str, body: Body) -> Detour | None:
        return Detour(body, lambda told: told, delay_s) if name == operation else None

    return rule


class _Left:
    """How many calls a rule still concerns."""

    def __init__(self, times: int) -> None:
        self._times = times

    def take(self) -> bool:
        """Whether this call is one of them."""
        self._times -= 1
        return self._times >= 0


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client, and one to the engine."""

    protocol_version = "HTTP/1.1"
    seen: DynamoDBProxy
    upstream: str

    def setup(self) -> None:
        """Opens the way to the engine, at its first use."""
        super().setup()
        self._engine = http.client.HTTPConnection(self.upstream, timeout=_UPSTREAM_TIMEOUT_S)

    def finish(self) -> None:
        """Closes both."""
        self._engine.close()
        with suppress(OSError):
            super().finish()

    def do_POST(self) -> None:
        """One call."""
        data = self.rfile.read(int(self.headers["content-length"]))
        operation = self.headers["x-amz-target"].rpartition(".")[2]
        verdict = self.seen.judge(operation, json.loads(data))
        match verdict:
            case Reply(status, body):
                self._answer(status, json.dumps(body).encode())
            case Detour(ask, tell, delay_s):
                time.sleep(delay_s)
                status, body = (200, {}) if ask is None else self._ask(json.dumps(ask).encode())
                self._answer(status, json.dumps(tell(body) if status == 200 else body).encode())
            case None:
                status, body = self._ask(data)
                self._answer(status, json.dumps(body).encode())

    def _ask(self, data: bytes) -> tuple[int, Body]:
        """What the engine says; it checks no signature."""
        headers = {
            name: value for name, value in self.headers.items() if name.lower() not in ("host", "content-length")
        }
        try:
            self._engine.request("POST", "/", data, headers)
            answer = self._engine.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            self._engine.close()
            return 503, {"__type": "ServiceUnavailable", "message": "The engine does not answer."}

    def _answer(self, status: int, data: bytes) -> None:
        with suppress(OSError):  # the client gave up
            self.send_response(status)
            self.send_header("content-type", "application/x-amz-json-1.0")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (named by the library)
        """Says nothing: the calls are in the proxy's list."""
