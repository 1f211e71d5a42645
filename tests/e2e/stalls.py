"""How much the machine holds up whoever wants to run: what bounds of time grow with."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_STEP_S = 0.005


class Stalls:
    """The longest time for which a thread that had something to do got no CPU."""

    def __init__(self) -> None:
        self.longest_s = 0.0


@contextmanager
def stalls() -> Iterator[Stalls]:
    """Watches until the block ends."""
    found, over = Stalls(), threading.Event()

    def watch() -> None:
        before = time.monotonic()
        while not over.wait(_STEP_S):
            now = time.monotonic()
            found.longest_s = max(found.longest_s, now - before - _STEP_S)
            before = now

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()
