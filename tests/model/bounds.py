"""Where an exploration begins, who acts in it, and what may go wrong how often."""

from dataclasses import dataclass
from typing import NamedTuple

from contracts.link import Link
from tests.model.events import Client
from tests.model.stores import LogState, RedisState, TableState


class Left(NamedTuple):
    """How often each of these may still happen."""

    late: int = 0  # a call that is given up, and carried out at any time afterwards or never
    old_writers: int = 0  # a writer that pauses anywhere and goes on beside its successor, or never
    old_relays: int = 0
    sends: int = 0  # a send whose fate the relay does not learn
    minutes: int = 0  # a minute passes: leases end, intents are too late
    days: int = 0  # a day passes: results and intents are forgotten


class Begin(NamedTuple):
    """What there is before anybody acts. `acks`: what was told to whom; lost with Redis where it is not in the rest."""

    redis: RedisState = RedisState()
    table: TableState = TableState()
    log: LogState = LogState()
    acks: frozenset[tuple[str, Link]] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A beginning, who acts, and what may go wrong how often: the bounds of an exploration. `lossy`: see Rules."""

    name: str
    clients: tuple[Client, ...]
    begin: Begin = Begin()  # noqa: RUF009 (immutable)
    left: Left = Left()  # noqa: RUF009
    lossy: bool = False
    late_of: str = ""  # only calls of this name are ever late
    kafka: bool = True  # False: it is away, so that nothing leaves the outbox
