"""So many requests and not one more: h2load, whose count is exact where wrk forgets what is on its way at the end."""

import asyncio
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Exact:
    """What became of a fixed number of requests; `answered` has the status that was wanted."""

    sent: int
    answered: int

    @property
    def errors(self) -> int:
        """Those without that answer."""
        return self.sent - self.answered


def available() -> bool:
    """Whether h2load is installed (Debian: nghttp2-client)."""
    return shutil.which("h2load") is not None and shutil.which("taskset") is not None


async def run(
    urls: Sequence[str],
    *,
    count: int,
    connections: int,
    core: int,
    headers: Mapping[str, str],
    body: str | None = None,
) -> Exact:
    """Sends `count` requests; a body makes them POST, of which 2xx counts, otherwise 3xx does. Several URLs of one
    server are asked for in turn, on each connection from the first.

    Raises:
        RuntimeError: h2load failed, or printed what is not understood.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = ["taskset", "-c", str(core), "h2load", "--h1", f"-n{count}", f"-c{connections}"]
        for name, value in headers.items():
            command += ["-H", f"{name}: {value}"]
        if body is not None:
            command += ["-d", _file(folder, "body", body)]
        command += ["-i", _file(folder, "urls", "\n".join(urls) + "\n")] if len(urls) > 1 else urls
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        async with asyncio.timeout(_TIMEOUT_S):
            output = (await process.communicate())[0].decode()
    if process.returncode != 0:
        raise RuntimeError(f"h2load failed: {output[-500:]}")
    return parse(output, "3xx" if body is None else "2xx")


def parse(output: str, wanted: str) -> Exact:
    """The figures in h2load's output; `wanted` is the class of statuses that counts.

    Raises:
        RuntimeError: one of them is not there.
    """
    total = re.search(r"^requests: (\d+) total", output, re.MULTILINE)
    answered = re.search(rf"^status codes: .*?(\d+) {wanted}", output, re.MULTILINE)
    if total is None or answered is None:
        raise RuntimeError(f"h2load printed no figures: {output[-500:]}")
    return Exact(int(total[1]), int(answered[1]))


def _file(folder: str, name: str, text: str) -> str:
    path = Path(folder, name)
    path.write_text(text)
    return str(path)
