"""ServiceError over gRPC and back: `google.rpc.Status` with ErrorInfo, BadRequest and RetryInfo (AIP-193)."""

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from chassis.errors import DOMAIN, DeadlineExceeded, FieldViolation, ServiceError, Unavailable, kind_of

_OUTCOME, _UNKNOWN = "outcome", "unknown"
_NEVER_SENT = ("failed to connect", "connections to all backends failing", "errors resolving")


def status_of(error: ServiceError) -> grpc.Status:
    """The gRPC status, with details, that tells of an error."""
    details = [error_details_pb2.ErrorInfo(reason=error.reason.upper(), domain=DOMAIN, metadata=error.metadata)]
    packed = [_pack(details[0])]
    if error.fields:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=item.field, description=item.description)
            for item in error.fields
        ]
        packed.append(_pack(error_details_pb2.BadRequest(field_violations=violations)))
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(error.retry_after_s * 1000))
        packed.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    status = status_pb2.Status(code=error.status.value[0], message=error.message, details=packed)
    answer: grpc.Status = rpc_status.to_status(status)
    return answer


def error_of(failure: grpc.aio.AioRpcError) -> ServiceError:
    """The error a peer told us of. Without our details it is the transport's: Unavailable or DeadlineExceeded."""
    status = rpc_status.from_call(failure)
    if status is None:
        return _transport_error(failure)
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    retry_after_s = None
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad_request)
        if detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToMilliseconds() / 1000
    if info.domain != DOMAIN:
        return _transport_error(failure)
    return kind_of(failure.code())(
        info.reason.lower(),
        status.message,
        fields=tuple(FieldViolation(item.field, item.description) for item in bad_request.field_violations),
        metadata=dict(info.metadata),
        retry_after_s=retry_after_s,
    )


def may_have_happened(error: ServiceError) -> bool:
    """Whether what was asked of a peer can have been done, although the answer is this error."""
    return isinstance(error, DeadlineExceeded) or error.metadata.get(_OUTCOME) == _UNKNOWN


def _transport_error(failure: grpc.aio.AioRpcError) -> ServiceError:
    if failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded("deadline_exceeded", "A process did not answer in time.")
    if failure.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        # One status for "could not connect" and "broke while it was asked"; only the text tells them apart. A text we
        # do not know counts as the second: too careful is the harmless mistake.
        sent = not (failure.details() or "").lower().startswith(_NEVER_SENT)
        metadata = {_OUTCOME: _UNKNOWN} if sent else {}
        return Unavailable("unavailable", "A process cannot be reached.", retry_after_s=1, metadata=metadata)
    return kind_of(failure.code())("internal", "A process failed.")


def _pack(
    message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
