"""The REST API through the front door: each route's success, each error's form, the limits."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from chassis.auth import principal_from_message
from chassis.errors import (
    DeadlineExceeded,
    FieldViolation,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    ServiceError,
    Unavailable,
)
from contracts.api_keys import format_key
from contracts.link import LinkState
from contracts.reasons import Reason
from gateway.handlers import models
from tests.fakes.gateway_peers import ALICE, AT, KEY, make_link
from tests.fakes.gateway_ports import Door, DoorOptions, open_door

URL = "https://example.com/there"


def run(scenario: Callable[[Door], Awaitable[None]], options: DoorOptions | None = None) -> None:
    """Runs a scenario at a front door."""

    async def main() -> None:
        async with open_door(options) as door:
            await scenario(door)

    asyncio.run(main())


def test_a_link_is_made() -> None:
    """201 with Location, ETag and the link; everything asked for reaches link_service, with the principal."""

    async def scenario(door: Door) -> None:
        body = {
            "long_url": URL,
            "custom_code": "spring-sale",
            "expires_at": "2027-01-01T02:00:00+02:00",
            "redirect_status": 301,
            "title": "Sale",
            "tags": ["a", "b"],
        }

        answer = await door.client.post("/api/links", json=body, headers={"idempotency-key": "k-1"})

        assert answer.status_code == 201
        assert answer.headers["location"] == "/api/links/spring-sale"
        assert answer.headers["etag"] == '"1"'
        assert answer.headers["cache-control"] == "no-store"
        link = models.LinkBody.model_validate(answer.json())
        assert set(answer.json()) == set(models.LinkBody.model_fields)
        assert link.short_url == "https://lm.example/spring-sale"
        assert answer.json()["expires_at"] == "2027-01-01T00:00:00Z"
        (request,) = door.peers.links.requests
        assert (request.request_id, request.title, list(request.tags)) == ("k-1", "Sale", ["a", "b"])
        assert principal_from_message(request.principal) == ALICE

    run(scenario)


def test_a_link_is_read_by_its_owner() -> None:
    """200 with the version as ETag; a deleted one is still readable; a foreign or unknown one is 404."""

    async def scenario(door: Door) -> None:
        links = door.peers.links.links
        links["aB3dE7x"] = make_link(version=3, state=LinkState.DELETED, deleted_at=AT)
        links["expired"] = make_link("expired", expires_at=AT)
        links["foreign"] = make_link("foreign", user_id="bob")

        deleted = await door.client.get("/api/links/aB3dE7x")
        expired = await door.client.get("/api/links/expired")

        assert (deleted.status_code, deleted.headers["etag"], deleted.json()["state"]) == (200, '"3"', "deleted")
        assert deleted.json()["deleted_at"] == "2026-11-22T12:00:00Z"
        assert expired.json()["state"] == "expired"
        for code in ("foreign", "unknown", "a%20b"):
            answer = await door.client.get(f"/api/links/{code}")
            assert (answer.status_code, answer.json()["code"]) == (404, "link_not_found")

    run(scenario)


@pytest.mark.rule("P2")
def test_a_link_is_deleted() -> None:
    """204, and 204 again; a stale If-Match is 412, a list of tags 400; nothing else is deleted by them."""

    async def scenario(door: Door) -> None:
        links = door.peers.links.links
        links["aB3dE7x"] = make_link()

        for tag, status in (('"2"', 412), ('W/"1"', 412), ('"1", "2"', 400)):
            refused = await door.client.delete("/api/links/aB3dE7x", headers={"if-match": tag})
            assert refused.status_code == status, tag
        assert [link.state for link in links.values()] == [LinkState.ACTIVE]
        deleted = await door.client.delete("/api/links/aB3dE7x", headers={"if-match": '"1"'})
        again = await door.client.delete("/api/links/aB3dE7x")

        assert (deleted.status_code, again.status_code, deleted.content) == (204, 204, b"")
        assert [link.state for link in links.values()] == [LinkState.DELETED]
        assert (await door.client.delete("/api/links/unknown")).status_code == 404

    run(scenario)


@pytest.mark.rule("P2", "L1")
def test_after_a_delete_nobody_joins_an_older_look_up() -> None:
    """A redirect that begins after the delete was acknowledged asks anew, however young the flight under way is."""

    async def scenario(door: Door) -> None:
        door.peers.links.links["aB3dE7x"] = make_link()
        door.peers.links.gate = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            before = tasks.create_task(door.client.get("/aB3dE7x"))
            while not door.peers.links.requests:
                await asyncio.sleep(0)
            gate, door.peers.links.gate = door.peers.links.gate, None
            await door.client.delete("/api/links/aB3dE7x")
            after = await door.client.get("/aB3dE7x")
            gate.set()

        assert before.result().status_code == 302
        assert after.status_code == 410

    run(scenario)


def test_webhooks() -> None:
    """Endpoints are added (the secret once), listed, removed; deliveries are paged."""

    async def scenario(door: Door) -> None:
        body = {"url": "https://hooks.example/in", "event_types": ["link.created"]}

        made = await door.client.post("/api/webhooks", json=body)
        listed = await door.client.get("/api/webhooks")
        told = await door.client.get("/api/webhooks/ep_0/deliveries", params={"page_size": 7, "page_token": "t"})
        removed = await door.client.delete("/api/webhooks/ep_0")
        gone = await door.client.delete("/api/webhooks/ep_0")

        assert (made.status_code, made.headers["location"]) == (201, "/api/webhooks/ep_0")
        assert made.json()["secret"].startswith("whsec_")
        assert set(made.json()) == set(models.CreatedEndpointBody.model_fields)
        models.EndpointList.model_validate(listed.json())
        assert "secret" not in listed.json()["items"][0]
        deliveries = models.DeliveryList.model_validate(told.json())
        assert (deliveries.items[0].state, deliveries.next_page_token) == ("delivered", "more")
        asked = next(request for request in door.peers.webhooks.requests if hasattr(request, "page_token"))
        assert (asked.page_size, asked.page_token) == (7, "t")
        assert (removed.status_code, gone.status_code) == (204, 404)
        assert gone.json()["code"] == "endpoint_not_found"

    run(scenario)


def test_the_audit_log() -> None:
    """Entries and checkpoints in their documented shapes; the page's size is bounded here already."""

    async def scenario(door: Door) -> None:
        entries = await door.client.get("/api/audit/entries", params={"short_code": "aB3dE7x", "page_size": 3})
        checkpoint = await door.client.get("/api/audit/checkpoint", params={"partition": 3})
        too_many = await door.client.get("/api/audit/entries", params={"page_size": 101})

        listed = models.AuditEntryList.model_validate(entries.json())
        assert (listed.items[0].leaf_index, listed.items[0].commitment) == (7, "0102")
        assert models.CheckpointBody.model_validate(checkpoint.json()).partition == 3
        assert [request.partition for request in door.peers.audit.requests if hasattr(request, "partition")] == [3]
        assert (too_many.status_code, too_many.json()["errors"][0]["field"]) == (422, "page_size")

    run(scenario)


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        (b"{", 400, "malformed_request", None),
        (b"", 400, "malformed_request", None),
        (b"[]", 400, "malformed_request", None),
        (b"null", 400, "malformed_request", None),
        (b'"text"', 400, "malformed_request", None),
        (b"[" * 60_000, 400, "malformed_request", None),
        (b"\xff\xfe{", 400, "malformed_request", None),
        (b"{}", 422, "invalid_field", "long_url"),
        (b'{"long_url": 5}', 422, "invalid_field", "long_url"),
        (b'{"long_url": "https://e.com", "colour": 1}', 422, "invalid_field", "colour"),
        (b'{"long_url": "https://e.com", "redirect_status": "301"}', 422, "invalid_field", "redirect_status"),
        (b'{"long_url": "https://e.com", "expires_at": 1900000000}', 422, "invalid_field", "expires_at"),
        (b'{"long_url": "https://e.com", "expires_at": "2027-01-01T00:00:00"}', 422, "invalid_field", "expires_at"),
        (
            b'{"long_url": "https://e.com", "expires_at": "0001-01-01T00:00:00+10:00"}',
            422,
            "invalid_field",
            "expires_at",
        ),
        (b'{"long_url": "https://e.com", "tags": "a"}', 422, "invalid_field", "tags"),
        (b'{"long_url": "https://e.com", "tags": ["a", 1]}', 422, "invalid_field", "tags.1"),
        (b'{"long_url": "\\ud800"}', 422, "invalid_field", "long_url"),
        (b'{"long_url": "https://e.com", "redirect_status": 99999999999}', 422, "invalid_field", "redirect_status"),
    ],
)
def test_bad_bodies(body: bytes, status: int, code: str, field: str | None) -> None:
    """No JSON object: 400. A field that is missing, unknown or of another type: 422, by name. Nothing is asked for."""

    async def scenario(door: Door) -> None:
        headers = {"content-type": "application/json"}

        answer = await door.client.post("/api/links", content=body, headers=headers)

        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        if field is not None:
            assert field in [item["field"] for item in answer.json()["errors"]]
        assert door.peers.links.requests == []

    run(scenario)


def test_a_body_must_say_that_it_is_json() -> None:
    """A form is not taken for JSON."""

    async def scenario(door: Door) -> None:
        answer = await door.client.post("/api/links", data={"long_url": URL})

        assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")
        assert "application/json" in answer.json()["detail"]

    run(scenario)


def test_values_are_not_repeated_in_errors() -> None:
    """An error names the field, never what was sent in it."""

    async def scenario(door: Door) -> None:
        answer = await door.client.post("/api/links", json={"long_url": {"password": "hunter2"}})

        assert answer.status_code == 422
        assert "hunter2" not in answer.text

    run(scenario)


@pytest.mark.parametrize(("size", "status"), [(64 << 10, 422), ((64 << 10) + 1, 413), (2 << 20, 413)])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_has_at_most_64_kib(size: int, status: int, chunked: bool) -> None:
    """64 KiB pass, one byte more is 413, whether its length was declared or not."""
    padding = b" " * (size - 2)

    async def scenario(door: Door) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"{"
            yield padding
            yield b"}"

        content = chunks() if chunked else b"{" + padding + b"}"
        headers = {"content-type": "application/json"}

        answer = await door.client.post("/api/links", content=content, headers=headers)

        assert answer.status_code == status
        if status == 413:
            assert answer.json()["code"] == "request_too_large"

    run(scenario)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer "},
        {"authorization": "Basic dXNlcjpwYXNz"},
        {"x-api-key": "nonsense"},
        {"authorization": f"Bearer {KEY[:-1]}_"},
        {"authorization": f"Bearer {format_key('b' * 30)}"},
    ],
)
def test_without_a_good_key_everything_is_401(headers: dict[str, str]) -> None:
    """No key, another scheme, junk, a bad checksum, an unknown key: 401 with WWW-Authenticate, nothing done."""

    async def scenario(door: Door) -> None:
        calls = [
            ("POST", "/api/links"), ("GET", "/api/links/aB3dE7x"), ("DELETE", "/api/links/aB3dE7x"),
            ("PATCH", "/api/links/aB3dE7x"), ("POST", "/api/links/aB3dE7x:restore"),
            ("POST", "/api/links/aB3dE7x:rebuild"),
            ("GET", "/api/links/aB3dE7x/events"),
            ("GET", "/api/links/aB3dE7x/stats"), ("GET", "/api/links/aB3dE7x/clicks/live"), ("GET", "/api/stats/top"),
            ("POST", "/api/webhooks"), ("GET", "/api/webhooks"),
            ("DELETE", "/api/webhooks/ep_0"), ("GET", "/api/webhooks/ep_0/deliveries"),
            ("GET", "/api/audit/entries"), ("GET", "/api/audit/checkpoint"), ("POST", "/api/keys"),
        ]  # fmt: skip
        for method, path in calls:
            content = json.dumps({"long_url": URL} if "links" in path else {"url": URL}) if method == "POST" else None
            answer = await door.client.request(
                method, path, content=content, headers={"content-type": "application/json"}
            )
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), (method, path)
            assert answer.headers["www-authenticate"].startswith("Bearer")
        peers = door.peers
        assert [] == peers.links.requests == peers.webhooks.requests == peers.audit.requests == peers.analytics.requests

    run(scenario, DoorOptions(headers=headers))


def test_a_key_may_come_as_x_api_key() -> None:
    """Both headers do."""

    async def scenario(door: Door) -> None:
        assert (await door.client.get("/api/webhooks")).status_code == 200

    run(scenario, DoorOptions(headers={"x-api-key": KEY}))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            InvalidArgument("invalid_long_url", "No.", fields=(FieldViolation("long_url", "Private."),)),
            Reason.INVALID_LONG_URL,
        ),
        (InvalidArgument("invalid_custom_code", "No."), Reason.INVALID_CUSTOM_CODE),
        (PermissionDenied("permission_denied", "No."), Reason.PERMISSION_DENIED),
        (ResourceExhausted("rate_limited", "Later.", retry_after_s=2.5), Reason.RATE_LIMITED),
        (Unavailable("unavailable", "Later.", retry_after_s=7), Reason.UNAVAILABLE),
        (Unavailable("outcome_unknown", "Look."), Reason.OUTCOME_UNKNOWN),
        (DeadlineExceeded("deadline_exceeded", "Late."), Reason.OUTCOME_UNKNOWN),
        (Unavailable("unavailable", "Broke.", metadata={"outcome": "unknown"}), Reason.OUTCOME_UNKNOWN),
        (Internal("internal", "Ours."), Reason.INTERNAL),
        (NotFound("a_reason_of_tomorrow", "New."), Reason.INTERNAL),
    ],
)
def test_errors_of_link_service_become_problems(error: ServiceError, reason: Reason) -> None:
    """Reason decides the status; fields and Retry-After come along; a lost answer is told as such, not as failure."""

    async def scenario(door: Door) -> None:
        door.peers.links.fail["CreateLink"] = error

        answer = await door.client.post("/api/links", json={"long_url": URL})

        problem = models.ProblemBody.model_validate(answer.json())
        assert (answer.status_code, problem.code, problem.title) == (reason.http_status, reason.code, reason.title)
        assert problem.type == f"urn:linkmesh:problem:{reason.code}"
        assert [item.field for item in problem.errors] == [item.field for item in error.fields]
        if error.retry_after_s is not None:
            expected = {2.5: "3", 7: "7"}[error.retry_after_s]
            assert answer.headers["retry-after"] == expected

    run(scenario)


@pytest.mark.parametrize(
    ("path", "peer", "method"),
    [
        ("/api/links/aB3dE7x", "links", "GetLink"),
        ("/api/links/aB3dE7x/events", "links", "ListLinkEvents"),
        ("/api/links/aB3dE7x?at=2026-11-22T12:00:00Z", "links", "GetLinkAt"),
        ("/api/links/aB3dE7x/stats", "analytics", "GetClickStats"),
        ("/api/stats/top", "analytics", "ListTopLinks"),
        ("/api/links/aB3dE7x/clicks/live", "analytics", "WatchClicks"),
        ("/api/webhooks", "webhooks", "ListEndpoints"),
        ("/api/audit/entries", "audit", "ListEntries"),
        ("/api/webhooks", "keys", "VerifyKey"),
    ],
)
def test_a_peer_that_is_away_is_503(path: str, peer: str, method: str) -> None:
    """Any process that cannot be reached makes its own routes 503 with Retry-After, and a late one 504."""

    async def scenario(door: Door) -> None:
        door.peers.links.links["aB3dE7x"] = make_link()
        fail: dict[str, Any] = getattr(door.peers, peer).fail

        fail[method] = Unavailable("unavailable", "A process cannot be reached.")
        away = await door.client.get(path)
        fail[method] = DeadlineExceeded("deadline_exceeded", "A process did not answer in time.")
        late = await door.client.get(path)

        assert (away.status_code, away.headers["retry-after"]) == (503, "1")
        assert late.status_code == 504

    run(scenario)


def test_a_bug_is_500_and_says_nothing() -> None:
    """What nobody thought of is answered as ours, without its text."""

    async def scenario(door: Door) -> None:
        door.peers.links.fail["CreateLink"] = ValueError("secret=42")  # type: ignore[assignment]  # a bug, planted

        answer = await door.client.post("/api/links", json={"long_url": URL})

        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
        assert "42" not in answer.text.replace(answer.json()["trace_id"], "")

    run(scenario)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/api/links", "POST"),
        ("PUT", "/api/links/aB3dE7x", "DELETE, GET, PATCH"),
        ("POST", "/api/links/aB3dE7x/stats", "GET"),
        ("PATCH", "/api/webhooks", "GET, POST"),
        ("GET", "/api/webhooks/ep_0", "DELETE"),
        ("POST", "/openapi.json", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_405_and_told_the_right_ones(method: str, path: str, allow: str) -> None:
    """Allow names all methods of the path."""

    async def scenario(door: Door) -> None:
        answer = await door.client.request(method, path)

        assert (answer.status_code, answer.headers["allow"]) == (405, allow)
        assert answer.json()["code"] == "method_not_allowed"

    run(scenario)


@pytest.mark.parametrize(
    "path", ["/api/", "/api/nothing", "/api/links/", "/api/links/aB3dE7x/stats/", "/api/links/a/b/c"]
)
def test_unknown_paths_of_the_api_are_404(path: str) -> None:
    """In the form of every other error; no redirect to a path with one slash less."""

    async def scenario(door: Door) -> None:
        answer = await door.client.get(path)

        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")

    run(scenario)


@pytest.mark.rule("I1")
@pytest.mark.parametrize(("key", "status"), [("x" * 128, 201), ("x" * 129, 422), ("with space", 422)])
def test_an_idempotency_key_is_short_and_plain(key: str, status: int) -> None:
    """Up to 128 visible characters."""

    async def scenario(door: Door) -> None:
        answer = await door.client.post("/api/links", json={"long_url": URL}, headers={"idempotency-key": key})

        assert answer.status_code == status

    run(scenario)


def test_the_description_names_every_route_and_the_form_of_errors() -> None:
    """/openapi.json has all routes; problems are problem+json; keys are described."""

    async def scenario(door: Door) -> None:
        described = (await door.client.get("/openapi.json")).json()

        assert set(described["paths"]) == {
            "/api/links", "/api/links/{code}", "/api/links/{code}:restore", "/api/links/{code}:rebuild",
            "/api/links/{code}/events", "/api/links:batch",
            "/api/links/{code}/stats", "/api/links/{code}/clicks/live", "/api/stats/top", "/api/webhooks",
            "/api/webhooks/{endpoint_id}", "/api/webhooks/{endpoint_id}/deliveries",
            "/api/audit/entries", "/api/audit/checkpoint", "/api/keys",
        }  # fmt: skip
        for operation in (each for path in described["paths"].values() for each in path.values()):
            assert list(operation["responses"]["default"]["content"]) == ["application/problem+json"]
            assert operation["security"]

    run(scenario)
