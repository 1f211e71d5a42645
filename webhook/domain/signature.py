"""Signatures as Standard Webhooks 1.0 defines them: HMAC-SHA256 over id, timestamp and body, symmetric, version v1."""

import hmac
from base64 import b64decode, b64encode
from datetime import datetime
from hashlib import sha256

SECRET_PREFIX = "whsec_"  # noqa: S105 (the prefix that tells a secret)
SECRET_BYTES = 24


def secret_of(entropy: bytes) -> str:
    """The signing secret made of 24 random bytes."""
    assert len(entropy) == SECRET_BYTES
    return SECRET_PREFIX + b64encode(entropy).decode()


def signed_headers(secret: str, *, message_id: str, at: datetime, body: str) -> dict[str, str]:
    """The three headers that let a receiver verify a message. `at` is when it is sent: receivers refuse old ones."""
    timestamp = str(int(at.timestamp()))
    content = f"{message_id}.{timestamp}.{body}".encode()
    digest = hmac.digest(b64decode(secret.removeprefix(SECRET_PREFIX)), content, sha256)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{b64encode(digest).decode()}",
    }
