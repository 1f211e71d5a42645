"""Consumers (C1 to C5): what is committed when, whose fault a failure is, and where dead letters go."""

from tests.mutants.mutant import Edit, Mutant, broken

_STATE = "chassis/kafka/window.py"
_WORK = "chassis/kafka/work.py"
_WINDOW = "tests/unit/kafka/test_window.py"
_KEYED = "tests/unit/kafka/test_keyed.py"
_LETTERS = "tests/unit/kafka/test_keyed_letters.py"
_DEPENDENCIES = "tests/unit/kafka/test_keyed_dependencies.py"
_CHECKPOINTED = "tests/unit/kafka/test_checkpointed.py"


MUTANTS = (
    broken(
        "commit-before-the-outcome",
        "C3",
        "a record that was being handled when its process died is never handled",
        Edit(
            file="chassis/kafka/window_parts.py",
            old="return next(iter(self.unfinished), self.next_offset)",
            new="return self.next_offset",
        ),
        f"{_WINDOW}::test_unfinished_burial_holds_the_watermark_and_comes_back",
        f"{_LETTERS}::test_nothing_is_committed_past_an_unacknowledged_dead_letter",
    ),
    broken(
        "result-applied-across-an-epoch",
        "C3",
        "work of a former owner finishes a record that is handled again, and its offset is committed too early",
        Edit(
            file=_STATE,
            old="if partition is None or partition.epoch != ticket.epoch:",
            new="if partition is None or ticket.record.offset not in partition.unfinished:",
        ),
        f"{_WINDOW}::test_no_result_crosses_a_rebalance",
    ),
    Mutant(
        name="two-records-of-a-key-at-a-time",
        rule="C4",
        why="the second change of a link overtakes the first",
        edits=(
            Edit(file=_STATE, old="if len(lane.queue) == 1 and lane.ticket is None:", new="if True:"),
            Edit(
                file=_STATE,
                old="if lane is None or lane.ticket is not None or ",
                new="if lane is None or ",
            ),
            Edit(
                file=_STATE,
                old="entry = lane.queue[0]\n",
                new="entry = lane.queue[len(tickets) % len(lane.queue)]\n",
            ),
        ),
        killed_by=(f"{_WINDOW}::test_one_record_per_key_at_a_time_in_order",),
        dies_of="ValueError",
    ),
    broken(
        "a-time-out-is-the-records-fault",
        "C1",
        "a database that hangs for a minute fills the dead letters",
        Edit(
            file=_WORK,
            old="(Unavailable, DeadlineExceeded, ResourceExhausted, TimeoutError, ConnectionError)",
            new="(Unavailable, ResourceExhausted, ConnectionError)",
        ),
        f"{_DEPENDENCIES}::test_a_handler_that_hangs_counts_as_dependency",
    ),
    broken(
        "unavailable-is-the-records-fault",
        "C1",
        "a database that is away fills the dead letters",
        Edit(
            file=_WORK,
            old="(Unavailable, DeadlineExceeded, ResourceExhausted, TimeoutError, ConnectionError)",
            new="(DeadlineExceeded, TimeoutError)",
        ),
        f"{_DEPENDENCIES}::test_dependency_away_pauses_probes_and_burns_no_attempts",
    ),
    broken(
        "no-pause-while-a-dependency-is-away",
        "C1",
        "a database that comes back is met by everybody's retries at once",
        Edit(
            file="chassis/kafka/gate.py",
            old="return 1 if now >= self._probe_at else 0",
            new="return self._batch_max",
        ),
        "tests/unit/kafka/test_gate.py::test_closed_after_a_failure_it_lets_one_probe_through_per_interval",
    ),
    broken(
        "no-second-try",
        "C2",
        "a record that would pass in five seconds is a dead letter",
        Edit(file=_STATE, old="if not verdict.retry or entry.attempts > len(self._retry_delays_s):", new="if True:"),
        f"{_KEYED}::test_retry_ladder_then_dead_letter_while_other_keys_go_on",
    ),
    Mutant(
        name="tries-without-end",
        rule="C2",
        why="a poison record stops its key for ever",
        edits=(
            Edit(
                file=_STATE,
                old="if not verdict.retry or entry.attempts > len(self._retry_delays_s):",
                new="if not verdict.retry:",
            ),
            Edit(
                file=_STATE,
                old="self._retry_delays_s[entry.attempts - 1]",
                new="self._retry_delays_s[min(entry.attempts, len(self._retry_delays_s)) - 1]",
            ),
        ),
        killed_by=(f"{_WINDOW}::test_ladder_at_once_5_s_30_s_then_given_up",),
    ),
    Mutant(
        name="one-bad-record-fails-its-batch",
        rule="C2",
        why="the neighbours of a poison record become dead letters",
        edits=(
            Edit(file=_WORK, old="if len(records) == 1:", new="if True:"),
            Edit(
                file=_WORK,
                old="[:_DETAIL_CHARS_MAX], retry=True)]",
                new="[:_DETAIL_CHARS_MAX], retry=True)] * len(records)",
            ),
        ),
        killed_by=(f"{_KEYED}::test_an_exception_in_a_batch_is_pinned_on_its_record",),
        dies_of="ValueError",
    ),
    broken(
        "commit-before-the-letter-is-acknowledged",
        "C3",
        "a record that was given up on is neither handled nor in the dead letters",
        Edit(
            file=_WORK,
            old="self._window.bury_later(ticket, due=self._clock.monotonic() + self._policy.burial_retry_s)",
            new="self._window.complete(ticket)",
        ),
        f"{_LETTERS}::test_nothing_is_committed_past_an_unacknowledged_dead_letter",
    ),
    broken(
        "letter-taken-for-acknowledged",
        "C3",
        "the same, one step further down",
        Edit(
            file="chassis/kafka/dlq.py",
            old='raise Unavailable("unavailable", "the dead letter was not acknowledged")',
            new="pass",
        ),
        "tests/unit/kafka/test_unacknowledged_letters.py::"
        "test_a_letter_whose_sending_fails_is_an_error_though_the_topic_can_be_read",
    ),
    broken(
        "breaker-never-opens",
        "C5",
        "a bad deployment pours a topic into the dead letters",
        Edit(
            file="chassis/kafka/dead_letter_breaker.py",
            old="any(last - first < HOUR_MS for first, last in first_and_last)",
            new="False",
        ),
        f"{_LETTERS}::test_breaker_trips_after_the_limit_survives_a_restart_and_needs_a_person",
    ),
    Mutant(
        name="tripped-breaker-stops-nobody",
        rule="C5",
        why="the same, though it was noticed",
        edits=(
            Edit(
                file=_WORK,
                old="if self._holds or self._dead_letters.tripped():",
                new="if self._holds:",
            ),
            Edit(
                file=_WORK,
                old="            if self._dead_letters.tripped():  # in the middle",
                new="            if False:  # in the middle",
            ),
        ),
        killed_by=(f"{_LETTERS}::test_breaker_trips_after_the_limit_survives_a_restart_and_needs_a_person",),
    ),
    broken(
        "replays-for-everybody",
        "C5",
        "a letter of one group is handled again by all the others",
        Edit(
            file="chassis/kafka/keyed.py",
            old="skip = wanted_by is not None and wanted_by != self._group",
            new="skip = False",
        ),
        f"{_LETTERS}::test_a_replay_for_another_group_is_skipped",
    ),
    broken(
        "no-drain-before-a-rebalance",
        "C3",
        "the next owner handles again what its predecessor is just finishing",
        Edit(file="chassis/kafka/keyed.py", old="await self._work.hold()", new="self._work._holds += 1"),
        f"{_KEYED}::test_rebalance_with_work_in_flight_drains_and_cuts",
    ),
    broken(
        "window-without-bounds",
        "C4",
        "a partition behind a bad record fills the memory",
        Edit(
            file=_STATE,
            old="len(partition.unfinished) >= max(1, self._records_max // share)",
            new="False",
        ),
        f"{_WINDOW}::test_a_full_partition_stays_full_until_half_is_left",
    ),
    broken(
        "kafkas-position-rules",
        "A4",
        "analytics goes on where Kafka's commit stands, not where its rows do",
        Edit(
            file="chassis/kafka/checkpointed.py",
            old="self._source.seek(partition, offset)",
            new="pass",
        ),
        f"{_CHECKPOINTED}::test_a_commit_ahead_of_the_store_skips_nothing",
    ),
    broken(
        "a-record-is-delivered-twice",
        "C4",
        "after an outage of its store a handler gets again what it has taken",
        Edit(file="chassis/kafka/checkpointed.py", old="del self._backlog[: len(records)]", new="pass"),
        f"{_CHECKPOINTED}::test_store_away_pauses_and_retries_the_same_records",
    ),
    broken(
        "old-topics-offsets-are-believed",
        "C3",
        "after a topic was created anew its records are taken for old ones",
        Edit(file="chassis/kafka/keyed.py", old="if self._window.begun_anew(record):", new="if False:"),
        "tests/unit/kafka/test_keyed_limits.py::test_a_topic_that_was_created_anew_is_read_from_its_beginning",
    ),
)
