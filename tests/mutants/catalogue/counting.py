"""Counting (A1 to A8, S4): each click once, whatever dies and whoever still writes."""

from tests.mutants.mutant import Edit, Mutant, broken

_BOOK = "tests/unit/analytics/test_book.py"
_COUNTING = "tests/unit/analytics/test_counting.py"
_FOLD = "tests/unit/analytics/test_fold.py"
_LEDGER = "tests/unit/analytics/test_ledger.py"
_RECORDS = "tests/unit/analytics/test_records.py"
_ROWS = "tests/contract/analytics/test_row_store.py"
_CHECKPOINTS = "tests/contract/analytics/test_checkpoints.py"


MUTANTS = (
    broken(
        "row-begun-without-a-read",
        "A1",
        "a new owner begins at zero and overwrites what was counted",
        Edit(
            file="analytics/domain/book.py",
            old="row_from_image(found[row_id]) if row_id in found else _new_row(row_id)",
            new="_new_row(row_id)",
        ),
        "tests/unit/analytics/test_flush_order.py::test_a_row_that_the_table_has_is_gone_on_from",
    ),
    broken(
        "counted-again-at-the-same-offset",
        "A2",
        "the last click of each row counts twice after a crash",
        Edit(
            file="analytics/domain/holding.py",
            old="if row.applied is not at and row.applied < at:",
            new="if row.applied is not at and row.applied <= at:",
        ),
        "tests/unit/analytics/test_fold.py::test_a_replay_changes_nothing",
    ),
    Mutant(
        name="snapshot-after-the-flush",
        rule="A3",
        why="clicks that came during a flush are in the checkpoint and in no row",
        edits=(
            Edit(
                file="analytics/loops.py",
                old="await self._write(begun.rows)\n",
                new="await self._write(begun.rows)\n"
                "                begun = self._book.begin_round(partition) or begun\n",
            ),
        ),
        killed_by=(
            "tests/unit/analytics/test_flush_order.py::test_a_checkpoint_leaves_out_what_came_during_its_flush",
        ),
    ),
    broken(
        "checkpoint-before-the-rows",
        "A4",
        "a crash between the two loses the rows",
        Edit(
            file="analytics/loops.py",
            old="await self._write(begun.rows)\n",
            new="await self._checkpoints.save(begun.checkpoint)\n                await self._write(begun.rows)\n",
        ),
        f"{_COUNTING}::test_a_round_that_fails_leaves_the_checkpoint",
    ),
    broken(
        "checkpoint-of-a-lost-partition",
        "A4",
        "an owner whose rows were forgotten says that they are in the table",
        Edit(file="analytics/loops.py", old="if not self._book.is_current(begun):", new="if False:"),
        f"{_COUNTING}::test_a_round_that_lost_its_partition_stores_no_checkpoint",
    ),
    broken(
        "checkpoint-goes-back",
        "A4",
        "an owner that was paused sets its successor's position back",
        Edit(
            file="analytics/adapters/checkpoints_dynamodb.py",
            old='            only_if="attribute_not_exists(off) OR off < :off",\n'
            '            values={":off": {"N": str(checkpoint.offset)}},',
            new='            only_if="attribute_not_exists(off) OR off < :off OR off >= :off",\n'
            '            values={":off": {"N": str(checkpoint.offset)}},',
        ),
        f"{_CHECKPOINTS}::test_a_checkpoint_never_goes_back[dynamodb-5-False]",
    ),
    broken(
        "older-row-taken",
        "A4",
        "an owner that was paused overwrites what its successor has counted",
        Edit(
            file="analytics/adapters/click_rows_dynamodb.py",
            old='older = "(ep < ? OR (ep = ? AND off < ?))"',
            new='older = "(ep <> ? OR (ep = ? AND off <> ?))"',
        ),
        f"{_ROWS}::test_only_newer_versions_are_taken[dynamodb-stored2-offered2-False]",
    ),
    broken(
        "no-limit-of-dirty-rows",
        "A6",
        "a table that is away fills the memory",
        Edit(file="analytics/domain/book.py", old="return self.dirty >= self._dirty_max\n", new="return False\n"),
        f"{_BOOK}::test_too_many_dirty_rows_are_told",
        f"{_COUNTING}::test_too_many_dirty_rows_pause_the_counting",
    ),
    broken(
        "the-table-is-believed-over-the-owner",
        "A7",
        "a query tells less than was counted, or goes back",
        Edit(
            file="analytics/domain/rows.py",
            old="return first if first.applied >= second.applied else second",
            new="return second",
        ),
        "tests/unit/analytics/test_stats.py::test_versions_are_compared_never_added",
    ),
    broken(
        "topic-created-anew-unnoticed",
        "A8",
        "the clicks of a new topic are taken for old ones",
        Edit(
            file="analytics/handlers/counting.py",
            old="if not is_another_log(checkpoint, await self._log.around(checkpoint)):",
            new="if True:",
        ),
        f"{_COUNTING}::test_a_log_created_anew_begins_at_its_start",
    ),
    Mutant(
        name="live-accounts-in-the-snapshot",
        rule="A3",
        why="a checkpoint says of clicks that came during its flush that they are counted, and a crash loses them",
        edits=(
            Edit(
                file="analytics/domain/ledger.py",
                old="return Accounts(dict(self._spools), frozenset(self._replays),",
                new="return Accounts(self._spools, frozenset(self._replays),",
            ),
        ),
        killed_by=("tests/unit/analytics/test_book.py::test_a_round_is_of_the_moment_it_begins",),
    ),
    broken(
        "clicks-of-a-record-judged-one-by-one",
        "A2",
        "of several clicks of one record on the same link only the first is counted",
        Edit(
            file="analytics/domain/holding.py",
            old="            if row.applied is at:\n",
            new="            if changed[-1:] == [row]:\n",
        ),
        f"{_FOLD}::test_a_replay_changes_nothing",
    ),
    broken(
        "repeated-sequences-count",
        "S4",
        "what a gateway sends twice counts twice",
        Edit(
            file="analytics/domain/sequences.py",
            old="min(count, max(0, spool.last - first + 1))",
            new="min(count, max(0, spool.last - first))",
        ),
        f"{_LEDGER}::test_sequences_tell_repeats_from_news",
    ),
    broken(
        "gaps-are-silent",
        "S4",
        "clicks that never arrived are missed by nobody",
        Edit(
            file="analytics/domain/sequences.py",
            old="max(0, first - spool.last - 1))",
            new="0)",
        ),
        f"{_LEDGER}::test_sequences_tell_repeats_from_news",
    ),
    broken(
        "replays-judged-by-sequence",
        "A9",
        "a click that was buried and replayed is taken for a repeat, and never counted",
        Edit(
            file="analytics/domain/holding.py",
            old="if arrival.origin is not None:",
            new="if False:",
        ),
        f"{_RECORDS}::test_a_replayed_letter_counts_once",
    ),
    broken(
        "replays-counted-each-time",
        "A9",
        "a letter that is replayed twice counts twice",
        Edit(file="analytics/domain/ledger.py", old="        self._replays.add(origin)\n", new=""),
        f"{_LEDGER}::test_a_letter_of_a_forgotten_spool_counts_once",
    ),
    broken(
        "buried-clicks-forgotten",
        "A10",
        "what is in the dead letters looks like clicks that were lost on the way",
        Edit(
            file="analytics/domain/holding.py",
            old="            self.ledger.bury(content, now_ms=arrival.stored_ms)\n",
            new="            pass\n",
        ),
        f"{_RECORDS}::test_a_replayed_letter_counts_once",
    ),
)
