"""Secrets: made once, whole, and for their owner only; the mesh secret anew for each start."""

from pathlib import Path

from chassis.config import read_key
from linkmesh.local.secret_files import make_secrets, write_private


def test_lasting_keys_stay_and_the_mesh_secret_changes(tmp_path: Path) -> None:
    """Codes, visitor hashes, API keys and signatures of earlier starts depend on keys that never change."""
    first = {name: Path(path).read_text() for name, path in make_secrets(tmp_path / "s").items()}
    second = {name: Path(path).read_text() for name, path in make_secrets(tmp_path / "s").items()}

    changed = {name for name in first if first[name] != second[name]}
    assert changed == {"LINKMESH_MESH_SECRET_FILE"}
    assert set(first) == {
        "LINKMESH_CODE_KEY_FILE",
        "LINKMESH_VISITOR_KEY_FILE",
        "LINKMESH_API_KEY_PEPPER_FILE",
        "LINKMESH_AUDIT_SIGNING_KEY_FILE",
        "LINKMESH_MESH_SECRET_FILE",
    }


def test_secrets_are_private_and_in_the_form_services_read(tmp_path: Path) -> None:
    """Each file is 0600 in a folder of 0700 and holds 32 bytes in hex; all differ."""
    paths = [Path(path) for path in make_secrets(tmp_path / "s").values()]

    keys = {read_key(path, length=32) for path in paths}

    assert len(keys) == len(paths)
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o600}
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700


def test_a_private_file_replaces_a_public_one(tmp_path: Path) -> None:
    """Whatever the file's mode was before, afterwards only its owner reads it."""
    path = tmp_path / "dev.json"
    path.write_text("old")
    path.chmod(0o644)

    write_private(path, "new")

    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", 0o600)
