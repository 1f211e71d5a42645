"""Clicks as their owner sees them, through the whole system: grouped, live, on top, and reconciled."""

import json
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from linkmesh.client import Problem
from tests.e2e.waiting import eventually
from tests.system import RunningSystem

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
SAFARI = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.0 Mobile/15E148 Safari/604.1"
)


def new_link(system: RunningSystem) -> str:
    """A link of the development account."""
    with system.client() as client:
        return str(client.create_link(f"https://example.org/{secrets.token_hex(4)}")["short_code"])


def follow(system: RunningSystem, code: str, user_agent: str = FIREFOX, **headers: str) -> None:
    """One redirect."""
    answer = httpx.get(
        f"{system.gateway}/{code}",
        headers={"user-agent": user_agent} | headers,
        follow_redirects=False,
        trust_env=False,
    )
    assert answer.status_code == 302


def linkmesh(system: RunningSystem, *arguments: str) -> "subprocess.Popen[str]":
    """The command line, as a person uses it where the system runs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LINKMESH_")}
    environment |= {"LINKMESH_GATEWAY": system.gateway, "LINKMESH_API_KEY": system.api_key, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "linkmesh.cli.main", *arguments, "--state", str(system.state)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def said(system: RunningSystem, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a command that ends by itself."""
    process = linkmesh(system, *arguments)
    out, err = process.communicate(timeout=90)
    assert "Traceback" not in err, err
    return process.returncode, out


@contextmanager
def watching(system: RunningSystem, code: str) -> Iterator[list[tuple[str, dict[str, object]]]]:
    """What is told live while the block runs; the watch has begun before it does."""
    events: list[tuple[str, dict[str, object]]] = []
    begun = threading.Event()

    def read() -> None:
        timeout = httpx.Timeout(10, read=30)
        headers = {"authorization": f"Bearer {system.api_key}"}
        with (
            httpx.Client(base_url=system.gateway, trust_env=False, timeout=timeout, headers=headers) as http,
            http.stream("GET", f"/api/links/{code}/clicks/live") as answer,
        ):
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert answer.headers["cache-control"] == "no-store"
            begun.set()
            name = ""
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    events.append((name, json.loads(line.removeprefix("data: "))))
                if any(seen == "click" and data["browser"] == "Safari" for seen, data in events):
                    return  # the last click of each test

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert begun.wait(20)
        yield events
    finally:
        reader.join(40)
        assert not reader.is_alive()


def test_groups_and_the_top_of_an_account(system: RunningSystem) -> None:
    """Clicks of people by referrer, browser, system and device; the link in the account's list, with all its clicks."""
    code = new_link(system)
    for _ in range(3):
        follow(system, code, referer="https://www.news.example/today")
    follow(system, code, SAFARI)
    follow(system, code, "Googlebot/2.1")

    with system.client() as client:
        stats = eventually(lambda: it if (it := client.stats(code))["clicks"]["total"] == 5 else None)  # type: ignore[index]  # JSON
        assert (stats["groups"], stats["counted_until"] is not None) == ([], True)
        expected = {
            "referrer": {"news.example": 3, "unknown": 1},
            "browser": {"Firefox": 3, "Safari": 1},
            "os": {"Linux": 3, "iOS": 1},
            "country": {"unknown": 4},
        }
        for group_by, groups in expected.items():
            found = client.stats(code, group_by=group_by, tz="America/New_York")["groups"]
            assert {group["value"]: group["clicks"] for group in found} == groups, group_by  # type: ignore[attr-defined]  # JSON
        with pytest.raises(Problem) as told:
            client.stats(code, tz="Asia/Kolkata")
        assert (told.value.status, told.value.code, set(told.value.errors)) == (422, "invalid_field", {"tz"})
        top = client.top_links(page_size="100")
        assert {"short_code": code, "clicks": 5} in top["items"]  # type: ignore[operator]  # JSON

    status, out = said(system, "stats", code, "--group-by", "browser", "--json")
    assert (status, json.loads(out)["groups"]) == (
        0,
        [{"value": "Firefox", "clicks": 3}, {"value": "Safari", "clicks": 1}],
    )
    status, out = said(system, "top", "--once", "--limit", "100")
    assert status == 0
    assert [line.split() for line in out.splitlines() if line.startswith(code)] == [[code, "5"]]


def test_clicks_are_seen_live(system: RunningSystem) -> None:
    """Each within moments of its redirect, what is known of it with it; of the same link only, by its owner only."""
    code, other = new_link(system), new_link(system)
    with watching(system, code) as events:
        follow(system, code, referer="https://www.news.example/")
        follow(system, other)
        eventually(lambda: len(events) == 1)
        follow(system, code, SAFARI)
    assert [name for name, _ in events] == ["click", "click"]
    first = events[0][1]
    assert (first["visitor_class"], first["referrer"], first["os"]) == ("human", "news.example", "Linux")
    with system.client() as client, pytest.raises(Problem) as told:
        next(client.watch_clicks("zzzzzzz"))
    assert told.value.status == 404


def test_the_command_line_watches(system: RunningSystem) -> None:
    """`--watch` prints each click as a line, and ends after as many as were asked for."""
    code = new_link(system)
    process = linkmesh(system, "stats", code, "--watch", "--limit", "2", "--json")
    try:

        def clicked() -> bool:
            follow(system, code)
            return process.poll() is not None

        eventually(clicked, timeout_s=60)
    finally:
        process.kill()
        out, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["click", "click"]


@pytest.mark.rule("A10", "S8")
def test_what_was_recorded_was_counted(system: RunningSystem) -> None:
    """Every spool's clicks are counted: the command says so and ends with 0. Only an operator may ask."""
    code = new_link(system)
    for _ in range(20):
        follow(system, code)

    status, out = said(system, "reconcile", "--json")

    told = json.loads(out)
    assert (status, told["sums"]["difference"]) == (0, 0), out
    assert told["sums"]["counted"] >= 20
    assert any(spool["counted"] for spool in told["spools"])
    status, out = said(system, "reconcile")
    assert (status, out.splitlines()[-1]) == (0, "every recorded click is counted")
