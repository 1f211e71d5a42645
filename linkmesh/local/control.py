"""The control socket of a running system: one line of JSON in, one line of JSON out.

`{"do": "kill", "name": "writer"}` → `{"ok": true}` or `{"ok": false, "error": "…", "hint": "…"}`. Only the owner of the
state folder can reach it.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import socket
import tempfile
from pathlib import Path
from typing import Protocol

from linkmesh.local.errors import LocalError

_LINE_MAX = 64 << 10
_READ_TIMEOUT_S = 5.0
_ANSWER_TIMEOUT_S = 120.0  # starting Kafka again after a kill is the slowest thing one can ask for
_PATH_MAX = 100  # of a unix socket: 108 bytes on Linux, 104 on macOS


class Controlled(Protocol):
    """What a control socket can do to a system (see supervisor.py)."""

    stop_asked: asyncio.Event

    def kill(self, name: str, *, stay_down: bool = False) -> None: ...
    def pause(self, name: str) -> None: ...
    def resume(self, name: str) -> None: ...
    async def stop(self, name: str) -> None: ...
    async def start(self, name: str) -> None: ...
    async def status(self) -> list[dict[str, object]]: ...
    def about(self) -> dict[str, object]: ...


class ControlServer:
    """A component: answers on the socket until stop."""

    def __init__(self, system: Controlled, state: Path) -> None:
        self._system = system
        self._path = socket_path(state)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until stop is set, then remove the socket."""
        self._path.unlink(missing_ok=True)  # of a run that was killed; the lock file tells that we are alone
        async with asyncio.TaskGroup() as tasks:
            serving: set[asyncio.Task[None]] = set()

            def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                task = tasks.create_task(self._serve(reader, writer))
                serving.add(task)
                task.add_done_callback(serving.discard)

            server = await asyncio.start_unix_server(on_connection, self._path, limit=_LINE_MAX)
            self._path.chmod(0o600)
            try:
                await stop.wait()
            finally:
                server.close()
                self._path.unlink(missing_ok=True)
                for task in serving:
                    task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_READ_TIMEOUT_S):
                line = await reader.readline()
            answer = await self._answer(line)
            writer.write(json.dumps(answer).encode() + b"\n")
            async with asyncio.timeout(_READ_TIMEOUT_S):
                await writer.drain()
        except (OSError, TimeoutError, ValueError):
            pass  # the other end went away or talks nonsense; it is told nothing
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, object]:
        try:
            request = json.loads(line)
            return {"ok": True, **await self._do(str(request["do"]), str(request.get("name", "")))}
        except LocalError as error:
            return {"ok": False, "error": str(error), "hint": error.hint}
        except (ValueError, KeyError, TypeError, AttributeError):
            return {"ok": False, "error": "not a request", "hint": ""}

    async def _do(self, what: str, name: str) -> dict[str, object]:
        system = self._system
        match what:
            case "status":
                return {"members": await system.status(), **system.about()}
            case "down":
                system.stop_asked.set()
            case "kill":
                system.kill(name)
            case "kill-and-hold":
                system.kill(name, stay_down=True)
            case "pause":
                system.pause(name)
            case "resume":
                system.resume(name)
            case "stop":
                await system.stop(name)
            case "start":
                await system.start(name)
            case _:
                raise LocalError(f"nothing is called {what}")
        return {}


def socket_path(state: Path) -> Path:
    """Return where the socket of a state folder is; a path too long for a socket gets one in the temporary folder."""
    path = state.absolute() / "run" / "control.sock"
    if len(os.fsencode(path)) <= _PATH_MAX:
        return path
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"linkmesh-{digest}.sock"


def ask(state: Path, what: str, name: str = "") -> dict[str, object]:
    """Ask the system that runs on a state folder, and return its answer.

    Raises:
        NotRunning: there is none.
        LocalError: it refuses, or does not answer.
    """
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.settimeout(_ANSWER_TIMEOUT_S)
        try:
            connection.connect(str(socket_path(state)))
        except OSError:
            raise NotRunning(f"no system runs in {state}", "start it: linkmesh up") from None
        try:
            connection.sendall(json.dumps({"do": what, "name": name}).encode() + b"\n")
            with connection.makefile("rb") as lines:
                line = lines.readline()
        except OSError as error:
            raise LocalError(f"the system does not answer: {error}", "it may be on its way down") from error
    if not line:
        raise LocalError("the system ended before it answered", "linkmesh status")
    answer: dict[str, object] = json.loads(line)
    if not answer.pop("ok", False):
        raise LocalError(str(answer.get("error", "refused")), str(answer.get("hint", "")))
    return answer


class NotRunning(LocalError):
    """Nothing runs on that state folder."""
