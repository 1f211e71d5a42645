"""The control socket: one line in, one line out, whatever the line."""

import asyncio
import json
import stat
from pathlib import Path

import pytest

from linkmesh.local.control import ControlServer, NotRunning, ask, socket_path
from linkmesh.local.errors import LocalError


class FakeSystem:
    """Notes what it is asked."""

    def __init__(self) -> None:
        self.stop_asked = asyncio.Event()
        self.done: list[tuple[object, ...]] = []

    def kill(self, name: str, *, stay_down: bool = False) -> None:
        if name == "nobody":
            raise LocalError("there is no nobody here", "one of: writer")
        self.done.append(("kill", name, stay_down))

    def pause(self, name: str) -> None:
        self.done.append(("pause", name))

    def resume(self, name: str) -> None:
        self.done.append(("resume", name))

    async def stop(self, name: str) -> None:
        self.done.append(("stop", name))

    async def start(self, name: str) -> None:
        self.done.append(("start", name))

    async def status(self) -> list[dict[str, object]]:
        return [{"name": "writer", "state": "running", "pid": 1, "restarts": 0}]

    def about(self) -> dict[str, object]:
        return {"pid": 7, "ready": True, "addresses": {}}


def test_requests_reach_the_system_and_refusals_come_back(tmp_path: Path) -> None:
    """Each verb does what it says; a refusal arrives as the same error with its hint; nonsense breaks nothing."""
    system = FakeSystem()

    async def scenario() -> None:
        stop = asyncio.Event()
        (tmp_path / "run").mkdir()
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            tasks.create_task(ControlServer(system, tmp_path).run(stop))
            while not socket_path(tmp_path).exists():
                await asyncio.sleep(0.01)
            for verb in ("kill", "kill-and-hold", "pause", "resume", "stop", "start"):
                await asyncio.to_thread(ask, tmp_path, verb, "writer")
            with pytest.raises(LocalError, match="no nobody here") as caught:
                await asyncio.to_thread(ask, tmp_path, "kill", "nobody")
            assert caught.value.hint == "one of: writer"
            for line in (b"", b"x\n", b"[]\n", b"{}\n", b'{"do": "dance"}\n'):
                assert not (await raw(tmp_path, line)).get("ok")
            told = await asyncio.to_thread(ask, tmp_path, "status")
            assert (told["pid"], told["ready"]) == (7, True)
            assert stat.S_IMODE(socket_path(tmp_path).stat().st_mode) == 0o600
            assert not system.stop_asked.is_set()
            await asyncio.to_thread(ask, tmp_path, "down")
            assert system.stop_asked.is_set()
            stop.set()

    asyncio.run(scenario())

    assert system.done == [
        ("kill", "writer", False),
        ("kill", "writer", True),
        ("pause", "writer"),
        ("resume", "writer"),
        ("stop", "writer"),
        ("start", "writer"),
    ]
    assert not socket_path(tmp_path).exists()


def test_nothing_there_is_said_so(tmp_path: Path) -> None:
    """Without a system the question is answered by NotRunning, which is exit code 3."""
    with pytest.raises(NotRunning, match="no system runs"):
        ask(tmp_path, "status")


def test_a_deep_folder_still_gets_a_socket(tmp_path: Path) -> None:
    """A unix socket's path is limited to some 100 bytes; deep state folders get one in the temporary folder."""
    deep = tmp_path / ("x" * 90)

    assert len(str(socket_path(deep))) <= 104
    assert socket_path(deep) == socket_path(deep)
    assert socket_path(deep) != socket_path(tmp_path / ("y" * 90))


async def raw(state: Path, line: bytes) -> dict[str, object]:
    """Send a line as it is and return the answer."""
    reader, writer = await asyncio.open_unix_connection(socket_path(state))
    writer.write(line)
    writer.write_eof()
    answer = await reader.readline()
    writer.close()
    await writer.wait_closed()
    decoded: dict[str, object] = json.loads(answer) if answer else {}
    return decoded
