"""What writer decides: whose event a version is [W1], and how the projection moves forward and never back [W2]."""

from collections.abc import Sequence
from enum import Enum
from typing import assert_never


class Verdict(Enum):
    """What a stored event row says about an event that met it."""

    SAME = "same"  # the event was stored before; go on with projection and cache, only then commit
    CONFLICT = "conflict"  # another event has this version: can only follow a lost Redis


def judge_stored_event(*, stored_event_id: str, event_id: str) -> Verdict:
    """The verdict on an event whose row is there already [W1]."""
    return Verdict.SAME if stored_event_id == event_id else Verdict.CONFLICT


class Step(Enum):
    """The next thing to do for one link's projection."""

    INSERT = "insert"  # put the row if there is none
    UPDATE = "update"  # set the row if it has no version or an older one
    READ = "read"  # is there a row at all?
    DONE = "done"


class Result(Enum):
    """How a step ended."""

    STORED = "stored"
    EXISTS = "exists"  # INSERT: there is a row. READ: likewise
    REFUSED = "refused"  # UPDATE: no row, or one that is as new or newer
    ABSENT = "absent"  # READ: there is no row
    INVALID = "invalid"  # the database will never take this content


def first_step(version: int) -> Step:
    """How the projection of a version begins: PartiQL cannot put-if-absent-or-older in one statement [W2]."""
    return Step.INSERT if version == 1 else Step.UPDATE


def next_step(version: int, step: Step, result: Result) -> Step:
    """What follows a step [W2].

    A version 1 whose row exists meets a reservation (no version: the update takes it) or something newer (the update is
    refused, and that is fine). A later version whose update is refused meets something newer, or no row at all because
    an earlier version's projection has not happened yet; only a read tells.
    """
    if result is Result.INVALID:
        raise ValueError("content that is refused for good has no next step")
    match step:
        case Step.INSERT:
            return Step.DONE if result is Result.STORED else Step.UPDATE
        case Step.UPDATE:
            return Step.DONE if result is Result.STORED or version == 1 else Step.READ
        case Step.READ:
            return Step.INSERT if result is Result.ABSENT else Step.DONE
        case Step.DONE:
            raise ValueError("nothing follows the end")
        case _:
            assert_never(step)


def waves(keys: Sequence[bytes], size: int) -> list[list[int]]:
    """The places of records with these keys, as batches to be handled one after the other: none names a key twice [W4],
    none is larger than `size`, and each key's records stay in order.

    Raises:
        ValueError: size is not positive.
    """
    if size < 1:
        raise ValueError("a batch has room for at least one record")
    batches: list[list[int]] = []
    free: dict[bytes, int] = {}  # the first batch that a key may go into
    open_from = 0  # every batch before is full
    for place, key in enumerate(keys):
        number = max(free.get(key, 0), open_from)
        while number < len(batches) and len(batches[number]) >= size:
            number += 1
        if number == len(batches):
            batches.append([])
        batches[number].append(place)
        free[key] = number + 1
        while open_from < len(batches) and len(batches[open_from]) >= size:
            open_from += 1
    return batches
