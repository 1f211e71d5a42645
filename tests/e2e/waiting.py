"""Waiting for what happens by itself, with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def eventually(ask: Callable[[], Value | None], *, timeout_s: float = 20.0) -> Value:
    """The first answer that is neither None nor False nor empty.

    Raises:
        AssertionError: there was none in time; says what the last one was.
    """
    deadline = time.monotonic() + timeout_s
    while not (value := ask()):
        assert time.monotonic() < deadline, f"still {value!r} after {timeout_s} s"
        time.sleep(0.05)
    return value
