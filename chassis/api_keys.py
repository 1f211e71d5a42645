"""API keys of callers that are none of our processes, verified by the KeyService each time: such callers are few."""

import grpc

from chassis.auth import Principal, Verify, principal_from_message
from shortener.key.v1 import key_service_pb2 as pb
from shortener.key.v1 import key_service_pb2_grpc as pb_grpc

_TIMEOUT_S = 1.0


def key_verifier(channel: grpc.aio.Channel) -> Verify:
    """A function that tells whom a key stands for; it raises Unauthenticated for an unknown one."""
    keys = pb_grpc.KeyServiceStub(channel)

    async def verify(secret: str) -> Principal:
        answer = await keys.VerifyKey(pb.VerifyKeyRequest(secret=secret), timeout=_TIMEOUT_S)
        return principal_from_message(answer.principal)

    return verify
