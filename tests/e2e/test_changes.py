"""A link's life between create and delete, on the whole system: changed, ended, brought back, looked back on."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from contracts.link import Link, LinkState
from linkmesh.cli.main import app
from linkmesh.client import Client, Json, Problem
from tests.e2e.rows import remove_link, stored_events, stored_link
from tests.e2e.waiting import eventually
from tests.system import RunningSystem

TYPES = ["link.created", "link.updated", "link.deleted", "link.restored"]


@pytest.fixture
def client(system: RunningSystem) -> Iterator[Client]:
    """A client with the development key."""
    with system.client() as opened:
        yield opened


def whole_history(client: Client, code: str, *, version: int) -> list[Json] | None:
    """The events of a link, once all up to that version are there."""
    page = client.link_events(code)
    events = page["items"]
    assert isinstance(events, list)
    assert page["current_version"] == version
    return events if events and events[-1]["version"] == version else None


def projected(endpoint: str, code: str, *, version: int) -> Link | None:
    """The projection of a code, once it is at that version."""
    link = stored_link(endpoint, code)
    return link if link is not None and link.version == version else None


@pytest.mark.rule("P1", "R1", "R4", "W1", "W2", "W3")
def test_a_link_is_changed_ended_brought_back_and_looked_back_on(system: RunningSystem, client: Client) -> None:
    """Each change redirects as it says with the next request; history, time travel and tables tell the same."""
    code = str(client.create_link("https://example.org/one")["short_code"])
    assert client.visit(code) == (302, "https://example.org/one")

    client.update_link(code, {"long_url": "https://example.org/two", "redirect_status": 307, "tags": ["x"]})
    assert client.visit(code) == (307, "https://example.org/two")
    client.delete_link(code)
    assert client.visit(code)[0] == 410
    with pytest.raises(Problem) as refused:
        client.update_link(code, {"title": "Late"})
    assert (refused.value.status, refused.value.code) == (409, "state_conflict")
    restored = client.restore_link(code, if_version=3)
    assert client.visit(code) == (307, "https://example.org/two")
    assert client.restore_link(code) == restored

    events = eventually(lambda: whole_history(client, code, version=4))
    assert [event["type"] for event in events] == TYPES
    assert [event["version"] for event in events] == [1, 2, 3, 4]
    assert events[1]["changes"] == {
        "long_url": {"old": "https://example.org/one", "new": "https://example.org/two"},
        "tags": {"old": [], "new": ["x"]},
        "redirect_status": {"old": 302, "new": 307},
    }
    then = [client.get_link(code, at=str(event["at"])) for event in events]
    assert then == [event["link"] for event in events]
    with pytest.raises(Problem) as before:
        client.get_link(code, at="2020-01-01T00:00:00Z")
    assert before.value.status == 404
    endpoint = system.address("dynamodb")
    link = eventually(lambda: projected(endpoint, code, version=4))
    assert (link.state, link.deleted_at, link.tags) == (LinkState.ACTIVE, None, ("x",))
    assert [event.link for event in stored_events(endpoint, [code])[code]][-1] == link


@pytest.mark.rule("R1", "I1", "P6")
def test_a_change_is_made_once_and_only_of_what_was_seen(client: Client) -> None:
    """A stale If-Match is 412; a repeat under its key gives the first answer; another body under it is 422."""
    code = str(client.create_link("https://example.org/")["short_code"])

    first = client.update_link(code, {"title": "One"}, if_version=1, idempotency_key=f"key-{code}")
    client.update_link(code, {"title": "Two"})
    again = client.update_link(code, {"title": "One"}, if_version=1, idempotency_key=f"key-{code}")

    assert (first["version"], again) == (2, first)
    assert client.get_link(code)["title"] == "Two"
    for changes, key, status, reason in (
        ({"title": "Three"}, "", 412, "version_conflict"),
        ({"title": "Three"}, f"key-{code}", 422, "idempotency_key_reused"),
    ):
        with pytest.raises(Problem) as caught:
            client.update_link(code, changes, if_version=1, idempotency_key=key)
        assert (caught.value.status, caught.value.code) == (status, reason)
    assert client.get_link(code)["version"] == 3


def test_the_times_of_a_link_act_when_they_are_moved(client: Client) -> None:
    """An end that has come is 410, a start to come 404; moved or emptied, the next request redirects."""
    code = str(client.create_link("https://example.org/")["short_code"])
    client.update_link(code, {"starts_at": "2099-01-01T00:00:00Z"})
    assert client.visit(code)[0] == 404
    client.update_link(code, {"starts_at": None})
    assert client.visit(code)[0] == 302

    soon = datetime.now(UTC) + timedelta(seconds=0.5)
    client.update_link(code, {"expires_at": soon.isoformat()})
    eventually(lambda: client.visit(code)[0] == 410)
    assert client.get_link(code)["state"] == "expired"
    later = client.update_link(code, {"expires_at": "2099-01-01T00:00:00Z"})

    assert (client.visit(code)[0], later["state"]) == (302, "active")


@pytest.mark.rule("W1", "W2")
def test_a_lost_row_is_made_again(system: RunningSystem, client: Client) -> None:
    """A projection that somebody removed is rebuilt from the events; a second time there is nothing to do."""
    endpoint = system.address("dynamodb")
    code = str(client.create_link("https://example.org/")["short_code"])
    client.update_link(code, {"title": "New"})
    right = eventually(lambda: projected(endpoint, code, version=2))
    remove_link(endpoint, code)
    assert stored_link(endpoint, code) is None

    repaired = client.rebuild_link(code)["changes"]

    assert isinstance(repaired, dict)
    assert repaired["title"] == {"old": None, "new": "New"}
    assert stored_link(endpoint, code) == right
    assert client.rebuild_link(code)["changes"] == {}


def test_the_command_line_changes_links(system: RunningSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """update, delete, restore, history and get --at work from a terminal."""
    monkeypatch.setenv("LINKMESH_API_KEY", system.api_key)
    monkeypatch.setenv("LINKMESH_GATEWAY", system.gateway)

    def run(*arguments: str) -> str:
        answer = CliRunner().invoke(app, ["link", *arguments])
        assert answer.exit_code == 0, answer.output
        return answer.stdout

    code = run("create", "https://example.org/").strip().rpartition("/")[2]
    changed = json.loads(
        run("update", code, "--title", "New", "--tag", "a", "--tag", "b", "--if-version", "1", "--json")
    )
    cleared = json.loads(run("update", code, "--clear", "title", "--json"))
    run("delete", code)
    restored = json.loads(run("restore", code, "--json"))

    assert (changed["title"], changed["tags"], cleared["title"]) == ("New", ["a", "b"], "")
    assert (restored["version"], restored["state"]) == (5, "active")
    eventually(lambda: run("history", code).count("\n") == 5)
    told = run("history", code)
    assert "title: - -> New; tags: - -> a, b" in told
    assert "link.restored" in told.splitlines()[4]
    assert json.loads(run("get", code, "--at", changed["updated_at"], "--json")) == changed
