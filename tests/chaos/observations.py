"""Each answer must be that of a version which was current at some moment between question and answer.

The versions of a link have a known order, so this is linearizability decided exactly, in one pass: an answer takes
the lowest version that it can be of, and no later question may be answered from a lower one.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from contracts.link import Link, LinkEvent, LinkState
from tests.chaos.history import Kind, Operation, Outcome

OTHER_GATEWAY_S = 0.1  # what P2 allows a redirect through another gateway to be behind
_GONE = (404, 410)


@dataclass
class Observed:
    """What was found."""

    checked: int = 0
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    stale: list[tuple[Operation, str]] = field(default_factory=list)


@dataclass
class _Floor:
    """The lowest version that may still be answered, as it rises with time."""

    times: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)

    def raise_to(self, version: int, at: float) -> None:
        """From `at` on, which is never before the last one."""
        self.times.append(at)
        self.versions.append(max(version, self.versions[-1] if self.versions else 0))

    def at(self, moment: float) -> int:
        """What it was at a moment."""
        place = bisect_right(self.times, moment)
        return self.versions[place - 1] if place else 0


def check_observations(
    operations: Sequence[Operation], events: Sequence[LinkEvent], made: Sequence[Operation | None]
) -> Observed:
    """Hold the answered operations on one code against its versions."""
    found = Observed()
    states: list[Link | None] = [None, *(event.link for event in events)]
    visible_from = _visible_from(operations, events, made)
    owner = events[0].link.user_id if events else None
    answered = [(one.returned, one) for one in operations if one.outcome is Outcome.DONE and one.returned is not None]
    floors: dict[int, _Floor] = {one.gateway: _Floor() for _, one in answered}
    for returned, one in sorted(answered, key=lambda item: item[0]):
        if one.kind is Kind.READ and one.user != owner:
            if one.status != 404:
                found.wrong.append(f"{_name(one)}: a stranger was shown it")
            continue
        fits = _fitting(one)
        if fits is None:
            found.wrong.append(f"{_name(one)}: answered {one.status}")
            continue
        found.checked += 1
        lowest = _floor_of(one, floors)
        highest = bisect_right(visible_from, returned) - 1
        version = next((at for at in range(lowest, highest + 1) if fits(at, states[at])), None)
        if version is not None:
            floors[one.gateway].raise_to(version, returned)
            continue
        sentence = f"{_name(one)}: answered {one.status} {one.told} v{one.version}, allowed {lowest}..{highest}"
        if any(fits(at, state) for at, state in enumerate(states[:lowest])) and one.status not in _GONE:
            found.stale.append((one, sentence))
        elif one.kind is Kind.FOLLOW and one.status not in _GONE:
            found.wrong.append(sentence)
        else:
            found.lost.append(sentence)
    return found


def _floor_of(one: Operation, floors: dict[int, _Floor]) -> int:
    """Through its own gateway, and of all that asks link_service: what was over before it. Else P2's bound."""
    bound_s = OTHER_GATEWAY_S if one.kind is Kind.FOLLOW else 0.0
    return max(
        floor.at(one.invoked - (bound_s if gateway != one.gateway else 0.0)) for gateway, floor in floors.items()
    )


def _visible_from(
    operations: Sequence[Operation], events: Sequence[LinkEvent], made: Sequence[Operation | None]
) -> list[float]:
    """For version 0, 1, …: before when nobody can have seen it."""
    moments = [-math.inf]
    for event, one in zip(events, made, strict=True):
        if one is not None:
            moment = one.invoked
        else:  # a delete or a restore: the first that was asked for and not refused
            kind = Kind.DELETE if event.link.state is LinkState.DELETED else Kind.RESTORE
            asked = [other.invoked for other in operations if other.kind is kind and other.may_have_happened]
            moment = min(asked, default=-math.inf)
        moments.append(max(moment, moments[-1]))
    return moments


def _fitting(one: Operation) -> Callable[[int, Link | None], bool] | None:
    """Whether a version can be what the operation was told; None: no version ever can."""
    match one.kind:
        case Kind.CREATE:
            return lambda version, _link: version == 1
        case Kind.UPDATE:
            return lambda version, _link: version == one.version
        case Kind.DELETE:
            return lambda _version, link: link is not None and link.state is LinkState.DELETED
        case Kind.RESTORE:
            return lambda version, link: version == one.version and link is not None and link.state is LinkState.ACTIVE
        case Kind.READ:
            if one.status == 404:
                return lambda version, _link: version == 0
            return lambda version, link: version == one.version and link is not None and link.title == one.told
        case Kind.FOLLOW:
            return _follow(one)


def _follow(one: Operation) -> Callable[[int, Link | None], bool] | None:
    match one.status:
        case 302:
            return lambda _version, link: (
                link is not None and link.state is LinkState.ACTIVE and link.long_url == one.told
            )
        case 410:
            return lambda _version, link: link is not None and link.state is LinkState.DELETED
        case 404:
            return lambda version, _link: version == 0
        case _:
            return None


def _name(one: Operation) -> str:
    return f"#{one.number} {one.kind.value} {one.code} of {one.user}"
