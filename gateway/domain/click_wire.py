"""A click as protobuf bytes, put together by hand: `LinkAccessed` within `LinksAccessed.clicks`.

Building the message and serialising it costs as much as all the rest of recording a click. What a link's clicks, a
visitor's browser or a millisecond have in common is encoded once; a test compares the whole with what protobuf reads.
"""

from typing import Final

from gateway.domain.visitors import VISITOR_BYTES, VisitorClass

_LENGTHS_MAX = 4096
_LINK_KEY, _USER_ID, _AT, _VISITOR, _USER_AGENT, _REFERRER, _COUNTRY, _CLASS = range(1, 9)
_CLASSES = {VisitorClass.HUMAN: 1, VisitorClass.BOT: 2, VisitorClass.PREFETCH: 3}


def varint(value: int) -> bytes:
    """A number of at least 0 as protobuf writes it."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, value: bytes) -> bytes:
    """A field with a length; nothing if it is empty."""
    return bytes((number << 3 | 2,)) + varint(len(value)) + value if value else b""


CLICK_TAG: Final = b"\x1a"  # LinksAccessed.clicks, number 3, with a length
LENGTHS: Final = tuple(varint(length) for length in range(_LENGTHS_MAX))  # of what is shorter than that
VISITOR_TAG: Final = bytes((_VISITOR << 3 | 2, VISITOR_BYTES))  # 16 bytes follow
REFERRER_TAG: Final = bytes((_REFERRER << 3 | 2,))


def link_fields(link_key: str, user_id: str) -> bytes:
    """What all clicks of a link have in common."""
    return field(_LINK_KEY, link_key.encode()) + field(_USER_ID, user_id.encode())


def at_field(at_ms: int) -> bytes:
    """When it was: ms since 1970."""
    seconds, milliseconds = divmod(at_ms, 1000)
    nanos = b"\x10" + varint(milliseconds * 1_000_000) if milliseconds else b""
    return field(_AT, b"\x08" + varint(seconds) + nanos)


def agent_fields(user_agent: str, visitor_class: VisitorClass) -> bytes:
    """What all visits of a class by a browser have in common."""
    return field(_USER_AGENT, user_agent.encode()) + bytes((_CLASS << 3, _CLASSES[visitor_class]))


def referrer_field(referrer: str) -> bytes:
    """Where the visitor came from."""
    return field(_REFERRER, referrer.encode())


def country_field(country: str) -> bytes:
    """Where the visitor is."""
    return field(_COUNTRY, country.encode())
