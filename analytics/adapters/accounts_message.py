"""The accounts of a partition's spools as a message, for its checkpoint: 45 bytes for a spool that has no gaps."""

from uuid import UUID

from analytics.domain.clicks import Origin
from analytics.domain.ledger import Accounts
from analytics.domain.sequences import Spool
from shortener.store.v1.click_counts_pb2 import PartitionState, SpoolState


def accounts_message(accounts: Accounts) -> PartitionState:
    """The message that says all of these accounts."""
    replays = sorted(accounts.replays)
    return PartitionState(
        spools=[_spool_state(name, spool) for name, spool in accounts.spools.items()],
        replayed_offsets=[origin.offset for origin in replays],
        replayed_ms=[origin.stored_ms for origin in replays],
        forgotten_until_ms=accounts.forgotten_until_ms,
        without_spool=accounts.loose,
    )


def accounts_from(state: PartitionState) -> Accounts:
    """The accounts that a message says."""
    return Accounts(
        spools={str(UUID(bytes=spool.spool_id)): _spool(spool) for spool in state.spools},
        replays=frozenset(map(Origin, state.replayed_offsets, state.replayed_ms)),
        forgotten_until_ms=state.forgotten_until_ms,
        loose=state.without_spool,
    )


def _spool_state(name: str, spool: Spool) -> SpoolState:
    return SpoolState(
        spool_id=UUID(name).bytes,
        last=spool.last,
        counted=spool.counted,
        repeats=spool.repeats,
        missing=[sequence for sequences in spool.missing for sequence in sequences],
        buried=spool.buried,
        recorded=spool.recorded,
        dropped=spool.dropped,
        closed=spool.closed,
    )


def _spool(state: SpoolState) -> Spool:
    bounds = iter(state.missing)
    return Spool(
        last=state.last,
        counted=state.counted,
        repeats=state.repeats,
        missing=tuple(zip(bounds, bounds, strict=True)),
        buried=state.buried,
        recorded=state.recorded,
        dropped=state.dropped,
        closed=state.closed,
    )
