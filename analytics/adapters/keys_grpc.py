"""Whom an API key stands for, from link_service: for callers that are none of our processes."""

from typing import TYPE_CHECKING

from chassis.auth import Principal, principal_from_message
from shortener.key.v1.key_service_pb2 import VerifyKeyRequest

if TYPE_CHECKING:
    from shortener.key.v1.key_service_pb2_grpc import KeyServiceAsyncStub

_TIMEOUT_S = 1.0


class GrpcKeys:
    """Asks each time: such callers are few, and a revoked key is refused at once."""

    def __init__(self, service: "KeyServiceAsyncStub") -> None:
        self._service = service

    async def verify(self, key: str) -> Principal:
        """The principal of a key. Raises Unauthenticated, Unavailable and DeadlineExceeded."""
        answer = await self._service.VerifyKey(VerifyKeyRequest(secret=key), timeout=_TIMEOUT_S)
        return principal_from_message(answer.principal)
