"""Creates at the gateway: those that share a call, those past FastAPI, and many in one request."""

from tests.mutants.mutant import Edit, broken

_CREATOR = "gateway/adapters/creator_grpc.py"
_PLAIN = "gateway/handlers/creating.py"
_BATCHES = "gateway/handlers/link_batches.py"
_SHARED = "tests/unit/gateway/test_creator.py"
_CREATES = "tests/unit/gateway/test_creates.py"

MUTANTS = (
    broken(
        "sent-and-late-is-told-as-never-sent",
        "R1",
        "who is told that nothing was done makes the link a second time",
        Edit(file=_CREATOR, old="    if create.sent:\n", new="    if False:\n"),
        f"{_SHARED}::test_each_create_has_its_own_deadline",
    ),
    broken(
        "given-up-and-sent-all-the-same",
        "R1",
        "a link is made that nobody waits for and whose client was told nothing",
        Edit(
            file=_CREATOR,
            old="            if not create.answer.done():\n                size",
            new="            if True:\n                size",
        ),
        f"{_SHARED}::test_who_gives_up_takes_nobody_along",
    ),
    broken(
        "a-neighbours-link",
        "R1",
        "who has no result is told of somebody else's link",
        Edit(
            file=_CREATOR,
            old="results[place] if place < len(results) else None",
            new="results[min(place, len(results) - 1)] if results else None",
        ),
        f"{_SHARED}::test_an_answer_that_lacks_results_is_not_passed_off_as_one",
    ),
    broken(
        "plain-create-whose-answer-was-lost-failed",
        "R1",
        "a link that was made is told as one that was not",
        Edit(
            file=_PLAIN,
            old="        with told_outcome():\n            return await self._creator.create(request)\n",
            new="        return await self._creator.create(request)\n",
        ),
        f"{_CREATES}::test_a_lost_answer_is_told_as_such_either_way",
    ),
    broken(
        "old-flights-take-passengers-after-a-plain-create",
        "P2",
        "who follows a new link joins a look-up that began before it was made: 404",
        Edit(file=_PLAIN, old="        self._resolver.forget(link_key(code))\n", new=""),
        f"{_CREATES}::test_who_follows_a_new_link_joins_no_look_up_of_before",
    ),
    broken(
        "one-of-many-whose-answer-was-lost-failed",
        "R1",
        "a link that was made is told as one that was not",
        Edit(
            file=_BATCHES,
            old="        with told_outcome():\n            raise error_of(result.problem)\n",
            new="        raise error_of(result.problem)\n",
        ),
        f"{_CREATES}::test_a_batch_that_cannot_be_asked_for_is_one_problem",
    ),
    broken(
        "one-key-for-all-of-a-batch",
        "I1",
        "of a hundred links under one idempotency key one is made and the others are 422",
        Edit(file=_BATCHES, old='f"{place} {idempotency_key}"', new='f"{idempotency_key}"'),
        f"{_CREATES}::test_a_batch_repeated_under_its_key_asks_under_the_same_keys",
    ),
)
