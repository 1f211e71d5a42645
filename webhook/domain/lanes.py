"""Which attempt begins next: so many at a time to one endpoint, so many in all, and endpoints take turns.

So an endpoint that hangs holds its own few slots and nothing else. Plain bookkeeping, no clock and no tasks.
"""

from collections import Counter, deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from webhook.domain.endpoints import EndpointId

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """The bounds of attempts under way and of items waiting for one."""

    active_max: int
    active_per_endpoint_max: int
    waiting_max: int
    waiting_per_endpoint_max: int


class Lanes(Generic[Item]):
    """Attempts under way by endpoint, and the items that wait for a slot."""

    def __init__(self, limits: LaneLimits) -> None:
        self._limits = limits
        self._active: Counter[EndpointId] = Counter()
        self._active_count = 0
        self._waiting: dict[EndpointId, deque[Item]] = {}
        self._waiting_count = 0
        self._turns: dict[EndpointId, None] = {}  # endpoints with something waiting and a slot free, next one first

    @property
    def active_count(self) -> int:
        """Attempts under way."""
        return self._active_count

    def active_of(self, endpoint_id: EndpointId) -> int:
        """Attempts under way to an endpoint."""
        return self._active[endpoint_id]

    def has_room(self, endpoint_id: EndpointId) -> bool:
        """Whether one more item for the endpoint may wait here."""
        waiting = self._waiting.get(endpoint_id, ())
        limits = self._limits
        return self._waiting_count < limits.waiting_max and len(waiting) < limits.waiting_per_endpoint_max

    def wait(self, endpoint_id: EndpointId, item: Item) -> bool:
        """Lines an item up; False if there is no room."""
        if not self.has_room(endpoint_id):
            return False
        self._waiting.setdefault(endpoint_id, deque()).append(item)
        self._waiting_count += 1
        self._line_up(endpoint_id)
        return True

    def take(self) -> Item | None:
        """The next item to begin with, and its slot; None if there is none or no slot is free."""
        if not self._turns or self._active_count >= self._limits.active_max:
            return None
        endpoint_id = next(iter(self._turns))
        del self._turns[endpoint_id]
        item = self._waiting[endpoint_id].popleft()
        self._waiting_count -= 1
        if not self._waiting[endpoint_id]:
            del self._waiting[endpoint_id]
        self._begin(endpoint_id)
        self._line_up(endpoint_id)
        return item

    def begin(self, endpoint_id: EndpointId) -> bool:
        """Takes a slot for an item that never waited here; False if none is free or others wait for it."""
        is_free = endpoint_id not in self._waiting and self._has_slot(endpoint_id)
        if is_free and self._active_count < self._limits.active_max:
            self._begin(endpoint_id)
            return True
        return False

    def end(self, endpoint_id: EndpointId) -> None:
        """Gives a slot back."""
        assert self._active[endpoint_id] > 0
        self._active[endpoint_id] -= 1
        self._active_count -= 1
        if not self._active[endpoint_id]:
            del self._active[endpoint_id]
        self._line_up(endpoint_id)

    def drain(self) -> list[Item]:
        """Takes out everything that waits."""
        items = [item for line in self._waiting.values() for item in line]
        self._waiting.clear()
        self._turns.clear()
        self._waiting_count = 0
        return items

    def _has_slot(self, endpoint_id: EndpointId) -> bool:
        return self._active[endpoint_id] < self._limits.active_per_endpoint_max

    def _begin(self, endpoint_id: EndpointId) -> None:
        self._active[endpoint_id] += 1
        self._active_count += 1

    def _line_up(self, endpoint_id: EndpointId) -> None:
        if endpoint_id in self._waiting and endpoint_id not in self._turns and self._has_slot(endpoint_id):
            self._turns[endpoint_id] = None
