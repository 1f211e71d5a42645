"""The errors that verdicts become."""

from chassis.errors import FieldViolation, InvalidArgument, NotFound, Unavailable
from contracts.reasons import Reason
from link_service.domain.links import Violations

_FULL_RETRY_S = 5  # the relay drains thousands of events a second once Kafka is back


def not_found() -> NotFound:
    """Nothing there, or somebody else's: the caller cannot tell which."""
    return NotFound(Reason.LINK_NOT_FOUND.code, "There is no such link.")


def told(violations: Violations) -> InvalidArgument:
    """The error that tells of every field."""
    fields = tuple(FieldViolation(item.field, item.sentence) for item in violations.items)
    return InvalidArgument(violations.reason.code, violations.items[0].sentence, fields=fields)


def invalid_field(field: str, sentence: str) -> InvalidArgument:
    """The error that tells of one field."""
    return InvalidArgument(Reason.INVALID_FIELD.code, sentence, fields=(FieldViolation(field, sentence),))


def reused() -> InvalidArgument:
    """The error that tells of an idempotency key that stands for another request."""
    return InvalidArgument(Reason.IDEMPOTENCY_KEY_REUSED.code, "This idempotency key was used with another request.")


class NoRoom(Unavailable):
    """Redis has answered that it has no room: unlike with others of this kind, it is certain that nothing was done."""


def full() -> NoRoom:
    """Redis has no room until events have gone to Kafka."""
    return NoRoom("unavailable", "Too many changes wait to be recorded.", retry_after_s=_FULL_RETRY_S)
