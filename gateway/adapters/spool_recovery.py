"""What processes that are gone have left: their spools, to be sent and removed, never to be gone on with [S1]."""

import logging
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import Counter

from gateway.adapters.spool import Reading, Room, Segment, Spool
from gateway.adapters.spool_files import Folder, abandoned, open_segment
from gateway.domain.spool_format import (
    RECORDS_AT,
    UnknownVersionError,
    find_begin,
    find_end,
    read_acknowledged,
    read_dropped,
    read_header,
)

DAMAGED = Counter("spool_damages", "Segments that did not end where their last click was written, torn tails included")
_NO_ROOM = Room(lambda: None, lambda _asked: None, lambda: None)
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Remains:
    """A folder that a process left, and its spools."""

    folder: Folder
    spools: list[Spool]
    bytes: int


def take_over(root: Path, now_ms: Callable[[], int]) -> list[Remains]:
    """What processes that are gone have left under this root; ours from now on. Reads disks: for a thread."""
    found: list[Remains] = []
    for folder in abandoned(root, now_ms()):
        try:
            remains = _survey(folder, now_ms)
        except (UnknownVersionError, OSError) as error:
            logger.warning("the clicks in %s are left alone: %s", folder.path, error)
            folder.leave()
            continue
        if remains.spools:
            found.append(remains)
        else:
            folder.leave()
    return found


def read_segment(segment: Segment, acknowledged: int) -> Reading:
    """Reads a segment and checks every record of it. Reads disks: for a thread.

    Raises:
        OSError: it cannot be read.
    """
    buffer = segment.path.read_bytes()  # where a bad disk is an error; reading the map would end the process
    mapped = open_segment(segment.path)
    end = find_end(buffer, segment.header.first_sequence)
    if end.torn:
        DAMAGED.inc()
        logger.warning("a segment of spool %s is torn behind click %d", segment.header.spool_id, end.last_sequence)
    return Reading(mapped, find_begin(buffer, end.at, acknowledged), end.at)


def _survey(folder: Folder, now_ms: Callable[[], int]) -> Remains:
    """What is in a folder. A file without a header was made ready and never used."""
    segments: dict[tuple[str, int], list[tuple[Segment, int, int]]] = defaultdict(list)
    size = 0
    for path in folder.segments():
        with path.open("rb") as file:
            head = file.read(RECORDS_AT)
        header = read_header(head)
        if header is None:
            path.unlink()
            continue
        size += header.size
        segment = Segment(header, path, None)
        segments[header.spool_id, header.partition].append((segment, read_acknowledged(head), read_dropped(head)))
    spools = [
        _revive(Spool(spool_id, partition, room=_NO_ROOM, now_ms=now_ms), found)
        for (spool_id, partition), found in sorted(segments.items(), key=lambda item: item[0])
    ]
    return Remains(folder, spools, size)


def _revive(spool: Spool, found: list[tuple[Segment, int, int]]) -> Spool:
    found.sort(key=lambda each: each[0].header.number)
    first, last = found[0][0], found[-1][0]
    spool.segments.extend(segment for segment, _, _ in found)
    spool.acknowledged = max(first.header.first_sequence - 1, *(mark for _, mark, _ in found))
    spool.dropped = max(dropped for _, _, dropped in found)
    spool.last = max(spool.acknowledged, find_end(last.path.read_bytes(), last.header.first_sequence).last_sequence)
    spool.sealed = True
    return spool
