"""Changing, restoring and looking back over HTTP: what reaches link_service, and what is answered."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chassis.auth import principal_from_message
from chassis.errors import DeadlineExceeded
from contracts.link import LinkState
from gateway.handlers import models
from tests.fakes.gateway_peers import ALICE, AT, make_link
from tests.fakes.gateway_ports import Door, open_door

CODE = "aB3dE7x"
PATH = f"/api/links/{CODE}"


def run(scenario: Callable[[Door], Awaitable[None]]) -> None:
    """Runs a scenario at a front door, behind which Alice has a link."""

    async def main() -> None:
        async with open_door() as door:
            door.peers.links.links[CODE] = make_link(title="Old", tags=("a",))
            await scenario(door)

    asyncio.run(main())


def test_an_update_is_passed_on_as_it_was_meant() -> None:
    """200 with the new link and ETag; fields, version and idempotency key reach link_service, with the principal."""

    async def scenario(door: Door) -> None:
        body = {"long_url": "https://example.net/", "tags": ["b"], "expires_at": "2027-01-01T02:00:00+02:00"}

        answer = await door.client.patch(PATH, json=body, headers={"if-match": '"1"', "idempotency-key": "k-1"})

        assert (answer.status_code, answer.headers["etag"]) == (200, '"2"')
        link = models.LinkBody.model_validate(answer.json())
        assert (link.long_url, link.tags, link.title) == ("https://example.net/", ["b"], "Old")
        assert answer.json()["expires_at"] == "2027-01-01T00:00:00Z"
        (request,) = door.peers.links.requests
        assert (request.request_id, request.if_version, request.short_code) == ("k-1", 1, CODE)
        assert sorted(request.update_mask.paths) == ["expires_at", "long_url", "tags"]
        assert principal_from_message(request.principal) == ALICE

    run(scenario)


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ({}, []),
        ({"title": None}, ["title"]),
        ({"tags": None, "redirect_status": None}, ["redirect_status", "tags"]),
        ({"expires_at": None, "starts_at": None}, ["expires_at", "starts_at"]),
        ({"tags": []}, ["tags"]),
    ],
)
def test_null_empties_and_what_is_left_out_stays(body: dict[str, Any], paths: list[str]) -> None:
    """Merge patch: the mask names exactly the members that were sent; null is the empty value of each."""

    async def scenario(door: Door) -> None:
        headers = {"content-type": "application/merge-patch+json"}

        answer = await door.client.patch(PATH, json=body, headers=headers)

        assert answer.status_code == 200
        (request,) = door.peers.links.requests
        assert list(request.update_mask.paths) == paths
        assert (request.long_url, request.title, list(request.tags), request.redirect_status) == ("", "", [], 0)
        assert not request.HasField("expires_at")
        assert not request.HasField("starts_at")

    run(scenario)


@pytest.mark.parametrize(
    ("content", "status", "field"),
    [
        (b"[]", 400, None),
        (b"null", 400, None),
        (b'{"colour": 1}', 422, "colour"),
        (b'{"custom_code": "mine-too"}', 422, "custom_code"),
        (b'{"version": 7}', 422, "version"),
        (b'{"long_url": null}', 422, "long_url"),
        (b'{"expires_at": "2027-01-01T00:00:00"}', 422, "expires_at"),
        (b'{"redirect_status": "301"}', 422, "redirect_status"),
        (b'{"tags": [null]}', 422, "tags.0"),
    ],
)
def test_bad_bodies(content: bytes, status: int, field: str | None) -> None:
    """No JSON object: 400. Fields that are unknown, of another type, or cannot be emptied: 422, by name."""

    async def scenario(door: Door) -> None:
        answer = await door.client.patch(PATH, content=content, headers={"content-type": "application/json"})

        assert answer.status_code == status, answer.text
        assert [item["field"] for item in answer.json()["errors"]] == ([field] if field else [])
        assert door.peers.links.requests == []

    run(scenario)


@pytest.mark.rule("R1")
def test_preconditions() -> None:
    """A stale If-Match is 412, a list of tags 400, a deleted link 409; what no link can be called is 404."""

    async def scenario(door: Door) -> None:
        door.peers.links.links["gone-1"] = make_link("gone-1", state=LinkState.DELETED, deleted_at=AT)
        for path, tag, status, code in (
            (PATH, '"2"', 412, "version_conflict"),
            (PATH, 'W/"1"', 412, "version_conflict"),
            (PATH, '"1", "2"', 400, "malformed_request"),
            ("/api/links/gone-1", "*", 409, "state_conflict"),
            ("/api/links/unknown", "", 404, "link_not_found"),
            ("/api/links/a%20b", "", 404, "link_not_found"),
        ):
            answer = await door.client.patch(path, json={"title": "x"}, headers={"if-match": tag})
            assert (answer.status_code, answer.json()["code"]) == (status, code), path

        assert door.peers.links.links[CODE].title == "Old"

    run(scenario)


def test_a_deleted_link_is_restored() -> None:
    """200 with the link, and the same of one that is not deleted; the version and the key are passed on."""

    async def scenario(door: Door) -> None:
        await door.client.delete(PATH)
        headers = {"if-match": '"2"', "idempotency-key": "k-1"}

        restored = await door.client.post(f"{PATH}:restore", headers=headers)
        again = await door.client.post(f"{PATH}:restore")

        assert (restored.status_code, restored.json()["state"], restored.headers["etag"]) == (200, "active", '"3"')
        assert again.json() == restored.json()
        request = door.peers.links.requests[1]
        assert (request.short_code, request.if_version, request.request_id) == (CODE, 2, "k-1")
        assert (await door.client.post("/api/links/unknown:restore")).status_code == 404
        assert (await door.client.get(f"{PATH}:restore")).status_code == 404

    run(scenario)


@pytest.mark.rule("L1", "R1")
@pytest.mark.parametrize("lost", [False, True], ids=["answered", "answer lost"])
def test_after_a_change_nobody_joins_an_older_look_up(lost: bool) -> None:
    """A redirect that begins after the change was answered asks anew; a lost answer may have been a change."""

    async def scenario(door: Door) -> None:
        links = door.peers.links
        links.gate = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            before = tasks.create_task(door.client.get(f"/{CODE}"))
            while not links.requests:
                await asyncio.sleep(0)
            gate, links.gate = links.gate, None
            if lost:
                links.fail["UpdateLink"] = DeadlineExceeded("deadline_exceeded", "Late.")
            changed = await door.client.patch(PATH, json={"long_url": "https://example.net/new"})
            if lost:
                links.links[CODE] = make_link(version=2, long_url="https://example.net/new")
            after = await door.client.get(f"/{CODE}")
            gate.set()

        assert changed.status_code == (503 if lost else 200)
        if lost:
            assert changed.json()["code"] == "outcome_unknown"
        assert before.result().headers["location"] == "https://example.com/there"
        assert after.headers["location"] == "https://example.net/new"

    run(scenario)


def test_the_history_is_told() -> None:
    """200 in the documented shape, with values as JSON; pages are passed on, their size is bounded here already."""

    async def scenario(door: Door) -> None:
        answer = await door.client.get(f"{PATH}/events", params={"page_size": 7, "page_token": "t"})
        too_many = await door.client.get(f"{PATH}/events", params={"page_size": 101})

        told = models.EventList.model_validate(answer.json())
        assert set(answer.json()) == set(models.EventList.model_fields)
        (event,) = answer.json()["items"]
        assert set(event) == set(models.EventBody.model_fields)
        assert (event["type"], event["version"], event["short_code"]) == ("link.updated", 1, CODE)
        assert event["changes"] == {
            "title": {"old": "Old", "new": "New"},
            "expires_at": {"old": None, "new": "2027-01-01T00:00:00Z"},
        }
        assert (told.next_page_token, told.current_version) == ("more", 2)
        (request,) = door.peers.links.requests
        assert (request.page_size, request.page_token, request.principal.user_id) == (7, "t", "alice")
        assert (too_many.status_code, too_many.json()["errors"][0]["field"]) == (422, "page_size")

    run(scenario)


def test_a_link_is_shown_as_it_was() -> None:
    """The time reaches link_service, in UTC; the state is that of the time, not of today."""

    async def scenario(door: Door) -> None:
        door.peers.links.links[CODE] = make_link(expires_at=AT)

        then = await door.client.get(PATH, params={"at": "2026-11-22T12:30:00+01:00"})
        now = await door.client.get(PATH)
        bad = await door.client.get(PATH, params={"at": "yesterday"})

        assert (then.status_code, then.json()["state"], now.json()["state"]) == (200, "active", "expired")
        asked = door.peers.links.requests[0].at.ToDatetime(tzinfo=UTC)
        assert asked == datetime(2026, 11, 22, 11, 30, tzinfo=UTC) == AT - timedelta(minutes=30)
        assert (bad.status_code, bad.json()["errors"][0]["field"]) == (422, "at")

    run(scenario)


def test_a_row_is_repaired() -> None:
    """200 with the link and what was wrong; the request names the account."""

    async def scenario(door: Door) -> None:
        answer = await door.client.post(f"{PATH}:rebuild")

        models.RebuiltBody.model_validate(answer.json())
        assert answer.status_code == 200
        assert answer.json()["changes"] == {"title": {"old": "Lost", "new": "Old"}}
        (request,) = door.peers.links.requests
        assert (request.short_code, request.principal.user_id) == (CODE, "alice")

    run(scenario)
