"""Whom API keys stand for, from link_service; a verdict is good for a second, so that revoking takes effect in one.

Requests that come while a question about their key is under way share its answer, and a verdict in use is asked for
again before it ends: a busy client's key is asked for twice a second, not by each of its connections, and nobody waits.
"""

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chassis.auth import Principal, principal_from_message
from chassis.clock import Clock
from chassis.errors import Internal, ServiceError, Unauthenticated, Unavailable
from contracts.api_keys import is_well_formed
from shortener.key.v1.key_service_pb2 import VerifyKeyRequest

if TYPE_CHECKING:  # these classes exist for type checkers only
    from shortener.key.v1.key_service_pb2_grpc import KeyServiceAsyncStub

TIMEOUT_S = 1.0
_VERDICT_S = 1.0
_RENEW_S = 0.5  # age of a verdict in use at which it is asked for again
_VERDICTS_MAX = 10_000
logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Question:
    """One that is under way, and who waits for its answer."""

    began: float
    waiters: list[asyncio.Future[Principal | None]] = field(default_factory=list)


class GrpcKeys:
    """Keys. Junk is refused by its checksum without asking anybody. `tasks` runs the calls and outlives this object."""

    def __init__(
        self,
        service: "KeyServiceAsyncStub",
        *,
        clock: Clock,
        tasks: asyncio.TaskGroup,
        verdicts_max: int = _VERDICTS_MAX,
    ) -> None:
        self._tasks = tasks
        self._questions: dict[str, _Question] = {}
        self._verdicts_max = verdicts_max
        self._service = service
        self._clock = clock
        self._verdicts: OrderedDict[str, tuple[float, Principal | None]] = OrderedDict()

    async def verify(self, key: str) -> Principal:
        """The principal of a key.

        Raises:
            Unauthenticated: no such key.
            ServiceError: link_service does not answer.
        """
        known = self._fresh(key)
        if known is not None:
            principal = known[1]
        elif is_well_formed(key):
            principal = await self._share(key)
        else:
            principal = None
        if principal is None:
            raise _unknown()
        return principal

    def known(self, key: str) -> Principal | None:
        """The principal, as far as it was asked a moment ago; None: `verify` it."""
        known = self._fresh(key)
        return known[1] if known is not None else None

    def _fresh(self, key: str) -> tuple[float, Principal | None] | None:
        known = self._verdicts.get(key)
        if known is None:
            return None
        age_s = self._clock.monotonic() - known[0]
        if age_s > _VERDICT_S:
            return None
        if age_s > _RENEW_S:
            self._question(key)
        self._verdicts.move_to_end(key)
        return known

    def _share(self, key: str) -> "asyncio.Future[Principal | None]":
        answer: asyncio.Future[Principal | None] = asyncio.get_running_loop().create_future()
        self._question(key).waiters.append(answer)  # one each: who is cancelled takes nobody along
        return answer

    def _question(self, key: str) -> _Question:
        """The question that is under way, if it is young enough, or a new one."""
        now = self._clock.monotonic()
        question = self._questions.get(key)
        if question is None or now - question.began > _VERDICT_S:
            question = self._questions[key] = _Question(now)
            self._tasks.create_task(self._answer(key, question), name="verify key")
        return question

    async def _answer(self, key: str, question: _Question) -> None:
        failure: ServiceError = Unavailable("unavailable", "The answer was given up.", retry_after_s=1)
        principal: Principal | None = None
        answered = False
        try:
            principal = await self._ask(key, question.began)
            answered = True
        except ServiceError as exc:
            failure = exc
        except Exception:  # the tasks are everybody's: what got out of here would end the gateway
            logger.exception("a question about a key failed")
            failure = Internal("internal", "Something went wrong on our side.")
        finally:
            if self._questions.get(key) is question:
                del self._questions[key]
            for answer in question.waiters:
                if answer.done():
                    continue
                if answered:
                    answer.set_result(principal)
                else:
                    answer.set_exception(failure.again())

    async def _ask(self, key: str, began: float) -> Principal | None:
        try:
            response = await self._service.VerifyKey(VerifyKeyRequest(secret=key), timeout=TIMEOUT_S)
            principal: Principal | None = principal_from_message(response.principal)
        except Unauthenticated:
            principal = None
        self._verdicts[key] = (began, principal)  # the verdict is as old as the question
        self._verdicts.move_to_end(key)
        while len(self._verdicts) > self._verdicts_max:
            self._verdicts.popitem(last=False)
        return principal


def _unknown() -> Unauthenticated:
    return Unauthenticated("unauthenticated", "The API key is not known.")
