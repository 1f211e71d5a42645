"""Records of the log as clicks: what is understood, and that what is not harms nothing else."""

from dataclasses import replace

import pytest

from analytics.domain.clicks import Buried, Clicks, Origin, Totals, VisitorClass
from analytics.handlers.decoding import Skip, decode
from chassis.kafka.record import Record
from shortener.events.v1 import click_events_pb2 as events_pb
from tests.fakes.analytics_clicks import CLICK, SPOOL, T0_MS, batch_of, click, message_of, record, totals_record

LABELS = ("c", "r", "b", "o", "d")
ONE = SPOOL + "1"


def with_value(value: bytes, kind: str) -> Record:
    """A record of this type and content."""
    return replace(record(7, click()), value=value, headers=(("ce_type", kind.encode()),))


def test_a_batch_is_decoded() -> None:
    """What the gateway wrote is what is counted, in its order; a class that is not known is a person."""
    made = [click("go.example.com/x", visitor_class=kind, user="u") for kind in VisitorClass]
    message = batch_of(made, ONE, 5)
    message.clicks[1].visitor_class = 99  # type: ignore[assignment]  # of a newer gateway
    item = replace(record(7, *made, spool="1", first=5), value=message.SerializeToString())

    arrival = decode(item, "g").arrival

    expected = [one._replace(labels=LABELS) for one in made]
    expected[1] = expected[1]._replace(visitor_class=VisitorClass.HUMAN)
    assert arrival.content == Clicks(expected, ONE, 5)
    assert (arrival.partition, arrival.offset, arrival.made_ms) == (0, 7, T0_MS)


def test_a_click_alone_is_decoded() -> None:
    """An older gateway's record is one click, with or without a spool."""
    message = message_of(click())
    assert decode(with_value(message.SerializeToString(), CLICK), "g").arrival.content == Clicks([click(labels=LABELS)])

    message.spool_id, message.sequence = ONE.upper(), 3

    content = decode(with_value(message.SerializeToString(), CLICK), "g").arrival.content
    assert content == Clicks([click(labels=LABELS)], ONE, 3)


def test_labels_come_from_the_click() -> None:
    """Country, referrer and User-Agent become what is counted by."""
    message = message_of(click())
    message.country, message.referrer = "DE", "https://www.News.example/a?b"
    message.user_agent = "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0"

    content = decode(with_value(message.SerializeToString(), CLICK), "g").arrival.content

    assert isinstance(content, Clicks)
    assert content.clicks[0].labels == ("cDE", "rnews.example", "bFirefox", "oLinux", "dDesktop")


@pytest.mark.rule("S8")
def test_totals_are_decoded() -> None:
    """A spool's own books; only in the partition that they speak of."""
    item = totals_record(3, spool="1", recorded=9, dropped=2, closed=True)

    assert decode(item, "g").arrival.content == Totals(ONE, 9, 2, closed=True)
    assert decode(replace(item, partition=1), "g").skip is Skip.UNDECODABLE


@pytest.mark.rule("C1")
@pytest.mark.parametrize(
    "value",
    [
        b"\xff\xff\xff",
        b"",
        message_of(click(key="")).SerializeToString(),
        message_of(click(key="k" * 481)).SerializeToString(),
        message_of(click(user="u" * 481)).SerializeToString(),
        events_pb.LinkAccessed(link_key="k", spool_id="no-uuid", sequence=1).SerializeToString(),
        events_pb.LinkAccessed(link_key="k", spool_id=ONE, sequence=0).SerializeToString(),
        b"\x0a\x01k\x1a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a second before 1970
    ],
    ids=["garbage", "empty", "no key", "long key", "long account", "bad spool", "no sequence", "no time"],
)
def test_what_is_no_click_is_told(value: bytes) -> None:
    """Bytes that are no click, or say what cannot be, are not counted and do not stop the partition."""
    decoded = decode(with_value(value, CLICK), "g")

    assert (decoded.skip, decoded.arrival.content) == (Skip.UNDECODABLE, None)


@pytest.mark.rule("C1", "A10")
def test_a_batch_with_a_bad_click_is_buried_whole() -> None:
    """One click that is none takes its record with it, to be replayed whole; its sequences are known, and no gap."""
    message = batch_of([click("a"), click(""), click("b")], ONE, 5)
    broken = message.SerializeToString().replace(b"\x0a\x01a", b"\x0a\x01\xff")  # not UTF-8

    for value in (message.SerializeToString(), broken):
        decoded = decode(replace(record(7, click("a"), spool="1"), value=value), "g")
        assert decoded.skip is Skip.UNDECODABLE
        assert decoded.arrival.content == Buried(ONE, 5, 3)


@pytest.mark.rule("C1")
@pytest.mark.parametrize(
    "message",
    [
        events_pb.LinksAccessed(spool_id=ONE, first_sequence=1),
        events_pb.LinksAccessed(spool_id=ONE, clicks=[message_of(click())]),
        events_pb.LinksAccessed(first_sequence=1, clicks=[message_of(click())]),
    ],
    ids=["no clicks", "no sequence", "no spool"],
)
def test_a_batch_without_its_place_is_told(message: events_pb.LinksAccessed) -> None:
    """Clicks without a spool and a sequence could be repeats, so they are not counted."""
    item = replace(record(7, click(), spool="1"), value=message.SerializeToString())

    decoded = decode(item, "g")

    assert (decoded.skip, decoded.arrival.content) == (Skip.UNDECODABLE, None)


@pytest.mark.rule("A9")
def test_a_replay_says_where_its_record_stood() -> None:
    """A dead letter that was replayed for this group has an origin; one for another group is not ours."""
    item = record(7, click(), stored_ms=T0_MS + 99)
    replayed = replace(item, headers=(*item.headers, ("replay_for", b"g"), ("replay_of", f"0/3/{T0_MS}".encode())))

    arrival = decode(replayed, "g").arrival

    assert (arrival.origin, arrival.stored_ms, arrival.made_ms) == (Origin(3, T0_MS), T0_MS + 99, T0_MS)
    other = decode(replayed, "another")
    assert (other.skip, other.arrival.content) == (Skip.OTHER_GROUP, None)
    bad = replace(item, headers=(*item.headers, ("replay_for", b"g"), ("replay_of", b"nonsense")))
    assert decode(bad, "g").skip is Skip.UNDECODABLE
