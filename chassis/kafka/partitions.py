"""Where a record goes whose partition is left to its key: the rule of the Java client, which the library follows."""

from typing import cast

from aiokafka.partitioner import murmur2


def partition_of(key: bytes, partitions: int) -> int:
    """The partition in 0 … partitions - 1 that a message with this key and no partition of its own is sent to."""
    return (cast("int", murmur2(key)) & 0x7FFF_FFFF) % partitions
