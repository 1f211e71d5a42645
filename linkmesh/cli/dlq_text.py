"""How dead letters look, as text and as JSON."""

import base64
import json
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from textwrap import indent
from typing import TYPE_CHECKING, TypedDict

from linkmesh.cli.terminal import table

if TYPE_CHECKING:
    from chassis.kafka.dead_letter_store import Replayed
    from chassis.kafka.letters import Contents, Letter, Purge

_RELATIVE = re.compile(r"(\d+)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_HOURS_MAX = 24


class Counted(TypedDict):
    """How many letters a group left."""

    group: str
    count: int
    severity: str


class CountedHour(Counted):
    """How many letters a group left in an hour."""

    hour: str


class CountedLately(Counted):
    """What a group's breaker counts, and whether the group has stopped itself and waits for a person."""

    stopped: bool


class Summary(TypedDict):
    """What `list` says besides the letters."""

    last_hour: list[CountedLately]
    per_hour: list[CountedHour]


def moment_ms(given: str, *, now_ms: int) -> int | None:
    """Return the moment that a person named, in ms since 1970: `2h` is two hours ago; None for nothing.

    Raises:
        ValueError: it is neither an age nor a time.
    """
    if not given:
        return None
    try:
        if age := _RELATIVE.fullmatch(given):
            return max(0, now_ms - int(timedelta(**{_UNITS[age[2]]: int(age[1])}).total_seconds() * 1000))
        moment = datetime.fromisoformat(given)
    except (ValueError, OverflowError):
        raise ValueError(f"{given!r} is no time") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def summary(
    contents: "Contents", matching: "Sequence[Letter]", *, now_ms: int, stopped_too: "Collection[str]" = ()
) -> Summary:
    """Return the counts towards each group's breaker, and those of the matching letters by hour, newest first.

    `stopped_too`: groups whose processes say that they have stopped: what they counted may have been purged since.
    """
    from chassis.kafka.dead_letter_breaker import HOUR_MS
    from chassis.kafka.dead_letter_counts import last_hour, per_hour, severity, stopped

    groups = sorted({letter.group for letter in matching}.union(stopped_too))
    counts = {group: last_hour(contents, group, now_ms=now_ms) for group in groups}
    return {
        "last_hour": [
            {
                "group": group,
                "count": count,
                "severity": severity(count).value,
                "stopped": group in stopped_too or stopped(contents, group, now_ms=now_ms),
            }
            for group, count in counts.items()
        ],
        "per_hour": [
            {"hour": _time(hour * HOUR_MS), "group": group, "count": count, "severity": severity(count).value}
            for (hour, group), count in per_hour(matching).items()
        ],
    }


def brief(letter: "Letter") -> dict[str, object]:
    """Return a letter as `list --json` prints it."""
    return {
        "id": letter.id,
        "group": letter.group,
        "code": _key(letter),
        "reason": letter.reason,
        "detail": letter.detail,
        "attempts": letter.attempts,
        "buried_at": _time(letter.record.timestamp_ms),
        "first_failed_at": letter.first_failed_at,
        "fate": letter.fate.value,
    }


def full(letter: "Letter") -> dict[str, object]:
    """Return a letter as `show --json` prints it."""
    return {
        **brief(letter),
        "record": {
            "topic": letter.topic,
            "partition": letter.partition,
            "offset": letter.offset,
            "stored_at": _time(letter.timestamp_ms),
        },
        "headers": [[name, value.decode(errors="replace")] for name, value in letter.headers],
        "value_base64": base64.b64encode(letter.record.value).decode(),
        "value": _decoded(letter),
    }


def listing(letters: "Sequence[Letter]", limit: int, counts: Summary) -> str:
    """Return what `list` prints."""
    more = f"the newest {limit} of {len(letters)}" if len(letters) > limit else _many(len(letters))
    lines = [table_of(letters[-limit:], more)]
    if counts["last_hour"]:
        rows = [(f"  {c['group']}", str(c["count"]), c["severity"], _stopped(c)) for c in counts["last_hour"]]
        lines += ["", "in the last 60 minutes, since the group was resumed (more than 50 stop it):", table(rows)]
    if hours := counts["per_hour"][:_HOURS_MAX]:
        by_hour = [(f"  {c['hour'][:16]}", c["group"], str(c["count"]), c["severity"]) for c in hours]
        lines += ["", table([("  hour (UTC)", "group", "count", ""), *by_hour])]
    return "\n".join(lines)


def table_of(letters: "Sequence[Letter]", last_line: str) -> str:
    """Return letters as a table, and a sentence below."""
    rows = [("id", "group", "code", "reason", "attempts", "buried at", "")]
    rows += [
        (x.id, x.group, _key(x), x.reason, str(x.attempts), _time(x.record.timestamp_ms), x.fate.value) for x in letters
    ]
    return f"{table(rows)}\n\n{last_line}" if letters else last_line


def page(letter: "Letter") -> str:
    """Return what `show` prints."""
    told = full(letter)
    rows = [(name, str(told[name])) for name in brief(letter)]
    rows.append(("record", f"{letter.topic}/{letter.partition}/{letter.offset} of {_time(letter.timestamp_ms)}"))
    headers = [(f"  {name}", value.decode(errors="backslashreplace")) for name, value in letter.headers]
    said = told["value"]
    value = letter.record.value.decode(errors="backslashreplace") if said is None else json.dumps(said, indent=2)
    return "\n".join(
        [table(rows), "headers", table(headers), f"value ({len(letter.record.value)} bytes)", indent(value, "  ")]
    )


def replayed(result: "Replayed") -> str:
    """Return how a replay ended."""
    lines = [f"{result.sent} replayed" if result.sent or result.found_sent else "nothing to replay"]
    if result.found_sent:
        lines.append(f"{result.found_sent} had been sent by a call that did not end")
    if result.elsewhere:
        lines.append(f"{result.elsewhere} are replayed by another call that runs now")
    return "\n".join(lines)


def purged(plan: "Purge", what: str) -> str:
    """Return what a purge does, did or would do."""
    from chassis.kafka.letters import Fate

    waiting = sum(letter.fate in (Fate.WAITING, Fate.CLAIMED, Fate.CUT) for letter in plan.letters)
    sentence = f"{_many(len(plan.letters))} {what}, {waiting} of them never replayed"
    if not plan.kept:
        return sentence
    return (
        f"{sentence}; {len(plan.kept)} of those meant must stay, behind one that is not meant"
        " or the note of a `resume` within 24 hours"
    )


def _many(count: int) -> str:
    return f"{count} dead letter" + ("" if count == 1 else "s")


def _stopped(counted: CountedLately) -> str:
    """Return what a person must do so that a group goes on."""
    return f"stopped; mend the cause, then: linkmesh dlq resume {counted['group']}" if counted["stopped"] else ""


def _decoded(letter: "Letter") -> "Mapping[str, object] | None":
    """Return what an event says, as protobuf's JSON; None for what cannot be decoded, or is something else."""
    from google.protobuf.json_format import MessageToDict
    from google.protobuf.message import DecodeError
    from google.protobuf.message_factory import GetMessageClass

    from shortener.events.v1 import click_events_pb2, link_events_pb2

    name = letter.record.header("ce_type") or ""
    for events in (link_events_pb2, click_events_pb2):
        kind = events.DESCRIPTOR.message_types_by_name.get(name.removeprefix(f"{events.DESCRIPTOR.package}."))
        if kind is not None and kind.full_name == name:
            try:
                message = GetMessageClass(kind).FromString(letter.record.value)
            except DecodeError:
                return None
            return MessageToDict(message, preserving_proto_field_name=True)
    return None


def _key(letter: "Letter") -> str:
    return letter.record.key.decode(errors="backslashreplace")


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
