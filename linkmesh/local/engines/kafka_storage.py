"""Formatted storage for a new broker: made by Kafka's own StorageTool once, copied afterwards.

The tool is a JVM of its own: 1.5 s on a quiet machine, 3 s on a busy one, and a test session formats a dozen brokers.
What it writes depends on the Kafka version only, but for two random ids in `meta.properties`; each copy gets new ones.
"""

import asyncio
import base64
import os
import re
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

from linkmesh.local.errors import LocalError

_TIMEOUT_S = 60.0
_IDS = re.compile(r"^(cluster\.id|directory\.id)=.*$", re.MULTILINE)
_META = "meta.properties"


async def format_storage(log_dirs: Path, *, template: Path, tool: Sequence[str], properties: str) -> None:
    """Leave a formatted log directory at `log_dirs`, whole or not at all.

    `template` is where the tool's work is kept for the next time, `tool` the command line of StorageTool, `properties`
    a broker's configuration (its own `log.dirs` does not matter).

    Raises:
        LocalError: the tool fails or hangs.
    """
    if not (template / _META).exists():
        await _make(template, tool, properties)
    unfinished = log_dirs.with_name(f".{log_dirs.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(template, unfinished)
    meta = unfinished / _META
    meta.write_text(_IDS.sub(lambda match: f"{match[1]}={_random_id()}", meta.read_text()))
    shutil.rmtree(log_dirs, ignore_errors=True)  # without meta.properties it was never a broker's
    unfinished.replace(log_dirs)


async def _make(template: Path, tool: Sequence[str], properties: str) -> None:
    scratch = template.with_name(f".{template.name}.{uuid.uuid4().hex[:8]}")
    scratch.mkdir(parents=True)
    try:
        config = scratch / "server.properties"
        config.write_text(f"{properties}\nlog.dirs={scratch / 'logs'}\n")  # of two lines the later one counts
        await _run([*tool, "format", "-t", _random_id(), "-c", str(config)], scratch)
        if not (template / _META).exists():  # another process may have been faster
            shutil.rmtree(template, ignore_errors=True)
            (scratch / "logs").replace(template)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


async def _run(command: Sequence[str], folder: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            output, _ = await process.communicate()
    except TimeoutError:
        raise LocalError("kafka: formatting its storage took too long") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise LocalError(f"kafka cannot format its storage:\n{output.decode(errors='replace')[-800:]}")


def _random_id() -> str:
    """Return an id as Kafka writes them: 16 random bytes in URL-safe base64, not beginning with a dash."""
    return "L" + base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()[1:]
