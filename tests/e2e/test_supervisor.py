"""The supervisor with all six services: what a person starts, breaks, looks at and stops."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
import psutil
import pytest

from linkmesh.local.options import ENGINES, SERVICES
from tests.system import RunningSystem, started_system


def eventually(check: Callable[[], bool], timeout_s: float = 20.0) -> bool:
    """Ask until it holds or the time is over."""
    deadline = time.monotonic() + timeout_s
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_everything_runs_on_loopback_only(system: RunningSystem) -> None:
    """Every process listens on 127.0.0.1 and nowhere else; every service is alive, ready and has metrics."""
    for name in (*ENGINES, *SERVICES):
        connections = psutil.Process(system.pid(name)).net_connections("tcp")
        hosts = {c.laddr[0].removeprefix("::ffff:") for c in connections if c.status == psutil.CONN_LISTEN}
        assert hosts == {"127.0.0.1"}, name
    for name in SERVICES:
        for path in ("/livez", "/readyz", "/metrics"):
            assert httpx.get(system.admin(name) + path, trust_env=False).status_code == 200, (name, path)


def test_the_secrets_are_the_owners(system: RunningSystem) -> None:
    """Keys, and the file with the development key, are readable by their owner alone."""
    secret_files = [*(system.state / "secrets").iterdir(), system.state / "dev.json"]

    assert len(secret_files) == 6
    assert {path.stat().st_mode & 0o777 for path in secret_files} == {0o600}


@pytest.mark.rule("P7")
def test_a_killed_service_comes_back(system: RunningSystem) -> None:
    """P7: kill -9 of a service heals without a person: another process, ready again, and said so."""
    before = system.pid("webhook")

    system.kill("webhook")
    assert eventually(lambda: system.pid("webhook") not in (0, before))
    system.wait_ready("webhook")

    assert system.restarts("webhook") == 1
    assert any("webhook ended (signal 9)" in line for line in system.lines)


def test_a_second_start_keeps_key_link_and_data(tmp_path: Path) -> None:
    """dev.json's key and demo link survive a stop; the first key still opens the second run."""
    first = run_up(tmp_path)
    try:
        told = json.loads((tmp_path / "dev.json").read_text())
        assert (tmp_path / "logs" / "supervisor.log").stat().st_mode & 0o077 == 0  # the key stands there
    finally:
        linkmesh(tmp_path, "down")

    assert not (tmp_path / "run" / "gateway.pid").exists()
    assert run_up(tmp_path)["pid"] != first["pid"]
    try:
        again = json.loads((tmp_path / "dev.json").read_text())
        assert (again["api_key"], again["demo_code"]) == (told["api_key"], told["demo_code"])
        link = json.loads(linkmesh(tmp_path, "link", "get", told["demo_code"], "--json").stdout)
        assert link["short_code"] == told["demo_code"]
    finally:
        # The supervisor dies without a word: the kernel ends its children, `down` what is still on its way.
        os.kill(int(str(json.loads(linkmesh(tmp_path, "status", "--json").stdout)["pid"])), 9)
        linkmesh(tmp_path, "down")
    assert not [process for process in psutil.process_iter(["cmdline"]) if belongs(process, tmp_path)]


def test_the_command_line_says_what_is_wrong(tmp_path: Path, system: RunningSystem) -> None:
    """Errors are one line with a stable exit code: 3 nothing runs or not found, 2 wrong usage, 1 failed."""
    taken = f"gateway={system.options.ports['gateway']}"

    nothing_runs = linkmesh(tmp_path, "status", check=False)
    not_found = linkmesh(system.state, "link", "get", "nothere1x", check=False)
    refused = linkmesh(system.state, "link", "create", "javascript:alert(1)", check=False)
    wrong = linkmesh(tmp_path, "up", "--port", "gateway", check=False)
    port_taken = linkmesh(tmp_path, "up", "--free-ports", "--port", taken, check=False)
    unknown = linkmesh(tmp_path, "up", "--free-ports", check=False, environment={"LINKMESH_KAFKAA": "x"})

    assert (nothing_runs.returncode, nothing_runs.stdout) == (3, "")
    assert (not_found.returncode, refused.returncode, wrong.returncode) == (3, 1, 2)
    assert port_taken.returncode == 1
    assert f"port {system.options.ports['gateway']} (gateway) is taken by" in port_taken.stderr
    assert "LINKMESH_KAFKAA" in unknown.stderr
    for answer in (nothing_runs, not_found, refused, wrong, port_taken, unknown):
        assert answer.stderr.startswith("linkmesh: ")
        assert "Traceback" not in answer.stderr


def test_engines_alone(tmp_path: Path) -> None:
    """Without services the engines run, with topics and tables, for work on one service."""
    with started_system(tmp_path, services=(), traces=False) as system:
        assert system.status() == {"valkey": "running", "dynamodb": "running", "kafka": "running"}
        system.kill("dynamodb", stay_down=True)
        assert system.status()["dynamodb"] == "stopped"
        system.start("dynamodb")
        assert system.status()["dynamodb"] == "running"


def linkmesh(
    state: Path, *arguments: str, check: bool = True, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line on a state folder."""
    answer = subprocess.run(
        [sys.executable, "-m", "linkmesh.cli.main", *arguments, "--state", str(state)],
        capture_output=True,
        text=True,
        timeout=110,
        env=os.environ | (environment or {}),
    )
    assert not check or answer.returncode == 0, answer.stderr
    return answer


def run_up(state: Path) -> dict[str, object]:
    """Start a system in the background by the command line."""
    told: dict[str, object] = json.loads(
        linkmesh(state, "up", "--detach", "--free-ports", "--no-traces", "--json").stdout
    )
    return told


def belongs(process: psutil.Process, state: Path) -> bool:
    """Whether a process's command line names the state folder."""
    return str(state) in " ".join(process.info["cmdline"] or [])
