"""What is held against the rows beside the history finds what is planted, too."""

from chassis.kafka.record import Record
from contracts.link import EventType, LinkEvent
from contracts.link_codec import encode_event, event_type_name
from tests.chaos.evidence import check_dead_letters, check_deliveries, check_topic
from tests.chaos.judge import Rows
from tests.chaos.test_judge import event

_URL = "https://example.org/"
_EVENTS = [event(1, EventType.CREATED, "m1", _URL), event(2, EventType.DELETED, "m1", _URL)]
_ROWS = Rows({"c": _EVENTS}, {"c": _EVENTS[-1].link})


def record(offset: int, one: LinkEvent) -> Record:
    """The record of an event."""
    headers = (("ce_type", event_type_name(one.type).encode()),)
    return Record("links-events", 0, offset, 0, b"c", encode_event(one), headers)


def letter(key: str, group: str) -> Record:
    """A dead letter."""
    return Record("links-events-dlq", 0, 0, 0, key.encode(), b"", (("dlq_group", group.encode()),))


def body(one: LinkEvent) -> dict[str, object]:
    """What a webhook tells of an event."""
    link = one.link
    data = {"short_code": link.short_code, "version": link.version, "link": {"long_url": link.long_url}}
    return {"type": one.type.value, "data": data}


def test_a_topic_that_tells_the_same_is_good_late_repeats_included() -> None:
    """v1 v2 v1 v2: first occurrences are in order (O2)."""
    once = [record(0, _EVENTS[0]), record(1, _EVENTS[1])]
    again = [record(2, _EVENTS[0]), record(3, _EVENTS[1])]

    assert check_topic([*once, *again], _ROWS, []) == []


def test_a_topic_with_a_gap_an_inversion_or_a_stranger_is_found() -> None:
    """As is an event that only one of topic and table has."""
    first, second = record(0, _EVENTS[0]), record(1, _EVENTS[1])
    poison = Record("links-events", 0, 2, 0, b"p", b"\xff", ())

    assert check_topic([second, first], _ROWS, [])
    assert check_topic([first], _ROWS, [])
    assert check_topic([first, second], Rows({"c": _EVENTS[:1]}, {}), [])
    assert check_topic([first, second, poison], _ROWS, [])
    assert check_topic([first, second, poison], _ROWS, ["p"]) == []


def test_only_poison_is_dead_and_all_of_it() -> None:
    """A letter of an honest record is found, and so is a poison record without a letter."""
    assert check_dead_letters([letter("p", "webhooks")], ["p"], ["webhooks"]) == []
    assert check_dead_letters([letter("p", "webhooks"), letter("c", "webhooks")], ["p"], ["webhooks"])
    assert check_dead_letters([], ["p"], ["webhooks"])


def test_each_endpoint_is_told_of_all_of_its_account_and_of_nothing_else() -> None:
    """Twice is allowed; never, otherwise, or of another account is found."""
    first, second = _EVENTS
    one: dict[str, list[dict[str, object]]] = {
        first.event_id: [body(first), body(first)],
        second.event_id: [body(second)],
    }
    once: dict[str, list[dict[str, object]]] = {first.event_id: [body(first)]}
    wrong: dict[str, list[dict[str, object]]] = {first.event_id: [body(second)], second.event_id: [body(second)]}
    more: dict[str, list[dict[str, object]]] = {**one, "x": [body(first)]}

    assert check_deliveries({"one": one}, {"one": "ada"}, _ROWS) == []
    assert check_deliveries({"one": once}, {"one": "ada"}, _ROWS)
    assert check_deliveries({"one": one}, {"one": "bob"}, _ROWS)
    assert check_deliveries({"one": more}, {"one": "ada"}, _ROWS)
    assert check_deliveries({"one": wrong}, {"one": "ada"}, _ROWS)
