"""Folders of spools: one lock each, which tells the living from the dead, and nothing that stays behind."""

import errno
import resource
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chassis.clock import uuid7
from gateway.adapters.spool_files import Budget, Folder, abandoned

AT = datetime(2026, 1, 1, tzinfo=UTC)
NOW_MS = int(AT.timestamp() * 1000)
NAME = uuid7(AT)


@pytest.mark.rule("S1")
def test_a_folder_is_its_process_as_long_as_it_lives(tmp_path: Path) -> None:
    """Nobody gets the lock of a folder that is in use, however often it is tried; of one that was left, one does."""
    folder = Folder.create(tmp_path, NAME)
    folder.allocate(4096).map.close()

    assert Folder.claim(tmp_path / NAME) is None
    assert abandoned(tmp_path, NOW_MS) == []

    folder.leave()
    (claimed,) = abandoned(tmp_path, NOW_MS)
    assert abandoned(tmp_path, NOW_MS) == []
    assert len(claimed.segments()) == 1

    for segment in claimed.segments():
        segment.unlink()
    claimed.leave()
    assert list(tmp_path.iterdir()) == []
    assert Folder.claim(tmp_path / NAME) is None


def test_a_folder_that_is_being_made_is_left_alone(tmp_path: Path) -> None:
    """Before it is locked it is hidden; one that stays so for a minute belonged to a process that died, and goes."""
    (tmp_path / f".{NAME}").mkdir()
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "notes").write_text("not ours")

    assert abandoned(tmp_path, NOW_MS + 1000) == []
    (half,) = abandoned(tmp_path, NOW_MS + 61_000)
    half.leave()

    assert sorted(path.name for path in tmp_path.iterdir()) == ["lost+found", "notes"]


@pytest.mark.rule("S1")
def test_a_folder_that_cannot_be_looked_into_keeps_nobody_from_the_others(tmp_path: Path) -> None:
    """Those before and behind it are found, and are as free as before once they were left."""
    names = [uuid7(AT + timedelta(seconds=number)) for number in (1, 2, 3)]
    for name in (names[0], names[2]):
        folder = Folder.create(tmp_path, name)
        folder.allocate(4096).map.close()
        folder.leave()
    (tmp_path / names[1] / "lock").mkdir(parents=True)  # no file, so it cannot be opened

    for _ in range(2):
        found = abandoned(tmp_path, NOW_MS)
        assert [folder.path.name for folder in found] == [names[0], names[2]]
        for folder in found:
            folder.leave()


def test_the_oldest_come_first(tmp_path: Path) -> None:
    """In the order of their starts."""
    names = [uuid7(AT + timedelta(seconds=number)) for number in (3, 1, 2)]
    for name in names:
        folder = Folder.create(tmp_path, name)
        folder.allocate(4096).map.close()
        folder.leave()

    found = abandoned(tmp_path, NOW_MS)

    assert [folder.path.name for folder in found] == sorted(names)
    for folder in found:
        folder.leave()


def test_clicks_are_for_nobody_elses_eyes(tmp_path: Path) -> None:
    """Who came from where is readable by the process' own user only."""
    folder = Folder.create(tmp_path / "root", NAME)
    segment = folder.allocate(4096)
    segment.map.close()

    assert [path.stat().st_mode & 0o077 for path in (tmp_path / "root", folder.path, segment.path)] == [0, 0, 0]
    folder.leave()


@pytest.mark.rule("S2", "S6")
def test_a_segment_that_there_is_no_room_for_leaves_nothing(tmp_path: Path) -> None:
    """The system refuses the blocks before anything is written: an error, not a signal, and the file is gone again."""
    folder = Folder.create(tmp_path, NAME)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            folder.allocate(8192)
        folder.allocate(4096).map.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert len(folder.segments()) == 1
    folder.leave()


_TRUNCATED = """
import mmap, os, sys
from gateway.adapters.spool_files import _populate
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.ftruncate(file, 65536)
mapped = mmap.mmap(file, 65536)
os.ftruncate(file, 0)
try:
    _populate(mapped)
except OSError as error:
    print(error.errno)
"""


@pytest.mark.rule("S2", "S6")
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere pages are made by writing to them")
def test_pages_that_are_not_to_be_had_are_an_error_and_no_signal(tmp_path: Path) -> None:
    """A file system may have promised blocks that it does not have; asked for a page it says so, and nobody writes."""
    process = [sys.executable, "-c", _TRUNCATED, str(tmp_path / "file")]
    told = subprocess.run(process, capture_output=True, text=True, timeout=60, check=False)

    assert (told.returncode, told.stdout.strip()) == (0, str(errno.EFAULT))


@pytest.mark.rule("S2")
@pytest.mark.skipif(not hasattr(resource, "RUSAGE_THREAD"), reason="only Linux counts by thread")
def test_a_segment_is_written_without_a_page_fault(tmp_path: Path) -> None:
    """All its pages are there when it is handed out: filling 256 of them waits for the kernel a few times at most."""
    folder = Folder.create(tmp_path, NAME)
    segment = folder.allocate(1 << 20)
    page = b"x" * 4096

    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for at in range(0, segment.size, len(page)):
        segment.map[at : at + len(page)] = page
    faults = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before

    assert faults < 64
    segment.map.close()
    segment.path.unlink()
    folder.leave()


@pytest.mark.rule("S6")
def test_a_budget_is_kept_and_given_back() -> None:
    """Never more than there is, but for what is used already."""
    budget = Budget(100)

    assert [budget.take(60), budget.take(60), budget.take(40), budget.take(1)] == [True, False, True, False]
    budget.give(60)
    assert budget.take(500, anyway=True)
    assert (budget.used, budget.take(1)) == (540, False)
