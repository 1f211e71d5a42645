"""The same request twice, as a client sends it that does not know whether the first arrived."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from contracts.link import EventType, LinkEvent
from tests.e2e.rows import stored_codes, stored_events
from tests.e2e.waiting import eventually
from tests.system import RunningSystem

_CALLERS = 8


def call(
    system: RunningSystem, method: str, path: str, key: str, *, body: object = None, if_match: str = "*"
) -> httpx.Response:
    """A call with the development key and an idempotency key."""
    headers = {"authorization": f"Bearer {system.api_key}", "idempotency-key": key, "if-match": if_match}
    return httpx.request(method, system.gateway + path, headers=headers, json=body, trust_env=False, timeout=10)


def fresh() -> str:
    """A name that no other test has."""
    return uuid.uuid4().hex


@pytest.mark.rule("P6", "I1")
def test_a_create_that_is_repeated_makes_one_link(system: RunningSystem) -> None:
    """Eight calls at once and one later, under one key: one link, one event row. Another body under the key: 422."""
    key, url = fresh(), f"https://example.org/{fresh()}"
    body = {"long_url": url, "title": "once"}

    with ThreadPoolExecutor(_CALLERS) as callers:
        made = list(callers.map(lambda _: call(system, "POST", "/api/links", key, body=body), range(_CALLERS)))
    made.append(call(system, "POST", "/api/links", key, body=body))

    assert [answer.status_code for answer in made] == [201] * (_CALLERS + 1)
    assert all(answer.json() == made[0].json() for answer in made)
    code = made[0].json()["short_code"]
    other = call(system, "POST", "/api/links", key, body=body | {"title": "twice"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    call(system, "DELETE", f"/api/links/{code}", fresh()).raise_for_status()
    assert types_of(wait_for_events(system, code, count=2)) == [EventType.CREATED, EventType.DELETED]
    marker = call(system, "POST", "/api/links", fresh(), body={"long_url": url + "/last"}).raise_for_status().json()
    wait_for_events(system, marker["short_code"], count=1)
    assert stored_codes(system.address("dynamodb"), url) == [code]


@pytest.mark.rule("P6", "I1", "I2", "K2")
def test_a_chosen_code_is_not_taken_by_its_own_first_try(system: RunningSystem) -> None:
    """The repeat of a custom create is 201 with the same link, also when the link has been deleted since."""
    key, code = fresh(), f"once-{fresh()}"
    body = {"long_url": "https://example.org/", "custom_code": code}

    first = call(system, "POST", "/api/links", key, body=body)
    again = call(system, "POST", "/api/links", key, body=body)
    call(system, "DELETE", f"/api/links/{code}", fresh()).raise_for_status()
    later = call(system, "POST", "/api/links", key, body=body)

    assert (first.status_code, again.status_code, later.status_code) == (201, 201, 201)
    assert first.json() == again.json() == later.json()
    assert call(system, "POST", "/api/links", fresh(), body=body).status_code == 409
    assert types_of(wait_for_events(system, code, count=2)) == [EventType.CREATED, EventType.DELETED]


@pytest.mark.rule("P6", "I1", "I2")
def test_a_delete_that_is_repeated_ends_the_link_once(system: RunningSystem) -> None:
    """204 each time, although If-Match is stale by its own success; one event row; another request: 422."""
    made = call(system, "POST", "/api/links", fresh(), body={"long_url": "https://example.org/"}).raise_for_status()
    path, code, key = made.headers["location"], made.json()["short_code"], fresh()

    answers = [call(system, "DELETE", path, key, if_match=made.headers["etag"]) for _ in range(3)]
    other_version = call(system, "DELETE", path, key, if_match='"2"')
    other_method = call(system, "POST", "/api/links", key, body={"long_url": "https://example.org/"})

    assert [answer.status_code for answer in answers] == [204] * 3
    for refused in (other_version, other_method):
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
    assert types_of(wait_for_events(system, code, count=2)) == [EventType.CREATED, EventType.DELETED]


@pytest.mark.rule("P6", "P1", "I1")
def test_a_repeat_finds_its_link_when_the_service_was_killed_in_between(system: RunningSystem) -> None:
    """kill -9 of link_service between two tries: the key is in Redis, not in its memory, and so is the answer."""
    key, body = fresh(), {"long_url": f"https://example.org/{fresh()}"}
    first = call(system, "POST", "/api/links", key, body=body).raise_for_status().json()

    system.kill("link_service")
    system.wait_ready("link_service")
    again = eventually(lambda: ready_answer(call(system, "POST", "/api/links", key, body=body)))

    assert again.json() == first


def wait_for_events(system: RunningSystem, code: str, *, count: int) -> list[LinkEvent]:
    """The event rows of a code, once there are so many."""

    def read() -> list[LinkEvent] | None:
        found = stored_events(system.address("dynamodb"), [code])[code]
        return found if len(found) >= count else None

    return eventually(read)


def types_of(events: list[LinkEvent]) -> list[EventType]:
    """What happened, in order."""
    return [event.type for event in events]


def ready_answer(answer: httpx.Response) -> httpx.Response | None:
    """An answer, unless it says that a process is away."""
    return None if answer.status_code == 503 else answer
