"""Explorations in words: a violation, and the steps that lead to it."""

from datetime import datetime
from typing import Any

from chassis.kafka.record import Message
from contracts.cache import Mutation
from contracts.link import Link, LinkEvent
from contracts.link_rows import Reservation
from link_service.domain.intents import Intent
from link_service.ports import QueuedEntry
from tests.model.automaton import Call, Ended
from tests.model.events import IDS_EACH, number_of
from tests.model.properties import event_of
from tests.model.search import Result
from tests.model.stage import Move, event_in
from tests.model.world import World
from writer.ports import StoredEvent


def told(name: str, result: Result, world: World) -> str:
    """What came of an exploration; of a violation also a shortest way to it, a line a step."""
    size = f"{name}: {result.states} states, {result.steps} steps, {result.seconds:.1f} s"
    if result.violation is None:
        return f"{size}: holds"
    names = ["before", *(client.name for client in world.clients)]
    steps = [f"  {number:2} {_step(move, names)}" for number, move in enumerate(result.trace, 1)]
    return "\n".join([f"{size}: {result.violation}", *steps])


def _step(move: Move, names: list[str]) -> str:
    if not isinstance(move.call, Call):
        return f"{move.who} {_text(move.call, names) if move.call else ''}".rstrip()
    reply, ended = move.reply if isinstance(move.reply, tuple) and len(move.reply) == 2 else (move.reply, None)
    arguments = ", ".join(_text(item, names) for item in move.call.args)
    end = f"; ends: {_text(ended, names)}" if isinstance(ended, Ended) else ""
    return f"{move.who}: {move.call.port}.{move.call.name}({arguments}) = {_text(reply, names)}{end}"


def _text(value: Any, names: list[str]) -> str:
    """A value in a few words; an event goes by the name of whose it is."""
    link = _link_in(value)
    if link is not None:
        return f"v{link.version} {link.state.value} by {_event(link.event_id, names)}"
    match value:
        case Mutation():
            return f"{_text(value.event, names)} on v{value.base_version}"
        case Reservation():
            return f"reserved by {value.user_id}"
        case Intent():
            return f"stands for {_event(value.event_id, names)}"
        case Ended():
            return value.reason or _text(value.value, names)
        case datetime():
            return f"{value:%H:%M:%S}"
        case bytes():
            return value.decode("ascii", "replace")
        case tuple():
            return f"[{', '.join(_text(item, names) for item in value)}]"
    return _other(value, names)


def _link_in(value: Any) -> Link | None:
    match value:
        case Link():
            return value
        case LinkEvent():
            return value.link
        case StoredEvent():
            return value.event.link
        case QueuedEntry():
            return event_of(value).link
        case Message():
            return event_in(value).link
    return None


def _other(value: Any, names: list[str]) -> str:
    parts = getattr(value, "__match_args__", ())
    if isinstance(value, str):
        return _event(value, names) if value.startswith("00000000-") else value
    if parts:
        return f"{type(value).__name__}({', '.join(_text(getattr(value, part), names) for part in parts)})"
    return str(value)[:60]


def _event(event_id: str, names: list[str]) -> str:
    actor, draw = divmod(number_of(event_id), IDS_EACH)
    return names[actor] + "'" * (draw if actor else 0)
