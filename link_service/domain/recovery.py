"""What is put back into a Redis that may have forgotten: from where in the log, and what of it [R8]."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from contracts.link import Link, LinkKey, LinkState

Offsets = Mapping[int, int]  # partition of links-events → offset in it
WINDOW_MS = 600_000  # put back into a Redis that remembers nothing


@dataclass(frozen=True, slots=True)
class Standing:
    """Which run of Redis answers, and whether everything it may have forgotten was put back into it."""

    run_id: str
    restored: bool


@dataclass(frozen=True, slots=True)
class Remembered:
    """Offsets of the log that this Redis was told of, if it still knows them; empty: none."""

    noted: Offsets  # where the log ended at some moment; what Redis was told later is behind that
    unsettled: Offsets  # from where on links were put back earlier that may have no expiry yet


@dataclass(frozen=True, slots=True)
class LogState:
    """What the log has, per partition, and what is known of its readers."""

    begins: Offsets
    ends: Offsets
    recent: Offsets  # the first offset of the last WINDOW_MS, by the broker's clock; left out: nothing so young, or
    # nobody asked
    written: Offsets  # what the writer has committed; left out: nothing


def first_offsets(log: LogState, remembered: Remembered) -> dict[int, int]:
    """From where on each partition's events are put back.

    What the tables do not have yet stands behind the writer's position: absent in Redis, it would be taken for absent
    at all [R5]. What Redis was told after its copy was made stands behind `noted`: the log's end was noted after it had
    been looked up, in a Redis that knew all events before it, and whoever still has the note has what came before it.
    A Redis without a note has nothing old in it either; it gets the last ten minutes, which are asked for most.

    An offset that the log does not have any more, or not yet (it was created again), means: from its beginning.
    """
    starts: dict[int, int] = {}
    for partition, end in log.ends.items():
        begin = log.begins[partition]
        lately = remembered.noted.get(partition, log.recent.get(partition, end))
        wanted = [lately, log.written.get(partition, begin), remembered.unsettled.get(partition, end)]
        start = begin if any(offset > end for offset in wanted) else min(wanted)
        starts[partition] = max(begin, start)
    return starts


def left_unsettled(starts: Offsets, ends: Offsets) -> Offsets:
    """From where on links were put back that may have no expiry, when the log was read from `starts` to `ends`.

    All that was read, whether this attempt stored it or not: one that failed may have, and has told nobody.
    """
    return starts if any(starts.get(partition, 0) < end for partition, end in ends.items()) else {}


def forgotten_by_the_log(log: LogState, remembered: Remembered) -> list[int]:
    """The partitions that no longer hold all that a Redis so old would have to be told."""
    return sorted(p for p, offset in remembered.noted.items() if offset < log.begins.get(p, 0))


class Newest:
    """The newest version of each link among the events of one partition; its events all stand in that one."""

    def __init__(self) -> None:
        self._links: dict[LinkKey, Link] = {}

    def add(self, links: Iterable[Link]) -> None:
        """Takes them in, in any order."""
        for link in links:
            known = self._links.get(link.key)
            if known is None or known.version < link.version:
                self._links[link.key] = link

    def in_order(self) -> list[Link]:
        """Ended links first: an older version of these sends people on until it is replaced."""
        return sorted(self._links.values(), key=lambda link: link.state is not LinkState.DELETED)
