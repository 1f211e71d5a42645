"""Spools on a real disk: what is recorded is sent, in order, once for each life of its spool, whoever dies."""

import asyncio
import errno
import os
import resource
import shutil
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from gateway.adapters.click_spools import ClickSpools
from gateway.adapters.spool_files import Folder, SegmentFile
from gateway.domain.spool_format import RECORDS_AT, find_end, read_header
from gateway.domain.spools import SPOOL_AGE_MAX_MS, SpoolTotals
from tests.fakes.gateway_ports import FakeClock
from tests.fakes.spools import (
    TRACE,
    Log,
    Wanted,
    drain,
    kept,
    left_by_a_kill,
    numbers_in,
    open_spools,
    send,
    spooling,
    until,
)

_DAY_S = 86_400


def record(spools: ClickSpools, numbers: range, partition: int = 0) -> None:
    """Records these clicks."""
    assert [number for number in numbers if not spools.append(partition, kept(number), None)] == []


def counted(name: str) -> float:
    """What a metric stands at."""
    return REGISTRY.get_sample_value(name) or 0.0


def files_in(root: Path) -> list[Path]:
    """The files of all segments."""
    return list(root.glob("*/*.segment"))


def size_of(root: Path) -> int:
    """Their bytes."""
    return sum(path.stat().st_size for path in files_in(root))


def contents_of(root: Path) -> list[bytes]:
    """What stands in the segments that hold, or held, clicks."""
    return [path.read_bytes() for path in segments_in(root)]


def segments_in(root: Path) -> list[Path]:
    """The files of segments that hold, or held, clicks."""
    return [path for path in files_in(root) if read_header(path.read_bytes()[:RECORDS_AT]) is not None]


@pytest.mark.rule("S1", "S3")
def test_clicks_leave_in_order_under_dense_sequences(tmp_path: Path) -> None:
    """Each partition has one spool, numbered from 1, over as many segments as it takes; at the end nothing is left."""
    log = Log()

    async def scenario(spools: ClickSpools) -> None:
        for begin in range(0, 300, 50):
            record(spools, range(begin, begin + 50), 0)
            record(spools, range(begin, begin + 10), 1)
            send(spools, log)
            await asyncio.sleep(0)
        spools.close()
        await drain(spools, log, done=lambda: spools.empty)

    spooling(tmp_path, scenario)

    assert log.numbers(0) == list(range(300))
    assert [sequence for _, sequence, _ in log.clicks(0)] == list(range(1, 301))
    assert [sequence for _, sequence, _ in log.clicks(1)] == list(range(1, 61))
    ids = [{spool for spool, _, _ in log.clicks(partition)} for partition in (0, 1)]
    assert [len(found) for found in ids] == [1, 1]
    assert ids[0] != ids[1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.rule("S2", "P4")
def test_a_click_is_in_its_file_when_its_recording_returns(tmp_path: Path) -> None:
    """Not a turn of the loop later: whoever reads the file at that moment finds it, whole."""

    async def scenario(spools: ClickSpools) -> None:
        for number in range(60):
            assert spools.append(0, kept(number), None)
            ends = [find_end(data, read_header(data).first_sequence) for data in contents_of(tmp_path)]  # type: ignore[union-attr]
            assert max(end.last_sequence for end in ends) == number + 1
            assert not any(end.torn for end in ends)

    spooling(tmp_path, scenario)


@pytest.mark.rule("S1")
def test_what_a_killed_process_left_is_sent_first_and_never_gone_on_with(tmp_path: Path) -> None:
    """Every click that was recorded is found again under its spool and sequence, before the new ones of its partition;
    those have another spool, from 1; what was drained is removed."""
    image, log = tmp_path / "image", Log()

    async def die(spools: ClickSpools) -> None:
        record(spools, range(100))
        left_by_a_kill(tmp_path / "root", image)

    async def live(spools: ClickSpools) -> None:
        await until(lambda: spools.clicks() == 100)
        record(spools, range(100, 110))
        spools.close()
        await drain(spools, log, done=lambda: spools.empty)

    spooling(tmp_path / "root", die)
    spooling(image, live)

    assert log.numbers() == list(range(110))
    (old,) = {spool for spool, _, number in log.clicks() if number < 100}
    (new,) = {spool for spool, _, number in log.clicks() if number >= 100}
    assert old != new
    assert [sequence for _, sequence, number in log.clicks()] == [*range(1, 101), *range(1, 11)]
    assert [(spool, totals) for spool, totals in log.totals() if totals.closed] == [
        (old, SpoolTotals(100, 0, closed=True)),
        (new, SpoolTotals(10, 0, closed=True)),
    ]
    assert list(image.iterdir()) == []


@pytest.mark.rule("S3")
def test_sending_goes_on_at_the_mark(tmp_path: Path) -> None:
    """What the broker had acknowledged before the crash is not sent again, also if its segment is half through."""
    image, before, after = tmp_path / "image", Log(), Log()

    async def die(spools: ClickSpools) -> None:
        record(spools, range(70))
        send(spools, before)
        record(spools, range(70, 100))
        left_by_a_kill(tmp_path / "root", image)

    async def live(spools: ClickSpools) -> None:
        await until(lambda: spools.clicks() > 0)
        spools.close()
        await drain(spools, after, done=lambda: spools.empty)

    spooling(tmp_path / "root", die)
    spooling(image, live)

    sent = len(before.numbers())
    assert sent > 0
    assert after.clicks() == [(before.clicks()[0][0], number + 1, number) for number in range(sent, 100)]


@pytest.mark.rule("S3")
def test_what_is_not_acknowledged_comes_again(tmp_path: Path) -> None:
    """Of one partition there is one batch at a time, and it is the same until it is acknowledged."""

    async def scenario(spools: ClickSpools) -> None:
        record(spools, range(10))
        first, again = spools.shipments(), spools.shipments()
        assert [shipment.content for shipment in first] == [shipment.content for shipment in again]
        spools.acknowledge(first[0])
        assert spools.shipments() == []

    spooling(tmp_path, scenario)


@pytest.mark.rule("S1")
def test_the_spools_of_a_living_process_are_nobody_elses(tmp_path: Path) -> None:
    """Two gateways on one root: neither sends the other's clicks while it lives; when it has left some behind, they are
    sent by the one that stays."""
    clock = FakeClock()
    mine, log = Log(), Log()

    async def main() -> None:
        async with open_spools(tmp_path, Wanted(clock=clock)) as stays:
            async with open_spools(tmp_path, Wanted(clock=clock)) as goes:
                record(goes, range(20))
                clock.elapsed_s += 11
                record(stays, range(100, 105))
                await drain(stays, mine, done=lambda: len(mine.numbers()) >= 5)
                await asyncio.sleep(1.2)  # longer than it takes to look
                send(stays, mine)
                assert mine.numbers() == list(range(100, 105))
            clock.elapsed_s += 11
            await drain(stays, log, done=lambda: len(log.numbers()) == 20)

    asyncio.run(main())

    assert log.numbers() == list(range(20))


@pytest.mark.rule("S1")
def test_one_of_two_takes_what_a_dead_one_left(tmp_path: Path) -> None:
    """Two gateways that start together on one root: each click is sent by one of them, once."""
    image, logs = tmp_path / "image", [Log(), Log()]

    async def die(spools: ClickSpools) -> None:
        record(spools, range(50))
        left_by_a_kill(tmp_path / "root", image)

    async def main() -> None:
        async with open_spools(image) as one, open_spools(image) as other:
            await until(lambda: one.clicks() + other.clicks() == 50)
            for spools, log in zip((one, other), logs, strict=True):
                spools.close()
                await drain(spools, log, done=lambda spools=spools: spools.empty)  # type: ignore[misc]

    spooling(tmp_path / "root", die)
    asyncio.run(main())

    assert sorted(log.numbers() for log in logs) == [[], list(range(50))]


@pytest.mark.rule("S1")
def test_a_spool_is_followed_by_another_each_day(tmp_path: Path) -> None:
    """After 24 hours clicks go to a new spool from 1; the old one is sent to its end, and its totals are final."""
    clock, log = FakeClock(), Log()

    async def scenario(spools: ClickSpools) -> None:
        record(spools, range(3))
        live = spools._live[0]
        clock.elapsed_s += _DAY_S
        await until(lambda: spools._live[0] is not live)
        record(spools, range(3, 5))
        spools.close()
        await drain(spools, log, done=lambda: spools.empty)

    spooling(tmp_path, scenario, Wanted(clock=clock))

    assert [(sequence, number) for _, sequence, number in log.clicks()] == [(1, 0), (2, 1), (3, 2), (1, 3), (2, 4)]
    assert [totals for _, totals in log.totals()] == [SpoolTotals(3, 0, closed=True), SpoolTotals(2, 0, closed=True)]


@pytest.mark.rule("S1", "S6")
def test_a_spool_that_ends_half_full_leaves_no_claim_to_disk(tmp_path: Path) -> None:
    """What it had asked for is not made ready for ever after: days of rotation would use up the whole budget."""
    clock, log = FakeClock(), Log()

    async def scenario(spools: ClickSpools) -> None:
        taken = 0
        for day in range(1, 6):
            live = spools._live[0]
            while not live._asked:
                record(spools, range(taken, taken + 1))
                taken += 1
            clock.elapsed_s = day * (_DAY_S + 1)
            await until(lambda live=live: spools._live[0] is not live)  # type: ignore[misc]
            assert spools._stock._crowded == 0
            await drain(spools, log, done=lambda: spools.segments() == len(spools._live))
        await until(lambda: spools.bytes() == size_of(tmp_path))
        assert spools.bytes() <= (len(spools._live) + 4) * 4096

    spooling(tmp_path, scenario, Wanted(clock=clock))


@pytest.mark.rule("S2")
def test_no_click_is_written_where_the_disk_has_no_room_yet(tmp_path: Path) -> None:
    """Every segment has all its blocks before the first click, and the next one is there before this one is full."""

    async def scenario(spools: ClickSpools) -> None:
        await until(lambda: len(spools._stock._spares) >= 2)
        assert all(path.stat().st_blocks * 512 >= path.stat().st_size == 4096 for path in files_in(tmp_path))

        taken = 0
        while not spools._stock._crowded:
            record(spools, range(taken, taken + 1))
            taken += 1
        assert len(segments_in(tmp_path)) == 2  # the first of each partition; the successor is asked for, not used
        await until(lambda: len(spools._stock._spares) >= 3)

    spooling(tmp_path, scenario)


@pytest.mark.rule("S6")
def test_beyond_the_budget_clicks_are_dropped_and_counted(tmp_path: Path) -> None:
    """No more disk than allowed; what is dropped has no sequence, is told of, and stops when there is room again."""
    log, before = Log(), counted("clicks_dropped_total")

    async def scenario(spools: ClickSpools) -> None:
        taken = sum(spools.append(0, kept(number), None) for number in range(500))
        assert 0 < taken < 500
        assert spools.bytes() <= 16_384
        assert size_of(tmp_path) <= 16_384
        assert counted("clicks_dropped_total") - before == 500 - taken
        await drain(spools, log, done=lambda: len(log.numbers()) == taken)
        await until(lambda: spools.append(0, kept(999), None))
        spools.close()
        await drain(spools, log, done=lambda: spools.empty)

    spooling(tmp_path, scenario, Wanted(partitions=1, bytes_max=16_384))

    assert [sequence for _, sequence, _ in log.clicks()] == list(range(1, len(log.clicks()) + 1))
    assert log.numbers()[-1] == 999
    (final,) = [totals for _, totals in log.totals() if totals.closed]
    assert final.recorded == len(log.clicks())
    assert final.dropped == counted("clicks_dropped_total") - before


@pytest.mark.rule("S2", "S6")
@pytest.mark.parametrize("trouble", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_without_room_drops_clicks_and_ends_nothing(tmp_path: Path, trouble: int) -> None:
    """The disk gives no segment: clicks are dropped and counted; when it gives some again, they are recorded."""
    clock, log, refuses = FakeClock(), Log(), True

    def allocate(folder: Folder, size: int) -> SegmentFile:
        if refuses:
            raise OSError(trouble, "no")
        return folder.allocate(size)

    async def scenario(spools: ClickSpools) -> None:
        nonlocal refuses
        before = counted("clicks_dropped_total")
        assert not any(spools.append(0, kept(number), None) for number in range(5))
        assert counted("clicks_dropped_total") == before + 5
        refuses = False
        clock.elapsed_s += 2
        record(spools, range(5, 8))
        spools.close()
        await drain(spools, log, done=lambda: spools.empty)

    spooling(tmp_path, scenario, Wanted(partitions=1, clock=clock, allocate=allocate))

    assert [(sequence, number) for _, sequence, number in log.clicks()] == [(1, 5), (2, 6), (3, 7)]
    assert [totals for _, totals in log.totals()] == [SpoolTotals(3, 5, closed=True)]


@pytest.mark.rule("S5")
def test_spools_of_more_than_seven_days_are_not_sent(tmp_path: Path) -> None:
    """The counter has forgotten how far it was with them: they are counted as lost and removed."""
    image, log, clock = tmp_path / "image", Log(), FakeClock()

    async def die(spools: ClickSpools) -> None:
        record(spools, range(30))
        left_by_a_kill(tmp_path / "root", image)

    async def live(spools: ClickSpools) -> None:
        before = counted("clicks_outdated_total")
        await until(lambda: spools.clicks() == 30)
        spools.close()
        await drain(spools, log, done=lambda: spools.empty)
        assert log.shipments == []
        assert counted("clicks_outdated_total") == before + 30

    spooling(tmp_path / "root", die, Wanted(clock=clock))
    clock.elapsed_s = SPOOL_AGE_MAX_MS / 1000 + 1
    spooling(image, live, Wanted(clock=clock))

    assert list(image.iterdir()) == []


@pytest.mark.rule("S8")
def test_totals_are_told_now_and_then_and_at_the_end(tmp_path: Path) -> None:
    """While clicks come, after ten seconds and only if they have changed; when the spool is done with, once more."""
    clock, log = FakeClock(), Log()

    async def scenario(spools: ClickSpools) -> None:
        record(spools, range(3))
        send(spools, log)
        assert log.totals() == []
        for _ in range(3):
            clock.elapsed_s += 10
            send(spools, log)
        record(spools, range(3, 4))
        clock.elapsed_s += 10
        send(spools, log)
        spools.close()
        await drain(spools, log, done=lambda: spools.empty)

    spooling(tmp_path, scenario, Wanted(clock=clock))

    assert [totals for _, totals in log.totals(0)] == [
        SpoolTotals(3, 0, closed=False),
        SpoolTotals(4, 0, closed=False),
        SpoolTotals(4, 0, closed=True),
    ]
    assert log.totals(1) == []  # there is nothing in its books


@pytest.mark.rule("S8")
def test_drops_are_remembered_by_the_spool(tmp_path: Path) -> None:
    """How many clicks a process dropped is told by whoever drains its spools."""
    image, log = tmp_path / "image", Log()

    async def die(spools: ClickSpools) -> None:
        taken = sum(spools.append(0, kept(number), None) for number in range(200))
        assert taken < 200
        left_by_a_kill(tmp_path / "root", image)

    async def live(spools: ClickSpools) -> None:
        await until(lambda: spools.clicks() > 0)
        spools.close()
        await drain(spools, log, done=lambda: spools.empty)

    spooling(tmp_path / "root", die, Wanted(partitions=1, bytes_max=8192))
    spooling(image, live)

    recorded = len(log.numbers())
    assert [totals for _, totals in log.totals()] == [SpoolTotals(recorded, 200 - recorded, closed=True)]


def test_a_click_with_a_trace_travels_alone(tmp_path: Path) -> None:
    """It keeps its place in the order, and its trace; what is no traceparent is no reason to lose a click."""

    async def scenario(spools: ClickSpools) -> None:
        for number in range(4):
            assert spools.append(0, kept(number), TRACE if number == 2 else "nonsense" if number == 3 else None)
        found = [(numbers_in(each.content.clicks), each.content.traceparent) for each in spools.shipments()]  # type: ignore[union-attr]
        assert found == [([0, 1], None), ([2], TRACE), ([3], None)]

    spooling(tmp_path, scenario)


def test_files_go_when_they_are_acknowledged(tmp_path: Path) -> None:
    """A segment whose clicks are with the broker is removed, and its bytes may be used again."""
    log = Log()

    async def scenario(spools: ClickSpools) -> None:
        record(spools, range(400))
        many = len(segments_in(tmp_path))
        assert many > 5
        await drain(spools, log, done=lambda: not spools.clicks())
        await until(lambda: len(segments_in(tmp_path)) <= 2)
        await until(lambda: spools.bytes() == size_of(tmp_path))
        assert spools.segments() == 2

    spooling(tmp_path, scenario)

    assert log.numbers() == list(range(400))


@pytest.mark.rule("S2")
def test_damage_in_the_middle_is_a_gap_and_not_the_end(tmp_path: Path) -> None:
    """Of a damaged segment what stands before the damage is sent, then the next segment: the sequences jump, so that
    the counter sees it, and it is counted here."""
    image, log, before = tmp_path / "image", Log(), counted("spool_damages_total")

    async def die(spools: ClickSpools) -> None:
        record(spools, range(120))
        left_by_a_kill(tmp_path / "root", image)

    async def live(spools: ClickSpools) -> None:
        await until(lambda: spools.clicks() == 120)
        spools.close()
        await drain(spools, log, done=lambda: spools.empty)
        assert spools.clicks() == 0

    spooling(tmp_path / "root", die, Wanted(partitions=1))
    first = min(segments_in(image))
    with first.open("r+b") as file:
        file.seek(1000)
        file.write(b"\xff" * 8)
    spooling(image, live)

    sequences = [sequence for _, sequence, _ in log.clicks()]
    assert sequences == sorted(set(sequences))
    assert (sequences[0], sequences[-1]) == (1, 120)
    assert 20 < len(sequences) < 120
    assert counted("spool_damages_total") == before + 1


@pytest.mark.rule("S1", "P4")
def test_too_many_open_files_cost_no_click(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What a dead process left and cannot be opened at this moment is not given up, which would remove it: it is read
    later."""
    image, log, clock = tmp_path / "image", Log(), FakeClock()

    async def die(spools: ClickSpools) -> None:
        record(spools, range(20))
        left_by_a_kill(tmp_path / "root", image)

    async def live(spools: ClickSpools) -> None:
        await until(lambda: spools.clicks() == 20)
        lowest_free = os.dup(0)
        os.close(lowest_free)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            await until(lambda: send(spools, log) == [] and "cannot be read now" in caplog.text)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        clock.elapsed_s += 11
        await drain(spools, log, done=lambda: len(log.numbers()) == 20)

    spooling(tmp_path / "root", die, Wanted(clock=clock))
    spooling(image, live, Wanted(clock=clock))

    assert log.numbers() == list(range(20))


def test_what_a_newer_gateway_wrote_is_left_alone(tmp_path: Path) -> None:
    """Old and new run side by side: a format we do not know is neither sent nor removed."""
    image = tmp_path / "image"

    async def die(spools: ClickSpools) -> None:
        record(spools, range(5))
        left_by_a_kill(tmp_path / "root", image)

    async def live(spools: ClickSpools) -> None:
        await until(lambda: spools._look_at > 0)
        assert spools.clicks() == 0

    spooling(tmp_path / "root", die, Wanted(partitions=1))
    (segment,) = segments_in(image)
    data = bytearray(segment.read_bytes())
    data[4] = 2
    _reseal(data)
    segment.write_bytes(data)
    spooling(image, live)

    assert segment.read_bytes() == bytes(data)


def _reseal(data: bytearray) -> None:
    from zlib import crc32

    data[48:52] = crc32(bytes(data[:48])).to_bytes(4, "little")  # of the header, which stands right before it


@pytest.mark.rule("S6", "P5")
def test_a_root_that_somebody_removes_ends_nothing(tmp_path: Path) -> None:
    """What is recorded is still sent, what cannot be any more is dropped, and the gateway goes on to its end."""
    root, clock, log = tmp_path / "root", FakeClock(), Log()

    async def scenario(spools: ClickSpools) -> None:
        record(spools, range(5))
        shutil.rmtree(root)
        clock.elapsed_s += 11
        await until(lambda: spools._look_at > 11)
        taken = sum(spools.append(0, kept(number), None) for number in range(5, 500))
        assert taken < 495
        await drain(spools, log, done=lambda: len(log.numbers()) == 5 + taken)

    spooling(root, scenario, Wanted(clock=clock))

    assert log.numbers() == list(range(len(log.numbers())))


@pytest.mark.rule("S6")
def test_after_the_end_clicks_are_dropped(tmp_path: Path) -> None:
    """Nothing is recorded that nobody would send, and it is said."""

    async def scenario(spools: ClickSpools) -> None:
        spools.close()
        before = counted("clicks_dropped_total")
        assert not spools.append(0, kept(1), None)
        assert counted("clicks_dropped_total") == before + 1

    spooling(tmp_path, scenario)


def test_metrics_show_what_waits(tmp_path: Path) -> None:
    """Clicks that wait, the age of the oldest, and clicks recorded so far, brought up to date when they are read."""
    clock, log = FakeClock(), Log()

    async def scenario(spools: ClickSpools) -> None:
        before = counted("clicks_recorded_total")
        record(spools, range(7))
        clock.elapsed_s += 5
        assert counted("clicks_recorded_total") == before + 7
        assert counted("clicks_recorded_total") == before + 7
        assert counted("clicks_queued") == 7
        assert counted("clicks_queued_age_seconds") >= 5
        send(spools, log)
        assert (counted("clicks_queued"), counted("clicks_queued_age_seconds")) == (0, 0)

    spooling(tmp_path, scenario, Wanted(clock=clock))

    assert counted("clicks_queued") == 0
