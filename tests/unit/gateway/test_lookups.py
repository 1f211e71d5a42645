"""The adapters that ask link_service: one flight per code, keys whose verdicts last a second, junk refused for free."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from chassis.breaker import Breaker
from chassis.errors import Internal, Unauthenticated, Unavailable
from contracts.api_keys import format_key, is_well_formed
from contracts.link import LinkKey, LinkState
from gateway.adapters.keys_grpc import GrpcKeys
from gateway.adapters.resolver_grpc import GrpcResolver
from gateway.ports import Resolved
from tests.fakes.gateway_peers import ALICE, KEY, Direct, FakeKeyService, FakeLinkService, make_link
from tests.fakes.gateway_ports import FakeClock

CODE = LinkKey("aB3dE7x")


class Resolving:
    """A resolver, its peer, and look-ups under way."""

    def __init__(self, tasks: asyncio.TaskGroup, flights_max: int) -> None:
        self.peer = FakeLinkService()
        self.peer.links[CODE] = make_link()
        self.clock = FakeClock()
        links = cast("Any", Direct(self.peer))
        self.resolver = GrpcResolver(links, clock=self.clock, tasks=tasks, flights_max=flights_max)
        self._tasks = tasks

    def hold(self) -> asyncio.Event:
        """Lets nobody have an answer until the event is set."""
        self.peer.gate = asyncio.Event()
        return self.peer.gate

    async def ask(self, key: LinkKey = CODE) -> asyncio.Task[Resolved]:
        """Begins a look-up and lets it get as far as it can."""
        task = self._tasks.create_task(self.resolver.resolve(key))
        for _ in range(5):
            await asyncio.sleep(0)
        return task


def resolving(scenario: Callable[[Resolving], Awaitable[None]], *, flights_max: int = 100) -> None:
    """Runs a scenario with a resolver."""

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            await scenario(Resolving(tasks, flights_max))

    asyncio.run(main())


@pytest.mark.rule("L4")
def test_one_flight_for_a_code() -> None:
    """Look-ups of one code at the same time are one call; those of another code are their own."""

    async def scenario(it: Resolving) -> None:
        gate = it.hold()
        first, second, other = await it.ask(), await it.ask(), await it.ask(LinkKey("unknown"))
        gate.set()

        assert (await first).link == (await second).link == make_link()
        assert (await other).link is None
        assert [request.short_code for request in it.peer.requests] == [CODE, "unknown"]

    resolving(scenario)


@pytest.mark.rule("P2")
def test_nobody_joins_an_old_flight() -> None:
    """A look-up that begins more than 50 ms after another one asks anew, so that a delete elsewhere is seen in time."""

    async def scenario(it: Resolving) -> None:
        gate = it.hold()
        old = await it.ask()
        it.clock.elapsed_s = 0.049
        aboard = await it.ask()
        it.peer.links[CODE] = make_link(state=LinkState.DELETED)
        it.clock.elapsed_s = 0.051
        young = await it.ask()
        gate.set()

        states = [(await task).link for task in (old, aboard, young)]
        assert [link and link.state for link in states] == [LinkState.ACTIVE, LinkState.ACTIVE, LinkState.DELETED]
        assert len(it.peer.requests) == 2

    resolving(scenario)


@pytest.mark.rule("L1")
def test_a_forgotten_flight_takes_no_new_passengers() -> None:
    """After `forget` the next look-up flies alone, and the old flight's landing does not disturb it."""

    async def scenario(it: Resolving) -> None:
        gate = it.hold()
        old = await it.ask()
        it.resolver.forget(CODE)
        new = await it.ask()
        joined = await it.ask()
        gate.set()

        assert {(await task).link for task in (old, new, joined)} == {make_link()}
        assert len(it.peer.requests) == 2

    resolving(scenario)


def test_who_is_cancelled_takes_nobody_along() -> None:
    """The one that began a flight may go; the others get their answer."""

    async def scenario(it: Resolving) -> None:
        gate = it.hold()
        first, second = await it.ask(), await it.ask()
        first.cancel()
        gate.set()

        assert (await second).link == make_link()
        assert first.cancelled()

    resolving(scenario)


def test_all_aboard_hear_of_a_failure_and_the_next_tries_again() -> None:
    """A failed flight fails for its passengers only."""

    async def scenario(it: Resolving) -> None:
        it.peer.fail["ResolveLink"] = Unavailable("unavailable", "No.")
        for _ in range(2):
            with pytest.raises(Unavailable):
                await it.resolver.resolve(CODE)
        it.peer.fail.clear()

        assert (await it.resolver.resolve(CODE)).link == make_link()

    resolving(scenario)


def test_each_passenger_hears_of_a_failure_by_an_exception_of_its_own() -> None:
    """One object raised by several callers would collect the tracebacks of all."""

    async def scenario(it: Resolving) -> None:
        it.peer.fail["ResolveLink"] = Unavailable("unavailable", "No.", retry_after_s=3)
        failures: list[Unavailable] = []

        async def ask() -> None:
            with pytest.raises(Unavailable) as failure:
                await it.resolver.resolve(CODE)
            failures.append(failure.value)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(3):
                tasks.create_task(ask())

        assert len(it.peer.requests) == 1
        assert len({id(failure) for failure in failures}) == 3
        assert {(failure.message, failure.retry_after_s) for failure in failures} == {("No.", 3)}

    resolving(scenario)


def test_a_link_that_is_none_is_our_fault() -> None:
    """A peer that answers without a code or version is an internal error, not a crash of the process."""

    async def scenario(it: Resolving) -> None:
        it.peer.links[CODE] = make_link(version=0)
        with pytest.raises(Internal):
            await it.resolver.resolve(CODE)

    resolving(scenario)


def test_a_bug_in_one_look_up_ends_no_other() -> None:
    """What nobody expected is told to those aboard as ours; the tasks, and with them the gateway, go on."""

    async def scenario(it: Resolving) -> None:
        it.peer.fail["ResolveLink"] = ValueError("a bug, planted")  # type: ignore[assignment]  # no ServiceError: the point
        with pytest.raises(Internal):
            await it.resolver.resolve(CODE)
        it.peer.fail.clear()

        assert (await it.resolver.resolve(CODE)).link == make_link()

    resolving(scenario)


def test_flights_are_bounded() -> None:
    """Beyond the bound a look-up of another code is refused at once; passengers still board."""

    async def scenario(it: Resolving) -> None:
        gate = it.hold()
        first = await it.ask()
        passenger = await it.ask()
        with pytest.raises(Unavailable):
            await it.resolver.resolve(LinkKey("another"))
        gate.set()

        assert (await first).link == (await passenger).link
        assert (await it.resolver.resolve(LinkKey("another"))).link is None

    resolving(scenario, flights_max=1)


def test_a_verdict_lasts_a_second() -> None:
    """A key is asked for once a second, known or not; a revoked one is refused a second later."""

    async def main() -> None:
        peer, clock = FakeKeyService(), FakeClock()
        async with asyncio.TaskGroup() as tasks:
            keys = GrpcKeys(cast("Any", Direct(peer)), clock=clock, tasks=tasks)
            unknown = format_key("b" * 30)

            assert await keys.verify(KEY) == ALICE
            peer.keys.clear()
            clock.elapsed_s = 1.0
            assert await keys.verify(KEY) == ALICE
            clock.elapsed_s = 1.01
            with pytest.raises(Unauthenticated):
                await keys.verify(KEY)
            assert len(peer.requests) == 2
            for _ in range(3):
                with pytest.raises(Unauthenticated):
                    await keys.verify(unknown)
            assert len(peer.requests) == 3

    asyncio.run(main())


def test_a_verdict_in_use_is_renewed_beside_those_who_use_it() -> None:
    """Who comes with a key that was used half a second ago does not wait for link_service."""

    async def main() -> None:
        peer, clock = FakeKeyService(), FakeClock()
        async with asyncio.TaskGroup() as tasks:
            keys = GrpcKeys(cast("Any", Direct(peer)), clock=clock, tasks=tasks)
            await keys.verify(KEY)
            peer.gate = asyncio.Event()
            clock.elapsed_s = 0.6
            for _ in range(3):
                assert keys.known(KEY) == ALICE
            while len(peer.requests) < 2:
                await asyncio.sleep(0)
            assert keys.known(KEY) == ALICE
            assert len(peer.requests) == 2
            peer.gate.set()
            clock.elapsed_s = 1.5
            async with asyncio.timeout(5):
                while keys.known(KEY) is None:  # `known` asks nobody: it is the second answer that comes
                    await asyncio.sleep(0)

    asyncio.run(main())


def test_a_key_is_asked_for_once_however_many_ask_at_once() -> None:
    """Requests of one moment share the question; who gives up takes nobody along; a failure is everybody's own."""

    async def main() -> None:
        peer, clock = FakeKeyService(), FakeClock()
        async with asyncio.TaskGroup() as tasks:
            keys = GrpcKeys(cast("Any", Direct(peer)), clock=clock, tasks=tasks)
            peer.gate = asyncio.Event()
            asking = [tasks.create_task(keys.verify(KEY)) for _ in range(3)]
            while not peer.requests:
                await asyncio.sleep(0)
            asking[0].cancel()
            clock.elapsed_s = 1.5  # the question is too old to be joined: its answer would be older than a second
            late = tasks.create_task(keys.verify(KEY))
            while len(peer.requests) < 2:
                await asyncio.sleep(0)
            peer.gate.set()
            assert await asking[1] == await asking[2] == await late == ALICE
            assert asking[0].cancelled()
            assert len(peer.requests) == 2

            clock.elapsed_s = 9.0
            peer.fail["VerifyKey"] = Unavailable("unavailable", "No.")
            failing = [tasks.create_task(failure_of(keys)) for _ in range(2)]
            assert await failing[0] is not await failing[1]
            assert len(peer.requests) == 3

    async def failure_of(keys: GrpcKeys) -> Unavailable:
        with pytest.raises(Unavailable) as caught:
            await keys.verify(KEY)
        return caught.value

    asyncio.run(main())


def test_a_bug_in_one_question_is_no_verdict_and_ends_no_other() -> None:
    """As for look-ups: told as ours, not remembered, and the gateway goes on."""

    async def main() -> None:
        peer = FakeKeyService()
        async with asyncio.TaskGroup() as tasks:
            keys = GrpcKeys(cast("Any", Direct(peer)), clock=FakeClock(), tasks=tasks)
            peer.fail["VerifyKey"] = ValueError("a bug, planted")  # type: ignore[assignment]  # no ServiceError: the point
            with pytest.raises(Internal):
                await keys.verify(KEY)
            peer.fail.clear()

            assert await keys.verify(KEY) == ALICE

    asyncio.run(main())


def test_a_peer_that_is_away_is_no_verdict() -> None:
    """Unavailable is told and not remembered."""

    async def main() -> None:
        peer = FakeKeyService()
        async with asyncio.TaskGroup() as tasks:
            keys = GrpcKeys(cast("Any", Direct(peer)), clock=FakeClock(), tasks=tasks)
            peer.fail["VerifyKey"] = Unavailable("unavailable", "No.")
            with pytest.raises(Unavailable):
                await keys.verify(KEY)
            peer.fail.clear()

            assert await keys.verify(KEY) == ALICE

    asyncio.run(main())


def test_verdicts_are_bounded() -> None:
    """The least recently used verdict goes first."""
    first, second, third = (format_key(letter * 30) for letter in "xyz")

    async def main() -> None:
        peer = FakeKeyService()
        peer.keys = dict.fromkeys((first, second, third), ALICE)
        async with asyncio.TaskGroup() as tasks:
            keys = GrpcKeys(cast("Any", Direct(peer)), clock=FakeClock(), tasks=tasks, verdicts_max=2)
            for key in (first, second, first, third, first, second):
                await keys.verify(key)

        assert [request.secret for request in peer.requests] == [first, second, third, second]

    asyncio.run(main())


@pytest.mark.parametrize(
    "junk", ["", "lk_live_", "x" * 44, KEY[:-1], KEY + "0", KEY.swapcase(), KEY[:20] + "_" + KEY[21:]]
)
def test_junk_is_refused_without_asking(junk: str) -> None:
    """What has not the form or the checksum of a key costs link_service nothing."""

    async def main() -> None:
        peer = FakeKeyService()
        async with asyncio.TaskGroup() as tasks:
            with pytest.raises(Unauthenticated):
                await GrpcKeys(cast("Any", Direct(peer)), clock=FakeClock(), tasks=tasks).verify(junk)
        assert peer.requests == []

    asyncio.run(main())


def test_the_form_of_a_key() -> None:
    """lk_live_, 30 digits, 6 of checksum: any one changed digit is noticed, and a body has one key only."""
    key = format_key("Az09" * 7 + "bc")

    assert len(key) == 44
    assert is_well_formed(key)
    for place in range(8, len(key)):
        changed = key[:place] + ("1" if key[place] == "0" else "0") + key[place + 1 :]
        assert not is_well_formed(changed)
    for body in ("", "a" * 29, "a" * 31, "ä" * 30):
        with pytest.raises(ValueError, match="body"):
            format_key(body)


@pytest.mark.rule("R7")
def test_a_breaker_lets_one_try_each_second() -> None:
    """After a failure nobody is admitted for a second, then one alone, until one works."""
    clock = FakeClock()
    breaker = Breaker(clock)

    assert breaker.admit()
    breaker.failed()
    assert not breaker.admit()
    clock.elapsed_s = 1.0
    assert [breaker.admit(), breaker.admit()] == [True, False]
    clock.elapsed_s = 2.0  # the trial was never heard of again
    assert [breaker.admit(), breaker.admit()] == [True, False]
    breaker.failed()
    clock.elapsed_s = 2.9
    assert not breaker.admit()
    clock.elapsed_s = 3.0
    assert breaker.admit()
    assert not breaker.closed
    breaker.succeeded()
    assert [breaker.admit(), breaker.admit()] == [True, True]
