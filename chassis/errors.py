"""What can go wrong, in few kinds. Handlers raise these; one interceptor turns them into gRPC statuses.

ServiceError
├── InvalidArgument      the request can never succeed as it is
├── Unauthenticated      nobody we know
├── PermissionDenied     known, but not allowed
├── NotFound
├── AlreadyExists
├── FailedPrecondition   not in this state
├── Aborted              lost a race, or a stale version; read again and decide again
├── ResourceExhausted    over a limit; later
├── Unavailable          a dependency is away, hangs or throttles; later [C1]
├── DeadlineExceeded     no answer in time; of a mutation: the outcome is unknown
└── Internal             ours
"""

from collections.abc import Mapping
from dataclasses import dataclass

import grpc

DOMAIN = "linkmesh"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of the request and what is wrong with it, as a sentence for its author."""

    field: str
    description: str


class ServiceError(Exception):
    """An error that may be told to the caller: everything in it is public.

    `reason` is a word of the deployment's closed list in lower case; `retry_after_s` tells when to come again.
    """

    status = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        fields: tuple[FieldViolation, ...] = (),
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.fields = fields
        self.metadata = dict(metadata or {})
        self.retry_after_s = retry_after_s

    def again(self) -> "ServiceError":
        """The same error as an object of its own: if several callers raised the one that they all waited for, each
        would add its traceback to the others', and keep alive what these hold."""
        return kind_of(self.status)(
            self.reason, self.message, fields=self.fields, metadata=self.metadata, retry_after_s=self.retry_after_s
        )


class InvalidArgument(ServiceError):
    """The request can never succeed as it is."""

    status = grpc.StatusCode.INVALID_ARGUMENT


class Unauthenticated(ServiceError):
    """Nobody we know."""

    status = grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(ServiceError):
    """Known, but not allowed."""

    status = grpc.StatusCode.PERMISSION_DENIED


class NotFound(ServiceError):
    """There is no such thing, or it is somebody else's."""

    status = grpc.StatusCode.NOT_FOUND


class AlreadyExists(ServiceError):
    """The name is taken."""

    status = grpc.StatusCode.ALREADY_EXISTS


class FailedPrecondition(ServiceError):
    """Not in this state."""

    status = grpc.StatusCode.FAILED_PRECONDITION


class Aborted(ServiceError):
    """A race was lost, or the version is stale."""

    status = grpc.StatusCode.ABORTED


class ResourceExhausted(ServiceError):
    """Over a limit."""

    status = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(ServiceError):
    """A dependency is away, hangs or throttles. Nothing was done, unless the reason says otherwise."""

    status = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(ServiceError):
    """No answer in time."""

    status = grpc.StatusCode.DEADLINE_EXCEEDED


class Internal(ServiceError):
    """Ours."""

    status = grpc.StatusCode.INTERNAL


_KINDS: Mapping[grpc.StatusCode, type[ServiceError]] = {kind.status: kind for kind in ServiceError.__subclasses__()}


def kind_of(status: grpc.StatusCode) -> type[ServiceError]:
    """The kind of error a gRPC status stands for; Internal for statuses we never send."""
    return _KINDS.get(status, Internal)
