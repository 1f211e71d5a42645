"""webhook's ports in memory, and endpoints and deliveries for tests."""

import asyncio
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from urllib.parse import urlsplit

from chassis.errors import Unavailable
from contracts.link import EventId, EventType, UserId
from tests.fakes.link_events import START
from webhook.domain.deliveries import Answer, Delivery, DeliveryState, due_bucket
from webhook.domain.endpoints import Account, Endpoint, EndpointId
from webhook.domain.signature import secret_of
from webhook.ports import Cursor, DuePage

Name = tuple[EndpointId, EventId]


def make_endpoint(
    endpoint_id: str = "endpoint",
    *,
    user_id: str = "ada",
    url: str = "https://example.org/204",
    created_at: datetime = START,
    event_types: tuple[str, ...] = ("*",),
) -> Endpoint:
    """An endpoint that is told of everything."""
    return Endpoint(
        endpoint_id=EndpointId(endpoint_id),
        user_id=UserId(user_id),
        url=url,
        secret=secret_of(b"s" * 24),
        event_types=event_types,
        created_at=created_at,
    )


def make_delivery(
    event_id: str, endpoint: Endpoint | None = None, *, next_at: datetime = START, claim: str = ""
) -> Delivery:
    """A delivery that waits for its first attempt."""
    endpoint = endpoint or make_endpoint()
    return Delivery(
        endpoint_id=endpoint.endpoint_id,
        user_id=endpoint.user_id,
        event_id=EventId(event_id),
        event_type=EventType.CREATED,
        short_code="abc",
        body='{"type":"link.created"}',
        traceparent=f"00-{'ab' * 16}-{'cd' * 8}-01",
        created_at=START,
        next_at=next_at,
        claim=claim,
    )


class _Away:
    """A database that can be away: `away` calls fail before they do anything, `lost` ones after."""

    def __init__(self) -> None:
        self.away = 0
        self.lost = 0

    def begin(self) -> None:
        """Raises Unavailable while calls fail."""
        if self.away:
            self.away -= 1
            raise Unavailable("unavailable", "The database does not answer.", retry_after_s=1)

    def end(self) -> None:
        """Raises Unavailable while answers are lost."""
        if self.lost:
            self.lost -= 1
            raise Unavailable("unavailable", "The database does not answer.", retry_after_s=1)


class FakeEndpointStore(_Away):
    """EndpointStore in memory."""

    def __init__(self, *endpoints: Endpoint) -> None:
        super().__init__()
        self._accounts: dict[UserId, Account] = {}
        for endpoint in endpoints:
            account = self._accounts.get(endpoint.user_id, Account(endpoint.user_id, (), 1))
            self._accounts[endpoint.user_id] = replace(account, endpoints=(*account.endpoints, endpoint))

    async def of_accounts(self, user_ids: Collection[UserId]) -> Mapping[UserId, Account]:
        """The accounts."""
        self.begin()
        return {user_id: self._accounts.get(user_id, Account(user_id)) for user_id in user_ids}

    async def save(self, account: Account) -> bool:
        """Stores an account under its next revision if nobody else has."""
        self.begin()
        stored = self._accounts.get(account.user_id, Account(account.user_id))
        if stored.revision != account.revision:
            return False
        self._accounts[account.user_id] = replace(account, revision=account.revision + 1)
        self.end()
        return True


class FakeDeliveryStore(_Away):
    """DeliveryStore in memory; times have milliseconds, as in the table."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[Name, Delivery] = {}

    async def add(self, deliveries: Sequence[Delivery]) -> list[bool]:
        """Puts rows where there are none."""
        self.begin()
        added = [_name(delivery) not in self.rows for delivery in deliveries]
        for delivery in deliveries:
            self.rows.setdefault(_name(delivery), _rounded(delivery))
        self.end()
        return added

    async def due(self, bucket: int, *, now: datetime, after: Cursor | None, limit: int) -> DuePage:
        """A page of what is due."""
        self.begin()
        found = sorted(
            (f"{row.next_at.isoformat()}/{row.endpoint_id}/{row.event_id}", row)
            for row in self.rows.values()
            if row.next_at is not None and row.next_at <= now
            if due_bucket(row.endpoint_id, row.event_id) == bucket
        ) if self.rows else []  # fmt: skip
        page = [item for item in found if after is None or item[0] > after][:limit]
        is_last = not page or page[-1][0] == found[-1][0]
        return DuePage([row for _, row in page], None if is_last else Cursor(page[-1][0]))

    async def claim(self, delivery: Delivery, *, claim: str, until: datetime) -> Delivery | None:
        """Claims a delivery that is still as it was read."""
        self.begin()
        row = self.rows.get(_name(delivery))
        if row is None or row.state is not DeliveryState.PENDING or row.next_at != _rounded(delivery).next_at:
            return None
        self.rows[_name(delivery)] = claimed = _rounded(replace(row, claim=claim, next_at=until))
        self.end()
        return claimed

    async def settle(self, delivery: Delivery) -> bool:
        """Stores an outcome under its claim."""
        self.begin()
        row = self.rows.get(_name(delivery))
        if row is None or not row.claim or row.claim != delivery.claim:
            return False
        self.rows[_name(delivery)] = _rounded(replace(delivery, claim=""))
        self.end()
        return True

    async def newest(self, endpoint_id: EndpointId, *, before: EventId | None, limit: int) -> Sequence[Delivery]:
        """Deliveries of an endpoint, newest first."""
        self.begin()
        rows = [row for row in self.rows.values() if row.endpoint_id == endpoint_id]
        rows.sort(key=lambda row: row.event_id, reverse=True)
        return [row for row in rows if before is None or row.event_id < before][:limit]


class FakeSender:
    """Sender to a pretended internet: the path of a URL says what the receiver does.

    `/204`, `/500` … answer that, `/503/7` with Retry-After 7, `/hang` never, `/refused` takes no connection. `answers`
    overrides a URL by a function of how many requests came before.
    """

    def __init__(self, *, timeout_s: float = 15.0) -> None:
        self.sent: list[tuple[float, str, Mapping[str, str], str]] = []  # when, URL, headers, body
        self.answers: dict[str, Callable[[int], Answer]] = {}
        self.delay_s: dict[str, float] = {}
        self._timeout_s = timeout_s

    def to(self, url: str) -> list[tuple[float, str, Mapping[str, str], str]]:
        """What was sent to a URL."""
        return [item for item in self.sent if item[1] == url]

    async def send(self, url: str, headers: Mapping[str, str], body: str) -> Answer:
        """What came of it."""
        before = len(self.to(url))
        self.sent.append((asyncio.get_running_loop().time(), url, headers, body))
        await asyncio.sleep(self.delay_s.get(url, 0.001))
        if url in self.answers:
            return self.answers[url](before)
        match urlsplit(url).path.strip("/").split("/"):
            case ["hang"]:
                await asyncio.sleep(self._timeout_s)
                return Answer(0, f"No answer within {self._timeout_s:g} seconds.")
            case ["refused"]:
                return Answer(0, "No connection could be made.")
            case [status, retry_after]:
                return Answer(int(status), retry_after=retry_after)
            case [status]:
                return Answer(int(status))
            case _:
                raise AssertionError(f"nobody lives at {url}")


def claims() -> Callable[[], str]:
    """A source of claim ids."""
    numbers = itertools.count(1)
    return lambda: f"claim-{next(numbers)}"


def _name(delivery: Delivery) -> Name:
    return delivery.endpoint_id, delivery.event_id


def _rounded(delivery: Delivery) -> Delivery:
    if delivery.next_at is None:
        return delivery
    milliseconds = round(delivery.next_at.microsecond / 1000)
    start = delivery.next_at.replace(microsecond=0)
    return replace(delivery, next_at=start.fromtimestamp(start.timestamp() + milliseconds / 1000, start.tzinfo))
