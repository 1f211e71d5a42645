"""What the author of a change is told when the answer got lost: not that it failed."""

import contextlib
from collections.abc import Iterator

from chassis.errors import ServiceError, Unavailable
from chassis.grpc_status import may_have_happened
from contracts.reasons import Reason


@contextlib.contextmanager
def told_outcome() -> Iterator[None]:
    """Around the call that changes something. It is never sent twice [R1].

    Raises:
        Unavailable: `outcome_unknown`, where the change can have happened.
    """
    try:
        yield
    except ServiceError as exc:
        if not may_have_happened(exc):
            raise
        reason = Reason.OUTCOME_UNKNOWN
        raise Unavailable(reason.code, "The answer got lost; look before you repeat.") from exc
