"""Runs bench.paced as a process of its own, so that it disturbs nobody's event loop."""

import asyncio
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from bench.load import Load
from bench.paced import Plan, Result

_OVERHEAD_S = 90.0  # its start, and its own patience


async def play(plan: Plan) -> Result:
    """Plays a plan.

    Raises:
        RuntimeError: the generator failed.
    """
    lasts_s = len(plan.order) / plan.rate_per_s if plan.rate_per_s else 120.0
    text = await asyncio.to_thread(lambda: json.dumps(asdict(plan)))
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(text)
        file.flush()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.paced", file.name, stdout=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(lasts_s + _OVERHEAD_S):
            output = (await process.communicate())[0]
    if process.returncode != 0:
        raise RuntimeError("the open-loop generator failed")
    return Result(**json.loads(output))


def get_requests(port: int, codes: Sequence[str], headers: Mapping[str, str]) -> list[str]:
    """A GET for each code, as a browser would send it."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return [f"GET /{code} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{lines}\r\n" for code in codes]


def post_request(port: int, path: str, headers: Mapping[str, str], body: str) -> str:
    """A POST."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST /{path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{lines}Content-Length: {len(body)}\r\n\r\n{body}"


def as_load(result: Result) -> Load:
    """The same figures in the form of wrk's."""
    return Load(
        requests=result.answered,
        errors=result.wrong + result.lost,
        rps=result.rps,
        p50_ms=result.p50_ms,
        p99_ms=result.p99_ms,
    )
