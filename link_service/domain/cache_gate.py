"""Which run of Redis changes and look-ups may stand on [R8].

A Redis that was restarted or replaced may have forgotten what was acknowledged. Until its run is known to be restored,
nobody changes a link on it, and nobody takes its "absent" for an answer.
"""


class CacheGate:
    """Open for one run of Redis, or shut. Every call carries the run that the gate names, and Redis itself refuses it
    at another run: so none can slip through between a restart and the moment when this process hears of it."""

    def __init__(self) -> None:
        self._run_id: str | None = None

    @property
    def run_id(self) -> str | None:
        """The run that is known to be restored; None: shut."""
        return self._run_id

    def open(self, run_id: str) -> None:
        """This run holds everything that was acknowledged."""
        self._run_id = run_id

    def shut(self) -> None:
        """Redis is at another run, or may be."""
        self._run_id = None
