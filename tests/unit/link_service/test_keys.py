"""API keys: made once, known by their hash, and good for an hour without the table."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from chassis.auth import Plan
from chassis.errors import InvalidArgument, PermissionDenied, Unauthenticated, Unavailable
from chassis.task_room import TaskRoom
from contracts.api_keys import is_well_formed
from contracts.scopes import ACCOUNT_SCOPES
from link_service.handlers.keys import KeyHandlers, KeyVerifier
from link_service.ports import StoredKey
from shortener.key.v1 import key_service_pb2 as pb
from tests.fakes.kafka_time import VirtualClock, run_virtual
from tests.fakes.link_service_ports import FakeAccounts

PEPPER = b"p" * 32


class Desk:
    """KeyService on fakes."""

    def __init__(self, room: TaskRoom) -> None:
        self.clock = VirtualClock()
        self.accounts = FakeAccounts()
        self.verifier = KeyVerifier(self.accounts, PEPPER, room, self.clock)
        self.handlers = KeyHandlers(self.accounts, self.verifier, self.clock)

    async def make(self, **fields: object) -> pb.CreateKeyResponse:
        """A key of ada's, unless told otherwise."""
        request = pb.CreateKeyRequest(**{"user_id": "ada", **fields})  # type: ignore[arg-type]  # the test knows them
        return await self.handlers.CreateKey(request, None)


def play(scenario: Callable[[Desk], Awaitable[None]]) -> None:
    """Runs a scenario at a new desk."""

    async def main() -> None:
        async with TaskRoom() as room:
            await scenario(Desk(room))

    run_virtual(main())


async def is_known(desk: Desk, secret: str) -> bool:
    """Whether a key is good."""
    try:
        await desk.verifier.verify(secret)
    except Unauthenticated:
        return False
    return True


@pytest.mark.rule("I1")
def test_a_repeat_under_an_idempotency_key_is_told_the_same_key() -> None:
    """Secret included, also when the table went away in the middle of the first try; and the key is one."""

    async def scenario(desk: Desk) -> None:
        first = await desk.make(request_id="r-1", scopes=["links:read"])
        desk.accounts.keys.clear()  # the first try came no further than the claim
        await desk.clock.sleep(3600)

        again = await desk.make(request_id="r-1", scopes=["links:read"])

        assert again == first
        assert await is_known(desk, first.secret)
        assert len(desk.accounts.keys) == 1
        assert first.secret not in repr(desk.accounts)

    play(scenario)


@pytest.mark.rule("I1")
def test_what_is_another_request_is_no_repeat() -> None:
    """Another idempotency key, another account, none, or a day later: another key. Another body: refused."""

    async def scenario(desk: Desk) -> None:
        requests: list[dict[str, object]] = [
            {"request_id": "r-1"}, {"request_id": "r-2"}, {"request_id": "r-1", "user_id": "eve"}, {}, {},
        ]  # fmt: skip
        made = [await desk.make(**fields) for fields in requests]
        with pytest.raises(InvalidArgument) as caught:
            await desk.make(request_id="r-1", scopes=["links:read"])
        await desk.clock.sleep(24 * 3600 + 1)
        made.append(await desk.make(request_id="r-1"))

        assert caught.value.reason == "idempotency_key_reused"
        assert len({answer.secret for answer in made}) == len({answer.api_key.key_id for answer in made}) == 6

    play(scenario)


def test_the_pepper_and_the_table_make_a_key_together() -> None:
    """Who has the table alone, or the pepper alone, cannot tell a key."""

    async def scenario(desk: Desk) -> None:
        made = await desk.make(request_id="r-1")
        (claim,) = desk.accounts.claims.values()
        other = KeyVerifier(desk.accounts, b"q" * 32, TaskRoom(), desk.clock)

        assert desk.verifier.key_of(claim.salt) == made.secret
        assert other.key_of(claim.salt) != made.secret
        assert "r-1" not in repr(desk.accounts.claims)

    play(scenario)


def test_a_key_is_kept_as_its_hash_only() -> None:
    """The key is shown once; the table has its HMAC under the pepper, and enough to recognise it by."""

    async def scenario(desk: Desk) -> None:
        made = await desk.make(plan=pb.PLAN_PREMIUM)

        assert is_well_formed(made.secret)
        assert made.secret.startswith(made.api_key.prefix)
        assert len(made.api_key.prefix) == 12
        assert made.secret not in repr(desk.accounts.keys)
        other = KeyVerifier(desk.accounts, b"q" * 32, TaskRoom(), desk.clock)
        assert other.hash_of(made.secret) not in desk.accounts.keys
        assert desk.accounts.plans == {"ada": Plan.PREMIUM}

    play(scenario)


def test_a_key_stands_for_its_account() -> None:
    """VerifyKey tells account, scopes and the plan the account has now; an account keeps the plan it was made with."""

    async def scenario(desk: Desk) -> None:
        whole = await desk.make(plan=pb.PLAN_PREMIUM)
        narrow = await desk.make(scopes=["links:read", "links:read"], plan=pb.PLAN_FREE)

        verdict = await desk.handlers.VerifyKey(pb.VerifyKeyRequest(secret=narrow.secret), None)
        principal = await desk.verifier.verify(whole.secret)

        assert verdict.principal == pb.Principal(user_id="ada", scopes=["links:read"], plan=pb.PLAN_PREMIUM)
        assert principal.scopes == frozenset(ACCOUNT_SCOPES)

    play(scenario)


def test_junk_is_refused_without_asking_the_table() -> None:
    """A wrong checksum is refused at once, a well-formed unknown key by the table."""

    async def scenario(desk: Desk) -> None:
        secret = (await desk.make()).secret
        for junk in ("", "lk_live_", secret[:-1], secret[:-1] + ("0" if secret[-1] != "0" else "1"), secret + "x"):
            with pytest.raises(Unauthenticated):
                await desk.verifier.verify(junk)
        assert desk.accounts.asked == 0
        desk.accounts.keys.clear()

        with pytest.raises(Unauthenticated):
            await desk.verifier.verify(secret)

    play(scenario)


def test_a_revoked_key_ends_within_a_second() -> None:
    """A verdict serves for 1 s; then the table is asked again, and its word counts at once."""

    async def scenario(desk: Desk) -> None:
        secret = (await desk.make()).secret
        for _ in range(10):
            await desk.verifier.verify(secret)
        assert desk.accounts.asked == 1
        desk.accounts.keys.clear()
        await desk.clock.sleep(1)

        with pytest.raises(Unauthenticated):
            await desk.verifier.verify(secret)

    play(scenario)


@pytest.mark.parametrize(("age_s", "served"), [(1.0, True), (1800.0, False)])
def test_an_old_verdict_does_not_serve_beside_a_question(age_s: float, served: bool) -> None:
    """While one caller asks the table, others get a verdict that was fresh just now, never one of long ago."""

    async def scenario(desk: Desk) -> None:
        secret = (await desk.make()).secret
        await desk.verifier.verify(secret)
        desk.accounts.keys.clear()  # revoked

        async def find_slowly(key_hash: str) -> tuple[StoredKey, Plan] | None:
            await desk.clock.sleep(0.1)
            return None

        desk.accounts.find_key = find_slowly  # type: ignore[method-assign]  # so that others come meanwhile
        await desk.clock.sleep(age_s)
        async with asyncio.TaskGroup() as tasks:
            callers = [tasks.create_task(is_known(desk, secret)) for _ in range(3)]

        assert [caller.result() for caller in callers] == [False, served, served]

    play(scenario)


@pytest.mark.rule("P5", "P7")
def test_without_the_table_known_keys_serve_for_an_hour() -> None:
    """Creates do not stop with the database: a verdict serves stale for up to an hour, fresh again afterwards."""

    async def scenario(desk: Desk) -> None:
        secret = (await desk.make()).secret
        stranger = (await desk.make(user_id="eve")).secret
        await desk.verifier.verify(secret)
        desk.accounts.away = True
        await desk.clock.sleep(3598)

        assert (await desk.verifier.verify(secret)).user_id == "ada"
        with pytest.raises(Unavailable):
            await desk.verifier.verify(stranger)
        await desk.clock.sleep(2)
        with pytest.raises(Unavailable):
            await desk.verifier.verify(secret)
        desk.accounts.away = False
        await desk.clock.sleep(1)

        assert (await desk.verifier.verify(secret)).user_id == "ada"
        assert (await desk.verifier.verify(stranger)).user_id == "eve"

    play(scenario)


@pytest.mark.rule("P5", "R7")
def test_a_hung_table_does_not_slow_known_keys() -> None:
    """A table that hangs costs one caller a quarter of a second per second, and the others nothing."""

    async def scenario(desk: Desk) -> None:
        secret = (await desk.make()).secret
        await desk.verifier.verify(secret)

        async def hang(key_hash: str) -> tuple[StoredKey, Plan] | None:
            await asyncio.sleep(3600)
            return None

        desk.accounts.find_key = hang  # type: ignore[method-assign]  # SIGSTOP
        await desk.clock.sleep(2)
        before = desk.clock.monotonic()
        for _ in range(100):
            await desk.verifier.verify(secret)

        assert desk.clock.monotonic() - before == pytest.approx(0.25)

    play(scenario)


@pytest.mark.rule("P5")
@pytest.mark.parametrize("answer_s", [0.2, 3600.0])
def test_who_uses_a_key_all_the_time_never_waits_for_the_table(answer_s: float) -> None:
    """A verdict in use is renewed beside those who use it, by a table that is slow and by one that hangs."""

    async def scenario(desk: Desk) -> None:
        secret = (await desk.make()).secret
        await desk.verifier.verify(secret)
        find, asked = desk.accounts.find_key, 0

        async def find_slowly(key_hash: str) -> tuple[StoredKey, Plan] | None:
            nonlocal asked
            asked += 1
            await asyncio.sleep(answer_s)
            return await find(key_hash)

        desk.accounts.find_key = find_slowly  # type: ignore[method-assign]  # a backlog, or SIGSTOP
        for _ in range(1000):
            before = desk.clock.monotonic()
            await desk.verifier.verify(secret)
            assert desk.clock.monotonic() == before
            await desk.clock.sleep(0.01)
        assert 7 <= asked <= 21  # in ten seconds: one at a time, and a table that is away once a second

    play(scenario)


def test_a_revoked_key_in_use_ends_within_a_second() -> None:
    """Renewing beside those who use it does not keep it alive: the table's word counts as soon as it is there."""

    async def scenario(desk: Desk) -> None:
        secret = (await desk.make()).secret
        await desk.verifier.verify(secret)
        desk.accounts.keys.clear()
        revoked_at = desk.clock.monotonic()
        while await is_known(desk, secret):
            await desk.clock.sleep(0.01)
        assert 0.5 <= desk.clock.monotonic() - revoked_at <= 1.0

    play(scenario)


def test_what_is_remembered_is_bounded() -> None:
    """Many keys do not fill the memory: the least recently used verdict goes."""

    async def scenario(desk: Desk) -> None:
        first = (await desk.make()).secret
        await desk.verifier.verify(first)
        for _ in range(10_000):
            await desk.verifier.verify((await desk.make()).secret)
        asked = desk.accounts.asked

        await desk.verifier.verify(first)

        assert desk.accounts.asked == asked + 1

    play(scenario)


def test_who_asks_for_a_key_gives_away_only_what_is_theirs() -> None:
    """A principal makes keys for its own account and within its own scopes; names and scopes must be real."""

    async def scenario(desk: Desk) -> None:
        ada = pb.Principal(user_id="ada", scopes=["links:read"])
        with pytest.raises(PermissionDenied):
            await desk.make(principal=ada, user_id="eve", scopes=["links:read"])
        with pytest.raises(PermissionDenied):
            await desk.make(principal=ada, scopes=["links:read", "links:write"])
        with pytest.raises(PermissionDenied):
            await desk.make(principal=ada)
        for wrong in ("", "a b", "a#b", "a:b", "x" * 65):
            with pytest.raises(InvalidArgument):
                await desk.make(user_id=wrong)
        with pytest.raises(InvalidArgument):
            await desk.make(scopes=["keys:admin"])
        assert not desk.accounts.keys

        with pytest.raises(PermissionDenied):
            await desk.make(principal=ada, scopes=["links:read", "operate"])
        operator = await desk.make(user_id="ops", scopes=["operate"])  # by who holds the mesh secret
        assert (await desk.verifier.verify(operator.secret)).scopes == {"operate"}
        assert (await desk.make(principal=ada, scopes=["links:read"])).api_key.scopes == ["links:read"]

    play(scenario)
