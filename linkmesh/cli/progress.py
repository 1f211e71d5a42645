"""How what takes long looks: a bar on a terminal, elsewhere a line at most."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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


@contextmanager
def counted(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr if that is a terminal, nothing elsewhere; yields what is told how many more are done."""
    if not sys.stderr.isatty() or not total:
        yield lambda _count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)


@contextmanager
def counting(what: str) -> Iterator[Callable[[int], None]]:
    """As `counted`, where nobody knows how many there are."""
    if not sys.stderr.isatty():
        yield lambda _count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=None)
        yield lambda count: progress.advance(task, count)
