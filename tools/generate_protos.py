"""Makes protos/gen from protos/shortener with the pinned protoc, or checks that it is current.

python tools/generate_protos.py           rewrite protos/gen
python tools/generate_protos.py --check   exit 1 and name the files that differ
"""

import filecmp
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "protos"
GENERATED = SOURCE / "gen"
PACKAGE_NOTE = '"""Generated from protos/shortener by `make protos`; edit the .proto files instead."""\n'


def main() -> int:
    """Returns 0 when protos/gen is (now) current, 1 when --check found a difference."""
    if "--check" not in sys.argv[1:]:
        shutil.rmtree(GENERATED, ignore_errors=True)
        generate(GENERATED)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        stale = differences(Path(scratch), GENERATED)
    for name in stale:
        sys.stderr.write(f"protos/gen/{name} is not what protos/ generates: run `make protos`\n")
    return 1 if stale else 0


def generate(target: Path) -> None:
    """Writes the Python modules, their type stubs and the packages' __init__ files below target."""
    scripts = Path(sys.executable).parent
    target.mkdir(parents=True, exist_ok=True)
    protos = sorted(str(path.relative_to(SOURCE)) for path in (SOURCE / "shortener").rglob("*.proto"))
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{SOURCE}"]
    command += [f"--plugin=protoc-gen-{name}={scripts / f'protoc-gen-{name}'}" for name in ("mypy", "mypy_grpc")]
    command += [f"--{kind}_out={target}" for kind in ("python", "grpc_python")]
    command += [f"--{kind}_out=quiet:{target}" for kind in ("mypy", "mypy_grpc")]
    subprocess.run([*command, *protos], check=True, cwd=ROOT)  # noqa: S603 (our own arguments)
    for folder in [target / "shortener", *(path for path in (target / "shortener").rglob("*") if path.is_dir())]:
        (folder / "__init__.py").write_text(PACKAGE_NOTE)


def differences(fresh: Path, committed: Path) -> list[str]:
    """Names, relative to protos/gen, of files that are missing, superfluous or other than the fresh ones."""
    names = {
        str(path.relative_to(root))
        for root in (fresh, committed)
        for path in root.rglob("*.py*")
        if "__pycache__" not in path.parts
    }
    return sorted(
        name
        for name in names
        if not ((fresh / name).exists() and (committed / name).exists())
        or not filecmp.cmp(fresh / name, committed / name, shallow=False)
    )


if __name__ == "__main__":
    sys.exit(main())
