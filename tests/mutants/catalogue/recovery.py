"""A Redis that was restarted or replaced (R8): on which run one may stand, what is put back, and in which order."""

from contracts.cache import LIBRARY_FILE
from tests.mutants.mutant import Edit, broken

_LUA = f"contracts/{LIBRARY_FILE}"
_RULES = "link_service/domain/recovery.py"
_LOOP = "link_service/loops/recovery.py"
_REDIS = "tests/contract/link_cache/test_recovery.py"
_PROMOTED = "tests/integration/redis/test_promoted.py"
_FLOW = "tests/unit/recovery/test_recovery.py"
_DECISIONS = "tests/unit/recovery/test_decisions.py"

MUTANTS = (
    broken(
        "change-on-another-run",
        "R8",
        "a Redis that has forgotten a delete lets the link be changed as if it were there",
        Edit(file=_LUA, old="  if may_have_forgotten(told_run, keys[5]) then\n", new="  if false then\n"),
        f"{_REDIS}::test_a_gate_that_is_open_for_another_run_lets_nothing_pass[valkey]",
        f"{_REDIS}::test_a_change_that_came_too_late_is_not_judged_by_a_redis_that_may_have_forgotten[valkey]",
    ),
    broken(
        "run-named-by-its-process-alone",
        "R8",
        "a master that was a replica for a while passes for the one it was, whatever data it has now",
        Edit(file=_LUA, old=" .. ':' .. string.match(info, '\\nmaster_replid:(%w+)')", new=""),
        f"{_PROMOTED}::test_a_master_that_has_been_a_replica_is_another_run",
        f"{_PROMOTED}::test_what_was_read_in_one_run_trims_nothing_in_another",
    ),
    broken(
        "emptied-redis-is-trusted",
        "R8",
        "until somebody looks, a Redis that was emptied takes changes and tells absences",
        Edit(file=_LUA, old=" or (told ~= '' and redis.call('GET', restored_key) ~= told)", new=""),
        f"{_REDIS}::test_a_redis_that_was_emptied_while_it_runs_lets_nothing_pass[valkey]",
    ),
    broken(
        "trim-in-another-run",
        "O1",
        "events that nobody has sent are trimmed, since they stand where sent ones stood before",
        Edit(
            file=_LUA,
            old="  if is_another_run(args[2]) then\n    return { 'OTHER_RUN' }\n  end\n  redis.call('XTRIM'",
            new="  redis.call('XTRIM'",
        ),
        f"{_PROMOTED}::test_what_was_read_in_one_run_trims_nothing_in_another",
    ),
    broken(
        "lease-on-another-run",
        "R8",
        "what a Redis has forgotten is taken for absent, and the table for the truth",
        Edit(file=_LUA, old="  if may_have_forgotten(args[3], keys[3]) then\n", new="  if false then\n"),
        f"{_REDIS}::test_a_gate_that_is_open_for_another_run_lets_nothing_pass[valkey]",
    ),
    broken(
        "fill-on-another-run",
        "R8",
        "a read from before the restart is filled in after it",
        Edit(file=_LUA, old="if is_another_run(args[4]) or not holds", new="if not holds"),
        f"{_REDIS}::test_a_gate_that_is_open_for_another_run_lets_nothing_pass[valkey]",
    ),
    broken(
        "late-restorer-is-let-in",
        "R8",
        "a restorer that was paused brings back what was deleted, written and forgotten since",
        Edit(
            file=_LUA,
            old="if is_another_run(args[2]) or redis.call('GET', keys[3]) == args[2] then",
            new="if is_another_run(args[2]) then",
        ),
        f"{_REDIS}::test_nothing_is_put_back_into_another_run_or_a_restored_one[valkey]",
    ),
    broken(
        "restored-said-of-another-run",
        "R8",
        "a Redis that restarts during its recovery passes for restored",
        Edit(
            file=_LUA,
            old="  if is_another_run(args[1]) then\n    return { 'OVER' }\n  end\n  if args[2] ~= ''",
            new="  args[1] = run_name()\n  if args[2] ~= ''",
        ),
        f"{_REDIS}::test_a_run_is_restored_when_it_was_said_of_this_very_run[valkey]",
    ),
    broken(
        "note-before-it-is-restored",
        "R8",
        "a note of the log's end hides what an older Redis has to be told",
        Edit(
            file=_LUA,
            old="if is_another_run(args[1]) or redis.call('GET', keys[1]) ~= args[1] then",
            new="if is_another_run(args[1]) then",
        ),
        f"{_REDIS}::test_only_a_restored_run_is_told_how_far_the_log_went[valkey]",
    ),
    broken(
        "gate-opens-unrestored",
        "R8",
        "changes go on upon a Redis that has forgotten",
        Edit(file=_LOOP, old="        if not standing.restored:\n", new="        if False:\n"),
        f"{_FLOW}::test_an_empty_redis_gets_back_the_newest_versions_before_anything_is_changed",
        f"{_FLOW}::test_while_kafka_is_away_nothing_is_changed_and_after_it_everything_is",
    ),
    broken(
        "what-comes-meanwhile-is-not-put-back",
        "R8",
        "what the relay sends while the log is read is missing afterwards",
        Edit(
            file=_LOOP,
            old="ends = (await log.state(recent=False)).ends",
            new="ends = state.ends",
        ),
        f"{_FLOW}::test_what_arrives_while_the_log_is_read_is_put_back_too",
    ),
    broken(
        "what-a-failed-attempt-put-back-is-not-settled",
        "R8",
        "what was put back by an attempt that failed at its end has no expiry, and stays in memory for ever",
        Edit(
            file=_LOOP,
            old="unsettled=left_unsettled(starts, ends)",
            new="unsettled=left_unsettled(starts, ends) if stored + later else {}",
        ),
        f"{_FLOW}::test_what_was_put_back_by_an_attempt_that_failed_at_the_end_gets_an_expiry",
        dies_of="TimeoutError",  # of virtual time: it waits for an expiry that never comes
    ),
    broken(
        "writers-position-is-not-asked",
        "R8",
        "what stands in Kafka and not in the tables yet is absent everywhere",
        Edit(file=_RULES, old="log.written.get(partition, begin)", new="end"),
        f"{_DECISIONS}::test_from_where_on_events_are_put_back",
    ),
    broken(
        "redis-own-note-is-not-asked",
        "R8",
        "an old copy keeps for ever what was deleted after it was made",
        Edit(
            file=_RULES,
            old="remembered.noted.get(partition, log.recent.get(partition, end))",
            new="log.recent.get(partition, end)",
        ),
        f"{_DECISIONS}::test_from_where_on_events_are_put_back",
        f"{_FLOW}::test_a_much_older_redis_is_told_all_that_came_after_its_last_note",
    ),
    broken(
        "older-version-put-back-last",
        "R8",
        "a repeat of an old event at the log's end brings a deleted link back",
        Edit(file=_RULES, old="if known is None or known.version < link.version:", new="if True:"),
        f"{_DECISIONS}::test_the_newest_version_of_each_link_ended_ones_first",
    ),
)
