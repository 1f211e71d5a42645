"""What a process knows of its own readiness: named conditions, all of which must hold."""

from typing import Protocol


class SetCondition(Protocol):
    """Says whether a condition is met, and if not, why."""

    def __call__(self, met: bool, why_not: str = "") -> None:
        """Sets the condition."""


class Readiness:
    """Named conditions. A condition that was declared starts out unmet; the process is ready when all are met."""

    def __init__(self) -> None:
        self._unmet: dict[str, str] = {}
        self._draining = False

    def declare(self, name: str) -> SetCondition:
        """Declares a condition and returns its setter."""
        self._unmet[name] = "starting"

        def set_condition(met: bool, why_not: str = "") -> None:
            if met:
                self._unmet.pop(name, None)
            else:
                self._unmet[name] = why_not

        return set_condition

    def drain(self) -> None:
        """From now on the process is not ready, whatever the conditions."""
        self._draining = True

    @property
    def ready(self) -> bool:
        """Whether work may be sent here."""
        return not self._draining and not self._unmet

    @property
    def reasons(self) -> dict[str, str]:
        """The conditions that do not hold, and why."""
        return {**self._unmet, **({"process": "draining"} if self._draining else {})}
