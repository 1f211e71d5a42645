"""What LogStorage promises, on the fake and on a real directory."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from pathlib import Path

import pytest

from audit.adapters.log_storage_files import FileLogStorage
from audit.domain.tiles import LogName, Resource
from audit.ports import LogStoppedError, LogStorage
from chassis.errors import Unavailable
from tests.fakes.audit_ports import Disk, FakeLogStorage

LOG = LogName("links-events/3")
Check = Callable[[LogStorage, LogStorage], Coroutine[None, None, None]]
Run = Callable[[Check], None]


@pytest.fixture(params=["fake", "files"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Runs a check with two storages on one place, as two processes have them."""
    if request.param == "fake":
        disk = Disk()
        return lambda check: asyncio.run(check(FakeLogStorage(disk), FakeLogStorage(disk)))

    def run_on_files(check: Check) -> None:
        with FileLogStorage(tmp_path / "logs") as one, FileLogStorage(tmp_path / "logs") as other:
            asyncio.run(check(one, other))

    return run_on_files


def test_nothing_is_there_at_first(run: Run) -> None:
    """What was never written is None or empty, whatever its path looks like."""

    async def check(storage: LogStorage, _: LogStorage) -> None:
        for _turn in range(2):
            assert await storage.read(LOG, "checkpoint") is None
            assert await storage.read(LOG, "tile/0/000") is None
            assert await storage.names(LOG, "tile/entries/000.p") == []
            await storage.forget(LOG, ["tile/0/000.p"])
            await storage.acquire()

    run(check)


@pytest.mark.rule("B3")
def test_resources_are_written_once_and_never_changed(run: Run) -> None:
    """The same content again is fine; another content stops the log, and what is there stays."""

    async def check(storage: LogStorage, other: LogStorage) -> None:
        await storage.acquire()
        first, second = Resource("tile/entries/000.p/1", b"one"), Resource("tile/entries/000.p/2", b"two")
        await storage.write(LOG, [first, second])
        await storage.write(LOG, [first, second])
        with pytest.raises(LogStoppedError, match=r"links-events/3: tile/entries/000.p/2"):
            await storage.write(LOG, [Resource(second.path, b"other")])
        assert await other.read(LOG, first.path) == b"one"
        assert await other.read(LOG, second.path) == b"two"
        assert sorted(await storage.names(LOG, "tile/entries/000.p")) == ["1", "2"]
        assert await storage.read(LogName("links-events/4"), first.path) is None

    run(check)


@pytest.mark.rule("B3")
def test_resources_before_the_one_that_fails_are_there(run: Run) -> None:
    """Resources are written in order, so that what is there is always a beginning of what was to be written."""

    async def check(storage: LogStorage, _: LogStorage) -> None:
        await storage.acquire()
        await storage.write(LOG, [Resource("b", b"b")])
        with pytest.raises(LogStoppedError):
            await storage.write(LOG, [Resource("a", b"a"), Resource("b", b"other"), Resource("c", b"c")])
        assert [await storage.read(LOG, path) for path in "abc"] == [b"a", b"b", None]

    run(check)


@pytest.mark.rule("B3")
def test_checkpoint_is_replaced_only_where_the_expected_one_stands(run: Run) -> None:
    """A process that lost sight of the log cannot turn it back."""

    async def check(storage: LogStorage, other: LogStorage) -> None:
        await storage.acquire()
        await storage.replace_checkpoint(LOG, None, b"1")
        await storage.replace_checkpoint(LOG, None, b"1")  # a repeat
        await storage.replace_checkpoint(LOG, b"1", b"2")
        for expected in (None, b"1"):
            with pytest.raises(LogStoppedError):
                await storage.replace_checkpoint(LOG, expected, b"3")
        assert await other.read(LOG, "checkpoint") == b"2"

    run(check)


def test_forgotten_folders_are_gone(run: Run) -> None:
    """Partial tiles go when they are told to, and nothing else does."""

    async def check(storage: LogStorage, _: LogStorage) -> None:
        await storage.acquire()
        paths = ["tile/0/000", "tile/0/000.p/5", "tile/0/001.p/5"]
        await storage.write(LOG, [Resource(path, b"x") for path in paths])
        await storage.forget(LOG, ["tile/0/000.p"])
        assert [await storage.read(LOG, path) for path in paths] == [b"x", None, b"x"]

    run(check)


@pytest.mark.rule("B2")
def test_one_process_writes(run: Run) -> None:
    """While one process holds the place another can read, cannot take it, and cannot write."""

    async def check(storage: LogStorage, other: LogStorage) -> None:
        await storage.acquire()
        await storage.acquire()
        await storage.write(LOG, [Resource("a", b"a")])
        with pytest.raises(Unavailable, match="Another process"):
            await other.acquire()
        with pytest.raises(Unavailable):
            await other.write(LOG, [Resource("b", b"b")])
        with pytest.raises(Unavailable):
            await other.replace_checkpoint(LOG, None, b"1")
        assert await other.read(LOG, "a") == b"a"

    run(check)


@pytest.mark.rule("B2")
def test_directory_is_free_when_its_process_has_gone(tmp_path: Path) -> None:
    """The lock goes with its holder, and what a killed one left half written is cleared away."""
    with FileLogStorage(tmp_path) as first:
        asyncio.run(first.acquire())
        (tmp_path / ".tmp" / "torn").write_bytes(b"half a ti")

    with FileLogStorage(tmp_path) as second:
        asyncio.run(second.acquire())
        asyncio.run(second.write(LOG, [Resource("tile/0/000.p/1", b"x" * 32)]))

    assert list((tmp_path / ".tmp").iterdir()) == []
    assert (tmp_path / LOG / "tile/0/000.p/1").read_bytes() == b"x" * 32


def test_directory_that_cannot_be_used_is_a_dependency_away(tmp_path: Path) -> None:
    """A disk's errors are not a record's fault: the consumer pauses, and goes on when the disk is back."""
    (tmp_path / "file").write_bytes(b"")

    with ExitStack() as stack:
        storage = stack.enter_context(FileLogStorage(tmp_path / "file" / "logs"))
        with pytest.raises(Unavailable, match="cannot be used"):
            asyncio.run(storage.acquire())


def test_disk_that_hangs_is_given_up_on_and_never_overtaken(tmp_path: Path) -> None:
    """A call on a hanging disk ends at its deadline; what it still does later comes before what is asked next."""
    folder = tmp_path / LOG
    folder.mkdir(parents=True)
    os.mkfifo(folder / "slow")  # reading it blocks until somebody writes

    async def check(storage: FileLogStorage) -> None:
        await storage.acquire()
        with pytest.raises(Unavailable, match="does not answer"):
            # There is a file in its place, so its content is compared: that is the read that hangs.
            await storage.write(LOG, [Resource("slow", b"x"), Resource("late", b"old")])
        release = os.open(folder / "slow", os.O_WRONLY)
        os.write(release, b"x")
        os.close(release)
        await storage.write(LOG, [Resource("late", b"old")])

    with FileLogStorage(tmp_path, timeout_s=0.3) as storage:
        asyncio.run(check(storage))

    assert (folder / "late").read_bytes() == b"old"
