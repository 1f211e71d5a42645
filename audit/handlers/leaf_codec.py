"""Leaves as bytes: `shortener.audit.v1.AuditLeaf` in canonical form (fields in order, defaults left out)."""

from google.protobuf.message import DecodeError

from audit.domain.leaf import FORMAT, Leaf
from audit.domain.tiles import CorruptError
from contracts.link_codec import moment, timestamp
from shortener.audit.v1 import audit_leaf_pb2 as leaf_pb


def leaf_to_message(leaf: Leaf) -> leaf_pb.AuditLeaf:
    """The protobuf message of a leaf."""
    return leaf_pb.AuditLeaf(
        format=FORMAT,
        topic=leaf.topic,
        partition=leaf.partition,
        offset=leaf.offset,
        recorded_at=timestamp(leaf.recorded_at),
        event_id=leaf.event_id,
        event_type=leaf.event_type,
        commitment=leaf.commitment,
    )


def encode_leaf(leaf: Leaf) -> bytes:
    """The entry that goes into the log."""
    return leaf_to_message(leaf).SerializeToString(deterministic=True)


def decode_leaf(entry: bytes) -> Leaf:
    """The leaf of an entry.

    Raises:
        CorruptError: it is none, or of a format that this version does not know.
    """
    try:
        message = leaf_pb.AuditLeaf.FromString(entry)
    except DecodeError as exc:
        raise CorruptError("an entry is no leaf") from exc
    if message.format != FORMAT:
        raise CorruptError(f"an entry has the unknown format {message.format}")
    return Leaf(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        recorded_at=moment(message.recorded_at),
        event_id=message.event_id,
        event_type=message.event_type,
        commitment=message.commitment,
    )
