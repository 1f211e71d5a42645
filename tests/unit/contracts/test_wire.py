"""Protobuf by hand is the library's protobuf, to the byte."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from contracts.wire import part, tag_of
from shortener.link.v1 import link_pb2
from shortener.store.v1 import cache_entry_pb2 as pb


@given(st.binary(min_size=1, max_size=300))
@example(b"x" * 127)
@example(b"x" * 128)
@example(b"x" * 1023)
@example(b"x" * 1024)
@example(b"x" * 16383)
@example(b"x" * 16384)
@example(b"x" * (1 << 21))
def test_a_part_is_what_the_library_writes(data: bytes) -> None:
    """Tag, length of any size and bytes are those of a field that the library encodes."""
    assert part(tag_of(pb.OutboxEntry, "event"), data) == pb.OutboxEntry(event=data).SerializeToString()


def test_an_empty_message_is_still_a_part() -> None:
    """A message that is there and empty is written, as the library does."""
    assert part(tag_of(pb.CacheEntry, "link"), b"") == pb.CacheEntry(link=link_pb2.Link()).SerializeToString()


def test_a_tag_of_two_bytes_is_refused() -> None:
    """Fields above 15 are not done by hand, rather than done wrong."""
    with pytest.raises(ValueError, match="longer"):
        tag_of(link_pb2.Link, "event_id")
