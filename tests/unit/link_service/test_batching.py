"""BatchCreateLinks: many creates in one call, each with a principal, a time, a trace and an outcome of its own."""

import asyncio

import pytest

from chassis.auth import GATEWAY, Caller, Principal, set_caller
from chassis.errors import InvalidArgument
from contracts.link import LinkKey
from contracts.outbox_entries import decode_outbox_entry
from shortener.key.v1 import key_service_pb2 as key_pb
from shortener.link.v1 import link_service_pb2 as pb
from tests.fakes.link_service_world import LinkWorld, act_as, play
from tests.fakes.spans import parent_of, spans_of, traceparent_of

URL = "https://example.org/"
TRACE = "4bf92f3577b34da6a3ce929d0e0e473"  # and a digit
SPAN = "00f067aa0ba902b7"


def item(
    long_url: str = URL, *, code: str = "", key: str = "", user_id: str = "", trace: str = "", left_ms: int = 2000
) -> pb.BatchedCreateLink:
    """One of many."""
    made = pb.BatchedCreateLink(
        request=pb.CreateLinkRequest(long_url=long_url, custom_code=code, request_id=key), traceparent=trace
    )
    made.time_left.FromMilliseconds(left_ms)
    if user_id:
        made.request.principal.CopyFrom(key_pb.Principal(user_id=user_id, scopes=["links:write"]))
    return made


async def create(world: LinkWorld, *items: pb.BatchedCreateLink) -> list[pb.BatchedCreateLinkResult]:
    """The results of a batch."""
    return list((await world.handlers.BatchCreateLinks(pb.BatchCreateLinksRequest(items=items), None)).results)


def reasons(results: list[pb.BatchedCreateLinkResult]) -> list[str]:
    """What became of each: a reason, or nothing where there is a link."""
    return [result.problem.reason for result in results]


def test_a_bad_item_fails_alone() -> None:
    """Results stand in the order of the items; what is wrong is told as CreateLink would; the others are stored, by one
    call to Redis."""

    async def scenario(world: LinkWorld) -> None:
        act_as("ada")
        results = await create(
            world, item(URL + "1"), item("ftp://x.org"), item(URL + "2"), item("http://127.0.0.1/"), item(URL + "3")
        )

        assert reasons(results) == ["", "INVALID_LONG_URL", "", "INVALID_LONG_URL", ""]
        assert [result.link.long_url for result in results[::2]] == [URL + "1", URL + "2", URL + "3"]
        problem = results[1].problem
        with pytest.raises(InvalidArgument) as alone:
            await world.create(long_url="ftp://x.org")
        assert (problem.status, problem.message) == (alone.value.status.value[0], alone.value.message)
        assert [found.field for found in problem.violations] == ["long_url"]
        codes = [result.link.short_code for result in results[::2]]
        assert len(set(codes)) == 3
        assert [(await world.get(code)).long_url for code in codes] == [URL + "1", URL + "2", URL + "3"]
        assert world.cache.pipelines == [3]

    play(scenario)


def test_each_item_states_its_principal_and_only_the_gateway_may() -> None:
    """Of a gateway's items each belongs to whom it names, and needs the scope; a Bearer caller's are its own, and one
    that names somebody is refused."""

    async def scenario(world: LinkWorld) -> None:
        set_caller(Caller(GATEWAY, None))
        reader = item(user_id="eve")
        reader.request.principal.scopes[:] = ["links:read"]
        stated = await create(world, item(user_id="ada"), item(user_id="bob"), item(), reader)
        set_caller(Caller("writer", None))
        not_gateway = await create(world, item(user_id="ada"))
        set_caller(Caller(None, Principal("ada", frozenset({"links:write"}))))
        own = await create(world, item(), item(user_id="ada"), item(user_id="bob"), item(code="own-1", user_id="bob"))

        assert reasons(stated) == ["", "", "UNAUTHENTICATED", "PERMISSION_DENIED"]
        assert [result.link.user_id for result in stated[:2]] == ["ada", "bob"]
        assert reasons(not_gateway) == ["PERMISSION_DENIED"]
        assert reasons(own) == ["", "PERMISSION_DENIED", "PERMISSION_DENIED", "PERMISSION_DENIED"]
        assert own[0].link.user_id == "ada"

    play(scenario)


@pytest.mark.rule("P6", "I1", "K2")
def test_chosen_codes_and_idempotency_keys_go_their_own_way_beside_the_others() -> None:
    """A key's repeat gets the same link, in the same batch and in the next; with another body it is refused; a chosen
    code that is taken fails alone."""

    async def scenario(world: LinkWorld) -> None:
        act_as("ada")
        first = await create(
            world, item(URL + "a", key="k"), item(URL), item(URL, code="mine-1"), item(URL + "a", key="k")
        )
        again = await create(
            world, item(URL + "b", key="k"), item(URL + "a", key="k"), item(URL, code="mine-1"), item(URL)
        )

        assert reasons(first) == [""] * 4
        assert first[0] == first[3] == again[1]
        assert first[2].link.short_code == "mine-1"
        assert reasons(again) == ["IDEMPOTENCY_KEY_REUSED", "", "CUSTOM_CODE_TAKEN", ""]
        assert world.cache.pipelines == [1, 1]

    play(scenario)


@pytest.mark.rule("R1")
def test_an_item_whose_time_is_over_is_not_begun() -> None:
    """It is told that nothing was done; a slow one ends at its own time and is told that it may have been done; who has
    time left is served."""

    async def scenario(world: LinkWorld) -> None:
        act_as("ada")
        lease = await world.cache.lease(LinkKey("slow-1"), lease_ms=60_000)  # the create waits for its end
        results = await create(
            world, item(left_ms=0), item(code="slow-1", left_ms=100), item(key="k", left_ms=-1), item()
        )

        assert lease is not None
        assert reasons(results) == ["UNAVAILABLE", "DEADLINE_EXCEEDED", "UNAVAILABLE", ""]
        assert asyncio.get_running_loop().time() == pytest.approx(0.1, abs=0.05)
        assert len(world.redis.values) == 1

    play(scenario)


@pytest.mark.rule("R1", "R6")
def test_what_redis_says_of_one_is_its_own_verdict() -> None:
    """Away: none was made; deaf: each may have been; full: come again later. And each in its words."""

    async def scenario(world: LinkWorld) -> None:
        act_as("ada")
        world.redis.away = True
        away = await create(world, item(), item())
        world.redis.away, world.redis.deaf = False, True
        deaf = await create(world, item(), item())
        world.redis.deaf, world.redis.memory_share = False, 0.9
        full = await create(world, item(), item("nonsense"))

        assert reasons(away) == ["UNAVAILABLE"] * 2
        assert reasons(deaf) == ["OUTCOME_UNKNOWN"] * 2
        assert reasons(full) == ["UNAVAILABLE", "INVALID_LONG_URL"]
        assert full[0].problem.retry_after.seconds == 5
        assert len(world.redis.values) == 2

    play(scenario)


def test_when_the_ids_end_those_before_are_made() -> None:
    """The last ids of a block serve whom they can; the others are told to come again."""

    async def scenario(world: LinkWorld) -> None:
        act_as("ada")
        world.stock._spare.clear()
        world.stock._next, world.stock._end = 7, 9

        results = await create(world, item(), item(), item())

        assert reasons(results) == ["", "", "UNAVAILABLE"]

    play(scenario)


def test_a_batch_is_bounded() -> None:
    """A hundred pass; one more and nothing is begun; none is an empty answer."""

    async def scenario(world: LinkWorld) -> None:
        act_as("ada")
        with pytest.raises(InvalidArgument):
            await create(world, *[item()] * 101)
        assert world.redis.values == {}
        assert reasons(await create(world, *[item()] * 100)) == [""] * 100
        assert await create(world) == []

    play(scenario)


def test_each_item_is_in_its_own_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kept trace gets a span under the one that waits for the item, and its event leaves with that span; an item of a
    trace that is not kept costs no span, and its event still names its trace."""
    with spans_of(monkeypatch) as spans:

        async def scenario(world: LinkWorld) -> None:
            act_as("ada")
            traces = [f"00-{TRACE}1-{SPAN}-01", f"00-{TRACE}2-{SPAN}-00", f"00-{TRACE}3-{SPAN}-01", "rubbish"]
            results = await create(
                world,
                item(trace=traces[0]),
                item(trace=traces[1]),
                item(trace=traces[2], key="k"),
                item(trace=traces[3]),
            )

            assert reasons(results) == [""] * 4
            kept = {f"{found.context.trace_id:032x}": found for found in spans.finished() if found.context}
            assert {f"{TRACE}1", f"{TRACE}3"} == set(kept)
            assert {parent_of(found) for found in kept.values()} == {SPAN}
            assert {found.name for found in kept.values()} == {"shortener.link.v1.LinkService/CreateLink"}
            waiting = [decode_outbox_entry(entry.data) for stream in world.redis.streams.values() for entry in stream]
            left_with = {entry.key: entry.traceparent for entry in waiting}
            expected = [traceparent_of(kept[f"{TRACE}1"]), traces[1], traceparent_of(kept[f"{TRACE}3"]), None]
            assert [left_with[LinkKey(result.link.short_code)] for result in results] == expected

        play(scenario)


def test_a_bug_behind_the_pipeline_is_told_as_an_outcome_that_is_not_known() -> None:
    """The creates that shared it may have been made; one that went its own way is not torn along."""

    async def scenario(world: LinkWorld) -> None:
        act_as("ada")
        world.cache.bug = ValueError("planted")

        results = await create(world, item(URL), item(URL, code="mine-1"), item("ftp://x.org"))

        assert reasons(results) == ["OUTCOME_UNKNOWN", "", "INVALID_LONG_URL"]

    play(scenario)
