"""python -m bench.paced PLAN: requests that go out when they are due, whether or not earlier ones were answered.

An open loop, as wrk has none: the moments are a Poisson process, as of visitors who know nothing of each other, and a
request is timed from the moment it was due, so that a server that hangs is charged for everybody it keeps waiting
(G. Tene's "coordinated omission"). Each request is sent once and waited for; each answer is looked at. At rate 0 a
request is due as soon as a connection is free: a closed loop with an exact count. Prints a Result as JSON.

One thread and select(), whose timeout counts in microseconds where that of epoll in Python counts in milliseconds.
"""

import gc
import json
import os
import random
import re
import select
import socket
import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_HEAD_END = b"\r\n\r\n"
_START_S = 0.02  # from the call to the first due moment
_REOPEN_S = 0.05  # between two attempts to replace a connection that broke
_LOOK_S = 0.1
_PATIENCE_S = 30.0  # after the last due moment; what is not answered then is lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to send. `requests`: whole HTTP requests, latin-1; `order`: which of them, one after the other."""

    port: int
    rate_per_s: float  # 0: as fast as they are answered
    connections: int
    requests: Sequence[str]
    order: Sequence[int]
    status: int = 302  # the only answer that counts
    core: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of them: sent = answered + wrong + lost. Milliseconds from the due moment to the whole answer."""

    sent: int
    answered: int
    wrong: int  # another status
    lost: int  # no answer: the connection broke, or it took too long
    rps: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    late_p99_ms: float  # how long after its due moment a request went out: this program's own part of the above
    cpu_cores: float  # what this program took of a core


def due_moments(count: int, rate_per_s: float, seed: int = 1) -> "array[float]":
    """Seconds from the start at which requests are due; all 0 at rate 0."""
    due, at, draw = array("d"), 0.0, random.Random(seed)
    for _ in range(count):
        at += draw.expovariate(rate_per_s) if rate_per_s else 0.0
        due.append(at)
    return due


def is_whole(data: bytes) -> bool:
    """Whether an answer has all of its head and body; one without Content-Length has no body."""
    head_end = data.find(_HEAD_END)
    if head_end < 0:
        return False
    length = _LENGTH.search(data, 0, head_end)
    return len(data) >= head_end + len(_HEAD_END) + (int(length[1]) if length else 0)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which this share lies; 0 when there are none."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Generator:
    """Plays a plan once."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._requests = [text.encode("latin-1") for text in plan.requests]
        self._due = due_moments(len(plan.order), plan.rate_per_s)
        self._timed = plan.rate_per_s > 0
        self._idle = [self._open() for _ in range(plan.connections)]
        self._busy: dict[socket.socket, float] = {}  # since when its request is due
        self._parts: dict[socket.socket, bytes] = {}  # answers that are not whole yet
        self._next = self._wrong = self._lost = 0
        self._reopen_at = 0.0
        self._took, self._late = array("d"), array("d")
        self._began = 0.0

    def play(self) -> Result:
        """Sends everything and waits for the answers.

        Raises:
            OSError: nobody listens there.
        """
        total, last = len(self._due), self._due[-1] if self._due else 0.0
        gc.collect()
        gc.disable()  # nothing here makes cycles
        cpu_s = time.process_time()
        self._began = time.perf_counter() + _START_S
        try:
            while len(self._took) + self._wrong + self._lost < total:
                now = self._send_due(self._now())
                readable, _, _ = select.select(self._busy, (), (), self._pause_s(now))
                for connection in readable:
                    self._receive(connection)
                if now > last + _PATIENCE_S and (self._timed or not readable):
                    self._lost = total - len(self._took) - self._wrong
        finally:
            gc.enable()
            for connection in (*self._idle, *self._busy):
                connection.close()
        return self._result(self._now(), time.process_time() - cpu_s)

    def _now(self) -> float:
        return time.perf_counter() - self._began

    def _open(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self._plan.port), timeout=1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(0)
        return connection

    def _send_due(self, now: float) -> float:
        """Sends what is due as far as connections are free; the time afterwards."""
        if len(self._idle) + len(self._busy) < self._plan.connections and now >= self._reopen_at:
            self._reopen(now)
        while self._next < len(self._due) and self._idle and self._due[self._next] <= now:
            number, connection = self._next, self._idle.pop()
            self._next += 1
            due = self._due[number] if self._timed else now
            self._busy[connection] = due
            self._late.append(now - due)
            try:
                connection.send(self._requests[self._plan.order[number]])
            except OSError:
                self._lose(connection)
            now = self._now()
        return now

    def _pause_s(self, now: float) -> float:
        if self._next < len(self._due) and self._idle:
            return min(_LOOK_S, max(0.0, self._due[self._next] - now))
        return _LOOK_S

    def _receive(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        now = self._now()
        if not data:
            self._lose(connection)
            return
        data = self._parts.pop(connection, b"") + data
        if not is_whole(data):
            self._parts[connection] = data
            return
        due = self._busy.pop(connection)
        if int(data[9:12]) == self._plan.status:
            self._took.append(now - due)
        else:
            self._wrong += 1
        self._idle.append(connection)

    def _lose(self, connection: socket.socket) -> None:
        self._lost += 1
        self._parts.pop(connection, None)
        del self._busy[connection]
        connection.close()

    def _reopen(self, now: float) -> None:
        try:
            self._idle.append(self._open())
        except OSError:
            self._reopen_at = now + _REOPEN_S

    def _result(self, took_s: float, cpu_s: float) -> Result:
        took, late = sorted(self._took), sorted(self._late)
        return Result(
            sent=self._next,
            answered=len(took),
            wrong=self._wrong,
            lost=self._lost,
            rps=len(took) / took_s,
            p50_ms=1000 * percentile(took, 0.5),
            p99_ms=1000 * percentile(took, 0.99),
            p999_ms=1000 * percentile(took, 0.999),
            max_ms=1000 * (took[-1] if took else 0.0),
            late_p99_ms=1000 * percentile(late, 0.99),
            cpu_cores=cpu_s / took_s,
        )


def main() -> int:
    """Plays the plan in a file."""
    plan = Plan(**json.loads(Path(sys.argv[1]).read_text()))
    if plan.core is not None:
        os.sched_setaffinity(0, {plan.core})
    print(json.dumps(asdict(Generator(plan).play())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
