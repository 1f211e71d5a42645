"""Who counts what: the partition of a link, and the instance that has its counts in memory."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TypeVar

from analytics.domain.book import Book
from analytics.ports import Log
from chassis.breaker import Breaker
from chassis.clock import Clock
from chassis.errors import DeadlineExceeded, ServiceError, Unavailable
from contracts.link import LinkKey
from contracts.topics import ANALYTICS_EVENTS, click_partition

Found = TypeVar("Found")
Answer = TypeVar("Answer")
logger = logging.getLogger(__name__)
_TIMEOUT_S = 0.3  # a gateway waits for 1 s, and the table must be read after it


class Owners:
    """What the broker tells of owners. `address` is what this process is called as one.

    A broker that hangs is waited for only shortly, and not again within a second: the callers' deadlines are short,
    and the table answers without it.
    """

    def __init__(self, book: Book, *, log: Log, address: str, clock: Clock) -> None:
        self._book = book
        self._log = log
        self._address = address
        self._breaker = Breaker(clock)
        self._owners: dict[int, str | None] = {}  # as last known
        self._partitions = 0  # as last known, while the broker does not tell

    def is_ours(self, partition: int) -> bool:
        """Whether this process owns it."""
        return partition in self._book.held

    async def partition_of(self, key: LinkKey) -> int:
        """The partition to which gateways of this release send a link's clicks. Raises Unavailable while nobody ever
        told how many there are.
        """
        return (await self.partitions_of(key))[0]

    async def partitions_of(self, key: LinkKey) -> Sequence[int]:
        """The partitions that may feed a link's counts: one; while the topic grows, when gateways go by the count they
        were made for and others by the new one, two. Raises Unavailable as `partition_of`.
        """
        count = await self.partitions()
        counts = (min(count, ANALYTICS_EVENTS.partitions), count)
        return list(dict.fromkeys(click_partition(key, each) for each in counts))

    async def partitions(self) -> int:
        """How many there are. Raises Unavailable while nobody ever told."""
        try:
            self._partitions = await self._told(self._log.partitions) or self._partitions
        except Unavailable:
            if not self._partitions:
                raise
        if not self._partitions:
            raise Unavailable("unavailable", "The topic of clicks is not there yet.", retry_after_s=1)
        return self._partitions

    async def other_owner(self, partition: int, *, fresh: bool) -> str | None:
        """The other instance that owns it; None: none does. Without the broker nobody changes partitions, so that the
        last one known is good. Raises Unavailable if nobody ever told.
        """
        try:
            owner = await self._told(partial(self._log.owner, partition, fresh=fresh))
        except Unavailable:
            if partition not in self._owners:
                raise
            owner = self._owners[partition]
        else:
            self._owners[partition] = owner
        return None if owner == self._address else owner

    async def _told(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """What the broker says, soon. Raises Unavailable."""
        if not self._breaker.admit():
            raise Unavailable("unavailable", "The broker did not answer a moment ago.", retry_after_s=1)
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                answer = await ask()
        except (TimeoutError, Unavailable, DeadlineExceeded) as exc:
            self._breaker.failed()
            raise Unavailable("unavailable", "The broker does not answer.", retry_after_s=1) from exc
        self._breaker.succeeded()
        return answer

    async def ask(self, partition: int, own: Callable[[], Found], other: "Ask[Found]") -> Found | None:
        """What the owner says; None: there is none, or it does not answer. A second time if it owns it no more."""
        for fresh in (False, True):
            if self.is_ours(partition):
                return own()
            try:
                owner = await self.other_owner(partition, fresh=fresh)
                if owner is not None and (found := await other(owner)) is not None:
                    return found
            except ServiceError as exc:
                _note(exc)
                return None
        return None

    async def ask_each(self, partitions: Collection[int], other: "AskAll[Found]") -> dict[int, Found]:
        """What the other owners say of these partitions, one question for each owner, at the same time. Partitions that
        nobody owns, or whose owner does not answer, are left out.
        """
        found: dict[int, Found] = {}
        for fresh in (False, True):
            left = [partition for partition in partitions if partition not in found and not self.is_ours(partition)]
            owners: set[str] = set()
            for number, partition in enumerate(left):
                try:
                    owner = await self.other_owner(partition, fresh=fresh and number == 0)
                except Unavailable:
                    continue
                owners |= {owner} if owner else set()
            async with asyncio.TaskGroup() as tasks:
                answers = [tasks.create_task(_or_nothing(other(owner))) for owner in sorted(owners)]
            for answer in answers:
                found |= {partition: said for partition, said in answer.result().items() if partition in left}
        return found


Ask = Callable[[str], Awaitable[Found | None]]
AskAll = Callable[[str], Awaitable[Mapping[int, Found]]]


async def _or_nothing(answer: Awaitable[Mapping[int, Found]]) -> Mapping[int, Found]:
    try:
        return await answer
    except ServiceError as exc:
        _note(exc)
        return {}


def _note(failure: ServiceError) -> None:
    """An owner that is dead, far away, of another release, or fails: the table answers without it."""
    if not isinstance(failure, Unavailable | DeadlineExceeded):
        logger.warning("an owner of clicks does not answer: %s", failure.message)
