"""The code space: which short codes exist, who may choose them, and how ids become codes.

A generated code is exactly seven base62 digits: the image of an id under a keyed permutation of 0 … 62^7 - 1, so that
codes are unique by construction and tell nothing of their order. The permutation is an alternating Feistel network over
Z_a x Z_b (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002) with keyed BLAKE2b rounds and cycle
walking. It hides volume; it is no access control.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
GENERATED_LENGTH = 7
SPACE = 62**GENERATED_LENGTH
ID_BLOCK = 1 << 20
NEVER_ISSUED_MARGIN = 1 << 30  # L5: ids so far beyond the known mark cannot have been leased since it was read

_PAIRS = [left + right for left in ALPHABET for right in ALPHABET]
_DIGIT_OF = {character: value for value, character in enumerate(ALPHABET)}
_GENERATED = re.compile(r"[0-9A-Za-z]{7}")
_CUSTOM = re.compile(r"[A-Za-z0-9_-]{3,64}")
_ROUNDS = 8
_A = 1_876_597  # a * b is just above 62^7, so that cycle walking almost never takes a second step
_B = 1_876_597

# First segments of paths that are ours, and names that browsers and crawlers ask for.
RESERVED = frozenset(
    {
        "admin", "api", "assets", "audit", "console", "docs", "favicon", "graphql", "health", "healthz", "help",
        "index", "livez", "login", "logout", "metrics", "openapi", "readyz", "redoc", "robots", "security", "signup",
        "sitemap", "static", "status", "well-known",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CodePermutation:
    """The bijection between ids and generated codes under one 32-byte key. Permanent: codes are on paper."""

    key: bytes

    def code_of(self, number: int) -> str:
        """The code of an id in 0 … 62^7 - 1.

        Raises:
            ValueError: the id is outside.
        """
        if not 0 <= number < SPACE:
            raise ValueError("the id is outside of the code space")
        value = self._forward(number)
        while value >= SPACE:
            value = self._forward(value)
        return to_base62(value)

    def number_of(self, code: str) -> int:
        """The id of a generated code.

        Raises:
            ValueError: the code does not have the shape of a generated one.
        """
        if not is_generated_shape(code):
            raise ValueError("not the shape of a generated code")
        value = self._backward(from_base62(code))
        while value >= SPACE:
            value = self._backward(value)
        return value

    def _forward(self, value: int) -> int:
        left, right = divmod(value, _B)
        for first, second in _keyed(self.key):
            left = (left + _round(first, right)) % _A
            right = (right + _round(second, left)) % _B
        return left * _B + right

    def _backward(self, value: int) -> int:
        left, right = divmod(value, _B)
        for first, second in reversed(_keyed(self.key)):
            right = (right - _round(second, left)) % _B
            left = (left - _round(first, right)) % _A
        return left * _B + right


def _round(keyed: "blake2b", half: int) -> int:
    digest = keyed.copy()  # half of what keying it anew costs
    digest.update(half.to_bytes(8, "big"))
    return int.from_bytes(digest.digest(), "big")


@lru_cache(maxsize=4)
def _keyed(key: bytes) -> "tuple[tuple[blake2b, blake2b], ...]":
    """The hash of each round, with its key and salt and nothing else yet; two rounds at a time."""
    rounds = [blake2b(digest_size=8, key=key, salt=index.to_bytes(1, "big")) for index in range(_ROUNDS)]
    return tuple(zip(rounds[::2], rounds[1::2], strict=True))


def to_base62(value: int) -> str:
    """Seven base62 digits of a value in 0 … 62^7 - 1."""
    value, last = divmod(value, 3844)  # two digits at a time
    value, middle = divmod(value, 3844)
    first, second = divmod(value, 3844)
    return ALPHABET[first] + _PAIRS[second] + _PAIRS[middle] + _PAIRS[last]


def from_base62(code: str) -> int:
    """The value of base62 digits."""
    value = 0
    for character in code:
        value = value * 62 + _DIGIT_OF[character]
    return value


def is_generated_shape(code: str) -> bool:
    """Whether a code has the shape that belongs to generated codes."""
    return _GENERATED.fullmatch(code) is not None


def is_possible_code(code: str) -> bool:
    """Whether a code can exist at all; anything else is 404 without looking."""
    return _CUSTOM.fullmatch(code) is not None


def custom_code_problem(code: str) -> str | None:
    """Why a wanted code is not allowed, as a sentence; None if it is."""
    if not _CUSTOM.fullmatch(code):
        return "A custom code has 3 to 64 letters, digits, '-' or '_'."
    if is_generated_shape(code):
        return "Exactly 7 letters and digits is the shape of generated codes; choose another length or use '-' or '_'."
    if code.casefold() in RESERVED:
        return "This code is reserved."
    return None
