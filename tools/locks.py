"""Makes the lock files in requirements/ from pyproject.toml, or checks that they are current and name no host.

    python tools/locks.py            resolve again, keeping the pins that still fit
    python tools/locks.py --upgrade  resolve to the newest versions
    python tools/locks.py --check    exit 1 and name the files that differ from what pyproject.toml asks for

One file per service, `local.txt` for `make run`, `dev.txt` for everything; `bootstrap.txt` is the installer alone and
`build.txt` what builds this package.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "requirements"
_UV = Path(sys.executable).with_name("uv")
_FLAGS = ("--generate-hashes", "--universal", "--no-header", "--no-annotate", "--quiet")


def main() -> int:
    """Returns 0 when the locks are (now) current, 1 when --check found a difference or a host in one."""
    checking = "--check" in sys.argv[1:]
    upgrade = ["--upgrade"] if "--upgrade" in sys.argv[1:] else []
    problems = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, source in sources().items():
            fresh = Path(scratch) / name
            if (LOCKS / name).exists():
                shutil.copy(LOCKS / name, fresh)  # its pins are kept as long as they fit
            resolve(source, fresh, upgrade, offline=checking)
            if "://" in fresh.read_text():
                problems.append(f"requirements/{name} names a host")
            if not checking:
                shutil.copy(fresh, LOCKS / name)
            elif not (LOCKS / name).exists() or fresh.read_bytes() != (LOCKS / name).read_bytes():
                problems.append(f"requirements/{name} is not what pyproject.toml asks for: run `make lock`")
    for problem in problems:
        sys.stderr.write(problem + "\n")
    return 1 if problems else 0


def sources() -> dict[str, list[str] | str]:
    """Each lock file with where it comes from: arguments that name an extra, or requirements as text."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    found: dict[str, list[str] | str] = {
        f"{extra.replace('-', '_')}.txt": ["pyproject.toml", "--extra", extra] for extra in extras
    }
    installer = next(line for line in extras["dev"] if re.match(r"uv\b", line))
    return found | {"bootstrap.txt": installer, "build.txt": "\n".join(project["build-system"]["requires"])}


def resolve(source: list[str] | str, target: Path, upgrade: list[str], *, offline: bool) -> None:
    """Writes a lock file. A check asks the installer's own cache first: with all pins known it needs no network."""
    given, text = (source, None) if isinstance(source, list) else (["-"], source)
    # What is no extra of ours still has to fit beside dev.txt: all are installed into one environment.
    fitting = [] if text is None else ["--constraint", str(LOCKS / "dev.txt"), "--python-version", "3.11"]
    command = [str(_UV), "pip", "compile", *given, *_FLAGS, *fitting, *upgrade, "--output-file", str(target)]
    tries = [[*command, "--offline"], command] if offline else [command]
    for attempt in tries:
        done = subprocess.run(attempt, cwd=ROOT, input=text, text=True, capture_output=True, check=False)  # noqa: S603
        if done.returncode == 0:
            return
    raise SystemExit(f"cannot resolve requirements/{target.name}:\n{done.stderr}")


if __name__ == "__main__":
    sys.exit(main())
