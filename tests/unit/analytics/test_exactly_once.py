"""Every click is counted once, whatever happens to its counters; and each rule is needed for that."""

from collections.abc import Collection, Mapping, Sequence
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analytics.domain import holding, ledger
from analytics.domain.book import Book, Write
from analytics.domain.checkpoints import Checkpoint
from analytics.domain.clicks import AnyId
from analytics.domain.ledger import Accounts, Ledger
from analytics.domain.rows import AnyImage, Applied, RowImage, TopImage
from analytics.domain.sequences import Judgement
from analytics.loops import Flusher
from analytics.ports import RowStore
from contracts.link import LinkKey, UserId
from tests.fakes.analytics_ports import FakeRowStore
from tests.unit.analytics.schedules import Parts, live

LIVES = 400


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.randoms(use_true_random=False))
@pytest.mark.rule("A1", "A2", "A3", "A4", "A9", "A10", "S4", "P4")
def test_every_click_is_counted_once(chance: Random) -> None:
    """Kills, zombies that write late, slow stores, gateways that send again in other records, and dead letters that are
    replayed, some of them twice, change no count.
    """
    assert live(chance, Parts()) == []


class BlindRows:
    """Without A1: a row that is first touched is taken for new."""

    def __init__(self, inner: RowStore) -> None:
        self._inner = inner
        self._refused = False  # then the load is the flusher's, who asks why

    async def load(self, row_ids: Collection[AnyId]) -> Mapping[AnyId, AnyImage]:
        found = await self._inner.load(row_ids)
        return found if self._refused else {}

    async def store(self, writes: Sequence[Write]) -> Sequence[bool]:
        taken = await self._inner.store(writes)
        self._refused = not all(taken)
        return taken

    async def read(self, key: LinkKey, hours: range) -> Sequence[RowImage]:
        return await self._inner.read(key, hours)

    async def read_tops(self, user_id: UserId, days: range) -> Sequence[TopImage]:
        return await self._inner.read_tops(user_id, days)


class LateBook(Book):
    """Makes rounds that are taken when they end."""

    def current(self, partition: int) -> Checkpoint:
        return self._partitions[partition].closing()


class LateFlusher(Flusher):
    """Without A3: the snapshot is taken after the rows were written."""

    async def flush(self, partition: int) -> None:
        async with self._turn:
            begun = self._book.begin_round(partition)
            if begun is None:
                return
            await self._write(begun.rows)
            assert isinstance(self._book, LateBook)
            if self._book.is_current(begun):
                late = self._book.current(partition)
                await self._checkpoints.save(late)
                self._book.saved(late)


class EagerFlusher(Flusher):
    """Without A4: the checkpoint is written before its rows."""

    async def flush(self, partition: int) -> None:
        async with self._turn:
            begun = self._book.begin_round(partition)
            if begun is None:
                return
            await self._checkpoints.save(begun.checkpoint)
            await self._write(begun.rows)
            self._book.saved(begun.checkpoint)


class CarelessTable(FakeRowStore):
    """Without the condition on rows: the last writer wins."""

    def _store(self, write: Write) -> bool:
        self.rows[write.image.id] = write.image
        return True


MUTANTS = {
    "A1: rows are not loaded": Parts(rows=BlindRows),
    "A3: the snapshot is taken late": Parts(book=lambda: LateBook(rows_max=4, dirty_max=1000), flusher=LateFlusher),
    "A4: the checkpoint goes first": Parts(flusher=EagerFlusher),
    "A4: rows without a condition": Parts(table=CarelessTable),
}


@pytest.mark.rule("A1", "A3", "A4")
@pytest.mark.parametrize("parts", MUTANTS.values(), ids=MUTANTS.keys())
def test_each_rule_is_needed(parts: Parts) -> None:
    """With any one of the rules left out some life ends with a wrong count: the lives can tell."""
    assert any(live(Random(seed), parts) for seed in range(LIVES))


class Forgetful(Applied):
    """Without A2: no place of the log is in a row already."""

    __slots__ = ()

    def __lt__(self, other: tuple[int, ...]) -> bool:
        return True  # a row asks whether what it holds is less than the record's place

    def __gt__(self, other: tuple[int, ...]) -> bool:
        return True  # the same question, asked the other way round of a row that nobody has touched


@pytest.mark.rule("A2")
def test_skipping_by_offset_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that counts a replayed record again ends wrong."""
    monkeypatch.setattr(holding, "Applied", Forgetful)

    assert any(live(Random(seed), Parts()) for seed in range(LIVES))


@pytest.mark.rule("S4")
def test_sequences_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the sequence check what a gateway sends again is counted again."""
    monkeypatch.setattr(ledger, "judge", lambda *_args: Judgement(0, 0))

    assert any(live(Random(seed), Parts()) for seed in range(LIVES))


@pytest.mark.rule("A9")
def test_replays_are_not_judged_by_their_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay that is taken for a record as any other is a repeat, and its clicks are lost."""
    monkeypatch.setattr(
        Ledger, "replay", lambda self, clicks, _origin, tidings, **now: self.take(clicks, tidings, **now)
    )

    assert any(live(Random(seed), Parts()) for seed in range(LIVES))


@pytest.mark.rule("A3")
def test_a_snapshot_of_live_accounts_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A round whose checkpoint goes on changing with the ledger says of clicks that are in no row that they came."""
    monkeypatch.setattr(Ledger, "close", lambda self, **_now: Accounts(self._spools))

    assert any(live(Random(seed), Parts()) for seed in range(LIVES))
