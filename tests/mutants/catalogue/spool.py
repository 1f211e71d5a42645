"""The click spool (S1 to S8): what is answered is on disk, and leaves it once, in order, whoever dies."""

from tests.mutants.mutant import Edit, broken

_SPOOLS = "tests/unit/gateway/test_click_spools.py"
_FORMAT = "tests/unit/gateway/test_spool_format.py"
_SHIPPING = "tests/unit/gateway/test_shipping.py"
_SPOOL = "gateway/adapters/spool.py"
_ALL = "gateway/adapters/click_spools.py"

MUTANTS = (
    broken(
        "sequences-restarted-after-a-crash",
        "S1",
        "a new start numbers its clicks as the dead one did: the counter takes them for repeats",
        Edit(
            file=_ALL,
            old="spool = Spool(uuid7(self._clock.now()), partition,",
            new="day = self._clock.now().replace(hour=0, minute=0, second=0, microsecond=0)\n"
            "            spool = Spool(uuid7(day, bytes([partition]) * 10), partition,",
        ),
        f"{_SPOOLS}::test_what_a_killed_process_left_is_sent_first_and_never_gone_on_with",
    ),
    broken(
        "living-spool-taken",
        "S1",
        "a second gateway sends, and removes, what the first one is still recording",
        Edit(file="gateway/adapters/spool_files.py", old="fcntl.LOCK_EX", new="fcntl.LOCK_SH"),
        "tests/unit/gateway/test_spool_files.py::test_a_folder_is_its_process_as_long_as_it_lives",
    ),
    broken(
        "spool-for-ever",
        "S1",
        "a spool that is older than seven days is forgotten while clicks are still recorded in it",
        Edit(file=_ALL, old="if now >= self._rotate_at:", new="if self._rotate_at < 0:"),
        f"{_SPOOLS}::test_a_spool_is_followed_by_another_each_day",
        dies_of="TimeoutError",
    ),
    broken(
        "later-dead-one-behind-the-living",
        "S1",
        "what a gateway left that started after this one is never sent while this one lives",
        Edit(file=_ALL, old="if not other.sealed or other.spool_id > spool.spool_id)", new="if False)"),
        f"{_SPOOLS}::test_what_a_killed_process_left_is_sent_first_and_never_gone_on_with",
    ),
    broken(
        "click-answered-before-it-is-in-the-map",
        "S2",
        "a gateway that is killed between the two loses a click that was answered",
        Edit(
            file=_SPOOL,
            old='self._map[at:end] = data + crc32(data).to_bytes(CRC_BYTES, "little")',
            new='late = (slice(at, end), data + crc32(data).to_bytes(CRC_BYTES, "little"))\n'
            '        __import__("asyncio").get_running_loop().call_soon(self._map.__setitem__, *late)',
        ),
        f"{_SPOOLS}::test_a_click_is_in_its_file_when_its_recording_returns",
    ),
    broken(
        "torn-record-read",
        "S2",
        "half a click, or what a bad disk made of one, is sent as if it were one",
        Edit(
            file="gateway/domain/spool_format.py",
            old=" or _CRC.unpack_from(buffer, stop)[0] != crc32(buffer[at:stop])",
            new="",
        ),
        f"{_FORMAT}::test_a_tail_torn_at_any_byte_ends_the_segment",
        f"{_FORMAT}::test_a_flipped_bit_ends_the_segment_there",
    ),
    broken(
        "mark-without-an-answer",
        "S3",
        "what the broker did not take is marked as sent, and removed",
        Edit(file="gateway/loops.py", old="for shipment in shipments[:sent]:", new="for shipment in shipments:"),
        f"{_SHIPPING}::test_every_click_arrives_in_order_whatever_the_broker_does[script1-False]",
    ),
    broken(
        "outdated-spool-sent",
        "S5",
        "the counter has forgotten the spool, and would count its clicks again",
        Edit(file=_ALL, old="if spool.sealed and is_outdated(", new="if not spool.sealed and is_outdated("),
        f"{_SPOOLS}::test_spools_of_more_than_seven_days_are_not_sent",
    ),
    broken(
        "dropped-click-numbered",
        "S6",
        "each click that is dropped looks like one that got lost on the way",
        Edit(
            file=_SPOOL,
            old="                self.drop()\n                return False",
            new="                self.drop()\n                self.last += 1\n                return False",
        ),
        f"{_SPOOLS}::test_a_disk_without_room_drops_clicks_and_ends_nothing[28]",
    ),
    broken(
        "totals-never-told",
        "S8",
        "nobody can tell whether a gateway that is gone had more",
        Edit(
            file=_SPOOL,
            old="return self.told == self.totals() or not (self.last or self.dropped)",
            new="return True",
        ),
        f"{_SPOOLS}::test_drops_are_remembered_by_the_spool",
    ),
    broken(
        "drops-die-with-the-process",
        "S8",
        "reconciliation does not know of clicks that a gateway dropped before it was killed",
        Edit(file=_SPOOL, old="if self.dropped and self._map is not None:", new="if False:"),
        f"{_SPOOLS}::test_drops_are_remembered_by_the_spool",
    ),
)
