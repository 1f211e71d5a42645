"""How fetching the engines looks: a bar on a terminal, a line at the start and end elsewhere."""

import sys
import threading
import time

from linkmesh.cli.terminal import note

_SHOW_EACH_S = 0.2


class Bar:
    """Implements linkmesh.local.cache.Progress."""

    def __init__(self) -> None:
        self._name = ""
        self._expected = 1
        self._count = 0
        self._began = self._shown = 0.0
        self._lock = threading.Lock()

    def begin(self, name: str, megabytes: int) -> None:
        """Announce what is fetched; it is checked and kept, so this happens once."""
        self._name, self._expected, self._count = name, megabytes * 1_000_000, 0
        self._began = self._shown = time.monotonic()
        if not sys.stderr.isatty():
            note(f"fetching {name}, about {megabytes} MB")

    def advance(self, count: int) -> None:
        """Redraw the bar, a few times a second."""
        with self._lock:
            self._count += count
            now = time.monotonic()
            if sys.stderr.isatty() and now - self._shown > _SHOW_EACH_S:
                self._shown = now
                share = min(1.0, self._count / self._expected)
                filled = "#" * int(30 * share)
                sys.stderr.write(f"\rfetching {self._name} [{filled:30}] {self._count / 1e6:5.1f} MB ")
                sys.stderr.flush()

    def end(self) -> None:
        """Say what came."""
        seconds = time.monotonic() - self._began
        clear = "\r\x1b[K" if sys.stderr.isatty() else ""
        note(f"{clear}fetched {self._name}: {self._count / 1e6:.1f} MB in {seconds:.1f} s, checksums good")
