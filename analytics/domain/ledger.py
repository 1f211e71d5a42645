"""What a partition's owner knows of the spools that feed it: which clicks are new, and what reconciliation asks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from analytics.domain.clicks import Buried, Click, Clicks, Origin, Totals
from analytics.domain.sequences import (
    SPOOL_AGE_MAX_MS,
    Spool,
    buried,
    is_forgotten,
    judge,
    made_ms,
    replayed,
    taken,
    told,
)

SPOOLS_MAX = 5_000  # remembered of a partition: at 45 bytes each, half of what an item of DynamoDB takes
_RANGES_MAX = 4_000  # of missing sequences, of all spools of a partition
_REPLAYS_MAX = 2_000  # remembered of a partition
_REPLAY_AGE_MAX_MS = 31 * 86_400_000  # dead letters are kept for 30 days


@dataclass(frozen=True, slots=True)
class Accounts:
    """A ledger at one moment. `replays`: the records whose dead letters were counted. `forgotten_until_ms`: of spools
    made until then, those not among `spools` were forgotten for want of room. `loose`: clicks without a spool.
    """

    spools: Mapping[str, Spool] = field(default_factory=dict)
    replays: frozenset[Origin] = frozenset()
    forgotten_until_ms: int = 0
    loose: int = 0


@dataclass(slots=True)
class Tidings:
    """What a ledger had to say of clicks, for metrics. `gaps`: times, `missing`: clicks."""

    repeats: int = 0
    stale: int = 0
    gaps: int = 0
    missing: int = 0
    replayed: int = 0


class Ledger:
    """The accounts of one partition, as they grow. `now_ms` is always the broker's time of a record."""

    def __init__(self, accounts: Accounts) -> None:
        self._spools = dict(accounts.spools)
        self._replays = set(accounts.replays)
        self._forgotten_until_ms = accounts.forgotten_until_ms
        self._loose = accounts.loose

    def take(self, clicks: Clicks, tidings: Tidings, *, now_ms: int) -> Sequence[Click]:
        """Those of these clicks that are to be counted [S4]."""
        count = len(clicks.clicks)
        if not clicks.spool_id:
            self._loose += count
            return clicks.clicks
        if self._is_stale(clicks.spool_id, now_ms):
            tidings.stale += count
            return ()
        spool = self._spools.get(clicks.spool_id, _UNKNOWN)
        repeats, gap = judge(spool, clicks.first_sequence, count)
        self._spools[clicks.spool_id] = taken(spool, clicks.first_sequence, count)
        tidings.repeats += repeats
        if gap:
            tidings.gaps += 1
            tidings.missing += gap
        return clicks.clicks[repeats:] if repeats else clicks.clicks

    def replay(self, clicks: Clicks, origin: Origin, tidings: Tidings, *, now_ms: int) -> Sequence[Click]:
        """Those of a dead letter's clicks that are to be counted [A9]: the same record never twice, and of a spool that
        is remembered only what was missing.
        """
        count = len(clicks.clicks)
        if origin in self._replays:
            tidings.repeats += count
            return ()
        self._replays.add(origin)
        tidings.replayed += 1
        if not clicks.spool_id or self._is_stale(clicks.spool_id, now_ms):
            self._loose += count
            return clicks.clicks
        spool = self._spools.get(clicks.spool_id, _UNKNOWN)
        self._spools[clicks.spool_id], found = replayed(spool, clicks.first_sequence, count)
        tidings.repeats += count - len(found)
        return [clicks.clicks[place] for place in found]

    def bury(self, gone: Buried, *, now_ms: int) -> None:
        """These clicks are in a dead letter: no gap, but not counted either."""
        self._change(gone.spool_id, lambda spool: buried(spool, gone.first_sequence, gone.count), now_ms)

    def note(self, totals: Totals, *, now_ms: int) -> None:
        """What a spool's own books say [S8]."""
        if totals.recorded or totals.dropped:  # a spool that nothing ever came into is not worth its place
            self._change(totals.spool_id, lambda spool: told(spool, totals), now_ms)

    def close(self, *, now_ms: int) -> Accounts:
        """The accounts as of now, for a checkpoint. What is too old, or too much, is forgotten first [S5]."""
        kept = {name: spool for name, spool in self._spools.items() if not is_forgotten(name, now_ms=now_ms)}
        if len(kept) > SPOOLS_MAX:
            # Those first that have nothing more to say: hundreds of gateways that start and end must not make one be
            # forgotten that runs on. A UUIDv7 sorts by its time.
            gone = sorted(kept, key=lambda name: (not kept[name].finished, name))[: len(kept) - SPOOLS_MAX]
            self._forgotten_until_ms = max(self._forgotten_until_ms, *map(made_ms, gone))
            for name in gone:
                del kept[name]
        self._spools = _with_few_ranges(kept)
        young = sorted(origin for origin in self._replays if now_ms - origin.stored_ms <= _REPLAY_AGE_MAX_MS)
        self._replays = set(young[-_REPLAYS_MAX:])
        return self.accounts()

    def accounts(self) -> Accounts:
        """The accounts as of now; what happens later does not change them [A3]."""
        return Accounts(dict(self._spools), frozenset(self._replays), self._forgotten_until_ms, self._loose)

    def _is_stale(self, spool_id: str, now_ms: int) -> bool:
        at_ms = made_ms(spool_id)
        if now_ms - at_ms > SPOOL_AGE_MAX_MS:
            return True
        return at_ms <= self._forgotten_until_ms and spool_id not in self._spools

    def _change(self, spool_id: str, change: Callable[[Spool], Spool], now_ms: int) -> None:
        if not self._is_stale(spool_id, now_ms):
            self._spools[spool_id] = change(self._spools.get(spool_id, _UNKNOWN))


_UNKNOWN = Spool()


def _with_few_ranges(spools: dict[str, Spool]) -> dict[str, Spool]:
    """The same with at most so many ranges of missing sequences in all; those of the oldest spools go first."""
    excess = sum(len(spool.missing) for spool in spools.values()) - _RANGES_MAX
    for name in sorted(spools) if excess > 0 else ():
        spool = spools[name]
        if excess > 0 and spool.missing:
            excess -= len(spool.missing)
            spools[name] = Spool(
                spool.last, spool.counted, spool.repeats, (), spool.buried, spool.recorded, spool.dropped, spool.closed
            )
    return spools
