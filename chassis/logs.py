"""Logs: one JSON object a line on stderr, each with its trace, and no library that says the same thing all the time."""

import json
import logging
import sys
from collections.abc import Callable

from chassis.clock import SystemClock


def start_logs(service: str, trace_id: Callable[[], str]) -> None:
    """Starts the logs of this process; `trace_id` tells the current trace, empty: none."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service, trace_id))
    handler.addFilter(OncePerInterval("aiokafka", interval_s=10.0))  # 20 lines a second while a broker is away
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in ("aiokafka", "botocore", "aiobotocore", "uvicorn.access", "httpx", "opentelemetry"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class OncePerInterval(logging.Filter):
    """Lets a library say the same thing once per interval. Bounded: what is the same is told by place, not by text."""

    def __init__(self, library: str, *, interval_s: float, monotonic: Callable[[], float] | None = None) -> None:
        super().__init__()
        self._library = library
        self._interval_s = interval_s
        self._monotonic = monotonic or SystemClock().monotonic
        self._said_at: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written: always, if it is not of that library."""
        if record.name != self._library and not record.name.startswith(f"{self._library}."):
            return True
        place, now = (record.pathname, record.lineno), self._monotonic()
        if now - self._said_at.get(place, -self._interval_s) < self._interval_s:
            return False
        self._said_at[place] = now
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object a line, with the trace's id."""

    def __init__(self, service: str, trace_id: Callable[[], str]) -> None:
        super().__init__()
        self._service = service
        self._trace_id = trace_id

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "time": SystemClock().now().isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if trace_id := self._trace_id():
            line["trace_id"] = trace_id
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
