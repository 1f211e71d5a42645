"""POST /api/links past FastAPI and through it, and many links in one request."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from chassis.errors import DeadlineExceeded, InvalidArgument, Unavailable
from gateway.handlers import models
from tests.fakes.gateway_peers import KEY
from tests.fakes.gateway_ports import Door, DoorOptions, open_door

URL = "https://example.com/there"
JSON = "application/json"


def run(scenario: Callable[[Door], Awaitable[None]], options: DoorOptions | None = None) -> None:
    """Runs a scenario at a front door."""

    async def main() -> None:
        async with open_door(options) as door:
            await scenario(door)

    asyncio.run(main())


@pytest.mark.parametrize(
    "body",
    [
        {"long_url": URL},
        {"long_url": URL, "title": "Grüße \u2028 \x7f \"'\\/<>", "tags": ["a", "ä"], "redirect_status": 308},
        {"long_url": URL, "expires_at": "2027-01-01T02:00:00.25+02:00", "starts_at": None},
        {"long_url": URL, "custom_code": "spring-sale"},
    ],
)
def test_both_ways_give_the_same_answer(body: dict[str, object]) -> None:
    """The plain way and the documented route answer alike to the byte: status, headers in order, body. A content type
    with a parameter takes the documented route."""

    async def scenario(door: Door) -> None:
        answers = []
        for content_type in (JSON, "application/json; version=1"):
            door.peers.links.links.clear()
            content = json.dumps(body, ensure_ascii=False).encode()
            headers = {"content-type": content_type}
            answers.append(await door.client.post("/api/links", content=content, headers=headers))
        plain, documented = answers

        assert plain.status_code == documented.status_code == 201
        assert plain.headers.raw == documented.headers.raw
        assert plain.content == documented.content
        first, second = door.peers.links.requests
        assert first == second

    run(scenario)


@pytest.mark.parametrize(
    "body",
    [
        b'{"long_url": "https://e.com", "long_url": "https://f.com"}',
        b'{"long_url": "https://e.com", "redirect_status": 302.0}',
        b'{"long_url": "https://e.com", "redirect_status": true}',
        b'{"long_url": "https://e.com", "redirect_status": NaN}',
        b'{"long_url": "https://e.com", "title": null, "tags": []}',
        b'{"long_url": "https://e.com", "tags": null}',
        b'{"long_url": "https://e.com", "starts_at": "2027-01-01"}',
        b'{"long_url": "https://e.com", "starts_at": "2027-01-01T00:00:00z"}',
        b'{"long_url": "https://e.com", "starts_at": ""}',
        b'{"long_url": "\\ud83d\\ude00"}',
        b'{"long_url": "\\ud83d"}',
        b'{"long_url": "a\tb"}',
        b'\xef\xbb\xbf{"long_url": "https://e.com"}',
        b'{"long_url": "https://e.com",}',
        b' {"long_url" : "https://e.com"} ',
        b'{"long_url": "https://e.com"} x',
        b'{"long_url": {}}',
        '{"long_url": "https://e.com"}'.encode("utf-16"),
    ],
)
def test_both_ways_take_and_refuse_the_same(body: bytes) -> None:
    """Corners of JSON and of the model: the same status, and the same problem or link."""

    async def scenario(door: Door) -> None:
        answers = []
        for content_type in (JSON, "application/json; version=1"):
            door.peers.links.links.clear()
            answers.append(await door.client.post("/api/links", content=body, headers={"content-type": content_type}))
        told = [answer.json() for answer in answers]
        for item in told:
            item.pop("trace_id", None)

        assert answers[0].status_code == answers[1].status_code
        assert told[0] == told[1]

    run(scenario)


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("authorization", f"Bearer {KEY}")], 201),
        ([("authorization", f"bearer {KEY}")], 201),
        ([("x-api-key", KEY)], 201),
        ([("authorization", f"Bearer {KEY}"), ("idempotency-key", "k")], 201),
        ([("authorization", f"Bearer {KEY}"), ("idempotency-key", "a b")], 422),
        ([("authorization", f"Bearer {KEY}"), ("idempotency-key", "x" * 129)], 422),
        ([("authorization", f"Bearer {KEY}"), ("idempotency-key", "")], 422),
        ([("authorization", "Bearer lk_live_nobody")], 401),
        ([("authorization", f"Basic {KEY}")], 401),
        ([("authorization", "Bearer "), ("x-api-key", KEY)], 201),
        ([("authorization", f"Bearer {KEY}\t")], 201),
        ([("authorization", "Bearer \u00e9")], 401),
        ([], 401),
    ],
)
def test_headers_mean_the_same_either_way(headers: list[tuple[str, str]], status: int) -> None:
    """Keys by any of their headers, in any case; an idempotency key of a wrong form; nobody's key, and none at all."""

    async def scenario(door: Door) -> None:
        details = []
        for content_type in (JSON, "application/json; version=1"):
            said = {**dict(headers), "content-type": content_type}
            content = json.dumps({"long_url": URL})
            answer = await door.client.post("/api/links", content=content, headers=_encoded(said))

            assert answer.status_code == status, answer.text
            assert answer.headers["cache-control"] == "no-store"
            assert ("www-authenticate" in answer.headers) == (status == 401)
            details.append(answer.json().get("detail"))
            for problem in answer.json().get("errors", ()):
                assert "1 to 128 visible ASCII characters" in problem["description"], "in words"
        assert details[0] == details[1]

    run(scenario, DoorOptions(headers={}))


@pytest.mark.rule("R1")
@pytest.mark.parametrize("content_type", [JSON, "application/json; version=1"])
def test_a_lost_answer_is_told_as_such_either_way(content_type: str) -> None:
    """No answer in time, of the item or of the call: the link may have been made, so it is not told that it was not."""

    async def scenario(door: Door) -> None:
        for method in ("CreateLink", "BatchCreateLinks"):
            door.peers.links.fail = {method: DeadlineExceeded("deadline_exceeded", "Late.")}
            headers = {"content-type": content_type}
            answer = await door.client.post("/api/links", content=json.dumps({"long_url": URL}), headers=headers)

            assert (answer.status_code, answer.json()["code"]) == (503, "outcome_unknown")
            assert "retry-after" not in answer.headers

    run(scenario)


@pytest.mark.rule("P2")
@pytest.mark.parametrize("content_type", [JSON, "application/json; version=1"])
def test_who_follows_a_new_link_joins_no_look_up_of_before(content_type: str) -> None:
    """A look-up that began before the link was made may say that there is none; who comes after the 201 asks anew."""

    async def scenario(door: Door) -> None:
        gate = door.peers.links.gate = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            early = tasks.create_task(door.client.get("/spring-sale"))
            while not door.peers.links.requests:
                await asyncio.sleep(0)
            door.peers.links.gate = None
            content = json.dumps({"long_url": URL, "custom_code": "spring-sale"})
            headers = {"content-type": content_type}
            made = await door.client.post("/api/links", content=content, headers=headers)
            late = tasks.create_task(door.client.get("/spring-sale"))
            await asyncio.wait([late], timeout=5)
            is_answered = late.done() and not early.done()
            gate.set()

        assert made.status_code == 201
        assert is_answered, "it waits for a look-up that began before the link was made"
        assert late.result().status_code == 302

    run(scenario)


def test_creates_of_one_moment_share_a_call_through_the_front_door() -> None:
    """Thirty requests at once: few calls, every link made; a refused one is refused alone."""

    async def scenario(door: Door) -> None:
        async with asyncio.TaskGroup() as tasks:
            asked = [
                tasks.create_task(door.client.post("/api/links", json={"long_url": f"{URL}/{number}"}))
                for number in range(30)
            ]
        assert [task.result().status_code for task in asked] == [201] * 30
        assert [task.result().json()["long_url"] for task in asked] == [f"{URL}/{number}" for number in range(30)]
        assert len(door.peers.links.batches) < 10

    run(scenario)


def test_many_links_in_one_request() -> None:
    """200 with one result for each, in order: the link, or the problem that a single create would have had; a bad one,
    here or at link_service, fails alone."""

    async def scenario(door: Door) -> None:
        door.peers.links.links.clear()
        links = [{"long_url": URL + "/1"}, {"long_url": 5}, "no object", {"long_url": URL, "custom_code": "mine"}]
        links += [{"long_url": URL, "custom_code": "mine"}, {"long_url": URL, "colour": 1}, {"long_url": URL + "/2"}]

        answer = await door.client.post("/api/links:batch", json={"links": links})

        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        results = answer.json()["results"]
        models.LinkResults.model_validate(answer.json())
        codes = [result["problem"]["code"] if "problem" in result else "" for result in results]
        assert codes == ["", "invalid_field", "malformed_request", "", "custom_code_taken", "invalid_field", ""]
        assert [results[place]["link"]["long_url"] for place in (0, 3, 6)] == [URL + "/1", URL, URL + "/2"]
        assert [item["field"] for item in results[1]["problem"]["errors"]] == ["long_url"]
        assert [item["field"] for item in results[5]["problem"]["errors"]] == ["colour"]
        assert set(results[4]["problem"]) == set(models.ProblemBody.model_fields)
        assert {result["problem"]["trace_id"] for result in results if "problem" in result} != {""}
        (batch,) = door.peers.links.batches
        assert len(batch.items) == 4
        assert {item.request.principal.user_id for item in batch.items} == {"alice"}
        assert {item.time_left.seconds for item in batch.items} == {2}

    run(scenario)


@pytest.mark.rule("I1")
def test_a_batch_repeated_under_its_key_asks_under_the_same_keys() -> None:
    """Each link has a key of its own, from the client's and its place; another client key gives others."""

    async def scenario(door: Door) -> None:
        body = {"links": [{"long_url": URL}] * 3}
        for key in ("k-1", "k-1", "k-2", None):
            headers = {"idempotency-key": key} if key else {}
            (await door.client.post("/api/links:batch", json=body, headers=headers)).raise_for_status()

        first, again, other, none = ([item.request.request_id for item in it.items] for it in door.peers.links.batches)
        assert first == again
        assert len(set(first)) == 3
        assert not set(first) & set(other)
        assert set(none) == {""}
        assert all(0 < len(key) <= 128 for key in first)

    run(scenario)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Unavailable("unavailable", "Away.", retry_after_s=3), 503, "unavailable"),
        (DeadlineExceeded("deadline_exceeded", "Late."), 503, "outcome_unknown"),
    ],
)
def test_a_batch_that_cannot_be_asked_for_is_one_problem(error: Exception, status: int, code: str) -> None:
    """The call as a whole failed: so does the request, and a lost answer is told as such."""

    async def scenario(door: Door) -> None:
        door.peers.links.fail["BatchCreateLinks"] = error  # type: ignore[assignment]  # a ServiceError
        answer = await door.client.post("/api/links:batch", json={"links": [{"long_url": URL}]})
        assert (answer.status_code, answer.json()["code"]) == (status, code)

        door.peers.links.fail.clear()
        door.peers.links.fail["CreateLink"] = DeadlineExceeded("deadline_exceeded", "Late.")
        told = (await door.client.post("/api/links:batch", json={"links": [{"long_url": URL}]})).json()
        assert told["results"][0]["problem"]["code"] == "outcome_unknown"
        door.peers.links.fail["CreateLink"] = InvalidArgument("invalid_long_url", "No.")
        told = (await door.client.post("/api/links:batch", json={"links": [{"long_url": URL}]})).json()
        assert told["results"][0]["problem"]["status"] == 422

    run(scenario)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"links": [{"long_url": URL}] * 100}, 200),
        ({"links": [{"long_url": URL}] * 101}, 422),
        ({"links": []}, 200),
        ({"links": {}}, 422),
        ({}, 422),
        ([], 400),
        ({"links": [{"long_url": URL, "title": "t" * 100_000}]}, 200),
        ({"links": [{"long_url": URL, "title": "t" * 600_000}]}, 413),
    ],
)
def test_a_batch_is_bounded(body: object, status: int) -> None:
    """A hundred links, 512 KiB."""

    async def scenario(door: Door) -> None:
        answer = await door.client.post("/api/links:batch", json=body)
        assert answer.status_code == status, answer.text[:500]

    run(scenario)
