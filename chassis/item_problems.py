"""The error of one item of a batch: a ServiceError as a message and back, as `grpc_status` does for a whole call."""

import grpc

from chassis.errors import FieldViolation, ServiceError, kind_of
from shortener.link.v1 import link_service_pb2 as pb

_STATUSES = {status.value[0]: status for status in grpc.StatusCode}


def problem_of(error: ServiceError) -> pb.LinkProblem:
    """The message that tells of an error."""
    violations = [pb.LinkFieldViolation(field=item.field, description=item.description) for item in error.fields]
    problem = pb.LinkProblem(
        status=error.status.value[0], reason=error.reason.upper(), message=error.message, violations=violations
    )
    if error.retry_after_s is not None:
        problem.retry_after.FromMilliseconds(int(error.retry_after_s * 1000))
    return problem


def error_of(problem: pb.LinkProblem) -> ServiceError:
    """The error that a message tells of."""
    kind = kind_of(_STATUSES.get(problem.status, grpc.StatusCode.UNKNOWN))
    return kind(
        problem.reason.lower(),
        problem.message,
        fields=tuple(FieldViolation(item.field, item.description) for item in problem.violations),
        retry_after_s=problem.retry_after.ToMilliseconds() / 1000 if problem.HasField("retry_after") else None,
    )
