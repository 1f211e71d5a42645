"""What is broken, and in which order: a pure function of the seed, endless; the run takes as much as it has time for.

Each step breaks one thing or several at once. The first round has every step of the list once, in random order, so that
a run of some length has covered everything; what follows is drawn at random.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

RELAY = "relay"  # whichever link_service leads, found out when its time comes


class Verb(Enum):
    """What is done to a process."""

    KILL = "kill -9"  # it comes back by itself
    HANG = "SIGSTOP"  # for `hold_s`, then SIGCONT
    AWAY = "away"  # kill -9, and back after `hold_s`
    SKEW = "clock 25 h off"  # kill -9, back with a wrong clock for `hold_s`, kill -9, back with the right one
    CHURN = "members come and go"  # for `hold_s`
    POISON = "poison record"
    COUNTER = "restored counter"
    OLDER = "older Redis"  # kill -9, and back with what was on its disk `hold_s` earlier


@dataclass(frozen=True, slots=True)
class Step:
    """One step: the victims all at once."""

    verb: Verb
    victims: tuple[str, ...]
    hold_s: float = 0.0

    def __str__(self) -> str:
        held = f" {self.hold_s:g} s" if self.hold_s else ""
        return f"{self.verb.value}{held}: {', '.join(self.victims)}"


# Longer than what each holds: a relay's lease of 3 s, a seat in a group (3 s), a claim on a delivery (8 s here).
_HANGS = {
    RELAY: 4.0, "writer": 4.5, "writer-2": 4.5, "audit": 4.5, "analytics": 4.5, "webhook": 10.0, "link_service": 4.0,
    "gateway": 3.0, "valkey": 4.0, "dynamodb": 4.0, "kafka": 5.0,
}  # fmt: skip
_KILLS = (
    RELAY, "link_service", "link_service-2", "writer", "writer-2", "audit", "webhook", "analytics", "gateway",
    "valkey", "dynamodb", "kafka",
)  # fmt: skip
_PAIRS = (
    ("writer", "writer-2"), ("link_service", "link_service-2"), (RELAY, "kafka"), ("valkey", RELAY),
    ("writer", "valkey"), ("writer", "dynamodb"), ("audit", "kafka"), ("webhook", "dynamodb"),
    ("gateway", "link_service"), ("writer", "audit", "webhook", "analytics"), ("valkey", "kafka"),
)  # fmt: skip
_SKEWED = ("writer", "link_service", "webhook", "audit", "analytics", "gateway")

SHORT = (
    Step(Verb.KILL, (RELAY,)),
    Step(Verb.HANG, ("writer",), 4.5),
    Step(Verb.KILL, ("valkey",)),
    Step(Verb.KILL, ("audit", "webhook")),
    Step(Verb.AWAY, ("kafka",), 20.0),
    Step(Verb.HANG, (RELAY,), 4.0),
    Step(Verb.KILL, ("dynamodb",)),
    Step(Verb.POISON, ("links-events",)),
    Step(Verb.HANG, ("valkey",), 4.0),
    Step(Verb.CHURN, ("writer-3",), 8.0),
    Step(Verb.KILL, ("writer", "link_service")),
    Step(Verb.KILL, ("gateway", "analytics")),
)


def every_step() -> list[Step]:
    """Each kind of fault on each process that can have it."""
    steps = [Step(Verb.KILL, (victim,)) for victim in _KILLS]
    steps += [Step(Verb.HANG, (victim,), hold_s) for victim, hold_s in _HANGS.items()]
    steps += [Step(Verb.KILL, pair) for pair in _PAIRS]
    steps += [Step(Verb.SKEW, (victim,), 6.0) for victim in _SKEWED]
    steps += [
        Step(Verb.AWAY, ("kafka",), 120.0),
        Step(Verb.AWAY, ("dynamodb",), 15.0),
        Step(Verb.AWAY, ("valkey",), 8.0),
        Step(Verb.CHURN, ("writer-3",), 20.0),
        Step(Verb.POISON, ("links-events",)),
        Step(Verb.COUNTER, ("link_service", "link_service-2")),
        Step(Verb.OLDER, ("valkey",), 10.0),
    ]
    return steps


def long_schedule(seed: int) -> Iterator[Step]:
    """Everything once, then the quick ones for ever."""
    order = random.Random(f"schedule/{seed}")
    first = every_step()
    order.shuffle(first)
    yield from first
    quick = [step for step in every_step() if step.hold_s < 30 and step.verb not in (Verb.COUNTER, Verb.POISON)]
    weights = [3 if step.verb is Verb.KILL else 1 for step in quick]
    while True:
        yield order.choices(quick, weights)[0]


def short_schedule(seed: int) -> Iterator[Step]:
    """The short form's own list once, shuffled, then kills until the time is over."""
    order = random.Random(f"schedule/{seed}")
    first = order.sample(SHORT, len(SHORT))
    away = next(step for step in first if step.verb is Verb.AWAY)
    first.remove(away)
    first.insert(order.randrange(4), away)  # early: a slow machine may not come to the end of the list
    yield from first
    while True:
        yield Step(Verb.KILL, (order.choice(_KILLS),))


def only(part: str, steps: Sequence[Step]) -> Iterator[Step]:
    """Those steps in whose name `part` stands, again and again.

    Raises:
        ValueError: it stands in none.
    """
    wanted = [step for step in steps if part in str(step)]
    if not wanted:
        raise ValueError(f"no step is called {part!r}; there are: {'; '.join(map(str, steps))}")
    return itertools.cycle(wanted)
