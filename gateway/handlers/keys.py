"""/api/keys: further API keys for the caller's own account."""

from typing import TYPE_CHECKING

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from chassis.auth import Principal, principal_to_message
from gateway.handlers.access import Authenticated
from gateway.handlers.link_requests import IdempotencyKey
from gateway.handlers.models import CreatedKeyBody, NewKey
from gateway.handlers.mutations import told_outcome
from gateway.handlers.shapes import key_json
from shortener.key.v1 import key_service_pb2 as pb

if TYPE_CHECKING:  # these classes exist for type checkers only
    from shortener.key.v1.key_service_pb2_grpc import KeyServiceAsyncStub

MUTATION_TIMEOUT_S = 2.0


def keys_router(*, keys: "KeyServiceAsyncStub", authenticated: Authenticated) -> APIRouter:
    """The routes of API keys."""
    router = APIRouter(prefix="/api/keys", tags=["keys"])

    @router.post("", status_code=201, response_model=CreatedKeyBody, summary="Make another key for the account")
    async def create(
        body: NewKey, idempotency_key: IdempotencyKey = "", principal: Principal = authenticated
    ) -> Response:
        """The key is shown this once; again only to a repeat under the same Idempotency-Key within 24 h. It can do no
        more than the key that asks for it."""
        stated = principal_to_message(principal)
        request = pb.CreateKeyRequest(
            principal=stated,  # without it link_service would take us for somebody who may make any key
            user_id=principal.user_id,
            scopes=body.scopes or stated.scopes,
            plan=stated.plan,
            request_id=idempotency_key,
        )
        with told_outcome():
            response = await keys.CreateKey(request, timeout=MUTATION_TIMEOUT_S)
        return JSONResponse(key_json(response.api_key) | {"secret": response.secret}, 201)

    return router
