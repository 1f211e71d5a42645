"""The writer (W1 to W4, R4): event rows, projections, and when Redis is told."""

from tests.mutants.mutant import Edit, Mutant, broken

_HANDLERS = "writer/handlers.py"
_DOMAIN = "writer/domain.py"
_ADAPTER = "writer/adapters/link_table_dynamodb.py"
_TESTS = "tests/unit/writer/test_event_writer.py"
_ORDER = "tests/unit/writer/test_order.py"
_TABLE = "tests/contract/test_writer_link_table.py"


MUTANTS = (
    broken(
        "duplicate-without-comparing-event-ids",
        "W1",
        "of two events of one version the second one's projection is stored",
        Edit(
            file=_DOMAIN,
            old="return Verdict.SAME if stored_event_id == event_id else Verdict.CONFLICT",
            new="return Verdict.SAME",
        ),
        f"{_TESTS}::test_another_event_of_the_same_version_is_a_conflict_and_changes_nothing",
    ),
    broken(
        "duplicate-is-done",
        "W1",
        "the writer dies behind the event row, and the link is never projected",
        Edit(
            file=_HANDLERS,
            old="            if verdict is Verdict.CONFLICT:\n",
            new="            if verdict is Verdict.SAME:\n"
            "                rejected[event.event_id] = Done()\n"
            "            if verdict is Verdict.CONFLICT:\n",
        ),
        f"{_TESTS}::test_a_repeated_event_is_finished_and_marked_again",
        f"{_ORDER}::test_redis_is_told_of_what_the_tables_hold_and_of_nothing_else",
    ),
    Mutant(
        name="persisted-before-the-projection",
        rule="R4",
        why="the entry expires before the table has its version",
        edits=(
            Edit(
                file=_HANDLERS,
                old="rejected |= await self._project(links)\n",
                new="await self._marker.persisted(links)\n        rejected |= await self._project(links)\n",
            ),
            Edit(file=_HANDLERS, old="            await self._marker.persisted(persisted)\n", new="            pass\n"),
        ),
        killed_by=(f"{_ORDER}::test_redis_is_told_of_what_the_tables_hold_and_of_nothing_else",),
    ),
    broken(
        "done-before-redis-was-told",
        "R4",
        "entries that nobody marks stay in Redis for ever",
        Edit(file=_HANDLERS, old="            await self._marker.persisted(persisted)\n", new="            pass\n"),
        f"{_TESTS}::test_nothing_is_finished_until_redis_was_told",
        f"{_TESTS}::test_an_event_becomes_an_event_row_then_a_projection_then_a_mark",
    ),
    broken(
        "event-row-overwritten",
        "W1",
        "history is rewritten by whoever comes last",
        Edit(
            file=_ADAPTER,
            old='case "DuplicateItem" | "DuplicateItemException":\n            return Result.EXISTS',
            new='case "DuplicateItem" | "DuplicateItemException":\n            return Result.STORED',
        ),
        f"{_TABLE}::test_event_rows_are_put_once_and_tell_whose_they_are[dynamodb]",
    ),
    broken(
        "projection-goes-back",
        "W2",
        "an old event that comes again brings an old version back",
        Edit(
            file=_ADAPTER,
            old='("version" IS MISSING OR "version" < ?)',
            new='("version" IS MISSING OR "version" <> ?)',
        ),
        f"{_TABLE}::test_projections_only_move_forward[dynamodb]",
    ),
    broken(
        "reservation-blocks-its-link",
        "W2",
        "a custom code that was reserved never gets its row",
        Edit(file=_ADAPTER, old='("version" IS MISSING OR "version" < ?)', new='("version" < ?)'),
        f"{_TABLE}::test_a_reservation_counts_as_older_than_any_version[dynamodb]",
    ),
    broken(
        "missing-row-taken-for-a-newer-one",
        "W2",
        "a version whose predecessor was never projected has no row",
        Edit(
            file=_DOMAIN,
            old="return Step.INSERT if result is Result.ABSENT else Step.DONE",
            new="return Step.DONE",
        ),
        f"{_TESTS}::test_a_later_version_without_a_row_is_inserted",
    ),
    broken(
        "time-may-stand-still",
        "W3",
        "a clock that is set back mixes up the history by time",
        Edit(
            file="link_service/domain/links.py",
            old="return max(now, previous.updated_at + _TICK)",
            new="return now",
        ),
        "tests/unit/link_service/test_changes.py::test_every_version_is_younger_than_the_one_before",
        "tests/unit/link_service/test_links.py::test_a_tombstone_is_younger_than_what_it_ends",
    ),
    broken(
        "throttling-is-the-records-fault",
        "C1",
        "a table that throttles fills the dead letters",
        Edit(
            file=_ADAPTER,
            old="        case _:\n",
            new="        case _ if error is not None:\n            return Result.INVALID\n        case _:\n",
        ),
        "tests/integration/dynamodb/test_batch_get.py::test_a_throttled_statement_is_no_verdict",
    ),
    broken(
        "statements-results-ignored",
        "W4",
        "a call that succeeded is taken for statements that did",
        Edit(file=_ADAPTER, old="    if error is None:\n", new="    if True:\n"),
        f"{_TABLE}::test_event_rows_are_put_once_and_tell_whose_they_are[dynamodb]",
    ),
    broken(
        "wrong-key-is-written",
        "C1",
        "a record under another link's key overtakes that link's events",
        Edit(file=_HANDLERS, old="event.link.key.encode() != record.key or ", new=""),
        f"{_TESTS}::test_content_at_fault_is_rejected_at_once_and_its_neighbours_are_written",
    ),
)
