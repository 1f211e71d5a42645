"""Signed checkpoints: C2SP tlog-checkpoint in a C2SP signed-note with one Ed25519 signature (RFC 8032).

A checkpoint is three lines (origin, size, root), an empty line, and `— <key name> base64(key id || signature)`. The key
name is the origin, so that one key may sign many logs and each log still has a key of its own.
"""

import binascii
from base64 import b64decode, b64encode
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_ED25519 = b"\x01"  # signature type of a signed note
_KEY_ID_BYTES = 4
_NOTE_CHARS_MAX = 64_000


class NotSignedError(ValueError):
    """A note is malformed, or has no valid signature of the key it was checked with."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head: how many leaves, and their root."""

    origin: str
    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Verifier:
    """Who may sign: a name and an Ed25519 public key of 32 bytes."""

    name: str
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """The first 4 bytes of SHA-256(name, newline, type, public key)."""
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.public_key).digest()[:_KEY_ID_BYTES]

    def __str__(self) -> str:
        """The verifier key in the notes' own form: <name>+<hex key id>+<base64 of type and key>."""
        return f"{self.name}+{self.key_id.hex()}+{b64encode(_ED25519 + self.public_key).decode()}"


class Signer:
    """Signs checkpoints of one origin. The seed stays inside and is never shown."""

    def __init__(self, origin: str, seed: bytes) -> None:
        if not origin or "+" in origin or any(char.isspace() for char in origin):
            raise ValueError("an origin has at least one character, no spaces and no plus")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.verifier = Verifier(origin, self._key.public_key().public_bytes_raw())

    def sign(self, size: int, root: bytes) -> bytes:
        """The signed checkpoint of a tree; the same every time (Ed25519 is deterministic)."""
        return self.sign_note(f"{self.verifier.name}\n{size}\n{b64encode(root).decode()}\n")

    def sign_note(self, text: str) -> bytes:
        """A note of any text that ends in a newline."""
        signature = b64encode(self.verifier.key_id + self._key.sign(text.encode())).decode()
        return f"{text}\n— {self.verifier.name} {signature}\n".encode()


def open_checkpoint(note: bytes, verifier: Verifier) -> Checkpoint:
    """The checkpoint in a note, once a signature of its origin has proved it.

    Raises:
        NotSignedError: no checkpoint of that origin, or not signed by its key.
    """
    return _parse(open_note(note, verifier), verifier.name)


def open_note(note: bytes, verifier: Verifier) -> str:
    """The text of a note, once a signature of this verifier has proved it. Other keys' signatures are ignored.

    Raises:
        NotSignedError: malformed, not signed by that key, or a signature of that key is wrong.
    """
    try:
        text, _, signatures = note[:_NOTE_CHARS_MAX].decode().rpartition("\n\n")
    except UnicodeDecodeError as exc:
        raise NotSignedError("the note is not UTF-8") from exc
    text += "\n"
    if not signatures.endswith("\n") or any(char < " " and char != "\n" for char in text + signatures):
        raise NotSignedError("the note is not in the form of a signed note")
    proved = False
    for line in signatures.removesuffix("\n").split("\n"):
        key_id, signature = _signature(line, verifier.name)
        if key_id == verifier.key_id:
            _check(verifier, signature, text.encode())
            proved = True
    if not proved:
        raise NotSignedError(f"the note is not signed by {verifier.name}")
    return text


def _signature(line: str, name: str) -> tuple[bytes, bytes]:
    """Key id and signature of a signature line; empty if it is another name's."""
    dash, _, rest = line.partition(" ")
    signed_by, _, encoded = rest.partition(" ")
    if dash != "—" or not encoded:
        raise NotSignedError("a signature line is malformed")
    if signed_by != name:
        return b"", b""
    data = _decode(encoded)
    return data[:_KEY_ID_BYTES], data[_KEY_ID_BYTES:]


def _check(verifier: Verifier, signature: bytes, text: bytes) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(verifier.public_key).verify(signature, text)
    except InvalidSignature as exc:
        raise NotSignedError(f"the signature of {verifier.name} is wrong") from exc


def _parse(text: str, origin: str) -> Checkpoint:
    lines = text.removesuffix("\n").split("\n")
    if len(lines) < 3 or lines[0] != origin or not lines[1].isascii() or not lines[1].isdigit():
        raise NotSignedError("the note is not a checkpoint of this log")
    if lines[1] != str(int(lines[1])):
        raise NotSignedError("the size has leading zeroes")
    return Checkpoint(lines[0], int(lines[1]), _decode(lines[2]))


def _decode(text: str) -> bytes:
    """Bytes of their one base64 form: bits that a lenient decoder drops could hide a change."""
    try:
        data = b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise NotSignedError("a signature or root is not base64") from exc
    if b64encode(data).decode() != text:
        raise NotSignedError("a signature or root is not in its one base64 form")
    return data
