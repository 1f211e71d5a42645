"""The secrets of a local system, as files only their owner may read; services are told the paths."""

import os
import secrets
from pathlib import Path

_KEY_BYTES = 32
# Kept with the data: codes, visitor hashes, API keys and signatures of earlier runs depend on them.
_LASTING = ("code_key", "visitor_key", "api_key_pepper", "audit_signing_key")
_PER_START = ("mesh_secret",)


def make_secrets(folder: Path) -> dict[str, str]:
    """Create what is missing and a new mesh secret; return the settings (LINKMESH_*_FILE) that name the files."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    paths = {name: folder / name.replace("_", "-") for name in (*_LASTING, *_PER_START)}
    for name, path in paths.items():
        if name in _PER_START or not path.exists():
            write_private(path, secrets.token_hex(_KEY_BYTES) + "\n")
    return {f"LINKMESH_{name.upper()}_FILE": str(path) for name, path in paths.items()}


def write_private(path: Path, text: str) -> None:
    """Replace a file by one only its owner may read."""
    temporary = path.with_name(f".{path.name}.tmp")  # whole or not at all: half a key would lock out the data
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
