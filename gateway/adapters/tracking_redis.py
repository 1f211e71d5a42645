"""Hears from Redis what has changed, and proves that it hears [L2].

One RESP2 connection tracks the prefix `url:` by broadcast and is its own receiver, so that Redis tells of every change,
whoever made it and whoever read it, in the order of the changes. A beat is a write under that prefix through another
connection: when its own invalidation has come, so has everything that was written before. Each beat has a key of its
own, or one that was long under way would vouch for changes that came after it.
"""

import asyncio
import contextlib
import logging
import random
from functools import partial

from prometheus_client import Counter, Gauge
from redis.exceptions import RedisError

from chassis.backoff import Backoff
from chassis.clock import Clock, sleep_until_stop
from chassis.errors import Unavailable
from chassis.redis import Redis
from chassis.redis_wire import Command, pack
from contracts.cache import IDS_HIGH, URL_PREFIX, beat_key
from contracts.link import LinkKey
from gateway.adapters.redis_connection import RedisConnection, connect
from gateway.adapters.redis_pipe import RedisPipe, Tell
from gateway.ports import TrackedLinks

BEAT_S = 0.5
TIMEOUT_S = 1.0  # of the handshake, of a beat's write (which waits for Redis' disk), of a look at the mark
_BEAT_KEPT_MS = 10_000
_BEATS_MAX = 8  # on their way; older ones would be overdue
_MARK_EVERY = 2  # beats: the mark of issued ids is read each second [L5]
_CHANNEL = b"__redis__:invalidate"
_RETRY = Backoff(first_s=0.1, cap_s=1.0)
TRACKING = Gauge("near_links_tracked", "1 while Redis tells this process of changes")
INVALIDATED = Counter("near_links_invalidations", "Changes of links that Redis told of")
logger = logging.getLogger(__name__)


class _RefusedError(Exception):
    """Redis does not do what tracking needs."""


class RedisTracking:
    """A component. `client` makes the connection that listens (RESP2), `beats` writes beats; `name` is this process'
    alone. `turn_s`: how often `links` is told that the loop turns; `reads`: who reads what is kept."""

    def __init__(
        self,
        client: Redis,
        beats: RedisPipe,
        links: TrackedLinks,
        *,
        name: str,
        turn_s: float,
        clock: Clock,
        reads: RedisPipe | None = None,
    ) -> None:
        self._client = client
        self._beats = beats
        self._pipes = [beats] if reads is None else [beats, reads]
        self._links = links
        self._name = name
        self._turn_s = turn_s
        self._clock = clock
        self._wake = asyncio.Event()  # a beat is due, or there is no connection
        self._open: RedisConnection | None = None
        self._sent: dict[bytes, float] = {}  # when each beat under way was sent, by its key
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Listens until stop is set; after a failure anew."""
        failures = 0
        self._turn()
        try:
            while not stop.is_set():
                try:
                    await self._subscribe()
                except (Unavailable, _RefusedError, TimeoutError) as exc:
                    if not failures:
                        logger.warning("Redis does not tell of changes: %s", exc)
                    await sleep_until_stop(stop, _RETRY.delay_s(failures, random.random))
                    failures += 1
                    continue
                failures = 0
                await self._listen(stop)
        finally:
            self._close()
            if self._timer is not None:
                self._timer.cancel()

    def saw_run(self, run: str) -> None:
        """Another connection goes to this run of Redis. If ours does not, what it says means nothing [R8]."""
        if self._open is not None and run != self._open.run:
            self._links.flush()
            self._end()

    # ------------------------------------------------------------ connecting

    async def _subscribe(self) -> None:
        """Connects and has everything confirmed; only then may anything be kept.

        Raises:
            Unavailable, TimeoutError: Redis is away.
            _RefusedError: it answers otherwise than it should.
        """
        opened = await connect(self._client, timeout_s=TIMEOUT_S)
        heard: asyncio.Queue[list[object]] = asyncio.Queue()
        opened.received, opened.ended = heard.put_nowait, partial(heard.put_nowait, [_RefusedError("it hung up")])
        try:
            async with asyncio.timeout(TIMEOUT_S):
                own_id = await _ask(opened, heard, ["CLIENT", "ID"])
                if not isinstance(own_id, int):
                    raise _RefusedError(f"it has no id for us: {own_id}")
                tracking: Command = ["CLIENT", "TRACKING", "ON", "REDIRECT", own_id, "BCAST", "PREFIX", URL_PREFIX]
                if (told := await _ask(opened, heard, tracking)) != b"OK":
                    raise _RefusedError(f"it does not track: {told}")
                asked_at = self._clock.monotonic()
                subscribed = await _ask(opened, heard, ["SUBSCRIBE", _CHANNEL])
                if not (isinstance(subscribed, list) and subscribed[:2] == [b"subscribe", _CHANNEL]):
                    raise _RefusedError(f"it does not subscribe: {subscribed}")
        except BaseException:
            opened.close()
            raise
        opened.received, opened.ended = self._receive, self._end
        self._open = opened
        self._sent.clear()
        for pipe in self._pipes:
            pipe.stay_with(opened.run)
        self._links.subscribed(asked_at)
        TRACKING.set(1)
        while not heard.empty():  # said in the same breath as the confirmation
            self._receive(heard.get_nowait())

    def _end(self) -> None:
        if self._open is not None:
            self._close()
            self._links.lost()
            self._wake.set()

    def _close(self) -> None:
        opened, self._open = self._open, None
        TRACKING.set(0)
        if opened is not None:
            opened.close()

    # ------------------------------------------------------------ listening

    async def _listen(self, stop: asyncio.Event) -> None:
        """Sends beats until the connection is gone, they are missed for too long, or stop is set."""
        while not stop.is_set() and self._open is not None:
            self._wake.clear()
            self._beat()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await self._wake.wait()
            if self._open is not None and self._links.is_overdue():
                logger.warning("Redis has not told of our own beats: another connection is made")
                self._end()

    def _beat(self) -> None:
        self._number += 1
        key = beat_key(f"{self._name}:{self._number}")
        while len(self._sent) >= _BEATS_MAX:
            del self._sent[next(iter(self._sent))]
        self._sent[key.encode()] = self._clock.monotonic()
        self._ask(["SET", key, "", "PX", _BEAT_KEPT_MS], _no_matter)
        if self._number % _MARK_EVERY == 1:
            self._ask(["GET", IDS_HIGH], self._learn)

    def _ask(self, command: Command, tell: Tell) -> None:
        try:
            self._beats.ask(pack([command]), tell)
        except Unavailable:
            logger.debug("a beat was not sent; it will be missed")

    def _learn(self, told: object) -> None:
        self._links.learn_issued(int(told) if isinstance(told, bytes) and told.isdigit() else None)

    def _receive(self, messages: list[object]) -> None:
        for message in messages:
            match message:
                case [b"message", _, list(keys)]:
                    self._invalidate(keys)
                case [b"message", _, None]:  # FLUSHALL, or FLUSHDB
                    self._links.flush()
                case _:
                    logger.warning("Redis says what nobody expects: another connection is made")
                    self._end()
                    return

    def _invalidate(self, keys: list[object]) -> None:
        """Beats vouch for what stands beside them, too: they come last."""
        beats = []
        for key in keys:
            if not isinstance(key, bytes):
                continue
            if key in self._sent:
                beats.append(self._sent.pop(key))
                continue
            _, separator, name = key.partition(b"}:")  # url:{bb}:<link key>
            if separator:
                with contextlib.suppress(UnicodeDecodeError):  # nobody's link, and no reason to lose the connection
                    self._links.changed(LinkKey(name.decode()))
                    INVALIDATED.inc()
        for sent_at in beats:
            self._links.heard(sent_at)

    # ------------------------------------------------------------ turning

    def _turn(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._turn_s, self._turn)
        if self._links.turned():
            self._wake.set()


def _no_matter(_told: object) -> None:
    """Whether a beat was written is told by whether it is heard."""


async def _ask(opened: RedisConnection, heard: "asyncio.Queue[list[object]]", command: Command) -> object:
    opened.send(pack([command]))
    reply, *more = await heard.get()
    if more:
        heard.put_nowait(more)
    if isinstance(reply, _RefusedError):
        raise reply
    if isinstance(reply, RedisError):
        raise _RefusedError(str(reply))
    return reply
