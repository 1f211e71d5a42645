"""Creates that share a call: each keeps its outcome, place, deadline and trace, and the calls are bounded."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from chassis.errors import DeadlineExceeded, InvalidArgument, ServiceError, Unavailable
from chassis.item_problems import problem_of
from chassis.telemetry import span
from contracts.link_codec import link_to_message
from gateway.adapters.creator_grpc import TIMEOUT_S, GrpcLinkCreator
from shortener.link.v1 import link_pb2
from shortener.link.v1 import link_service_pb2 as pb
from tests.fakes.gateway_peers import make_link
from tests.fakes.kafka_time import VirtualClock, run_virtual
from tests.fakes.spans import parent_of, spans_of, traceparent_of

BAD = InvalidArgument("invalid_long_url", "No.", retry_after_s=2.5)
Result = link_pb2.Link | ServiceError | type[asyncio.CancelledError]


@dataclass
class Peer:
    """link_service: makes a link named after its destination, refuses `bad`. Calls wait for `gate` if there is one."""

    calls: list[list[str]] = field(default_factory=list)
    items: list[pb.BatchedCreateLink] = field(default_factory=list)
    alone: list[str] = field(default_factory=list)
    timeouts: list[float] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    gate: asyncio.Event | None = None
    failure: Exception | None = None
    short_by: int = 0

    async def CreateLink(  # noqa: N802 (gRPC's name)
        self, request: pb.CreateLinkRequest, *, timeout: float
    ) -> pb.CreateLinkResponse:
        self.alone.append(request.long_url)
        return pb.CreateLinkResponse(link=link_to_message(make_link(request.long_url)))

    async def BatchCreateLinks(  # noqa: N802 (gRPC's name)
        self, request: pb.BatchCreateLinksRequest, *, timeout: float
    ) -> pb.BatchCreateLinksResponse:
        self.calls.append([item.request.long_url for item in request.items])
        self.items += request.items
        self.timeouts.append(timeout)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if self.gate is not None:
                await self.gate.wait()
            if self.failure is not None:
                raise self.failure
            results = [self._result(item.request.long_url) for item in request.items]
            return pb.BatchCreateLinksResponse(results=results[: len(results) - self.short_by])
        finally:
            self.under_way -= 1

    def _result(self, long_url: str) -> pb.BatchedCreateLinkResult:
        if long_url == "bad":
            return pb.BatchedCreateLinkResult(problem=problem_of(BAD))
        return pb.BatchedCreateLinkResult(link=link_to_message(make_link(long_url)))


@dataclass
class Creating:
    """A creator and what it talks to."""

    creator: GrpcLinkCreator
    peer: Peer
    tasks: asyncio.TaskGroup

    def ask(self, *long_urls: str) -> list[asyncio.Task[Result]]:
        """Callers of one moment."""
        return [self.tasks.create_task(self._outcome(long_url)) for long_url in long_urls]

    async def _outcome(self, long_url: str) -> Result:
        try:
            return await self.creator.create(pb.CreateLinkRequest(long_url=long_url))
        except ServiceError as exc:
            return exc


@asynccontextmanager
async def creating(**bounds: Any) -> AsyncIterator[Creating]:
    peer = Peer()
    async with asyncio.TaskGroup() as tasks:
        yield Creating(GrpcLinkCreator(cast("Any", peer), clock=VirtualClock(), tasks=tasks, **bounds), peer, tasks)


def play(scenario: Callable[[Creating], Awaitable[None]], **bounds: Any) -> None:
    """Runs a scenario in virtual time."""

    async def main() -> None:
        async with creating(**bounds) as it:
            await scenario(it)

    run_virtual(main())


def code_of(result: Result) -> str:
    assert isinstance(result, link_pb2.Link), result
    return result.short_code


async def called(it: Creating, times: int) -> None:
    for _ in range(100):
        if len(it.peer.calls) >= times:
            return
        await asyncio.sleep(0)
    while len(it.peer.calls) < times:  # the second of two small ones: when the first takes long
        await asyncio.sleep(0.001)


def test_creates_of_one_moment_share_a_call_and_each_gets_its_own() -> None:
    """One call, in order; the bad one fails alone with all that link_service said of it, its neighbours are made."""

    async def scenario(it: Creating) -> None:
        first, bad, last = it.ask("one", "bad", "two")

        assert (code_of(await first), code_of(await last)) == ("one", "two")
        refusal = await bad
        assert isinstance(refusal, InvalidArgument)
        assert (refusal.reason, refusal.message, refusal.retry_after_s) == ("invalid_long_url", "No.", 2.5)
        assert it.peer.calls == [["one", "bad", "two"]]

    play(scenario)


def test_while_a_call_is_under_way_the_next_collect() -> None:
    """They go together as soon as it is answered; not before, unless it takes long."""

    async def scenario(it: Creating) -> None:
        it.peer.gate = asyncio.Event()
        asked = it.ask("a")
        await called(it, 1)
        for long_url in "bcd":
            asked += it.ask(long_url)
            await asyncio.sleep(0.005)
        assert it.peer.calls == [["a"]]
        it.peer.gate.set()

        assert [code_of(await task) for task in asked] == ["a", "b", "c", "d"]
        assert it.peer.calls == [["a"], ["b", "c", "d"]]

    play(scenario)


def test_clients_that_were_answered_together_are_waited_for_together() -> None:
    """Behind an answer to several the first to come again waits for the others, as long as each is at most 2 ms behind
    the one before; behind an answer to one, or later, nobody waits."""

    async def scenario(it: Creating) -> None:
        loop = asyncio.get_running_loop()
        for task in it.ask(*"abcde"):
            await task
        asked = it.ask("f")
        await asyncio.sleep(0.0015)
        asked += it.ask(*"gh")
        await asyncio.sleep(0.0015)
        asked += it.ask(*"ij")
        assert [code_of(await task) for task in asked] == list("fghij")
        assert loop.time() == pytest.approx(0.003)

        asked = it.ask("k")
        assert code_of(await asked[0]) == "k"
        assert loop.time() == pytest.approx(0.005, abs=0.0006)
        (alone,) = it.ask("l")
        assert code_of(await alone) == "l"
        assert loop.time() == pytest.approx(0.005, abs=0.0006)
        assert it.peer.calls == [list("abcde"), list("fghij"), ["k"], ["l"]]

    play(scenario)


def test_nobody_waits_long_for_those_who_dribble_in() -> None:
    """10 ms behind the answer those who are there go."""

    async def scenario(it: Creating) -> None:
        for task in it.ask(*map(str, range(20))):
            await task
        asked = []
        for number in range(12):
            asked += it.ask(f"n{number}")
            await asyncio.sleep(0.001)
        for task in asked:
            await task
        assert [len(call) for call in it.peer.calls[:2]] == [20, 10]

    play(scenario)


def test_a_call_that_hangs_holds_up_nobody_for_long() -> None:
    """20 ms later the others go in a call of their own, which is answered while the first still hangs."""

    async def scenario(it: Creating) -> None:
        loop = asyncio.get_running_loop()
        it.peer.gate = asyncio.Event()
        (first,) = it.ask("a")
        await called(it, 1)
        gate, it.peer.gate = it.peer.gate, None
        others = it.ask("b", "c")

        assert [code_of(await task) for task in others] == ["b", "c"]
        assert loop.time() == pytest.approx(0.02)
        assert not first.done()
        gate.set()
        assert code_of(await first) == "a"

    play(scenario)


@pytest.mark.parametrize(("took_s", "waits_s"), [(0.005, 0.02), (0.03, 0.06), (0.5, 0.1)])
def test_where_calls_take_long_the_next_wait_longer_for_one(took_s: float, waits_s: float) -> None:
    """Twice what the last call took, from 20 to 100 ms: on a busy machine two halves cost twice as much as a whole."""

    async def scenario(it: Creating) -> None:
        loop = asyncio.get_running_loop()
        it.peer.gate = asyncio.Event()
        (slow,) = it.ask("slow")
        await called(it, 1)
        await asyncio.sleep(took_s)
        it.peer.gate.set()
        await slow

        it.peer.gate = asyncio.Event()
        began = loop.time()
        (first,) = it.ask("a")
        await called(it, 2)
        gate, it.peer.gate = it.peer.gate, None
        (other,) = it.ask("b")
        assert code_of(await other) == "b"
        assert loop.time() - began == pytest.approx(waits_s, abs=0.001)
        gate.set()
        await first

    play(scenario)


def test_while_two_calls_are_under_way_a_crowd_collects() -> None:
    """A crowd does not wait for one call; but at most two are under way, of at most a hundred creates each, oldest
    first; nobody is left behind."""

    async def scenario(it: Creating) -> None:
        it.peer.gate = asyncio.Event()
        asked = it.ask("a")
        await called(it, 1)
        asked += it.ask(*(f"m{number}" for number in range(64)))
        await called(it, 2)
        assert asyncio.get_running_loop().time() == 0
        asked += it.ask(*(f"n{number}" for number in range(150)))
        await asyncio.sleep(1)
        assert len(it.peer.calls) == 2

        it.peer.gate.set()
        codes = [code_of(await task) for task in asked]

        assert codes == ["a", *(f"m{number}" for number in range(64)), *(f"n{number}" for number in range(150))]
        assert [len(call) for call in it.peer.calls] == [1, 64, 100, 50]
        assert it.peer.most_under_way == 2

    play(scenario)


def test_a_call_is_bounded_in_bytes() -> None:
    """Creates with large bodies are spread over calls that a server takes."""

    async def scenario(it: Creating) -> None:
        urls = [f"{number}" + "x" * 60_000 for number in range(20)]
        assert [code_of(await task) for task in it.ask(*urls)] == urls
        assert [len(call) for call in it.peer.calls] == [8, 8, 4]

    play(scenario)


def test_beyond_the_waiting_room_a_create_is_refused_at_once() -> None:
    """503 with a time to come again, and nothing was sent for it; those inside are served."""

    async def scenario(it: Creating) -> None:
        it.peer.gate = asyncio.Event()
        asked = it.ask("a")
        await called(it, 1)
        asked += it.ask("b")
        await called(it, 2)
        asked += it.ask("c", "d")
        (refused,) = it.ask("e")

        refusal = await refused
        assert isinstance(refusal, Unavailable)
        assert (refusal.reason, refusal.retry_after_s) == ("unavailable", 1)
        it.peer.gate.set()
        assert [code_of(await task) for task in asked] == ["a", "b", "c", "d"]
        assert all("e" not in call for call in it.peer.calls)

    play(scenario, waiting_max=2)


def test_who_gives_up_takes_nobody_along() -> None:
    """A caller that hangs up before its create was sent is not sent; one that hangs up later leaves its neighbours."""

    async def scenario(it: Creating) -> None:
        it.peer.gate = asyncio.Event()
        on_the_way = it.ask("a", "b")
        await called(it, 1)
        other = it.ask("c")
        await called(it, 2)
        waiting = it.ask("d", "e")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        on_the_way[0].cancel()
        waiting[0].cancel()
        await asyncio.sleep(0)
        it.peer.gate.set()

        assert [code_of(await task) for task in (on_the_way[1], *other, waiting[1])] == ["b", "c", "e"]
        assert it.peer.calls == [["a", "b"], ["c"], ["e"]]

    play(scenario)


@pytest.mark.rule("R1")
def test_each_create_has_its_own_deadline() -> None:
    """Two seconds from when it came: sent ones may have been made, and are told so; those that never left were not. A
    neighbour that came later waits on. Nothing is sent twice."""

    async def scenario(it: Creating) -> None:
        loop = asyncio.get_running_loop()
        it.peer.gate = asyncio.Event()
        (first,) = it.ask("a")
        await called(it, 1)
        await asyncio.sleep(0.5)
        (second,) = it.ask("b")
        await called(it, 2)
        (never_sent,) = it.ask("c")
        await asyncio.sleep(1)
        (late,) = it.ask("d")

        lost = await first
        assert loop.time() == pytest.approx(TIMEOUT_S)
        refused = [await second, await never_sent]
        assert loop.time() == pytest.approx(0.5 + TIMEOUT_S)
        assert not late.done()
        it.peer.gate.set()

        assert isinstance(lost, DeadlineExceeded)
        assert isinstance(refused[0], DeadlineExceeded)
        assert isinstance(refused[1], Unavailable)
        assert refused[1].reason == "unavailable"
        assert code_of(await late) == "d"
        assert it.peer.calls == [["a"], ["b"], ["d"]]
        left = [item.time_left.ToMilliseconds() for item in it.peer.items]
        assert left == [2000, 2000, pytest.approx(1000, abs=2)]
        assert it.peer.timeouts == [2.0, 2.0, pytest.approx(1.0)]

    play(scenario)


@pytest.mark.rule("R1")
@pytest.mark.parametrize(
    "failure", [Unavailable("unavailable", "Broke.", metadata={"outcome": "unknown"}), ValueError("a bug, planted")]
)
def test_a_call_that_fails_fails_its_own_creates_once(failure: Exception) -> None:
    """Each is told with an error of its own, nothing is sent again, and the next call goes as if nothing had been."""

    async def scenario(it: Creating) -> None:
        it.peer.failure = failure
        told = [await task for task in it.ask("a", "b")]
        it.peer.failure = None

        assert all(isinstance(item, ServiceError) for item in told)
        assert told[0] is not told[1]
        if isinstance(failure, ServiceError):
            assert all(item.metadata == failure.metadata for item in told if isinstance(item, ServiceError))
        assert [code_of(await task) for task in it.ask("c")] == ["c"]
        assert it.peer.calls == [["a", "b"], ["c"]]

    play(scenario)


def test_an_answer_that_lacks_results_is_not_passed_off_as_one() -> None:
    """Who has no result gets an error, not a neighbour's link."""

    async def scenario(it: Creating) -> None:
        it.peer.short_by = 1
        first, last = [await task for task in it.ask("a", "b")]
        assert code_of(first) == "a"
        assert isinstance(last, Unavailable)
        assert last.reason == "outcome_unknown"

    play(scenario)


@pytest.mark.parametrize("fields", [{"custom_code": "mine"}, {"request_id": "k-1"}])
def test_what_takes_several_steps_goes_by_itself(fields: dict[str, str]) -> None:
    """A chosen code and an idempotency key: others would wait for it."""

    async def scenario(it: Creating) -> None:
        link = await it.creator.create(pb.CreateLinkRequest(long_url="slow", **fields))  # type: ignore[arg-type]  # str
        assert link.short_code == "slow"
        assert (it.peer.alone, it.peer.calls) == (["slow"], [])

    play(scenario)


def test_each_create_of_a_kept_trace_has_its_span_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours in one call are in their own traces: each item carries the span that waits for it, and the call itself
    is in none of them."""
    with spans_of(monkeypatch) as spans:

        async def scenario(it: Creating) -> None:
            async def traced(name: str, long_url: str) -> None:
                with span(name):
                    (task,) = it.ask(long_url)
                    await task

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(traced("first", "one"))
                tasks.create_task(traced("second", "bad"))
            assert len(it.peer.calls) == 1
            named = {item.name: item for item in spans.finished() if item.name in ("first", "second")}
            waiting = [item for item in spans.finished() if item.name.endswith("/CreateLink")]
            assert [item.traceparent for item in it.peer.items] == [traceparent_of(item) for item in waiting]
            roots = [traceparent_of(named[name]) for name in ("first", "second")]
            assert [parent_of(item) for item in waiting] == [root[36:52] for root in roots]
            assert [item.traceparent[:35] for item in it.peer.items] == [root[:35] for root in roots]
            assert (waiting[1].attributes or {})["error.type"] == "invalid_long_url"
            assert len(spans.finished()) == 4

        play(scenario)
