"""Protobuf by hand where it pays: what stands in several messages is encoded once, and put into each of them as bytes.

A field that holds a message, a text or bytes is its tag, a length and the bytes ("length-delimited records" in the
specification of the encoding). Fields in the order of their numbers are what the library's deterministic encoding
writes. Pure.
"""

from google.protobuf.message import Message

_LENGTH_DELIMITED = 2
_NUMBER_MAX = 15  # of a field whose tag is one byte


def tag_of(message: type[Message], field: str) -> bytes:
    """The tag of a message's field, which holds a message, a text or bytes.

    Raises:
        ValueError: the field's number is above 15.
    """
    number = message.DESCRIPTOR.fields_by_name[field].number
    if number > _NUMBER_MAX:
        raise ValueError(f"the tag of {field} is longer than a byte")
    return bytes([number << 3 | _LENGTH_DELIMITED])


def part(tag: bytes, data: bytes) -> bytes:
    """A field with these bytes in it. A text or bytes that are empty are left out by the library; a message is not."""
    size = len(data)
    return tag + (_LENGTHS[size] if size < len(_LENGTHS) else _length(size)) + data


def _length(size: int) -> bytes:
    """A base 128 varint."""
    groups = bytearray()
    while size >= 0x80:
        groups.append(size & 0x7F | 0x80)
        size >>= 7
    groups.append(size)
    return bytes(groups)


_LENGTHS = [_length(size) for size in range(1024)]  # nearly all there are
