"""The form of an API key: `lk_live_`, 30 base62 digits of chance (178 bits), 6 base62 digits of checksum.

The checksum (CRC-32 of everything before it) is no secret: it lets a gateway refuse junk and mistyped keys without
asking anybody, and lets scanners tell a leaked key from a look-alike, as GitHub's tokens do. Pure; no I/O.
"""

import re
from zlib import crc32

from contracts.codes import ALPHABET

PREFIX = "lk_live_"
BODY_LENGTH = 30
CHECKSUM_LENGTH = 6  # 62^6 is above 2^32
_BODY = re.compile(rf"[0-9A-Za-z]{{{BODY_LENGTH}}}")
_KEY = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{BODY_LENGTH + CHECKSUM_LENGTH}}}")


def format_key(body: str) -> str:
    """The key of a random body of 30 base62 digits.

    Raises:
        ValueError: the body has another shape.
    """
    if not _BODY.fullmatch(body):
        raise ValueError(f"a key's body is {BODY_LENGTH} letters and digits")
    return PREFIX + body + _checksum(PREFIX + body)


def is_well_formed(key: str) -> bool:
    """Whether a text has the shape of a key and its checksum fits; says nothing of whether the key exists."""
    return _KEY.fullmatch(key) is not None and key.endswith(_checksum(key[:-CHECKSUM_LENGTH]))


def _checksum(text: str) -> str:
    value = crc32(text.encode())
    digits = []
    for _ in range(CHECKSUM_LENGTH):
        value, digit = divmod(value, len(ALPHABET))
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))
