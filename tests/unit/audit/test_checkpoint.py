"""Signed notes and checkpoints, against the example that the format's first implementation publishes."""

from base64 import b64decode

import pytest

from audit.domain.checkpoint import Checkpoint, NotSignedError, Signer, Verifier, open_checkpoint, open_note

# The documented example of Go's golang.org/x/mod/sumdb/note: a public test key, which protects nothing.
_NAME = "PeterNeumann"
_SEED = b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
_VERIFIER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
_SIGNATURE = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
_NOTE = f"{_TEXT}\n— {_NAME} {_SIGNATURE}\n".encode()

_ORIGIN = "log.example/audit/links-events/3"
_SIGNER = Signer(_ORIGIN, bytes(range(32)))
_ROOT = bytes(range(32, 64))


@pytest.mark.rule("B3")
def test_notes_are_those_of_the_format() -> None:
    """The published key, text and signature come out of our signer, and its note opens."""
    signer = Signer(_NAME, _SEED)

    assert str(signer.verifier) == _VERIFIER
    assert signer.sign_note(_TEXT) == _NOTE
    assert open_note(_NOTE, signer.verifier) == _TEXT


@pytest.mark.rule("B3")
def test_checkpoint_says_origin_size_and_root() -> None:
    """A signed checkpoint has the three lines of the format, and opens to what was signed."""
    note = _SIGNER.sign(1234, _ROOT)

    assert note.decode().split("\n\n")[0] == f"{_ORIGIN}\n1234\nICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="
    assert open_checkpoint(note, _SIGNER.verifier) == Checkpoint(_ORIGIN, 1234, _ROOT)
    assert _SIGNER.sign(1234, _ROOT) == note


def test_signatures_of_others_are_ignored() -> None:
    """A witness may sign, too, before or after us, even under our name with another key."""
    text, _, line = _SIGNER.sign(7, _ROOT).decode().partition("\n\n")
    other = Signer(_ORIGIN, bytes(32)).sign_note(f"{text}\n").decode().partition("\n\n")[2]
    witness = Signer("witness.example", bytes(32)).sign_note(f"{text}\n").decode().partition("\n\n")[2]

    for lines in (line + witness, witness + line, other + line):
        assert open_checkpoint(f"{text}\n\n{lines}".encode(), _SIGNER.verifier).size == 7
    for lines in (witness, other, ""):
        with pytest.raises(NotSignedError):
            open_checkpoint(f"{text}\n\n{lines}".encode(), _SIGNER.verifier)


@pytest.mark.parametrize(
    "text",
    [
        "another.example/log\n7\nAAAA\n",
        f"{_ORIGIN}\n07\nAAAA\n",
        f"{_ORIGIN}\n-7\nAAAA\n",
        f"{_ORIGIN}\n7\n***\n",
        f"{_ORIGIN}\n7\n",
    ],
)
def test_signed_text_that_is_no_checkpoint_is_refused(text: str) -> None:
    """A valid signature does not make a checkpoint of another text."""
    with pytest.raises(NotSignedError):
        open_checkpoint(_SIGNER.sign_note(text), _SIGNER.verifier)


def test_any_changed_byte_is_refused() -> None:
    """No byte of a note can be changed."""
    note = _SIGNER.sign(7, _ROOT)
    for at in range(len(note)):
        changed = note[:at] + bytes([note[at] ^ 1]) + note[at + 1 :]
        with pytest.raises(NotSignedError):
            open_checkpoint(changed, _SIGNER.verifier)


@pytest.mark.parametrize("origin", ["", "a b", "a+b", "a\nb"])
def test_origins_that_no_note_can_carry_are_refused(origin: str) -> None:
    """A key name has no spaces and no plus."""
    with pytest.raises(ValueError, match="origin"):
        Signer(origin, bytes(32))


def test_verifier_key_is_public() -> None:
    """Name, id and public key make the verifier key; nothing of the seed is in it."""
    verifier = Verifier(_ORIGIN, _SIGNER.verifier.public_key)

    assert verifier == _SIGNER.verifier
    assert str(verifier).startswith(f"{_ORIGIN}+{verifier.key_id.hex()}+")
