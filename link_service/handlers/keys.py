"""KeyService: making and verifying API keys, and the verdicts that are remembered for when the table is away."""

import asyncio
import hmac
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256

from chassis.auth import Access, Plan, Principal, principal_from_message, principal_to_message
from chassis.breaker import Breaker
from chassis.clock import Clock
from chassis.errors import PermissionDenied, Unauthenticated, Unavailable
from chassis.task_room import TaskRoom
from contracts.api_keys import BODY_LENGTH, PREFIX, format_key, is_well_formed
from contracts.codes import ALPHABET
from contracts.link_codec import timestamp
from contracts.scopes import ACCOUNT_SCOPES, OPERATE
from link_service.handlers.attempts import Repeatable
from link_service.handlers.decoding import repeatable_of, user_id_of
from link_service.handlers.metrics import KEY_VERDICTS
from link_service.handlers.refusals import invalid_field, reused
from link_service.ports import Accounts, KeyClaim, StoredKey
from shortener.key.v1 import key_service_pb2 as pb
from shortener.key.v1 import key_service_pb2_grpc as pb_grpc

POLICIES: dict[str, str | Access] = {"CreateKey": Access.MESH, "VerifyKey": Access.MESH}

_FRESH_S = 1.0  # a gateway adds at most as much, a question under way _ASK_S: a revoked key ends within 2.25 s
_RENEW_S = 0.5  # a verdict in use is asked for again at this age, beside those who use it: they never wait
_STALE_S = 3600.0  # how long creates go on without the table
_ASK_S = 0.25  # for the table's answer when there is an older verdict to fall back on
_AWAY_S = 1.5  # since a question failed: longer than from one trial of the breaker's to the end of the next
_ASK_FIRST_S = 0.8  # within the second that callers give us
_REMEMBERED_MAX = 10_000
_SALT_BYTES = 32
_CLAIM_HOLDS = timedelta(hours=24)
_SHOWN = len(PREFIX) + 4  # characters of a key that its owner may see again


@dataclass(frozen=True, slots=True)
class _Verdict:
    principal: Principal
    at: float  # monotonic


class KeyVerifier:
    """Tells whom a key stands for. Keys are looked up by HMAC-SHA256 under the deployment's pepper."""

    def __init__(self, accounts: Accounts, pepper: bytes, room: TaskRoom, clock: Clock) -> None:
        self._accounts = accounts
        self._pepper = pepper
        self._room = room
        self._clock = clock
        self._failed_at = float("-inf")
        self._breaker = Breaker(clock)
        self._remembered: OrderedDict[str, _Verdict] = OrderedDict()  # the least recently used first
        self._being_asked: set[str] = set()

    def hash_of(self, key: str) -> str:
        """Under which name a key is kept."""
        return hmac.new(self._pepper, key.encode(), sha256).hexdigest()

    def key_of(self, salt: str) -> str:
        """The API key that is derived from a salt: chance to whoever lacks either the salt or the pepper."""
        number = int.from_bytes(self._derived("key", salt), "big")
        digits = []
        for _ in range(BODY_LENGTH):
            number, digit = divmod(number, len(ALPHABET))
            digits.append(ALPHABET[digit])
        return format_key("".join(digits))

    def key_id_of(self, salt: str) -> str:
        """Its public id."""
        return self._derived("id", salt)[:8].hex()

    def _derived(self, what: str, salt: str) -> bytes:
        return hmac.new(self._pepper, f"api key, {what}, of {salt}".encode(), sha256).digest()

    async def verify(self, key: str) -> Principal:
        """Whom the key stands for. The table's verdict serves for 1 s, and up to 1 h while the table is away. Only who
        comes with a key that nobody used for a second waits for the table.

        Raises:
            Unauthenticated: it is no key of ours.
            Unavailable: the table is away, and the key was not seen lately.
        """
        if not is_well_formed(key):
            raise _unknown()
        name = self.hash_of(key)
        known = self._known(name)
        if known is None:
            return await self._ask(name, timeout_s=_ASK_FIRST_S)
        age_s = self._clock.monotonic() - known.at
        away = self._clock.monotonic() - self._failed_at < _AWAY_S
        grace_s = _ASK_S if name in self._being_asked else 0.0
        if age_s < _FRESH_S + grace_s or away:
            if age_s >= _RENEW_S:
                self._renew(name)
            KEY_VERDICTS.labels("memory" if age_s < _FRESH_S + grace_s else "stale").inc()
            return known.principal
        try:
            return await self._ask(name, timeout_s=_ASK_S)
        except Unavailable:
            KEY_VERDICTS.labels("stale").inc()
            return known.principal

    def _renew(self, name: str) -> None:
        """Asks beside those who use the verdict that is known; one question at a time."""
        if name in self._being_asked or not self._breaker.admit():
            return
        self._being_asked.add(name)
        try:
            self._room.start(self._question(name, timeout_s=_ASK_S), timeout_s=2 * _ASK_S)
        except Unavailable:  # the room is full: the next one who uses it tries again
            self._being_asked.discard(name)

    async def _ask(self, name: str, *, timeout_s: float) -> Principal:
        """As `_question`; a table that is away is asked once a second [R7]."""
        if not self._breaker.admit():
            raise _away()
        return await self._question(name, timeout_s=timeout_s)

    async def _question(self, name: str, *, timeout_s: float) -> Principal:
        """The table's verdict, which is remembered, as old as the question.

        Raises:
            Unauthenticated: it is no key of ours.
            Unavailable: the table is away.
        """
        began = self._clock.monotonic()
        self._being_asked.add(name)
        try:
            async with asyncio.timeout(timeout_s):
                found = await self._accounts.find_key(name)
        except (Unavailable, TimeoutError) as exc:
            self._breaker.failed()
            self._failed_at = self._clock.monotonic()
            raise _away() from exc
        finally:
            self._being_asked.discard(name)
        self._breaker.succeeded()
        KEY_VERDICTS.labels("table").inc()
        if found is None:
            self._remembered.pop(name, None)
            raise _unknown()
        key, plan = found
        principal = Principal(key.user_id, frozenset(key.scopes), plan)
        self._remember(name, _Verdict(principal, began))
        return principal

    def _known(self, name: str) -> _Verdict | None:
        """The remembered verdict, unless it is too old even for a table that is away."""
        known = self._remembered.get(name)
        if known is None or self._clock.monotonic() - known.at >= _STALE_S:
            return None
        self._remembered.move_to_end(name)
        return known

    def _remember(self, name: str, verdict: _Verdict) -> None:
        self._remembered[name] = verdict
        self._remembered.move_to_end(name)
        if len(self._remembered) > _REMEMBERED_MAX:
            self._remembered.popitem(last=False)


class KeyHandlers(pb_grpc.KeyServiceServicer):
    """The RPCs of KeyService."""

    def __init__(self, accounts: Accounts, verifier: KeyVerifier, clock: Clock) -> None:
        self._accounts = accounts
        self._verifier = verifier
        self._clock = clock

    async def CreateKey(self, request: pb.CreateKeyRequest, _context: object) -> pb.CreateKeyResponse:  # noqa: N802 (named by the proto)
        """Makes a key, and its account if that is new."""
        user_id = user_id_of(request.user_id)
        scopes = tuple(dict.fromkeys(request.scopes)) or ACCOUNT_SCOPES
        if unknown := sorted(set(scopes) - {*ACCOUNT_SCOPES, OPERATE}):
            raise invalid_field("scopes", f"There is no scope {unknown[0]!r}.")
        if request.principal.user_id:
            _admit(principal_from_message(request.principal), user_id, scopes)
        plan = Plan.PREMIUM if request.plan == pb.PLAN_PREMIUM else Plan.FREE
        claim = await self._claim(repeatable_of(request, Principal(user_id, frozenset())))
        secret = self._verifier.key_of(claim.salt)
        key = StoredKey(
            key_id=self._verifier.key_id_of(claim.salt),
            key_hash=self._verifier.hash_of(secret),
            user_id=user_id,
            scopes=scopes,
            prefix=secret[:_SHOWN],
            created_at=claim.at,
        )
        await self._accounts.open_account(user_id, plan, claim.at)
        await self._accounts.add_key(key)
        return pb.CreateKeyResponse(api_key=_message(key), secret=secret)

    async def _claim(self, request: Repeatable) -> KeyClaim:
        """What the key is derived from: new, or what an earlier call under the same idempotency key stored, so that its
        repeat makes and tells the very same key, which nobody has to keep for that.

        Raises:
            InvalidArgument: the idempotency key came with another request before.
            Unavailable: the table is away.
        """
        now = self._clock.now()
        claim = KeyClaim(request.body_hash, secrets.token_hex(_SALT_BYTES), now)
        if not request.idempotency_key:
            return claim
        name = self._verifier.hash_of(
            f"request {request.idempotency_key}"
        )  # a client's text is no part of a row's name
        stored = await self._accounts.claim_key(request.user_id, name, claim, replaces_before=now - _CLAIM_HOLDS)
        if stored.body_hash != request.body_hash:
            raise reused()
        return stored

    async def VerifyKey(self, request: pb.VerifyKeyRequest, _context: object) -> pb.VerifyKeyResponse:  # noqa: N802
        """Tells whom a key stands for."""
        return pb.VerifyKeyResponse(principal=principal_to_message(await self._verifier.verify(request.secret)))


def _admit(principal: Principal, user_id: str, scopes: tuple[str, ...]) -> None:
    """Turns away who would give away more than is theirs."""
    if principal.user_id != user_id or not set(scopes) <= principal.scopes:
        raise PermissionDenied("permission_denied", "A key can only be made for one's own account and scopes.")


def _away() -> Unavailable:
    return Unavailable("unavailable", "The database does not answer.", retry_after_s=1)


def _unknown() -> Unauthenticated:
    return Unauthenticated("unauthenticated", "There is no such API key.")


def _message(key: StoredKey) -> pb.ApiKey:
    return pb.ApiKey(
        key_id=key.key_id,
        user_id=key.user_id,
        scopes=key.scopes,
        prefix=key.prefix,
        created_at=timestamp(key.created_at),
    )
