"""Checks that no file of the project names a package registry: installers and mirrors are the user's own choice.

python tools/hosts.py    exit 1 and name each line that does
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Written so that this file does not match itself.
_HOSTS = re.compile(
    r"pypi[.]org|pythonhosted[.]org|maven[.]org|maven[.]apache[.]org/maven2|npmjs[.](?:org|com)|crates[.]io"
    r"|golang[.]org/dl|proxy[.]golang|deb[.]debian[.]org|archive[.]ubuntu[.]com"
)


def main() -> int:
    """Returns 0 when no file of the repository names one, else 1."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout  # noqa: S607
    found = 0
    for name in filter(None, listed.decode().split("\0")):
        path = ROOT / name
        if not path.is_file():
            continue
        for number, line in enumerate(path.read_bytes().decode(errors="replace").splitlines(), 1):
            if match := _HOSTS.search(line):
                sys.stderr.write(f"{name}:{number}: names the registry host {match[0]}\n")
                found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
