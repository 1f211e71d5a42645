"""/api/keys through the front door: a further key for one's own account, and for nothing else."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from chassis.auth import Plan, Principal, principal_from_message
from chassis.errors import DeadlineExceeded
from contracts.api_keys import format_key
from contracts.scopes import ACCOUNT_SCOPES, LINKS_READ, LINKS_WRITE
from gateway.handlers import models
from tests.fakes.gateway_peers import ALICE
from tests.fakes.gateway_ports import Door, open_door

NARROW = format_key("n" * 30)


def run(scenario: Callable[[Door], Awaitable[None]]) -> None:
    """Runs a scenario at a front door that also knows a key of Bob's that may only read links."""

    async def main() -> None:
        async with open_door() as door:
            door.peers.keys.keys[NARROW] = Principal("bob", frozenset({LINKS_READ}), Plan.FREE)
            await scenario(door)

    asyncio.run(main())


def test_a_key_is_made_for_ones_own_account() -> None:
    """201 in the documented shape, not to be cached; the caller's principal is stated for link_service to judge."""

    async def scenario(door: Door) -> None:
        headers = {"idempotency-key": "k-1"}
        answer = await door.client.post("/api/keys", json={"scopes": [LINKS_READ]}, headers=headers)

        assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
        made = models.CreatedKeyBody.model_validate(answer.json())
        assert set(answer.json()) == set(models.CreatedKeyBody.model_fields)
        assert (made.user_id, made.scopes) == ("alice", [LINKS_READ])
        assert answer.json()["created_at"] == "2026-11-22T12:00:00Z"
        assert made.secret.startswith(made.prefix)
        request = door.peers.keys.requests[-1]
        assert principal_from_message(request.principal) == ALICE
        assert request.request_id == "k-1"
        assert door.peers.keys.keys[made.secret] == Principal("alice", frozenset({LINKS_READ}), Plan.PREMIUM)

    run(scenario)


@pytest.mark.parametrize("body", [{}, {"scopes": []}])
def test_without_scopes_a_key_can_do_what_its_maker_can(body: dict[str, object]) -> None:
    """Not all that an account can: a key that may only read makes a key that may only read."""

    async def scenario(door: Door) -> None:
        own = await door.client.post("/api/keys", json=body)
        narrow = await door.client.post("/api/keys", json=body, headers={"authorization": f"Bearer {NARROW}"})

        assert own.json()["scopes"] == sorted(ACCOUNT_SCOPES)
        assert (narrow.json()["user_id"], narrow.json()["scopes"]) == ("bob", [LINKS_READ])

    run(scenario)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"scopes": [LINKS_READ, LINKS_WRITE]}, 403, "permission_denied"),
        ({"scopes": ["links:burn"]}, 422, "invalid_field"),
        ({"scopes": "links:read"}, 422, "invalid_field"),
        ({"user_id": "alice"}, 422, "invalid_field"),
        ([], 400, "malformed_request"),
    ],
)
def test_nobody_gives_away_more_than_is_theirs(body: object, status: int, code: str) -> None:
    """More scopes than one's own: 403. A scope that is none, another account, no list: told by name, no key made."""

    async def scenario(door: Door) -> None:
        before = set(door.peers.keys.keys)

        answer = await door.client.post("/api/keys", json=body, headers={"authorization": f"Bearer {NARROW}"})

        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
        assert set(door.peers.keys.keys) == before

    run(scenario)


def test_a_key_that_may_have_been_made_is_told_as_such() -> None:
    """The answer got lost: 503 outcome_unknown, not that it failed."""

    async def scenario(door: Door) -> None:
        door.peers.keys.fail["CreateKey"] = DeadlineExceeded("deadline_exceeded", "Late.")

        answer = await door.client.post("/api/keys", json={})

        assert (answer.status_code, answer.json()["code"]) == (503, "outcome_unknown")

    run(scenario)
