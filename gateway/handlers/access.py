"""Who is asking: the API key of a request, as `Authorization: Bearer` or `X-API-Key`."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeAlias

from fastapi import Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from chassis.auth import Principal
from chassis.errors import Unauthenticated
from contracts.reasons import Reason
from gateway.ports import Keys

Authenticated: TypeAlias = Any  # what FastAPI's Depends(authenticate) is at type-checking time
_BEARER = HTTPBearer(auto_error=False, description="An API key, lk_live_…")
_HEADER = APIKeyHeader(name="X-API-Key", auto_error=False)


def authenticate_by(keys: Keys) -> Callable[..., Awaitable[Principal]]:
    """A dependency of FastAPI that yields the principal of a request."""

    async def authenticate(
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)] = None,
        api_key: Annotated[str | None, Security(_HEADER)] = None,
    ) -> Principal:
        key = bearer.credentials if bearer else api_key
        if not key:
            raise Unauthenticated(Reason.UNAUTHENTICATED.code, "Send an API key as Authorization: Bearer or X-API-Key.")
        return await keys.verify(key)

    return authenticate
