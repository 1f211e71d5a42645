"""The one error a person sees from this package: what is wrong, in one line, and what to do about it."""


class LocalError(Exception):
    """Something on this machine stops us; `str()` is one line for a person, `hint` the next step (may be empty)."""

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem)
        self.hint = hint


def first_local_error(group: BaseExceptionGroup[BaseException]) -> LocalError | None:
    """Return the first of our errors in a group of errors (several things start at once), or None."""
    for error in group.exceptions:
        if isinstance(error, LocalError):
            return error
        if isinstance(error, BaseExceptionGroup) and (found := first_local_error(error)):
            return found
    return None
