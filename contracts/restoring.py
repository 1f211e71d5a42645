"""What the restorers of a Redis that came back leave for each other in it, and the calls of the library for it [R8]."""

from contracts.cache import BUCKETS, FunctionCall, encode_entry, value_keys
from contracts.link import Link, bucket_of

RESTORER = "restore:leader"  # who puts events back, so that not all instances do at once
LAST_BUCKET = BUCKETS - 1  # buckets are marked in order: if the last one is, all are


def restored_key(bucket: int) -> str:
    """The run of Redis into which everything of this bucket was put back."""
    return f"restored:{{{bucket:02d}}}"


def restore_call(link: Link, run_id: str) -> FunctionCall:
    """Puts back what a failover may have lost, without expiry, if absent or older. OVER: Redis is at another run, or at
    this one and restored."""
    keys = (*value_keys(link), restored_key(bucket_of(link.key)))
    return FunctionCall("linkmesh_v2_restore", keys, (encode_entry(link), run_id))


def standing_call() -> FunctionCall:
    """Which run of Redis this is, and whether it is restored."""
    return FunctionCall("linkmesh_v2_standing", (restored_key(LAST_BUCKET),), ())


def restored_call(bucket: int, run_id: str) -> FunctionCall:
    """Everything of this bucket was put back into this run. OVER: Redis is at another one."""
    return FunctionCall("linkmesh_v2_restored", (restored_key(bucket),), (run_id,))
