"""Whether work may go on while a dependency may be away [C1]: a pure breaker that probes, and opens step by step."""


class Gate:
    """Starts open. While away it lets one record through per `probe_interval_s`; after a success the size of a batch
    doubles from there to `batch_max`, so that one record that always fails a batch does not hold up the others.
    """

    def __init__(self, *, batch_max: int, probe_interval_s: float) -> None:
        self._batch_max = batch_max
        self._probe_interval_s = probe_interval_s
        self._limit = batch_max
        self._probe_at: float | None = None  # None: open

    @property
    def away(self) -> bool:
        """Whether the dependency is held to be away."""
        return self._probe_at is not None

    def allowance(self, now: float) -> int:
        """How many records the next batch may have; 0: none now."""
        if self._probe_at is None:
            return self._limit
        return 1 if now >= self._probe_at else 0

    def began(self, now: float) -> None:
        """A batch goes out. While away that is the probe: no other until the interval is over."""
        if self._probe_at is not None:
            self._probe_at = now + self._probe_interval_s

    def answered(self) -> None:
        """The dependency answered a batch."""
        self._limit = min(self._batch_max, self._limit * 2)
        self._probe_at = None

    def failed(self, now: float) -> None:
        """The dependency did not answer a batch."""
        self._limit = 1
        self._probe_at = now + self._probe_interval_s

    def forget(self) -> None:
        """There is nothing to ask with: not held to be away any more. The next batch is still of one record."""
        self._probe_at = None

    def next_probe(self) -> float | None:
        """When to ask again; None while open."""
        return self._probe_at
