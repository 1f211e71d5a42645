"""A click's bytes, put together by hand, are what protobuf would read of the same request; caches change nothing."""

import string
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import dropwhile

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.link import LinkKey, UserId
from contracts.topics import click_partition
from gateway.adapters.click_recorder import SpoolClickRecorder
from gateway.domain.visitors import (
    Visit,
    VisitorClass,
    Visitors,
    classify,
    client_address,
    country_of,
    cut,
    daily_key,
    visitor_hash,
)
from gateway.ports import ClickTarget
from shortener.events.v1 import click_events_pb2 as pb
from tests.fakes.gateway_peers import AT

CHROME = b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36"
KEY = b"v" * 32
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CLASSES = {
    VisitorClass.HUMAN: pb.VISITOR_CLASS_HUMAN,
    VisitorClass.BOT: pb.VISITOR_CLASS_BOT,
    VisitorClass.PREFETCH: pb.VISITOR_CLASS_PREFETCH,
}
TEXT = st.binary(max_size=700).map(lambda value: value.replace(b"\n", b"").replace(b"\r", b""))
AGENTS = st.one_of(TEXT, st.sampled_from([b"", CHROME, b"curl/8.5", b"Googlebot/2.1", "Chromé".encode()]))
ADDRESSES = st.one_of(
    st.ip_addresses().map(str),
    st.sampled_from(["", "unknown", " 198.51.100.7 ", "198.51.100.07", "1.2.3", "256.1.1.1", "::ffff:1.2.3.4"]),
)
HEADERS = st.lists(
    st.one_of(
        st.tuples(st.just(b"user-agent"), AGENTS),
        st.tuples(st.just(b"referer"), TEXT),
        st.tuples(
            st.just(b"x-forwarded-for"), st.lists(ADDRESSES, max_size=4).map(lambda each: ",".join(each).encode())
        ),
        st.tuples(
            st.sampled_from([b"purpose", b"sec-purpose"]), st.sampled_from([b"prefetch", b"Prerender", b"", b"x"])
        ),
        st.tuples(st.just(b"cf-ipcountry"), st.sampled_from([b"de", b"XX", b"T1", b"", b"D\xc4", b" FR "])),
        st.tuples(st.sampled_from([b"host", b"accept", b"cookie"]), TEXT),
    ),
    max_size=8,
)
TARGETS = st.builds(
    ClickTarget,
    st.text(string.ascii_letters, min_size=1, max_size=64).map(LinkKey),
    st.sampled_from(["alice", "bob", "ü" * 40]).map(UserId),
)
TIMES = st.datetimes(datetime(2020, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 (Hypothesis')


@dataclass(slots=True)
class Desk:
    """A recorder, the time it is told, and where its clicks go."""

    visitors: Visitors
    now: datetime = AT
    taken: list[tuple[int, bytes, str | None]] = field(default_factory=list)
    full: bool = False
    country_at: Callable[[str], str] | None = None

    def open(self) -> SpoolClickRecorder:
        """The recorder."""
        return SpoolClickRecorder(
            self._append,
            partitions=20,
            visitors=self.visitors,
            now_ms=lambda: (self.now - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1),
            country_at=self.country_at,
        )

    def _append(self, partition: int, kept: bytes, traceparent: str | None) -> bool:
        self.taken.append((partition, kept, traceparent))
        return not self.full

    def clicks(self) -> list[pb.LinkAccessed]:
        """What was recorded, as protobuf reads it: the pieces one behind the other are one message."""
        return list(pb.LinksAccessed.FromString(b"".join(kept for _, kept, _ in self.taken)).clicks)


def expected(
    desk: Desk, target: ClickTarget, method: str, headers: list[tuple[bytes, bytes]], peer: str
) -> pb.LinkAccessed:
    """The click of a request by the rules of the domain, each header with all its lines from the first that says
    something."""

    def header(name: bytes) -> str:
        values = dropwhile(lambda value: not value, (value for key, value in headers if key == name))
        return b", ".join(values).decode("latin-1")

    visitors, user_agent = desk.visitors, cut(header(b"user-agent"))
    address = client_address(peer, header(b"x-forwarded-for"), visitors.trusted_proxies)
    purpose = header(b"sec-purpose") or header(b"purpose")
    at = Timestamp()
    at.FromMilliseconds((desk.now - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1))
    return pb.LinkAccessed(
        link_key=target.link_key,
        user_id=target.user_id,
        at=at,
        visitor=visitor_hash(daily_key(visitors.key, desk.now.date()), address=address, user_agent=user_agent),
        user_agent=user_agent,
        referrer=cut(header(b"referer")),
        country=country_of(header(visitors.country_header)) if visitors.country_header else "",
        visitor_class=CLASSES[classify(Visit(method, user_agent, purpose))],
    )


VISITS = st.lists(
    st.tuples(TARGETS, st.sampled_from(["GET", "HEAD"]), HEADERS, st.sampled_from(["203.0.113.9", "::1", ""]), TIMES),
    max_size=6,
)


@pytest.mark.rule("S7")
@settings(max_examples=300)
@given(VISITS, st.integers(0, 2), st.sampled_from([b"", b"cf-ipcountry"]))
def test_clicks_are_what_protobuf_reads_of_their_requests(
    visits: list[tuple[ClickTarget, str, list[tuple[bytes, bytes]], str, datetime]], proxies: int, country: bytes
) -> None:
    """Whatever the headers are, and whatever came before: each field as the domain decides it, in the partition of its
    link; several pieces one behind the other are one valid message."""
    desk = Desk(Visitors(KEY, proxies, country))
    recorder = desk.open()
    wanted: list[pb.LinkAccessed] = []

    for target, method, headers, peer, now in visits:
        desk.now = now
        assert recorder.record(target, method, headers, peer, None)
        wanted.append(expected(desk, target, method, headers, peer))

    assert desk.clicks() == wanted
    assert [partition for partition, _, _ in desk.taken] == [
        click_partition(target.link_key, 20) for target, _, _, _, _ in visits
    ]


def test_the_country_is_the_proxys_or_else_the_files() -> None:
    """What a proxy states counts; where it states none, the file is asked about the client's address, not the proxy's,
    once for each; the address is not in the click.
    """
    asked: list[str] = []

    def country_at(address: str) -> str:
        asked.append(address)
        return {"203.0.113.9": "DE", "198.51.100.1": "FR"}.get(address, "")

    desk = Desk(Visitors(KEY, 1, b"cf-ipcountry"), country_at=country_at)
    recorder = desk.open()
    visits = [
        ([], "203.0.113.9"),
        ([(b"cf-ipcountry", b"US")], "203.0.113.9"),
        ([(b"cf-ipcountry", b"XX")], "203.0.113.9"),
        ([(b"x-forwarded-for", b"198.51.100.1")], "203.0.113.9"),
        ([], "192.0.2.1"),
        ([], ""),
    ]

    for headers, peer in visits:
        recorder.record(ClickTarget(LinkKey("aB3dE7x"), UserId("alice")), "GET", headers, peer, None)

    assert [click.country for click in desk.clicks()] == ["DE", "US", "DE", "FR", "", ""]
    assert asked == ["203.0.113.9", "198.51.100.1", "192.0.2.1", ""]
    assert not any(address.encode() in kept for _, kept, _ in desk.taken for address in asked if address)


def test_a_code_of_another_owner_is_not_taken_for_the_old_one() -> None:
    """What is kept of a link goes by its owner, too."""
    desk = Desk(Visitors(KEY))
    recorder = desk.open()

    for user in ("alice", "bob"):
        recorder.record(ClickTarget(LinkKey("aB3dE7x"), UserId(user)), "GET", [], "", None)

    assert [click.user_id for click in desk.clicks()] == ["alice", "bob"]


def test_the_key_of_visitors_changes_at_midnight() -> None:
    """The same visitor has another hash on the next day, also if his browser is kept in mind."""
    desk = Desk(Visitors(KEY), now=AT.replace(hour=23, minute=59))
    recorder = desk.open()
    target, headers = ClickTarget(LinkKey("aB3dE7x"), UserId("alice")), [(b"user-agent", CHROME)]

    for days in (0, 0, 1):
        desk.now += timedelta(days=days)
        recorder.record(target, "GET", headers, "203.0.113.9", None)

    first, again, tomorrow = (click.visitor for click in desk.clicks())
    assert first == again != tomorrow


def test_what_is_kept_in_mind_is_bounded() -> None:
    """However many links and browsers come along: neither cache grows beyond its bound, and long names are not kept."""
    desk = Desk(Visitors(KEY))
    recorder = desk.open()

    for number in range(20_000):
        agent = b"agent %d" % number if number % 2 else b"x" * 600 + b"%d" % number
        target = ClickTarget(LinkKey(f"code{number}"), UserId("alice"))
        recorder.record(target, "GET", [(b"user-agent", agent)], "", None)
        desk.taken.clear()

    assert len(recorder._links) <= 16_384
    assert len(recorder._agents) <= 2_048
    assert max(map(len, recorder._agents)) <= 512


@pytest.mark.rule("S6")
def test_traces_and_verdicts_are_handed_through() -> None:
    """A kept trace goes with its click; that there was no room is told."""
    desk = Desk(Visitors(KEY))
    recorder = desk.open()
    target = ClickTarget(LinkKey("aB3dE7x"), UserId("alice"))

    assert recorder.record(target, "GET", [], "", TRACE)
    desk.full = True
    assert not recorder.record(target, "GET", [], "", None)

    assert [traceparent for _, _, traceparent in desk.taken] == [TRACE, None]
