"""What an outside client did and what it was told: one entry per operation, with the times between which it acted.

Times are seconds of this process' monotonic clock. An operation that was repeated under its idempotency key is one
entry: invoked with its first try, returned with its last.
"""

import dataclasses
import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path


class Kind(Enum):
    """What was asked for."""

    CREATE = "create"  # generated or chosen code
    UPDATE = "update"
    DELETE = "delete"
    RESTORE = "restore"
    FOLLOW = "follow"  # GET /{code}
    READ = "read"  # GET /api/links/{code}


READS = (Kind.FOLLOW, Kind.READ)


class Outcome(Enum):
    """What the client knows afterwards."""

    DONE = "done"  # acknowledged, or a read that was answered
    REFUSED = "refused"  # told that it was not done, or certainly never sent
    UNKNOWN = "unknown"  # no answer, or one that says so


@dataclass(slots=True)
class Operation:
    """One operation. `mark` is what it alone writes into the link's title, `url` the destination it sets."""

    kind: Kind
    user: str
    gateway: int  # through which it went
    code: str = ""  # of a create: empty until it is told, unless it was chosen
    number: int = 0
    mark: str = ""
    url: str = ""
    if_version: int = 0
    key: str = ""  # idempotency key
    invoked: float = 0.0
    returned: float | None = None
    outcome: Outcome = Outcome.UNKNOWN
    status: int = 0  # of the last answer; 0: none came
    version: int = 0  # as told; 0: it was not
    told: str = ""  # a redirect's target, or the title that was read
    tries: int = 1
    reason: str = ""  # the problem's code, or the error of the connection
    complaint: str = ""  # what the client itself saw that cannot be: a repeat with another answer, a status of no kind

    @property
    def may_have_happened(self) -> bool:
        """Whether a mutation can be in the link's history."""
        return self.outcome is not Outcome.REFUSED


@dataclass
class History:
    """All operations, and how many are under way."""

    operations: list[Operation] = field(default_factory=list)
    in_flight: int = 0

    @contextmanager
    def under_way(self, operation: Operation) -> Iterator[None]:
        """Around the sending of an operation, which it numbers and times; what is open here is in flight."""
        operation.number = len(self.operations) + 1
        operation.invoked = time.monotonic()
        self.operations.append(operation)
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
            if operation.outcome is not Outcome.UNKNOWN:
                operation.returned = time.monotonic()

    @property
    def acknowledged(self) -> int:
        """How many mutations were acknowledged."""
        return sum(1 for one in self.operations if one.kind not in READS and one.outcome is Outcome.DONE)


def write_history(path: Path, operations: Iterable[Operation]) -> None:
    """One JSON object a line."""
    with path.open("w") as file:
        for operation in operations:
            plain = dataclasses.asdict(operation) | {
                "kind": operation.kind.value,
                "outcome": operation.outcome.value,
            }
            file.write(json.dumps(plain) + "\n")
