"""Links in a gateway's memory (L1 to L5): what may be kept, and until when it may be believed."""

from tests.mutants.mutant import Edit, broken

_NEAR = "gateway/domain/near_cache.py"
_LOOKUPS = "gateway/handlers/lookups.py"
_TRACKING = "gateway/adapters/tracking_redis.py"
_READER = "link_service/handlers/reading.py"
_STATES = "tests/unit/gateway/test_near_cache.py"
_STEPS = "tests/unit/gateway/test_near_lookups.py"
_WORDS = "tests/integration/gateway/test_tracking_script.py"
_REAL = "tests/integration/gateway/test_tracking.py"
_ANY_ORDER = f"{_STATES}::test_nothing_is_served_that_has_been_over_for_longer_than_allowed"

MUTANTS = (
    broken(
        "a-marked-flight-is-kept",
        "L1",
        "a link that was deleted while it was looked up is served until it is changed again",
        Edit(file=_NEAR, old="return self._keeping and not flight.marked", new="return self._keeping"),
        f"{_STATES}::test_a_marked_flight_is_answered_and_not_kept",
        f"{_STEPS}::test_a_look_up_whose_link_changes_meanwhile_is_answered_and_not_kept",
        _ANY_ORDER,
    ),
    broken(
        "a-marked-flight-takes-passengers",
        "L1",
        "who asks after a delete was acknowledged is told what was read before it",
        Edit(file=_NEAR, old="flight is None or flight.marked or", new="flight is None or"),
        f"{_STATES}::test_a_marked_flight_takes_no_new_passengers",
        f"{_STEPS}::test_a_look_up_whose_link_changes_meanwhile_is_answered_and_not_kept",
    ),
    broken(
        "an-older-flight-is-not-found-by-an-invalidation",
        "L1",
        "of two look-ups of a code the first lands behind the delete, and is kept",
        Edit(file=_NEAR, old="            before.marked = True\n", new="            pass\n"),
        _ANY_ORDER,
    ),
    broken(
        "links-live-past-a-lost-beat",
        "L2",
        "a channel that broke without a word lets a gateway redirect to deleted links for ever",
        Edit(
            file=_NEAR,
            old="min(self._beat_at + LIFE_S, self._turned_at + STILL_S)",
            new="self._turned_at + STILL_S",
        ),
        f"{_STATES}::test_past_the_last_beat_entries_live_five_seconds",
        f"{_STEPS}::test_while_neither_answers_the_memory_does_for_a_minute",
    ),
    broken(
        "a-standstill-is-not-noticed",
        "L2",
        "after SIGSTOP the first requests are answered with what was deleted meanwhile",
        Edit(file=_NEAR, old="            self._still_at = now\n", new="            pass\n"),
        f"{_STATES}::test_after_a_standstill_only_a_beat_sent_since_makes_good",
        _ANY_ORDER,
    ),
    broken(
        "a-beat-of-before-makes-a-standstill-good",
        "L2",
        "what was said during the pause may still be unread when the memory serves again",
        Edit(
            file=_NEAR,
            old="if self._still_at is not None and sent_at >= self._still_at:",
            new="if self._still_at is not None:",
        ),
        f"{_STATES}::test_after_a_standstill_only_a_beat_sent_since_makes_good",
    ),
    broken(
        "flushed-before-the-subscription-is-confirmed",
        "L2",
        "a change between the two is told to nobody, and what was read before it is kept",
        Edit(
            file=_TRACKING,
            old='                subscribed = await _ask(opened, heard, ["SUBSCRIBE", _CHANNEL])\n',
            new="                self._links.subscribed(asked_at)\n"
            '                subscribed = await _ask(opened, heard, ["SUBSCRIBE", _CHANNEL])\n',
        ),
        f"{_WORDS}::test_nothing_is_kept_before_the_subscription_is_confirmed",
    ),
    broken(
        "a-new-channel-keeps-what-was-there",
        "L2",
        "what changed between two connections was told to nobody",
        Edit(file=_NEAR, old="        marked = self.flush()\n", new="        marked = self._mark_all()\n"),
        f"{_STATES}::test_while_nobody_answers_an_entry_is_had_for_a_minute",
    ),
    broken(
        "a-beat-is-taken-for-another",
        "L2",
        "a beat that was long under way vouches for changes that came after it",
        Edit(file=_TRACKING, old='beat_key(f"{self._name}:{self._number}")', new="beat_key(self._name)"),
        f"{_WORDS}::test_a_beat_vouches_for_what_was_said_before_and_beside_it",
    ),
    broken(
        "a-beat-is-heard-before-what-stands-beside-it",
        "L2",
        "for a moment a memory is believed that a change of the same message ends",
        Edit(
            file=_TRACKING,
            old="                beats.append(self._sent.pop(key))\n",
            new="                self._links.heard(self._sent.pop(key))\n",
        ),
        f"{_WORDS}::test_a_beat_vouches_for_what_was_said_before_and_beside_it",
    ),
    broken(
        "an-emptied-redis-is-not-heard",
        "L1",
        "FLUSHALL names no keys: a memory that waits for names keeps everything",
        Edit(
            file=_TRACKING,
            old="                    self._links.flush()\n                case _:",
            new="                    pass\n                case _:",
        ),
        f"{_WORDS}::test_no_keys_mean_all_keys_and_nonsense_means_the_end",
        f"{_REAL}::test_an_emptied_redis_empties_the_memory",
    ),
    broken(
        "another-run-of-redis-is-not-noticed",
        "R8",
        "a gateway that reads one Redis listens to another one",
        Edit(
            file=_TRACKING,
            old="if self._open is not None and run != self._open.run:",
            new="if False:",
        ),
        f"{_WORDS}::test_another_run_of_redis_ends_the_channel",
    ),
    broken(
        "a-gateway-serves-what-it-has-just-changed",
        "P2",
        "who deletes a link and follows it through the same gateway is redirected, until Redis tells of it",
        Edit(
            file=_LOOKUPS,
            old="        self.changed(key)\n",
            new="        self._sources.resolver.forget(key)\n",
        ),
        f"{_STEPS}::test_who_forwards_a_change_serves_nothing_older_once_it_is_told",
    ),
    broken(
        "what-nobody-vouches-for-is-kept",
        "L4",
        "the table missed a delete, and the gateway goes on missing it when Redis is back",
        Edit(
            file=_LOOKUPS,
            old="return Looked(source, value, entry.ready), None if resolved.unconfirmed else entry",
            new="return Looked(source, value, entry.ready), entry",
        ),
        f"{_STEPS}::test_what_nobody_vouches_for_is_not_kept",
    ),
    broken(
        "an-old-memory-contradicts-redis",
        "L4",
        "Redis says that there is no such link, and the visitor is sent on",
        Edit(
            file=_LOOKUPS, old="(None if redis_answered else self._stale(trip)) or exc", new="self._stale(trip) or exc"
        ),
        f"{_STEPS}::test_a_redis_that_answers_is_not_contradicted_by_an_old_memory",
    ),
    broken(
        "the-table-is-asked-past-redis",
        "L4",
        "a delete that is acknowledged and not yet in the table is not seen",
        Edit(
            file=_READER,
            old="            return Resolved(await self.newest(key))\n",
            new="            return Resolved(await self._reads.read(key))\n",
        ),
        "tests/unit/link_service/test_reading.py::test_redis_answers_without_the_table",
        dies_of="Unavailable",
    ),
    broken(
        "a-mark-of-ids-goes-back",
        "L5",
        "a Redis that forgot makes codes unknown that were given out long ago",
        Edit(
            file="gateway/domain/issued.py",
            old="if mark is not None and (self._mark is None or mark > self._mark):",
            new="if mark is not None:",
        ),
        f"{_STEPS}::test_codes_that_were_never_issued_cost_no_question",
    ),
)
