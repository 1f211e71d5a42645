"""What the restorers of a Redis that came back leave for each other in it, and the calls of the library for it [R8]."""

import json
from collections.abc import Mapping

from contracts.cache import BUCKETS, FunctionCall, encode_entry, restored_key, value_keys
from contracts.link import Link, bucket_of
from contracts.link_codec import UndecodableError

Offsets = Mapping[int, int]  # partition of links-events → offset in it

RESTORER = "restore:leader"  # who puts events back, so that not all instances do at once
_LAST = BUCKETS - 1  # buckets are marked in order: if the last one is, all are
NOTED = f"noted:{{{_LAST:02d}}}"  # where the log ended at some moment that Redis remembers
UNSETTLED = f"unsettled:{{{_LAST:02d}}}"  # from where on the log has links that were put back and have no expiry yet


def restore_call(link: Link, run_id: str) -> FunctionCall:
    """Puts back what a failover may have lost, without expiry, if absent or older. OVER: Redis is at another run, or at
    this one and restored."""
    keys = (*value_keys(link), restored_key(bucket_of(link.key)))
    return FunctionCall("linkmesh_v3_restore", keys, (encode_entry(link), run_id))


def standing_call() -> FunctionCall:
    """Which run of Redis this is, and whether it is restored."""
    return FunctionCall("linkmesh_v3_standing", (restored_key(_LAST),), ())


def restored_calls(run_id: str, *, unsettled: Offsets) -> list[FunctionCall]:
    """Everything was put back into this run: a call for each bucket, in order. `unsettled` (empty: nothing) is kept
    until `settled_call`. OVER: Redis is at another run."""
    calls = []
    for bucket in range(BUCKETS):
        text = encode_offsets(unsettled) if bucket == _LAST and unsettled else ""
        calls.append(FunctionCall("linkmesh_v3_restored", (restored_key(bucket), _unsettled(bucket)), (run_id, text)))
    return calls


def note_call(run_id: str, ends: Offsets) -> FunctionCall:
    """Notes where the log ended *before* this call. OVER: Redis is at another run, or not restored."""
    return FunctionCall("linkmesh_v3_note", (restored_key(_LAST), NOTED), (run_id, encode_offsets(ends)))


def settled_call(unsettled: Offsets) -> FunctionCall:
    """Exactly this is settled."""
    return FunctionCall("linkmesh_v3_settled", (UNSETTLED,), (encode_offsets(unsettled),))


def encode_offsets(offsets: Offsets) -> str:
    """Offsets as they stand in Redis."""
    return json.dumps({str(partition): offsets[partition] for partition in sorted(offsets)}, separators=(",", ":"))


def decode_offsets(data: bytes) -> Offsets:
    """Offsets that stand in Redis.

    Raises:
        UndecodableError: they are none.
    """
    try:
        found = json.loads(data)
        return {int(partition): int(offset) for partition, offset in found.items()}
    except (ValueError, AttributeError, TypeError) as exc:
        raise UndecodableError("not offsets of partitions") from exc


def _unsettled(bucket: int) -> str:
    """A key in the slot of the bucket; only that of the last one is ever written."""
    return f"unsettled:{{{bucket:02d}}}"
