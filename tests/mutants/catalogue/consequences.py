"""What follows from events: webhooks (H1, H2) and the audit log (B1 to B3)."""

from tests.mutants.mutant import Edit, Mutant, broken

_DELIVERIES = "webhook/adapters/deliveries_dynamodb.py"
_FAN_OUT = "tests/unit/webhook/test_fan_out.py"
_DOMAIN = "tests/unit/webhook/test_domain.py"
_STORES = "tests/contract/test_webhook_stores.py"
_RECORDER = "audit/handlers/recorder.py"
_STOPS = "tests/unit/audit/test_recorder_stops.py"

MUTANTS = (
    broken(
        "told-to-endpoints-made-later",
        "H1",
        "a new endpoint is told of what happened before it was there",
        Edit(file="webhook/domain/deliveries.py", old="item.created_at <= recorded_at and ", new=""),
        f"{_DOMAIN}::test_endpoints_made_after_the_record_and_disabled_ones_are_not_told",
    ),
    broken(
        "old-events-are-told-again",
        "H1",
        "a replay tells again what was told and forgotten",
        Edit(
            file="webhook/domain/deliveries.py",
            old="if now - min(event.at, recorded_at) > EVENT_AGE_MAX:",
            new="if False:",
        ),
        f"{_DOMAIN}::test_events_older_than_31_days_are_told_to_nobody",
    ),
    broken(
        "repeated-record-handed-over-again",
        "H1",
        "a record that comes again is delivered again",
        Edit(file="webhook/handlers/fan_out.py", old="if is_new and delivery.claim:", new="if delivery.claim:"),
        f"{_FAN_OUT}::test_a_repeated_record_changes_nothing_and_is_not_handed_over_again",
        f"{_FAN_OUT}::test_a_put_whose_answer_was_lost_is_left_to_its_lease",
    ),
    broken(
        "two-claims-of-one-delivery",
        "H2",
        "two processes deliver the same at the same time",
        Edit(
            file=_DELIVERIES,
            old='"next_at = :seen AND #state = :pending"',
            new='":seen = :seen AND #state = :pending"',
        ),
        f"{_STORES}::test_a_due_delivery_is_claimed_once_and_comes_up_again_when_the_lease_is_over[dynamodb]",
    ),
    broken(
        "outcome-without-the-claim",
        "H2",
        "the failure of an attempt that was given up for dead overwrites a success",
        Edit(file=_DELIVERIES, old='"claim = :claim", values', new='":claim = :claim", values'),
        f"{_STORES}::test_an_outcome_is_stored_under_its_own_claim_only[dynamodb]",
    ),
    broken(
        "gap-in-the-audit-log",
        "B1",
        "records that aged out before they were recorded are missed by nobody",
        Edit(file=_RECORDER, old="accept_gaps=self._accept_gaps)", new="accept_gaps=True)"),
        f"{_STOPS}::test_missing_records_stop_the_log_unless_a_person_accepts_it",
    ),
    broken(
        "another-topic-under-the-same-name",
        "B1",
        "a topic created anew is passed over in part, and the log looks whole",
        Edit(
            file=_RECORDER,
            old="if aged_out or (record and is_of_same_record(_fact(record).leaf, decode_leaf(state.last_entry))):",
            new="if True:",
        ),
        f"{_STOPS}::test_topic_made_anew_stops_the_log",
    ),
    broken(
        "another-record-at-a-recorded-offset",
        "B1",
        "a record that was exchanged is not found out",
        Edit(
            file=_RECORDER,
            old="if leaf_index < 0 or not is_of_same_record(fact.leaf, decode_leaf(bundles[index][at])):",
            new="if False:",
        ),
        f"{_STOPS}::test_other_record_at_a_recorded_offset_stops_the_log",
    ),
    Mutant(
        name="adopted-entries-recomputed",
        rule="B3",
        why="an entry that somebody has seen is exchanged under their eyes",
        edits=(
            Edit(
                file=_RECORDER,
                old="            if slot.entry is not None:\n",
                new="            if slot.entry is not None and fact is None:\n",
            ),
            Edit(
                file=_RECORDER,
                old="for slot in plan.slots if slot.entry is None\n",
                new="for slot in plan.slots if slot.offset in plan.facts\n",
            ),
        ),
        killed_by=("tests/unit/audit/test_recorder.py::test_adopted_entries_keep_the_bytes_they_were_written_with",),
    ),
    broken(
        "two-writers-of-one-log",
        "B2",
        "two processes grow two trees under one origin",
        Edit(
            file="audit/adapters/log_storage_files.py",
            old="fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)",
            new="fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)",
        ),
        "tests/contract/audit/test_log_storage.py::test_one_process_writes",
    ),
    broken(
        "checkpoint-over-anothers",
        "B2",
        "a tree that somebody else has grown is cut off",
        Edit(file="audit/adapters/log_storage_files.py", old="if found not in (expected, new):", new="if False:"),
        "tests/contract/audit/test_log_storage.py::test_checkpoint_is_replaced_only_where_the_expected_one_stands[files]",
    ),
)
