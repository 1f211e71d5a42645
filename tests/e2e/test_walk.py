"""A user's first walk: make, follow, count, end, be told, look it up."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

import httpx
import pytest
from standardwebhooks import Webhook

from contracts.link import EventType
from linkmesh.client import Problem
from tests.e2e.receiver import Received, Receiver, receiving
from tests.e2e.rows import stored_events
from tests.e2e.waiting import eventually
from tests.system import RunningSystem


class Stats(NamedTuple):
    """What the statistics of a link say."""

    clicks: dict[str, int]
    prefetches: int
    unique_visitors: int


BROWSER = {"user-agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"}


def follow(system: RunningSystem, code: str, **headers: str) -> httpx.Response:
    """What the public gets for a code."""
    return httpx.get(f"{system.gateway}/{code}", headers=BROWSER | headers, follow_redirects=False, trust_env=False)


def call(system: RunningSystem, method: str, path: str, **options: object) -> httpx.Response:
    """An API call with the development key."""
    headers = {"authorization": f"Bearer {system.api_key}"}
    return httpx.request(method, system.gateway + path, headers=headers, trust_env=False, timeout=10, **options)  # type: ignore[arg-type]  # passed on


@pytest.mark.rule("P2", "P4", "H1", "B1", "W1")
def test_the_whole_way(system: RunningSystem) -> None:
    """201, 302, the click in the statistics, 204, 410 at once; two signed webhooks, two leaves, two event rows."""
    with receiving() as receiver:
        hook = call(system, "POST", "/api/webhooks", json={"url": receiver.url}).raise_for_status().json()
        made = call(system, "POST", "/api/links", json={"long_url": "https://Example.org/a b"}).raise_for_status()
        code = made.json()["short_code"]
        assert (made.status_code, made.headers["location"]) == (201, f"/api/links/{code}")

        first = follow(system, code)
        assert (first.status_code, first.headers["location"]) == (302, "https://example.org/a%20b")
        assert first.headers["cache-control"] == "private, no-store"
        follow(system, code)
        follow(system, code, **{"user-agent": "Googlebot/2.1"})
        follow(system, code, **{"sec-purpose": "prefetch"})
        stats = eventually(lambda: counted(system, code, total=3))
        assert stats.clicks == {"total": 3, "human": 2, "bot": 1}
        assert (stats.prefetches, stats.unique_visitors) == (1, 1)

        assert call(system, "DELETE", f"/api/links/{code}").status_code == 204
        gone = follow(system, code)
        assert (gone.status_code, gone.json()["code"]) == (410, "link_deleted")
        assert call(system, "DELETE", f"/api/links/{code}").status_code == 204
        assert call(system, "GET", f"/api/links/{code}").json()["state"] == "deleted"

        told = eventually(lambda: about(receiver, code, count=2))
        verified = [Webhook(hook["secret"]).verify(item.body, dict(item.headers)) for item in told]
        assert sorted(item["type"] for item in verified) == ["link.created", "link.deleted"]

    entries = eventually(lambda: recorded(system, code, count=2))
    events = stored_events(system.address("dynamodb"), [code])[code]
    assert [event.type for event in events] == [EventType.CREATED, EventType.DELETED]
    assert [entry["event_id"] for entry in entries] == [event.event_id for event in events]
    assert {item.headers["webhook-id"] for item in told} == {event.event_id for event in events}
    assert call(system, "DELETE", f"/api/webhooks/{hook['endpoint_id']}").status_code == 204


@pytest.mark.rule("K2", "P3")
def test_a_chosen_code_belongs_to_who_came_first(system: RunningSystem) -> None:
    """The second creator is told 409, also after a delete: a code is never given out again."""
    body = {"long_url": "https://example.org/", "custom_code": f"mine-{datetime.now(UTC):%H%M%S%f}"}
    code = body["custom_code"]

    assert call(system, "POST", "/api/links", json=body).status_code == 201
    taken = call(system, "POST", "/api/links", json=body | {"long_url": "https://example.net/"})
    assert (taken.status_code, taken.json()["code"]) == (409, "custom_code_taken")
    assert follow(system, code).headers["location"] == "https://example.org/"
    call(system, "DELETE", f"/api/links/{code}")
    assert call(system, "POST", "/api/links", json=body).status_code == 409


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"long_url": "ftp://example.org/"}, 422, "invalid_long_url"),
        ({"long_url": "http://127.0.0.1/"}, 422, "invalid_long_url"),
        ({"long_url": "http://2130706433/"}, 422, "invalid_long_url"),
        ({"long_url": "https://user:pw@example.org/"}, 422, "invalid_long_url"),
        ({"long_url": "https://example.org/" + "x" * 2049}, 422, "invalid_long_url"),
        ({"long_url": "https://example.org/", "custom_code": "abcdefg"}, 422, "invalid_custom_code"),
        ({"long_url": "https://example.org/", "custom_code": "api"}, 422, "invalid_custom_code"),
        ({"long_url": "https://example.org/", "custom_code": "a b"}, 422, "invalid_custom_code"),
        ({"long_url": "https://example.org/", "redirect_status": 303}, 422, "invalid_field"),
        ({"long_url": "https://example.org/", "colour": "red"}, 422, "invalid_field"),
        ({}, 422, "invalid_field"),
    ],
)
def test_bad_input_is_told_and_stores_nothing(
    system: RunningSystem, body: dict[str, object], status: int, code: str
) -> None:
    """4xx problem+json with a documented code; nothing is in the table afterwards."""
    answer = call(system, "POST", "/api/links", json=body)

    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    if "custom_code" in body:
        assert stored_events(system.address("dynamodb"), [str(body["custom_code"])]) == {str(body["custom_code"]): []}


def test_a_new_key_can_do_what_it_was_made_for(system: RunningSystem) -> None:
    """A key with links:read alone reads a link of its account, makes none (403), and makes no mightier key (403)."""
    link = call(system, "POST", "/api/links", json={"long_url": "https://example.org/"}).raise_for_status().json()

    made = call(system, "POST", "/api/keys", json={"scopes": ["links:read"]})

    assert (made.status_code, made.json()["scopes"], made.json()["user_id"]) == (201, ["links:read"], link["user_id"])
    with system.client(made.json()["secret"]) as narrow:
        assert narrow.get_link(link["short_code"]) == link
        refused: list[Callable[[], object]] = [
            lambda: narrow.create_link("https://example.org/"),
            lambda: narrow.delete_link(link["short_code"]),
            lambda: narrow.create_key(["links:read", "links:write"]),
        ]
        for attempt in refused:
            with pytest.raises(Problem) as caught:
                attempt()
            assert (caught.value.status, caught.value.code) == (403, "permission_denied")
        assert narrow.create_key([])["scopes"] == ["links:read"]


def test_our_own_address_is_no_destination(system: RunningSystem) -> None:
    """A short link to a short link is a loop."""
    answer = call(system, "POST", "/api/links", json={"long_url": f"{system.gateway}/abcdefg"})

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_long_url")


def test_bodies_and_keys_that_are_none(system: RunningSystem) -> None:
    """Not JSON: 400. No key, or an unknown one: 401. Unknown codes and pages: 404."""
    assert call(system, "POST", "/api/links", content=b"{").json()["code"] == "malformed_request"
    path = system.gateway + "/api/links"
    for headers in ({}, {"authorization": "Bearer nonsense"}, {"x-api-key": "lk_live_" + "a" * 36}):
        answer = httpx.post(path, json={"long_url": "https://example.org/"}, headers=headers, trust_env=False)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert call(system, "GET", "/api/links/zzzzzzz").status_code == 404
    assert follow(system, "zzzzzzz").status_code == 404
    assert call(system, "GET", "/api/nothing").json()["code"] == "not_found"


def counted(system: RunningSystem, code: str, *, total: int) -> Stats | None:
    """The statistics, once they show so many clicks and the prefetch."""
    stats = call(system, "GET", f"/api/links/{code}/stats").raise_for_status().json()
    assert stats["clicks"]["total"] <= total
    if (stats["clicks"]["total"], stats["prefetches"]) != (total, 1):
        return None
    return Stats(stats["clicks"], stats["prefetches"], stats["unique_visitors"])


def about(receiver: Receiver, code: str, *, count: int) -> list[Received] | None:
    """The deliveries that are about a code, once there are so many."""
    found = [item for item in receiver.requests if json.loads(item.body)["data"]["short_code"] == code]
    return found if len(found) >= count else None


def recorded(system: RunningSystem, code: str, *, count: int) -> list[dict[str, str]] | None:
    """The audit entries of a code, once there are so many."""
    answer = call(system, "GET", "/api/audit/entries", params={"short_code": code}).raise_for_status()
    return answer.json()["items"] if len(answer.json()["items"]) >= count else None
