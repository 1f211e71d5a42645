"""Whom API keys stand for, from link_service; a verdict is good for a second, so that revoking takes effect in one."""

from collections import OrderedDict
from typing import TYPE_CHECKING

from chassis.auth import Principal, principal_from_message
from chassis.clock import Clock
from chassis.errors import Unauthenticated
from contracts.api_keys import is_well_formed
from shortener.key.v1.key_service_pb2 import VerifyKeyRequest

if TYPE_CHECKING:  # these classes exist for type checkers only
    from shortener.key.v1.key_service_pb2_grpc import KeyServiceAsyncStub

TIMEOUT_S = 1.0
_VERDICT_S = 1.0
_VERDICTS_MAX = 10_000


class GrpcKeys:
    """Keys. Junk is refused by its checksum without asking anybody."""

    def __init__(self, service: "KeyServiceAsyncStub", *, clock: Clock, verdicts_max: int = _VERDICTS_MAX) -> None:
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
        if not is_well_formed(key):
            raise _unknown()
        known = self._verdicts.get(key)
        if known is not None and self._clock.monotonic() - known[0] <= _VERDICT_S:
            self._verdicts.move_to_end(key)
            principal = known[1]
        else:
            principal = await self._ask(key)
        if principal is None:
            raise _unknown()
        return principal

    async def _ask(self, key: str) -> Principal | None:
        began = self._clock.monotonic()  # the verdict is as old as the question
        try:
            response = await self._service.VerifyKey(VerifyKeyRequest(secret=key), timeout=TIMEOUT_S)
            principal: Principal | None = principal_from_message(response.principal)
        except Unauthenticated:
            principal = None
        self._verdicts[key] = (began, principal)
        self._verdicts.move_to_end(key)
        while len(self._verdicts) > self._verdicts_max:
            self._verdicts.popitem(last=False)
        return principal


def _unknown() -> Unauthenticated:
    return Unauthenticated("unauthenticated", "The API key is not known.")
