"""Whether a history and the rows of the tables can both be true: a pure function, and the verdict it returns.

The event rows of a link are its total order. Against it every operation is held: what was acknowledged must be in it,
once, with its owner and content, and in the order in which the world saw it; what was refused must not be in it; and
each answer must be that of a version which was current at some moment between question and answer.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from contracts.link import EventType, Link, LinkEvent
from tests.chaos.history import READS, Kind, Operation, Outcome
from tests.chaos.observations import check_observations

Excused = Callable[[Operation], bool]  # whether a stated exception covers what a redirect answered

_UNSETTLED_S = 60.0  # what is unknown may still happen, but not so late: its last try and 30 s (I1) are over
_KINDS = {EventType.CREATED: Kind.CREATE, EventType.UPDATED: Kind.UPDATE}
_UNMARKED = {EventType.DELETED: Kind.DELETE, EventType.RESTORED: Kind.RESTORE}


class Rows(NamedTuple):
    """What the table has, by code: events (oldest first) and projections."""

    events: Mapping[str, Sequence[LinkEvent]]
    links: Mapping[str, Link | None]


@dataclass
class Verdict:
    """What was found wrong, a sentence each."""

    acknowledged: int = 0
    checked_reads: int = 0
    lost: list[str] = field(default_factory=list)  # acknowledged, and not there
    wrong: list[str] = field(default_factory=list)  # there, but not as it must be: owner, content, order, number
    stale: list[str] = field(default_factory=list)  # an answer older than what was acknowledged before the question
    excused: list[str] = field(default_factory=list)  # would be stale, but is an exception that the rules state

    @property
    def good(self) -> bool:
        """Whether nothing was found."""
        return not (self.lost or self.wrong or self.stale)


def judge(operations: Sequence[Operation], rows: Rows, *, excused: Excused = lambda _operation: False) -> Verdict:
    """The verdict on a whole run, whose system has come to rest."""
    verdict = Verdict(
        acknowledged=sum(1 for one in operations if one.kind not in READS and one.outcome is Outcome.DONE)
    )
    verdict.wrong += [f"{_name(one)}: {one.complaint}" for one in operations if one.complaint]
    marked = {one.mark: one for one in operations if one.mark}
    by_code: dict[str, list[Operation]] = defaultdict(list)
    for one in operations:
        if one.code:
            by_code[one.code].append(one)
    _check_identity(rows, marked, verdict)
    for code in sorted({*by_code, *rows.events}):
        events = rows.events.get(code, ())
        _check_rows(code, events, rows.links.get(code), verdict)
        made = [_maker(event, marked) for event in events]
        _check_makers(code, events, made, verdict)
        _check_order(code, made, verdict)
        _check_acknowledged(by_code[code], events, verdict)
        _check_unmarked(code, by_code[code], events, verdict)
        found = check_observations(by_code[code], events, made)
        verdict.checked_reads += found.checked
        verdict.lost += found.lost
        verdict.wrong += found.wrong
        for one, sentence in found.stale:
            (verdict.excused if excused(one) else verdict.stale).append(sentence)
    for one in operations:
        if not one.code and one.kind is Kind.CREATE and one.outcome is Outcome.DONE:
            verdict.wrong.append(f"{_name(one)} was acknowledged without a code")
    return verdict


def _check_identity(rows: Rows, marked: Mapping[str, Operation], verdict: Verdict) -> None:
    """No event stands twice, and no operation made two."""
    everything = [event for events in rows.events.values() for event in events]
    for event_id, count in Counter(event.event_id for event in everything).items():
        if count > 1:
            verdict.wrong.append(f"event {event_id} stands {count} times")
    made = Counter(event.link.title for event in everything if event.type in _KINDS)
    verdict.wrong += [f"{_name(marked[mark])} made {count} events" for mark, count in made.items()
                      if count > 1 and mark in marked]  # fmt: skip


def _check_rows(code: str, events: Sequence[LinkEvent], link: Link | None, verdict: Verdict) -> None:
    """Versions are contiguous, the first makes the link, one account owns all, the projection is the newest."""
    versions = [event.version for event in events]
    if versions != list(range(1, len(events) + 1)):
        verdict.wrong.append(f"{code}: versions {versions}")
    if events and (events[0].type is not EventType.CREATED or EventType.CREATED in [e.type for e in events[1:]]):
        verdict.wrong.append(f"{code}: not created once, by its first event")
    if len({event.link.user_id for event in events} | {event.user_id for event in events}) > 1:
        verdict.wrong.append(f"{code}: more than one owner")
    if any(now.at <= before.at for before, now in itertools.pairwise(events)):
        verdict.wrong.append(f"{code}: times that do not follow versions")
    if events and link is None:
        verdict.lost.append(f"{code}: events, but no projection")
    elif events and link != events[-1].link:
        verdict.wrong.append(f"{code}: the projection is not what its last event left")
    elif link is not None and not events:
        verdict.wrong.append(f"{code}: a projection without events")


def _maker(event: LinkEvent, marked: Mapping[str, Operation]) -> Operation | None:
    """The operation that made an event, where its mark tells."""
    wanted = _KINDS.get(event.type)
    found = marked.get(event.link.title) if wanted else None
    return found if found is not None and found.kind is wanted else None


def _check_makers(code: str, events: Sequence[LinkEvent], made: Sequence[Operation | None], verdict: Verdict) -> None:
    """Whatever stands in the history was asked for, by its owner, as it stands there, and nobody was told no."""
    for event, one in zip(events, made, strict=True):
        if event.type not in _KINDS:
            continue
        if one is None:
            verdict.wrong.append(f"{code} v{event.version}: nobody asked for it")
            continue
        where = f"{code} v{event.version}, {_name(one)}"
        if one.user != event.link.user_id:
            verdict.wrong.append(f"{where}: of {one.user}, but {event.link.user_id} has it")
        if one.code and one.code != code:
            verdict.wrong.append(f"{where}: was told {one.code}")
        if one.url and one.url != event.link.long_url:
            verdict.wrong.append(f"{where}: leads to {event.link.long_url} instead of {one.url}")
        if one.if_version and one.if_version != event.version - 1:
            verdict.wrong.append(f"{where}: was to follow version {one.if_version}")
        if not one.may_have_happened:
            verdict.wrong.append(f"{where}: was refused ({one.status} {one.reason}), and done")


def _check_order(code: str, made: Sequence[Operation | None], verdict: Verdict) -> None:
    """What was acknowledged before another began has the lower version."""
    earliest_return: tuple[float, Operation] | None = None
    for one in reversed(made):
        if one is None:
            continue
        if earliest_return is not None and earliest_return[0] < one.invoked:
            verdict.wrong.append(f"{code}: {_name(earliest_return[1])} was over before {_name(one)}, but stands behind")
        over = one.returned if one.outcome is Outcome.DONE else None
        if over is not None and (earliest_return is None or over < earliest_return[0]):
            earliest_return = (over, one)


def _check_acknowledged(operations: Iterable[Operation], events: Sequence[LinkEvent], verdict: Verdict) -> None:
    """Every acknowledged create and update is the event that it was told to be."""
    for one in operations:
        if one.outcome is not Outcome.DONE or one.kind not in (Kind.CREATE, Kind.UPDATE):
            continue
        version = 1 if one.kind is Kind.CREATE else one.version
        event = events[version - 1] if 0 < version <= len(events) else None
        if event is None or event.link.title != one.mark:
            verdict.lost.append(f"{_name(one)}: acknowledged as {one.code} v{version}, which is not it")


def _check_unmarked(code: str, operations: Sequence[Operation], events: Sequence[LinkEvent], verdict: Verdict) -> None:
    """Deletes and restores carry no mark: there are not more of them than were asked for and not refused."""
    for kind, wanted in _UNMARKED.items():
        asked = sum(1 for one in operations if one.kind is wanted and one.may_have_happened)
        there = sum(1 for event in events if event.type is kind)
        if there > asked:
            verdict.wrong.append(f"{code}: {there} times {kind.value}, asked for {asked} times")


def without_forgotten(
    operations: Sequence[Operation], rows: Rows, windows: Sequence[tuple[float, float]]
) -> tuple[list[Operation], Rows]:
    """The same without the links that were being changed while a Redis that was then lost may not have told Kafka yet:
    what became of these is the stated exception of P1."""
    caught = [one for one in operations if one.kind not in READS and any(
        one.invoked <= to and (one.returned or one.invoked + _UNSETTLED_S) >= since for since, to in windows
    )]  # fmt: skip
    marks = {one.mark for one in caught if one.mark}
    codes = {one.code for one in caught if one.code}
    codes |= {code for code, events in rows.events.items() if any(event.link.title in marks for event in events)}
    left_out = {one.number for one in caught}
    kept = [one for one in operations if one.code not in codes and one.number not in left_out]
    events = {code: found for code, found in rows.events.items() if code not in codes}
    return kept, Rows(events, {code: link for code, link in rows.links.items() if code not in codes})


def _name(one: Operation) -> str:
    return f"#{one.number} {one.kind.value} {one.code or one.mark} of {one.user}"
