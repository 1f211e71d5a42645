"""The Function library in Redis (R1 to R6, R8): every edit is in its Lua, every killer runs on a real Valkey."""

from contracts.cache import LIBRARY_FILE
from tests.mutants.mutant import Edit, Mutant

_LUA = f"contracts/{LIBRARY_FILE}"
_MUTATIONS = "tests/contract/link_cache/test_mutations.py"
_LEASES = "tests/contract/link_cache/test_leases.py"
_REAL = "tests/integration/redis/test_link_cache_redis.py"


def _lua(name: str, rule: str, why: str, old: str, new: str, *killed_by: str) -> Mutant:
    return Mutant(name=name, rule=rule, why=why, edits=(Edit(file=_LUA, old=old, new=new),), killed_by=killed_by)


MUTANTS = (
    # R1: mutate
    _lua(
        "set-if-newer-instead-of-equal",
        "R1",
        "a change decided on a version that was never stored is applied",
        "if stored.version ~= base_version then",
        "if stored.version > base_version then",
        f"{_MUTATIONS}::test_a_present_value_must_have_exactly_the_base_version[valkey]",
    ),
    _lua(
        "set-if-newer-or-equal",
        "R1",
        "of two changes decided on the same version both are told that they won",
        "if stored.version ~= base_version then",
        "if stored.version > new.version then",
        f"{_MUTATIONS}::test_a_present_value_must_have_exactly_the_base_version[valkey]",
    ),
    _lua(
        "mutate-keeps-the-old-expiry",
        "R1",
        "an entry expires before the tables hold its version: a deleted link redirects again",
        "redis.call('SET', url, value) --",
        "redis.call('SET', url, value, 'KEEPTTL') --",
        f"{_MUTATIONS}::test_a_mutation_takes_a_persisted_entrys_expiry_away[valkey]",
    ),
    _lua(
        "no-not-after",
        "I1",
        "a call that was held up is applied beside the event that has replaced it",
        "if not_after_ms > 0 and now_ms() > not_after_ms then",
        "if false then",
        f"{_MUTATIONS}::test_late_is_judged_by_redis_time_and_before_conflict_and_lease[valkey]",
    ),
    _lua(
        "not-after-behind-the-preconditions",
        "R1",
        "a refusal is told of an event whose fate is unknown",
        "  if not_after_ms > 0 and now_ms() > not_after_ms then",
        "  if stored and stored.version ~= base_version then\n"
        "    return { 'CONFLICT' }\n"
        "  end\n"
        "  if not_after_ms > 0 and now_ms() > not_after_ms then",
        f"{_MUTATIONS}::test_late_is_judged_by_redis_time_and_before_conflict_and_lease[valkey]",
    ),
    _lua(
        "preconditions-before-seen",
        "R1",
        "a retried change is refused by what came of its own success",
        "  local result = redis.call('GET', seen)",
        "  local before = read(url)\n"
        "  if before and before.version ~= base_version then\n"
        "    return { 'CONFLICT' }\n"
        "  end\n"
        "  local result = redis.call('GET', seen)",
        f"{_MUTATIONS}::test_a_remembered_event_has_its_result_when_newer_versions_stand_and_when_late[valkey]",
        f"{_MUTATIONS}::test_a_repeated_event_is_answered_by_its_result_and_applied_once[valkey-False]",
    ),
    _lua(
        "late-before-seen",
        "R1",
        "a retry after 30 s is applied a second time, under another event",
        "  local result = redis.call('GET', seen)",
        "  if not_after_ms > 0 and now_ms() > not_after_ms then\n"
        "    return { 'LATE' }\n"
        "  end\n"
        "  local result = redis.call('GET', seen)",
        f"{_MUTATIONS}::test_a_remembered_event_has_its_result_when_newer_versions_stand_and_when_late[valkey]",
        f"{_MUTATIONS}::test_the_value_of_the_event_itself_answers_before_late[valkey]",
    ),
    _lua(
        "seen-not-written",
        "R1",
        "a retry that comes after another's change is refused, or done twice",
        "if remember then",
        "if false then",
        f"{_MUTATIONS}::test_a_remembered_event_has_its_result_when_newer_versions_stand_and_when_late[valkey]",
    ),
    _lua(
        "own-value-not-recognised",
        "R1",
        "a repeat without `seen` conflicts with itself",
        "if stored and stored.event_id == event_id then",
        "if false then",
        f"{_MUTATIONS}::test_a_repeated_event_is_answered_by_its_result_and_applied_once[valkey-False]",
    ),
    _lua(
        "mutate-without-the-lease",
        "R1",
        "who read before another's write puts an old base over it",
        "elseif not (generated and is_create) and not holds(lease, token) then",
        "elseif false then",
        f"{_MUTATIONS}::test_an_absent_value_needs_the_current_lease_unless_it_is_a_generated_create[valkey]",
        f"{_MUTATIONS}::test_a_write_ends_the_lease[valkey]",
    ),
    _lua(
        "generated-excuses-changes",
        "R1",
        "a change of an absent link is applied on a base nobody has read",
        "elseif not (generated and is_create) and not",
        "elseif not generated and not",
        f"{_MUTATIONS}::test_an_absent_value_needs_the_current_lease_unless_it_is_a_generated_create[valkey]",
    ),
    _lua(
        "lease-survives-a-write",
        "R2",
        "a reader fills in what it read before the write",
        "redis.call('DEL', lease)",
        "",
        f"{_MUTATIONS}::test_a_write_ends_the_lease[valkey]",
    ),
    _lua(
        "event-not-in-the-outbox",
        "P1",
        "an acknowledged change never reaches the tables",
        "redis.call('XADD', outbox, '*', 'e', event)",
        "",
        f"{_MUTATIONS}::test_a_repeated_event_is_answered_by_its_result_and_applied_once[valkey-False]",
    ),
    # R2, R3: lease and fill
    _lua(
        "lease-for-everybody",
        "R2",
        "two readers hold leases, and the older read may be filled in last",
        "redis.call('SET', keys[2], args[1], 'NX', 'PX', args[2])",
        "redis.call('SET', keys[2], args[1], 'PX', args[2])",
        f"{_LEASES}::test_one_lease_at_a_time_with_another_token_each[valkey]",
    ),
    _lua(
        "lease-of-a-present-value",
        "R2",
        "the table is believed where Redis knows better",
        "    return { 'PRESENT', stored.value }\n  end\n  if memory_share()",
        "  end\n  if memory_share()",
        f"{_LEASES}::test_a_present_value_is_returned_instead_of_a_lease[valkey]",
    ),
    _lua(
        "lease-released-by-anybody",
        "R2",
        "a reader that was paused ends another's lease",
        "if holds(keys[1], args[1]) then",
        "if true then",
        f"{_LEASES}::test_a_lease_given_back_is_free_at_once_and_only_by_its_holder[valkey]",
    ),
    _lua(
        "fill-without-a-lease",
        "R3",
        "a paused reader brings an old version back",
        "not holds(keys[2], args[1]) then",
        "false then",
        f"{_LEASES}::test_fill_without_the_lease_stores_nothing[valkey]",
    ),
    _lua(
        "fill-over-a-present-value",
        "R3",
        "a filler answers with what it read, not with what was acknowledged meanwhile",
        "local function fill(keys, args)\n  local stored = read(keys[1])",
        "local function fill(keys, args)\n  local stored = nil",
        f"{_LEASES}::test_fill_answers_with_what_is_stored_now[valkey]",
    ),
    # R4: persisted
    Mutant(
        name="persisted-unversioned",
        rule="R4",
        why="the mark of an older version lets a newer one expire that the tables do not hold",
        edits=(
            Edit(file=_LUA, old="if stored.version > told.version then", new="if false then"),
            Edit(file=_LUA, old="if stored.event_id ~= told.event_id then", new="if false then"),
        ),
        killed_by=(
            f"{_MUTATIONS}::test_persisted_repairs_older_leaves_newer_and_creates_nothing[valkey]",
            f"{_MUTATIONS}::test_a_mutation_takes_a_persisted_entrys_expiry_away[valkey]",
        ),
    ),
    _lua(
        "persisted-of-another-event",
        "R4",
        "after a failover the mark of one event lets another of the same version expire",
        "if stored.event_id ~= told.event_id then",
        "if false then",
        f"{_MUTATIONS}::test_persisted_repairs_older_leaves_newer_and_creates_nothing[valkey]",
    ),
    _lua(
        "persisted-on-an-absent-key",
        "R4",
        "a mark that comes late brings back what has been replaced, expired and changed since",
        "  if not stored then\n    return { 'ABSENT' }\n  end\n  if stored.version > told.version then",
        "  if not stored then\n"
        "    redis.call('SET', keys[1], told.value, 'PX', ttl_ms(told, tonumber(args[2])))\n"
        "    return { 'ABSENT' }\n"
        "  end\n"
        "  if stored.version > told.version then",
        f"{_MUTATIONS}::test_persisted_repairs_older_leaves_newer_and_creates_nothing[valkey]",
    ),
    _lua(
        "persisted-repairs-nothing",
        "R4",
        "an entry that is older than the tables stays for ever",
        "if stored.version < told.version then",
        "if false then",
        f"{_MUTATIONS}::test_persisted_repairs_older_leaves_newer_and_creates_nothing[valkey]",
    ),
    _lua(
        "persisted-sets-no-expiry",
        "R4",
        "Redis fills with what the tables hold",
        "redis.call('PEXPIRE', keys[1], ttl_ms(stored, tonumber(args[2])))",
        "",
        f"{_MUTATIONS}::test_persisted_gives_its_own_version_an_expiry_with_jitter[valkey]",
    ),
    # R6, O3: room
    _lua(
        "no-limit-of-memory",
        "R6",
        "Redis runs out of memory in the middle of a change, and deletes have no room left",
        "if memory_share() >= (is_create and CREATES_STOP_AT or CHANGES_STOP_AT) then",
        "if false then",
        f"{_MUTATIONS}::test_creates_are_refused_before_changes",
    ),
    _lua(
        "expiries-do-not-shrink",
        "R6",
        "memory fills up with entries that the tables hold",
        "if share >= SHORTEST_FROM then",
        "if false then",
        f"{_MUTATIONS}::test_expiries_shrink_as_memory_fills",
    ),
    _lua(
        "no-outbox-budget",
        "O3",
        "an outage of Kafka fills Redis to the brim",
        "if budget > 0 then",
        "if false then",
        "tests/integration/redis/test_outbox_limits.py::test_an_outbox_at_its_budget_takes_nothing_more",
    ),
    _lua(
        "no-reserve-for-deletes",
        "O3",
        "when creates have used up the outbox nobody can delete",
        "(is_create and CREATES_OF_BUDGET or 1)",
        "1",
        f"{_MUTATIONS}::test_the_outbox_budget_refuses_creates_first_and_keeps_a_reserve_for_deletes[valkey]",
    ),
    # R8, O1
    _lua(
        "restore-over-newer",
        "R8",
        "recovery takes back what was changed since",
        "if stored and stored.version >= told.version then",
        "if false then",
        f"{_REAL}::test_restore_puts_back_what_is_absent_or_older_and_nothing_else",
    ),
    _lua(
        "two-leaders",
        "O1",
        "two relays send the same events all the time",
        "if leader and leader ~= args[1] then",
        "if false then",
        "tests/contract/link_cache/test_outbox.py::test_one_leader_until_its_lease_ends_or_is_given_back[valkey]",
    ),
)
