"""The command line: starts light, speaks in one line, and finds the system that runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from linkmesh.cli import main, terminal
from linkmesh.cli.main import app
from linkmesh.local.alone import only_one

HEAVY = ("grpc", "aioboto3", "aiokafka", "httpx", "psutil", "redis", "opentelemetry", "fastapi", "jgo", "rich")
COMMANDS = (
    "up",
    "down",
    "status",
    "logs",
    "doctor",
    "kill",
    "pause",
    "link",
    "stats",
    "top",
    "reconcile",
    "trace",
    "key",
    "webhook",
    "audit",
    "plan",
    "rebuild",
    "lag",
    "dlq",
)


def test_starting_imports_nothing_heavy() -> None:
    """A command answers in well under 300 ms because each imports what it needs when it runs."""
    code = f"import sys, linkmesh.cli.main; print([name for name in {HEAVY!r} if name in sys.modules])"

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert printed.strip() == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    """--help of each command of the contract works and says what it does."""
    answer = CliRunner().invoke(app, [command, "--help"])

    assert answer.exit_code == 0
    assert f"linkmesh {command}" in answer.stdout.replace("root ", "linkmesh ")


@pytest.mark.parametrize("arguments", [["link", "create"], ["nothing"], ["up", "--engines", "mine"], ["stats"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    """A missing argument, an unknown command or value is the caller's mistake, not a failure."""
    assert CliRunner().invoke(app, arguments).exit_code == terminal.USAGE


def test_version_is_the_packages() -> None:
    """`--version` prints the one version of the distribution."""
    answer = CliRunner().invoke(app, ["--version"])

    assert (answer.exit_code, answer.stdout.strip().count(".")) == (0, 2)


def test_the_key_is_found_where_up_left_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """dev.json names key and gateway; the environment wins; without either the command ends with 3 and a hint."""
    monkeypatch.delenv("LINKMESH_API_KEY", raising=False)
    monkeypatch.delenv("LINKMESH_GATEWAY", raising=False)
    with pytest.raises(SystemExit) as caught:
        terminal.open_client(tmp_path)
    assert caught.value.code == terminal.NOT_FOUND

    (tmp_path / "dev.json").write_text(json.dumps({"api_key": "from-file", "gateway": "http://127.0.0.1:9"}))
    with terminal.open_client(tmp_path) as client:
        assert client._http.headers["authorization"] == "Bearer from-file"
        assert str(client._http.base_url) == "http://127.0.0.1:9"

    monkeypatch.setenv("LINKMESH_API_KEY", "from-environment")
    with terminal.open_client(tmp_path) as client:
        assert client._http.headers["authorization"] == "Bearer from-environment"


def test_a_gateway_that_is_away_is_exit_code_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens: one line, no stack."""
    monkeypatch.setenv("LINKMESH_API_KEY", "x")
    monkeypatch.setenv("LINKMESH_GATEWAY", "http://127.0.0.1:1")
    monkeypatch.setattr(sys, "argv", ["linkmesh", "link", "get", "abc", "--state", str(tmp_path)])

    with pytest.raises(SystemExit) as caught:
        main.main()

    assert caught.value.code == terminal.NOT_FOUND


def test_the_free_plan_is_for_a_new_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`key create --free` without an account is wrong usage, not silently a premium key."""
    monkeypatch.setattr(sys, "argv", ["linkmesh", "key", "create", "--free", "--state", str(tmp_path)])

    with pytest.raises(SystemExit) as caught:
        main.main()

    assert caught.value.code == terminal.USAGE


def test_a_table_lines_up() -> None:
    """Columns are as wide as their widest cell, without blanks at the end."""
    assert terminal.table([("a", "long cell", "x"), ("bbb", "c", "")]) == "a    long cell  x\nbbb  c"


def test_a_second_ephemeral_start_leaves_the_first_its_data(tmp_path: Path) -> None:
    """Who starts another ephemeral system beside one that runs is told so, and removes nothing of it."""
    folder = tmp_path / "ephemeral"
    with only_one(folder):
        (folder / "data").mkdir()

        answer = CliRunner().invoke(app, ["up", "--ephemeral", "--free-ports", "--state", str(tmp_path)])

        assert "already runs" in str(answer.exception)
        assert (folder / "data").is_dir()


def test_commands_find_the_system_that_runs(tmp_path: Path) -> None:
    """What a killed ephemeral system left behind hides no other, and is found while nothing else runs."""
    lasting, ephemeral = tmp_path, tmp_path / "ephemeral"
    assert terminal.running_state(tmp_path) == lasting
    with only_one(ephemeral), only_one(lasting):
        assert terminal.running_state(tmp_path) == ephemeral
    assert terminal.running_state(tmp_path) == ephemeral
    with only_one(lasting):
        assert terminal.running_state(tmp_path) == lasting
