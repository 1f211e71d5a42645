"""Reading (R2, R3, R5 to R7, L4): what may be believed of the table, of Redis, and of a silence."""

from tests.mutants.mutant import Edit, Mutant, broken

_READER = "link_service/handlers/reading.py"
_FLIGHTS = "link_service/handlers/table_reads.py"
_CACHE = "link_service/adapters/link_cache_redis.py"
_TESTS = "tests/unit/link_service/test_reading.py"
_ORDER = "tests/unit/link_service/test_lease_order.py"
_REAL = "tests/integration/redis/test_link_cache_redis.py"
_LEASES = "tests/contract/link_cache/test_leases.py"
_BATCHES = "tests/integration/dynamodb/test_batch_get.py"


MUTANTS = (
    Mutant(
        name="read-before-the-lease",
        rule="R2",
        why="a read that is older than somebody's change is filled in after it",
        edits=(
            Edit(
                file=_READER,
                old="            answer = await self._cache.lease(key)\n",
                new="            early = await self._reads.read(key)\n"
                "            answer = await self._cache.lease(key)\n",
            ),
            Edit(
                file=_READER,
                old="return await self._fill(key, token, await self._read_leased(key, token))",
                new="return await self._fill(key, token, early)",
            ),
        ),
        killed_by=(f"{_ORDER}::test_what_was_overtaken_while_it_was_read_is_not_filled_in",),
    ),
    Mutant(
        name="base-read-before-the-lease",
        rule="R2",
        why="a change is decided on a version that has been replaced, and two versions have one number",
        edits=(
            Edit(
                file=_READER,
                old="                case Present(link):\n                    return Base(link)\n",
                new="                case Present(link):\n                    return Base(link)\n"
                "                case Leased(token) if early is not None:\n"
                "                    return Base(early, token)\n",
            ),
            Edit(
                file=_READER,
                old="        for _ in range(_HELD_POLLS_MAX):\n",
                new="        early = await self._reads.read(key)\n        for _ in range(_HELD_POLLS_MAX):\n",
            ),
        ),
        killed_by=(f"{_ORDER}::test_a_base_that_was_overtaken_while_it_was_read_is_void",),
    ),
    broken(
        "token-known-to-several-calls",
        "R2",
        "a token that is the event's or the link's is also that of an older try, which so holds a lease it has lost",
        Edit(
            file=_CACHE,
            old="LeaseToken(secrets.token_bytes(_TOKEN_BYTES))",
            new="LeaseToken(key.encode())",
        ),
        f"{_LEASES}::test_one_lease_at_a_time_with_another_token_each[valkey]",
    ),
    broken(
        "filler-answers-with-what-it-read",
        "R3",
        "a redirect is answered from before a delete that was acknowledged during the read",
        Edit(file=_CACHE, old='return _readable(value) if word == "PRESENT" else link', new="return link"),
        f"{_LEASES}::test_fill_answers_with_what_is_stored_now[valkey]",
    ),
    Mutant(
        name="passengers-on-a-read-that-was-sent",
        rule="R3",
        why="who comes after a change gets the answer of a read from before it",
        edits=(
            Edit(
                file=_FLIGHTS,
                old="self._sent: set[LinkKey] = set()",
                new='self._sent = type("Sent", (dict,), {"discard": lambda self, key: self.pop(key, None)})()',
            ),
            Edit(
                file=_FLIGHTS,
                old="flight = self._boarding.get(key)\n",
                new="flight = self._boarding.get(key) or self._sent.get(key)\n",
            ),
        ),
        killed_by=("tests/unit/link_service/test_table_reads.py::test_a_read_that_was_sent_takes_no_new_passengers",),
    ),
    broken(
        "unused-lease-is-kept",
        "R2",
        "the next change waits three seconds for a lease that nobody uses",
        Edit(file=_READER, old="            await self._fill(key, base.token, base.link)\n", new="            pass\n"),
        "tests/unit/link_service/test_changing.py::test_a_refused_delete_gives_its_lease_back",
    ),
    broken(
        "reads-are-not-consistent",
        "R5",
        "the table is asked what Redis does not know, and answers from before",
        Edit(file="chassis/dynamodb.py", old='"ConsistentRead": True', new='"ConsistentRead": False'),
        f"{_BATCHES}::test_a_hundred_keys_are_one_consistent_call_and_only_what_is_asked_for_comes",
    ),
    broken(
        "unprocessed-keys-ignored",
        "W4",
        "a row that a throttling database left out is taken for absent",
        Edit(
            file="chassis/dynamodb.py",
            old='again = answer["UnprocessedKeys"].get(table) if "UnprocessedKeys" in answer else None',
            new="again = None",
        ),
        f"{_BATCHES}::test_keys_left_unprocessed_are_asked_again_and_never_absent",
        f"{_BATCHES}::test_a_throttled_read_makes_no_conflict_and_no_absent_projection",
    ),
    broken(
        "unconfirmed-absence-is-404",
        "L4",
        "a link that is not persisted yet does not exist while Redis is away",
        Edit(
            file=_READER,
            old='raise Unavailable("unavailable", "Whether the link exists cannot be confirmed now.", retry_after_s=1)',
            new="pass",
        ),
        f"{_TESTS}::test_an_unconfirmed_absence_is_no_404",
        dies_of="NotFound",
    ),
    broken(
        "unconfirmed-passes-for-confirmed",
        "L4",
        "nobody counts the answers that may miss a delete",
        Edit(file=_READER, old="return Resolved(link, unconfirmed=True)", new="return Resolved(link)"),
        f"{_TESTS}::test_without_redis_the_table_answers_unconfirmed",
    ),
    broken(
        "redis-breaker-never-opens",
        "R7",
        "every caller waits anew for a Redis that hangs",
        Edit(
            file="chassis/breaker.py",
            old="self._next_trial = self._clock.monotonic() + self._open_s",
            new="self._next_trial = None",
        ),
        "tests/unit/gateway/test_lookups.py::test_a_breaker_lets_one_try_each_second",
        f"{_REAL}::test_a_hung_redis_is_waited_for_once_and_a_mutation_says_that_its_outcome_is_unknown",
    ),
    broken(
        "unknown-outcome-told-as-refusal",
        "R1",
        "a client is told that nothing happened, and repeats what was done",
        Edit(
            file="link_service/adapters/redis_line.py",
            old="reason = self._unknown if exchange.sent else UNAVAILABLE",
            new="reason = UNAVAILABLE",
        ),
        f"{_REAL}::test_a_hung_redis_is_waited_for_once_and_a_mutation_says_that_its_outcome_is_unknown",
    ),
    broken(
        "redis-that-forgets-is-good-enough",
        "R6",
        "what was acknowledged is lost with the power",
        Edit(
            file="link_service/adapters/function_library_redis.py",
            old="if wrong else None",
            new="if False else None",
        ),
        f"{_REAL}::test_a_redis_that_is_not_durable_makes_the_process_unready[appendfsync-everysec]",
    ),
    broken(
        "library-replaced-in-place",
        "R6",
        "an old process runs on the Functions of a new one",
        Edit(
            file="link_service/adapters/function_library_redis.py",
            old="function_load(self._body)",
            new="function_load(self._body, replace=True)",
        ),
        f"{_REAL}::test_a_fit_redis_makes_the_process_ready_with_the_library_loaded_once",
    ),
    broken(
        "old-requests-warm-the-cache",
        "C6",
        "after an outage what nobody waits for any more takes the room of what is asked for",
        Edit(
            file="link_service/domain/read_requests.py",
            old="return now - datetime.fromtimestamp(requested_ms / 1000, UTC) > _WORTH",
            new="return False",
        ),
        "tests/unit/link_service/test_read_requests.py::"
        "test_a_request_older_than_a_minute_is_dropped_whatever_this_clock_says",
    ),
)
