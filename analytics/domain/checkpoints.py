"""How far a partition is folded, as it is stored beside the rows and gone on from [A3, A4]."""

from dataclasses import dataclass, field, replace

from analytics.domain.ledger import Accounts

FIRST_EPOCH = 1


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of one partition at one moment: every row holds all that the log has before `offset`.

    `time_ms` is the broker's time of the record before `offset` (0: none), by which a log that was created anew is
    told from the one that was folded [A8].
    """

    partition: int
    epoch: int = FIRST_EPOCH
    offset: int = 0
    time_ms: int = 0
    accounts: Accounts = field(default_factory=Accounts)


@dataclass(frozen=True, slots=True)
class LogView:
    """What the log looks like around a checkpoint. `found`: offset and time of the first record at or behind the last
    folded one; None: no record is there.
    """

    end: int
    found: tuple[int, int] | None


def is_another_log(checkpoint: Checkpoint, log: LogView) -> bool:
    """Whether the topic was created anew since: the log ends before the checkpoint, or tells another time [A8]."""
    if log.end < checkpoint.offset:
        return True
    if checkpoint.offset == 0 or log.found is None:
        return False  # nothing was folded, or retention took what could be compared
    offset, time_ms = log.found
    return time_ms != checkpoint.time_ms if offset == checkpoint.offset - 1 else time_ms < checkpoint.time_ms


def next_epoch(checkpoint: Checkpoint) -> Checkpoint:
    """Where to begin on a log that was created anew: at its start, with the sequences that gateways go on from."""
    return replace(checkpoint, epoch=checkpoint.epoch + 1, offset=0, time_ms=0)
