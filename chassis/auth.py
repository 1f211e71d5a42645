"""Who calls, and for whom.

Between our own processes a caller proves itself by the mesh secret (metadata `linkmesh-caller`, `linkmesh-secret`);
the one named `gateway` may state a principal in the request. Everybody else sends `authorization: Bearer <API key>`.
Each RPC declares what it demands; a server with an RPC that declares nothing does not start.
"""

import hmac
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from chassis.errors import PermissionDenied, Unauthenticated
from shortener.key.v1 import key_service_pb2 as key_pb

CALLER_HEADER = "linkmesh-caller"
SECRET_HEADER = "linkmesh-secret"  # noqa: S105 (the name of a header)
STRANGER = {"caller": "stranger"}  # metadata of the error that a wrong mesh secret is told with
GATEWAY = "gateway"
SUPERVISOR = "supervisor"  # makes the first key of a new deployment
_MAY_STATE_PRINCIPAL = frozenset({GATEWAY, SUPERVISOR})


class Plan(Enum):
    """What an account pays for."""

    FREE = "free"
    PREMIUM = "premium"


@dataclass(frozen=True, slots=True)
class Principal:
    """The account a request acts for, and what its key allows."""

    user_id: str
    scopes: frozenset[str]
    plan: Plan = Plan.FREE


@dataclass(frozen=True, slots=True)
class Caller:
    """The other end of an RPC. `process` is set if it proved to be one of ours."""

    process: str | None
    principal: Principal | None


class Access(Enum):
    """What an RPC demands where no scope is the answer."""

    OPEN = "open"  # health, reflection
    MESH = "mesh"  # one of our own processes


Verify = Callable[[str], Awaitable[Principal]]  # of an API key; raises Unauthenticated

_caller: ContextVar[Caller] = ContextVar("caller")


def set_caller(caller: Caller) -> None:
    """Remembers the caller for the RPC that is being handled (each RPC has its own context)."""
    _caller.set(caller)


def principal_of(stated: key_pb.Principal, scope: str) -> Principal:
    """The principal a request acts for: the one a gateway states, or the owner of the Bearer key.

    Raises:
        Unauthenticated: there is none.
        PermissionDenied: it lacks the scope, or a caller stated a principal that may not.
    """
    caller = _caller.get(Caller(None, None))
    principal = caller.principal
    if stated.user_id:
        if caller.process not in _MAY_STATE_PRINCIPAL:
            raise PermissionDenied("permission_denied", "Only the gateway may state a principal.")
        principal = principal_from_message(stated)
    if principal is None:
        raise Unauthenticated("unauthenticated", "An API key is needed.")
    if scope not in principal.scopes:
        raise PermissionDenied("permission_denied", f"The key lacks the scope {scope}.")
    return principal


async def identify(metadata: dict[str, str], *, mesh_secret: bytes, verify: Verify | None) -> Caller:
    """The caller of an RPC, by its metadata.

    Raises:
        Unauthenticated: a mesh secret or an API key was sent, and it is wrong.
    """
    process = metadata.get(CALLER_HEADER)
    if process is not None:
        presented = metadata.get(SECRET_HEADER, "").encode()
        if not mesh_secret or not hmac.compare_digest(presented, mesh_secret):
            raise Unauthenticated("unauthenticated", "The mesh secret is wrong.", metadata=STRANGER)
        return Caller(process, None)
    scheme, _, key = metadata.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key and verify is not None:
        return Caller(None, await verify(key.strip()))
    return Caller(None, None)


def principal_to_message(principal: Principal) -> key_pb.Principal:
    """The protobuf message of a principal."""
    plan = key_pb.PLAN_PREMIUM if principal.plan is Plan.PREMIUM else key_pb.PLAN_FREE
    return key_pb.Principal(user_id=principal.user_id, scopes=sorted(principal.scopes), plan=plan)


def principal_from_message(message: key_pb.Principal) -> Principal:
    """The principal of a protobuf message."""
    return _principal_of(message.SerializeToString(deterministic=True))


@lru_cache(maxsize=1024)  # a busy client's is in each of its requests
def _principal_of(encoded: bytes) -> Principal:
    message = key_pb.Principal.FromString(encoded)
    plan = Plan.PREMIUM if message.plan == key_pb.PLAN_PREMIUM else Plan.FREE
    return Principal(message.user_id, frozenset(message.scopes), plan)
