"""Live clicks: the owner of a partition tells its watchers what it has just counted, and whoever was asked tells on.

The watcher's own process is its stream's reader: what it does not read stays in its backlog at the owner, which is
bounded, so that the counting never waits for anybody.
"""

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import replace

from prometheus_client import Counter, Gauge

from analytics.domain.book import Book
from analytics.domain.clicks import Click
from analytics.domain.holding import Tally
from analytics.domain.watching import Backlog, Seats, Told
from analytics.handlers.owners import Owners
from analytics.ports import Peers
from chassis.clock import Clock
from chassis.errors import ResourceExhausted, ServiceError, Unavailable
from contracts.link import LinkKey, UserId
from contracts.reasons import Reason

WATCHERS = Gauge("click_watchers", "Streams of live clicks that are open: asked here, or owned here.", ("side",))
MISSED = Counter("click_watchers_missed", "Live clicks that a watcher was not told: it is slow, or they are too many.")

HEARTBEAT_S = 10.0
WATCH_S = 900.0  # then the watcher asks again, and its key is looked at again
SEATS_MAX = 500  # watchers that one process serves
ACCOUNT_SEATS_MAX = 10  # of these, of one account
_BACKLOG_MAX = 1000  # clicks of one watcher, about 300 kB
_OWNED_MAX = 1000
_CLICKS_PER_S = 1000  # that one watcher is told: each costs the counting 9 µs, the gateway 7, and nobody reads more
_LOOK_S = 1.0  # how often a watcher that is told nothing looks whether the partition is still ours
_AGAIN_S = 0.25  # between two looks for an owner
_PATIENCE_S = 30.0  # how long a watch may be without an owner: a rebalance takes some seconds
_FIRST_PATIENCE_S = 2.0  # the same before anything was told: the caller waits


class OwnedWatches:
    """The watchers of partitions that are ours. `tell` is called by the counting, in the turn of the fold."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._watchers: dict[LinkKey, set[_Watcher]] = {}
        self._seats = Seats(total_max=_OWNED_MAX, account_max=_OWNED_MAX)

    @property
    def watched(self) -> Collection[LinkKey]:
        """The links that somebody watches."""
        return set(self._watchers)

    def tell(self, tally: Tally) -> None:
        """These clicks were counted. Without watchers it costs nothing."""
        if not self._watchers:
            return
        for record in tally.accepted:
            for click in record.clicks:
                for watcher in self._watchers.get(click.key, ()):
                    watcher.put(click)

    async def watch(self, key: LinkKey, partition: int) -> AsyncGenerator[Told, None]:
        """What is counted from now on, at once and then whenever there is news; ends when the partition goes, and is
        empty if it is not ours.

        Raises:
            ResourceExhausted: too many watch.
        """
        term = self._book.term(partition)
        if term is None:
            return
        if not self._seats.take(""):
            raise _too_many()
        watcher = _Watcher()
        self._watchers.setdefault(key, set()).add(watcher)
        WATCHERS.labels("owned").inc()
        try:
            yield Told(counted_until_ms=self._book.counted_until_ms(partition))
            silent_s = 0.0
            while True:
                silent_s = 0.0 if await watcher.wait(_LOOK_S) else silent_s + _LOOK_S
                if self._book.term(partition) != term:
                    return
                if not silent_s or silent_s >= HEARTBEAT_S:
                    silent_s = 0.0
                    clicks, missed = watcher.take()
                    MISSED.inc(missed)
                    yield Told(clicks, missed, counted_until_ms=self._book.counted_until_ms(partition))
                    await asyncio.sleep(len(clicks) / _CLICKS_PER_S)  # what comes meanwhile waits, or is missed
        finally:
            WATCHERS.labels("owned").dec()
            self._seats.leave("")
            self._watchers[key].discard(watcher)
            if not self._watchers[key]:
                del self._watchers[key]


class Watches:
    """Watches for those who ask, whoever is the owner."""

    def __init__(
        self,
        owned: OwnedWatches,
        *,
        owners: Owners,
        peers: Peers,
        clock: Clock,
        seats_max: int = SEATS_MAX,
        account_seats_max: int = ACCOUNT_SEATS_MAX,
        watch_s: float = WATCH_S,
    ) -> None:
        self._owned = owned
        self._owners = owners
        self._peers = peers
        self._clock = clock
        self._seats = Seats(total_max=seats_max, account_max=account_seats_max)
        self._watch_s = watch_s

    async def watch(self, key: LinkKey, user_id: UserId) -> AsyncGenerator[Told, None]:
        """What is counted of a link from now on, for 15 minutes. The first comes at once.

        Raises:
            ResourceExhausted: too many watch, or this account does.
            Unavailable: nobody counts this link, for half a minute or from the start.
        """
        if not self._seats.take(user_id):
            raise _too_many()
        WATCHERS.labels("asked").inc()
        try:
            async with aclosing(self._from_owners(key)) as stream:
                async for told in stream:
                    yield told
        finally:
            WATCHERS.labels("asked").dec()
            self._seats.leave(user_id)

    async def _from_owners(self, key: LinkKey) -> AsyncGenerator[Told, None]:
        """The stream of the owner, and when that ends the one of the next."""
        now = self._clock.monotonic
        ends, patience, begun = now() + self._watch_s, now() + _FIRST_PATIENCE_S, False
        while (left_s := ends - now()) > 0:
            interrupted = begun
            try:
                async with aclosing(await self._owners_stream(key, left_s)) as stream:
                    async for told in stream:
                        yield replace(told, interrupted=True) if interrupted else told
                        interrupted, begun, patience = False, True, now() + _PATIENCE_S
                        if now() >= ends:
                            return
            except ResourceExhausted:
                raise
            except ServiceError:
                pass  # it stops, died, is far away, or of another release: the next look finds its successor
            if now() >= patience:
                raise Unavailable("unavailable", "Nobody counts this link's clicks for the moment.", retry_after_s=1)
            await self._clock.sleep(min(_AGAIN_S, max(0.0, ends - now())))

    async def _owners_stream(self, key: LinkKey, left_s: float) -> AsyncGenerator[Told, None]:
        partition = await self._owners.partition_of(key)
        if self._owners.is_ours(partition):
            return self._owned.watch(key, partition)
        owner = await self._owners.other_owner(partition, fresh=True)
        if owner is None:
            raise Unavailable("unavailable", "Nobody owns this partition.")
        return self._peers.watch(owner, key, partition, timeout_s=left_s)


class _Watcher:
    """A backlog that can be waited for."""

    def __init__(self) -> None:
        self._backlog = Backlog(_BACKLOG_MAX)
        self._news = asyncio.Event()

    def put(self, click: Click) -> None:
        """A click was counted."""
        self._backlog.put(click)
        self._news.set()

    async def wait(self, timeout_s: float) -> bool:
        """Whether there is news, after at most that long."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    def take(self) -> tuple[Sequence[Click], int]:
        """The news."""
        self._news.clear()
        return self._backlog.take()


def _too_many() -> ResourceExhausted:
    return ResourceExhausted(Reason.RATE_LIMITED.code, "Too many watch live clicks.", retry_after_s=10)
