"""Look-ups through memory, Redis and link_service: who is asked, what is kept, and who is told what."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from chassis.errors import Internal, ServiceError, Unavailable
from contracts.cache import encode_entry
from contracts.codes import NEVER_ISSUED_MARGIN, CodePermutation
from contracts.link import Link, LinkKey, LinkState
from gateway.domain.issued import IssuedCodes
from gateway.domain.misses import MissBudget, network_of
from gateway.domain.near_cache import Limits
from gateway.handlers.lookups import Looked, Lookups, Source, Sources
from gateway.ports import Resolved, TellValue, TooManyMissesError
from tests.fakes.gateway_peers import AT, make_link
from tests.fakes.gateway_ports import DoorOptions, FakeClock, FakeReadRequests, open_door

LINK = make_link()
PATH = b"/" + LINK.key.encode()
CODES = CodePermutation(b"k" * 32)


@dataclass(slots=True)
class HeldCache:
    """A LinkCache whose answers come when the test gives them."""

    asked: list[tuple[LinkKey, TellValue]] = field(default_factory=list)
    away: bool = False

    def begin(self, key: LinkKey, tell: TellValue) -> None:
        """Writes it down."""
        if self.away:
            raise Unavailable("unavailable", "Away.")
        self.asked.append((key, tell))

    def answer(self, value: bytes | Unavailable | None, number: int = 0) -> None:
        """Answers the oldest question, or another one."""
        self.asked.pop(number)[1](value)


@dataclass(slots=True)
class HeldResolver:
    """link_service as the test wants it. `gate`: its answers wait for it, with what was true when it was asked."""

    answer: Resolved | Exception = field(default_factory=lambda: Resolved(None))
    gate: asyncio.Event | None = None
    asked: list[LinkKey] = field(default_factory=list)
    forgotten: list[LinkKey] = field(default_factory=list)

    async def resolve(self, key: LinkKey) -> Resolved:
        """The answer."""
        self.asked.append(key)
        answer = self.answer
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def forget(self, key: LinkKey) -> None:
        """Writes it down."""
        self.forgotten.append(key)


class Desk:
    """Look-ups with everything held by the test. Time passes by `pass_by` only."""

    def __init__(self, tasks: asyncio.TaskGroup, *, per_minute: int = 0, serve_unconfirmed: bool = True) -> None:
        self.tasks = tasks
        self.clock = FakeClock()
        self.cache = HeldCache()
        self.resolver = HeldResolver()
        self.read_requests = FakeReadRequests()
        sources = Sources(
            cache=self.cache,
            resolver=self.resolver,
            read_requests=self.read_requests,
            issued=IssuedCodes(CODES),
            budget=MissBudget(per_minute),
            limits=Limits(),
            serve_unconfirmed=serve_unconfirmed,
        )
        self.lookups = Lookups(sources, tasks=tasks, clock=self.clock)
        self.lookups.turned()
        self.lookups.subscribed(self.clock.monotonic())

    def begin(self, key: LinkKey = LINK.key, client: str = "") -> "asyncio.Task[Looked]":
        """Begins a look-up. Its failure is for who awaits it."""
        return asyncio.get_running_loop().create_task(self.lookups.look_up(key, client))

    async def turn(self) -> None:
        """Lets everybody go as far as they can."""
        for _ in range(5):
            await asyncio.sleep(0)

    async def keep(self, link: Link = LINK) -> None:
        """A whole look-up."""
        task = self.begin(link.key)
        await self.turn()
        self.cache.answer(encode_entry(link))
        assert (await task).source is Source.REDIS

    def pass_by(self, seconds: float, *, beats: bool = True) -> None:
        """Time passes, the loop turns, and beats come back."""
        end = self.clock.elapsed_s + seconds
        while self.clock.elapsed_s < end:
            self.clock.elapsed_s = min(end, self.clock.elapsed_s + 0.05)
            self.lookups.turned()
            if beats:
                self.lookups.heard(self.clock.elapsed_s)


def at_desk(
    scenario: Callable[[Desk], Awaitable[None]], *, per_minute: int = 0, serve_unconfirmed: bool = True
) -> None:
    """Runs a scenario."""

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            await scenario(Desk(tasks, per_minute=per_minute, serve_unconfirmed=serve_unconfirmed))

    asyncio.run(main())


@pytest.mark.rule("L1", "L3")
def test_what_redis_says_is_kept_and_ready() -> None:
    """Asked for once; from then on the redirect goes out of memory, as bytes."""

    async def scenario(it: Desk) -> None:
        assert it.lookups.get(PATH) is None
        await it.keep()

        ready = it.lookups.get(PATH)
        assert ready is not None
        assert ready.answer.startswith(b"HTTP/1.1 302 Found\r\nlocation: https://example.com/there\r\n")
        assert (ready.target.link_key, ready.target.user_id) == (LINK.key, LINK.user_id)
        again = await it.lookups.look_up(LINK.key)
        assert (again.source, again.link, again.ready) == (Source.NEAR, LINK, ready)

    at_desk(scenario)


@pytest.mark.rule("L1")
def test_a_look_up_whose_link_changes_meanwhile_is_answered_and_not_kept() -> None:
    """Those aboard get what was read; who comes later asks anew and does not join; what that brings is kept."""

    async def scenario(it: Desk) -> None:
        first, second = it.begin(), it.begin()
        await it.turn()
        it.lookups.changed(LINK.key)
        third = it.begin()
        await it.turn()
        assert len(it.cache.asked) == 2
        it.cache.answer(encode_entry(LINK))
        assert (await first).link == (await second).link == LINK
        assert it.lookups.get(PATH) is None
        assert not third.done()
        it.cache.answer(encode_entry(replace(LINK, version=2, state=LinkState.DELETED)))

        told = (await third).link
        assert told is not None
        assert told.state is LinkState.DELETED
        assert it.lookups.get(PATH) is None  # it does not redirect
        assert (await it.lookups.look_up(LINK.key)).source is Source.NEAR

    at_desk(scenario)


@pytest.mark.rule("L1")
def test_a_change_also_ends_the_question_to_link_service() -> None:
    """A new look-up must not get there by the old one's question."""

    async def scenario(it: Desk) -> None:
        it.begin()
        await it.turn()
        it.lookups.changed(LINK.key)
        assert it.resolver.forgotten == [LINK.key]
        it.cache.answer(None)
        await it.turn()

        it.lookups.forget(LinkKey("mine"))
        assert it.resolver.forgotten == [LINK.key, "mine"]

    at_desk(scenario)


@pytest.mark.rule("L5")
def test_that_there_is_no_link_is_kept_for_a_second() -> None:
    """And forgotten when somebody makes one."""

    async def scenario(it: Desk) -> None:
        async def miss(source: Source) -> None:
            task = it.begin()
            await it.turn()
            if it.cache.asked:
                it.cache.answer(None)
            assert (await task).source is source
            assert (await task).link is None

        await miss(Source.LINK_SERVICE)
        await miss(Source.NEAR_ABSENT)
        it.pass_by(1.1)
        await miss(Source.LINK_SERVICE)
        it.lookups.forget(LINK.key)
        await miss(Source.LINK_SERVICE)
        assert len(it.resolver.asked) == 3

    at_desk(scenario)


@pytest.mark.rule("L4")
def test_what_nobody_vouches_for_is_not_kept() -> None:
    """An unconfirmed answer is one visitor's; nor is an absence kept that nobody confirmed."""

    async def scenario(it: Desk) -> None:
        it.cache.away = True
        it.resolver.answer = Resolved(LINK, unconfirmed=True)
        assert (await it.lookups.look_up(LINK.key)).source is Source.UNCONFIRMED
        assert it.lookups.get(PATH) is None
        it.resolver.answer = Resolved(None, unconfirmed=True)
        assert (await it.lookups.look_up(LINK.key)).source is Source.UNCONFIRMED
        assert (await it.lookups.look_up(LINK.key)).source is Source.UNCONFIRMED

    at_desk(scenario)


@pytest.mark.rule("L4")
def test_who_wants_it_gets_nothing_unconfirmed() -> None:
    """serve_unconfirmed=false: neither from the table nor from an old memory."""

    async def scenario(it: Desk) -> None:
        await it.keep()
        it.lookups.lost()
        it.pass_by(5.1, beats=False)
        it.cache.away = True
        for answer in (Resolved(LINK, unconfirmed=True), Unavailable("unavailable", "No.")):
            it.resolver.answer = answer
            with pytest.raises(Unavailable):
                await it.lookups.look_up(LINK.key)

    at_desk(scenario, serve_unconfirmed=False)


@pytest.mark.rule("L4")
def test_while_neither_answers_the_memory_does_for_a_minute() -> None:
    """Five seconds as ever, then by error only, metered, and link_service is asked to have it ready; then 503."""

    async def scenario(it: Desk) -> None:
        await it.keep()
        it.lookups.lost()
        it.cache.away = True
        it.resolver.answer = Unavailable("unavailable", "No.")
        it.pass_by(4.9, beats=False)
        assert it.lookups.get(PATH) is not None
        it.pass_by(0.2, beats=False)
        assert it.lookups.get(PATH) is None
        stale = await it.lookups.look_up(LINK.key)
        assert (stale.source, stale.link) == (Source.STALE, LINK)
        assert it.read_requests.keys == [LINK.key]

        it.resolver.answer = Resolved(replace(LINK, version=2, state=LinkState.DELETED))
        link = (await it.lookups.look_up(LINK.key)).link
        assert link is not None
        assert link.state is LinkState.DELETED
        it.resolver.answer = Unavailable("unavailable", "No.")
        it.pass_by(55, beats=False)
        with pytest.raises(Unavailable):
            await it.lookups.look_up(LINK.key)

    at_desk(scenario)


@pytest.mark.rule("L4")
def test_a_redis_that_answers_is_not_contradicted_by_an_old_memory() -> None:
    """It says that there is no such link: if link_service cannot say more, the visitor comes again."""

    async def scenario(it: Desk) -> None:
        await it.keep()
        it.lookups.lost()
        it.pass_by(5.1, beats=False)
        it.resolver.answer = Unavailable("unavailable", "No.")
        task = it.begin()
        await it.turn()
        it.cache.answer(None)
        with pytest.raises(Unavailable):
            await task

    at_desk(scenario)


@pytest.mark.rule("R7")
def test_a_failure_is_told_to_each_and_ends_with_them() -> None:
    """All aboard hear of it, each by an exception of its own; a bug is told as ours; the next one tries again."""

    async def scenario(it: Desk) -> None:
        for failure, kind in ((Unavailable("unavailable", "No."), Unavailable), (ValueError("planted"), Internal)):
            it.resolver.answer = failure
            told: list[ServiceError] = []

            async def ask(told: list[ServiceError] = told) -> None:
                try:
                    await it.lookups.look_up(LINK.key)
                except ServiceError as exc:
                    told.append(exc)

            asking = [it.tasks.create_task(ask()) for _ in range(3)]
            await it.turn()
            it.cache.answer(Unavailable("unavailable", "No."))
            for asked in asking:
                await asked
            assert [type(item) for item in told] == [kind] * 3
            assert len({id(item) for item in told}) == 3
        it.resolver.answer = Resolved(LINK)
        task = it.begin()
        await it.turn()
        it.cache.answer(b"\x01rubbish")
        assert (await task).link == LINK

    at_desk(scenario)


@pytest.mark.rule("P2")
def test_a_link_begins_and_ends_by_the_clock() -> None:
    """What is kept redirects from its start to its end, without anybody being told."""

    async def scenario(it: Desk) -> None:
        link = replace(LINK, starts_at=AT + timedelta(seconds=10), expires_at=AT + timedelta(seconds=20))
        await it.keep(link)
        seen = []
        for _ in range(3):
            seen.append((it.lookups.get(PATH), (await it.lookups.look_up(LINK.key)).ready, it.lookups.get(PATH)))
            it.pass_by(10)

        early, between, late = seen
        assert early == (None, None, None)
        assert between[0] is None  # nobody had looked since it began
        assert between[1] is between[2] is not None
        assert late == (None, None, None)

    at_desk(scenario)


@pytest.mark.rule("L5")
def test_codes_that_were_never_issued_cost_no_question() -> None:
    """Only with a known mark, only far beyond it, only in the shape of generated codes; a mark never goes back."""

    async def scenario(it: Desk) -> None:
        mark = 1 << 22
        far = LinkKey(CODES.code_of(mark + NEVER_ISSUED_MARGIN))

        async def is_refused(key: LinkKey) -> bool:
            task = it.begin(key)
            await it.turn()
            asked = bool(it.cache.asked)
            if asked:
                it.cache.answer(None)
            assert (await task).link is None
            it.pass_by(1.1)
            return not asked

        assert not await is_refused(far)
        it.lookups.learn_issued(None)
        assert not await is_refused(far)
        it.lookups.learn_issued(mark)
        for number, later in enumerate((None, 1, mark)):
            it.lookups.learn_issued(later)
            near = LinkKey(CODES.code_of(mark + NEVER_ISSUED_MARGIN - 1 - number))  # another: what passed is remembered
            assert [await is_refused(key) for key in (far, near, LinkKey("chosen"))] == [True, False, False]
        it.lookups.learn_issued(mark + 1)
        assert not await is_refused(far)

    at_desk(scenario)


@pytest.mark.rule("L5")
def test_a_network_that_misses_too_often_has_to_wait() -> None:
    """Ten misses, then no look-up for the /24 or /48 until there is room; what is in memory is served all the same,
    others are not disturbed, and this machine has no budget."""

    async def scenario(it: Desk) -> None:
        await it.keep()

        async def miss(number: int, client: str) -> bool:
            task = it.begin(LinkKey(f"none{number:04d}"), client)
            await it.turn()
            if it.cache.asked:
                it.cache.answer(None)
            error = (await asyncio.wait([task])) and task.exception()
            if error is None:
                return task.result().link is None
            assert isinstance(error, TooManyMissesError)
            assert error.retry_after_s is not None
            assert 5 < error.retry_after_s <= 6.1
            return False

        for client, neighbour in (("203.0.113.7", "203.0.113.200"), ("2001:db8:1:2::3", "2001:db8:1:ffff::1")):
            assert all([await miss(number, client) for number in range(10)])
            assert not await miss(10, client)
            assert not await miss(0, neighbour), "nor for what is known to be absent"
            assert (await it.lookups.look_up(LINK.key, client)).source is Source.NEAR
        assert await miss(11, "198.51.100.1")
        assert all([await miss(number, "127.0.0.1") for number in range(30)])
        it.pass_by(6.1)
        assert await miss(12, "203.0.113.7")
        assert not await miss(13, "203.0.113.7")

    at_desk(scenario, per_minute=10)


def test_budgets_are_remembered_for_so_many_networks_only() -> None:
    """The one whose last miss is the oldest goes; nothing grows without end."""
    budget = MissBudget(1, networks_max=2)
    for number in range(3):
        budget.missed(f"10.0.{number}.1", 0.0)

    assert [budget.wait_s(f"10.0.{number}.9", 0.0) > 0 for number in range(3)] == [False, True, True]
    assert len(budget._filled_at) == 2
    assert budget.wait_s("10.0.2.1", 61.0) == 0.0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("203.0.113.1", "203.0.113.254", True),
        ("203.0.113.1", "203.0.114.1", False),
        ("::ffff:203.0.113.1", "203.0.113.9", True),
        ("2001:db8:1::1", "2001:db8:1:ffff:ffff::", True),
        ("2001:db8:1::1", "2001:db8:2::1", False),
    ],
)
def test_networks(one: str, other: str, same: bool) -> None:
    """/24 of IPv4, however it is written, and /48 of IPv6."""
    assert (network_of(one) == network_of(other)) is same
    assert network_of(one)


@pytest.mark.parametrize("client", ["", "unknown", "127.0.0.1", "::1", "::ffff:127.0.0.1", "1.2.3.4, 5.6.7.8"])
def test_who_has_no_budget(client: str) -> None:
    """What is no address, and this machine."""
    assert network_of(client) == ""


@pytest.mark.rule("L5")
def test_too_many_misses_are_429_with_a_time_to_come_again() -> None:
    """Over HTTP, for who asks through a proxy of ours."""

    async def main() -> None:
        async with open_door(DoorOptions(misses_per_minute=3)) as door:
            answers = [await door.client.get(f"/none{number:04d}") for number in range(4)]

        assert [answer.status_code for answer in answers] == [404, 404, 404, 429]
        assert answers[3].json()["code"] == "rate_limited"
        assert int(answers[3].headers["retry-after"]) == 20

    asyncio.run(main())


@pytest.mark.rule("L1", "P2")
@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda client: client.delete("/api/links/aB3dE7x"), 410),
        (lambda client: client.patch("/api/links/aB3dE7x", json={"long_url": "https://example.com/new"}), 302),
    ],
    ids=["delete", "update"],
)
def test_who_forwards_a_change_serves_nothing_older_once_it_is_told(
    change: Callable[..., Awaitable[object]], status: int
) -> None:
    """Before Redis tells of it, from memory: the gateway's own entry goes before the answer does."""

    async def main() -> None:
        async with open_door() as door:
            door.peers.links.links[LINK.short_code] = LINK
            door.cache.store(LINK)
            door.lookups.turned()
            door.lookups.subscribed(door.clock.monotonic())
            assert (await door.client.get("/aB3dE7x")).status_code == 302
            assert door.lookups.get(PATH) is not None

            await change(door.client)
            assert door.lookups.get(PATH) is None
            door.cache.store(door.peers.links.links[LINK.short_code])
            answer = await door.client.get("/aB3dE7x")

        assert answer.status_code == status
        assert "there" not in answer.headers.get("location", "")

    asyncio.run(main())


@pytest.mark.rule("L1")
def test_a_second_change_is_no_less_a_change() -> None:
    """A look-up that was marked may have asked link_service since; who comes after the next change asks anew."""

    async def scenario(it: Desk) -> None:
        it.resolver.gate = asyncio.Event()
        first = it.begin()
        await it.turn()
        it.lookups.changed(LINK.key)
        it.cache.answer(None)
        await it.turn()
        assert it.resolver.asked == [LINK.key]
        it.resolver.forgotten.clear()

        it.lookups.changed(LINK.key)

        assert it.resolver.forgotten == [LINK.key]
        it.resolver.gate.set()
        await first

    at_desk(scenario)
