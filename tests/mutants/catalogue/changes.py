"""Changes (R1, I1 to I3): decided on what is, applied once, answered alike however often they are asked for."""

from tests.mutants.mutant import Edit, Mutant, broken

_FLOW = "link_service/handlers/changing.py"
_ATTEMPTS = "link_service/handlers/attempts.py"
_INTENTS = "link_service/adapters/intents_redis.py"
_ORDER = "tests/unit/link_service/test_lease_order.py"
_IDEMPOTENCY = "tests/unit/link_service/test_idempotency.py"
_UPDATES = "tests/unit/link_service/test_updating.py"
_OUTCOMES = "tests/unit/link_service/test_outcomes.py"
_STORES = "tests/contract/test_link_service_stores.py"


MUTANTS = (
    Mutant(
        name="base-kept-after-lease-needed",
        rule="R1",
        why="a change is decided on a version that was replaced and whose successor has expired",
        edits=(
            Edit(
                file=_FLOW,
                old="        for _ in range(_RACES_MAX):\n",
                new="        kept = None\n        for _ in range(_RACES_MAX):\n",
            ),
            Edit(
                file=_FLOW,
                old="            base = await self._reader.base(key)\n",
                new="            base = await self._reader.base(key)\n"
                "            if base.token is not None and kept is not None:\n"
                "                base = Base(kept, base.token)\n"
                "            kept = base.link\n",
            ),
        ),
        killed_by=(f"{_ORDER}::test_after_lease_needed_the_base_is_read_again_and_not_kept",),
    ),
    broken(
        "if-match-ignored",
        "R1",
        "who has seen version 1 deletes version 2",
        Edit(file="link_service/domain/links.py", old="if if_version not in (0, current.version):", new="if False:"),
        "tests/unit/link_service/test_links.py::test_who_may_delete_what",
        "tests/unit/link_service/test_changing.py::test_a_stale_if_match_is_told_even_if_it_became_stale_in_the_race",
    ),
    broken(
        "refusal-without-a-look-at-seen",
        "I2",
        "a client whose answer was lost is told that its own change made its version stale",
        Edit(file=_FLOW, old="earlier = await self._attempts.outcome(attempt)", new="earlier = None"),
        f"{_IDEMPOTENCY}::test_a_repeated_delete_does_not_meet_its_own_tombstone",
        dies_of="Aborted",
    ),
    broken(
        "nothing-to-do-is-forgotten",
        "I1",
        "the repeat of a change that was not needed undoes what somebody did since",
        Edit(
            file=_FLOW,
            old="return await self._cache.remember(attempt.key, attempt.event_id, verdict.link, attempt.not_after)",
            new="return verdict.link",
        ),
        f"{_UPDATES}::test_nothing_to_do_is_an_answer_too_and_is_repeated",
    ),
    broken(
        "one-key-for-any-request",
        "I1",
        "a client that uses a key twice is told that something else was done",
        Edit(file=_ATTEMPTS, old="if stored.body_hash != request.body_hash:", new="if False:"),
        f"{_IDEMPOTENCY}::test_an_idempotency_key_belongs_to_one_request",
    ),
    broken(
        "not-after-by-our-own-clock",
        "I1",
        "a process whose clock is wrong makes no idempotent change at all, or makes it twice",
        Edit(
            file=_ATTEMPTS,
            old="not_after=await self._cache.now() + APPLY_WITHIN",
            new="not_after=self._clock.now() + APPLY_WITHIN",
        ),
        "tests/unit/link_service/test_apply_within.py::test_the_limit_is_half_a_minute_by_redis_clock",
    ),
    broken(
        "intent-overwritten",
        "I1",
        "two calls under one key carry out two events",
        Edit(
            file=_INTENTS,
            old="if stored then\n    return carry(ARGV[1])",
            new="if false then\n    return carry(ARGV[1])",
        ),
        f"{_STORES}::test_an_intent_is_the_first_and_is_swapped_only_by_who_knows_it[engines]",
    ),
    broken(
        "intent-swapped-unseen",
        "I1",
        "of two calls that come too late each swaps the other's event away, and both are applied",
        Edit(file=_INTENTS, old="if intent ~= ARGV[4] then", new="if false then"),
        f"{_STORES}::test_an_intent_is_the_first_and_is_swapped_only_by_who_knows_it[engines]",
    ),
    broken(
        "intent-removed-under-its-carriers",
        "I3",
        "a key is free while a call under it may still change the link",
        Edit(file=_INTENTS, old="if tonumber(carriers) > 1 then", new="if false then"),
        f"{_STORES}::test_an_intent_is_removed_by_the_last_of_its_carriers_and_by_nobody_else[engines]",
    ),
    broken(
        "intent-of-another-removed",
        "I3",
        "who was late removes the intent of its successor",
        Edit(file=_INTENTS, old="if not carriers or intent ~= ARGV[1] then", new="if not carriers then"),
        f"{_STORES}::test_an_intent_is_removed_by_the_last_of_its_carriers_and_by_nobody_else[engines]",
    ),
    broken(
        "a-time-out-frees-the-key",
        "I3",
        "a change that may have happened is made again under another event",
        Edit(file=_ATTEMPTS, old="_REFUSALS = (Aborted,", new="_REFUSALS = (Unavailable, Aborted,"),
        f"{_IDEMPOTENCY}::test_a_time_out_keeps_the_key",
    ),
    broken(
        "no-second-look-for-an-event",
        "I2",
        "an event that was applied at the last moment is applied again under another id",
        Edit(
            file=_ATTEMPTS,
            old="return await self._cache.seen(attempt.key, attempt.event_id) or Late()",
            new="return Late()",
        ),
        f"{_OUTCOMES}::test_an_event_that_is_applied_between_the_look_and_its_end_is_found",
    ),
    broken(
        "an-event-that-is-over-is-refused",
        "I2",
        "a request is refused though a repeat of it has been carried out by another event",
        Edit(
            file=_ATTEMPTS,
            old="return await self._cache.seen(attempt.key, attempt.event_id) or Late()",
            new="return earlier",
        ),
        f"{_OUTCOMES}::test_an_event_whose_time_is_over_is_told_as_such_and_not_as_refused",
    ),
    broken(
        "item-begun-after-its-time",
        "R1",
        "a create that its caller has given up, and told as not done, is done",
        Edit(
            file="link_service/handlers/batching.py",
            old="            if _is_over(item):\n",
            new="            if False:\n",
        ),
        "tests/unit/link_service/test_batching.py::test_an_item_whose_time_is_over_is_not_begun",
    ),
)
