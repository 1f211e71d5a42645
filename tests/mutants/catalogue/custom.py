"""Custom codes (K2) and blocks of ids (K1): a code is never two people's."""

from tests.mutants.mutant import Edit, broken

_FLOW = "link_service/handlers/custom.py"
_RULES = "link_service/domain/reservations.py"
_TABLE = "link_service/adapters/link_table_dynamodb.py"
_TESTS = "tests/unit/link_service/test_custom.py"
_STORES = "tests/contract/test_link_service_stores.py"
_TAKEOVER = "tests/unit/link_service/test_reservations.py::test_others_take_over_only_when_nothing_can_be_on_its_way"


MUTANTS = (
    broken(
        "reservation-put-unconditional",
        "K2",
        "a code that has a link, or is being given away, is given away again",
        Edit(
            file=_TABLE,
            old='"attribute_not_exists(#pk)"',
            new='"attribute_not_exists(#pk) OR attribute_exists(#pk)"',
        ),
        f"{_STORES}::test_a_reservation_is_put_over_nothing_or_over_exactly_the_one_that_was_read[engines]",
        f"{_STORES}::test_a_link_is_never_reserved[engines]",
    ),
    broken(
        "takeover-put-unconditional",
        "K2",
        "two who take over the same reservation are both told that it is theirs",
        Edit(
            file=_TABLE,
            old='"#state = :reserved AND #event_id = :event_id"',
            new='"#state = :reserved OR #event_id = :event_id"',
        ),
        f"{_STORES}::test_a_reservation_is_put_over_nothing_or_over_exactly_the_one_that_was_read[engines]",
    ),
    broken(
        "takeover-without-the-checks",
        "K2",
        "a code whose create is still on its way gets a second owner",
        Edit(file=_RULES, old="return quiet and not traces.has_event_row and not traces.has_entry", new="return True"),
        _TAKEOVER,
        f"{_TESTS}::test_after_such_a_crash_a_stranger_waits_until_it_is_safe",
    ),
    broken(
        "takeover-in-spite-of-an-event-row",
        "K2",
        "a code whose link is in the tables gets a second owner",
        Edit(file=_RULES, old=" and not traces.has_event_row", new=""),
        _TAKEOVER,
        f"{_TESTS}::test_after_a_failover_the_owner_is_a_stranger_too",
    ),
    broken(
        "takeover-in-spite-of-an-entry",
        "K2",
        "a code whose link is in Redis gets a second owner",
        Edit(file=_RULES, old=" and not traces.has_entry", new=""),
        _TAKEOVER,
    ),
    broken(
        "takeover-in-spite-of-a-queue",
        "K2",
        "a code whose create stands in the outbox or in Kafka gets a second owner",
        Edit(file=_RULES, old="return quiet and not", new="return not"),
        _TAKEOVER,
        f"{_TESTS}::test_after_such_a_crash_a_stranger_waits_until_it_is_safe",
    ),
    broken(
        "takeover-without-kafkas-word",
        "K2",
        "the same while nobody knows what Kafka holds",
        Edit(
            file=_FLOW,
            old="        except Unavailable:\n            return None\n",
            new="        except Unavailable:\n            oldest_unwritten = None\n",
        ),
        f"{_TESTS}::test_after_such_a_crash_a_stranger_waits_until_it_is_safe",
    ),
    broken(
        "owner-goes-on-after-a-failover",
        "K2",
        "a Redis that has forgotten the first create lets its owner make a second one",
        Edit(file=_RULES, old=" and older.redis_run_id == wanted.redis_run_id", new=""),
        "tests/unit/link_service/test_reservations.py::test_only_the_owner_goes_on_at_once_and_only_in_the_same_run",
        f"{_TESTS}::test_after_a_failover_the_owner_is_a_stranger_too",
    ),
    broken(
        "anybody-goes-on-at-once",
        "K2",
        "who asks while another's create is on its way gets its code",
        Edit(file=_RULES, old="older.user_id == wanted.user_id and ", new=""),
        "tests/unit/link_service/test_reservations.py::test_only_the_owner_goes_on_at_once_and_only_in_the_same_run",
        f"{_TESTS}::test_after_such_a_crash_a_stranger_waits_until_it_is_safe",
    ),
    broken(
        "failed-create-keeps-its-lease",
        "K2",
        "the next try waits 30 s for a lease that nobody uses",
        Edit(
            file=_FLOW,
            old="await self._reader.give_back(attempt.key, lease)  # else",
            new="pass  # else",
        ),
        f"{_TESTS}::test_a_create_that_failed_blocks_nobody",
        dies_of="Unavailable",
    ),
    broken(
        "own-code-told-taken",
        "I2",
        "a client whose answer was lost is told that its code is somebody's",
        Edit(
            file=_FLOW,
            old="earlier = await self._attempts.outcome(attempt)",
            new="earlier = None",
        ),
        f"{_TESTS}::test_a_repeated_create_is_not_told_that_its_own_code_is_taken",
        dies_of="AlreadyExists",
    ),
    broken(
        "counter-that-went-back-unnoticed",
        "K1",
        "a counter restored from a backup gives codes out a second time",
        Edit(
            file="link_service/adapters/id_counter_dynamodb.py",
            old='"#next BETWEEN :least AND :most" if at_least',
            new='"#next <= :most AND :least = :least" if at_least',
        ),
        f"{_STORES}::test_a_counter_below_the_mark_leases_nothing[engines]",
    ),
    broken(
        "mark-of-ids-not-raised",
        "K1",
        "nobody would know that the counter went back",
        Edit(file="link_service/loops/id_blocks.py", old="await self._server.raise_ids_high(block.end)", new="pass"),
        "tests/unit/link_service/test_ids.py::test_a_whole_spare_block_is_always_in_hand",
    ),
    broken(
        "mark-of-ids-read-too-late",
        "K1",
        "another instance's lease is taken for a counter that went back",
        Edit(
            file="link_service/loops/id_blocks.py",
            old="        block = await self._counter.lease(at_least=known)\n",
            new="        block = await self._counter.lease(at_least=0)\n"
            "        known = await self._server.ids_high()\n"
            "        block = block if block is None or block.first >= known else None\n",
        ),
        "tests/unit/link_service/test_ids.py::test_another_instance_that_leases_meanwhile_is_no_alarm",
    ),
)
