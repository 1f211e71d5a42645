"""Questions about counts (A7, A10): whoever is asked tells all of it, and nothing twice."""

from tests.mutants.mutant import Edit, Mutant, broken

_PRESENT = "tests/unit/analytics/test_present.py"
_WATCHING = "tests/unit/analytics/test_watching.py"


MUTANTS = (
    broken(
        "owner-and-table-added",
        "A7",
        "what is in memory and in the table is told twice",
        Edit(
            file="analytics/domain/stats.py",
            old="    return list(versions.values())\n",
            new="    return [*owned, *stored]\n",
        ),
        f"{_PRESENT}::test_the_owner_is_asked_wherever_it_is",
        f"{_PRESENT}::test_top_links_are_asked_of_every_owner",
        "tests/unit/analytics/test_stats.py::test_versions_are_compared_never_added",
    ),
    Mutant(
        name="table-asked-before-the-owner",
        rule="A7",
        why="a row that is flushed between the two questions is in neither answer",
        edits=(
            Edit(
                file="analytics/handlers/present.py",
                old="        partitions = await self._owners.partitions_of(key)\n",
                new="        stored = await self._rows.read(key, hours)\n"
                "        partitions = await self._owners.partitions_of(key)\n",
            ),
            Edit(
                file="analytics/handlers/present.py",
                old="        stored = await self._rows.read(key, hours)\n        return Found(",
                new="        return Found(",
            ),
        ),
        killed_by=(f"{_PRESENT}::test_a_row_that_leaves_memory_while_it_is_asked_for_is_found_in_the_table",),
    ),
    broken(
        "other-owners-not-asked-for-top-links",
        "A7",
        "the list depends on which instance is asked",
        Edit(
            file="analytics/handlers/present.py",
            old="        owned |= self.own_tops(user_id, days)\n",
            new="        owned = self.own_tops(user_id, days)\n",
        ),
        f"{_PRESENT}::test_top_links_are_asked_of_every_owner",
    ),
    broken(
        "reconciliation-stops-at-our-own",
        "A10",
        "what other owners miss is missed by nobody",
        Edit(
            file="analytics/handlers/reconciling.py",
            old="        found = await self._owners.ask(partition, own, other)\n",
            new="        found = own()\n",
        ),
        "tests/unit/analytics/test_reconciling.py::test_every_partition_is_told_of_by_who_knows_best",
    ),
    broken(
        "differences-cancel-out",
        "A10",
        "a spool that lost clicks is balanced by one whose books are old",
        Edit(
            file="linkmesh/local/reconciling.py",
            old="    return max(account.recorded, account.shipped) - account.counted\n",
            new="    return account.recorded - account.counted\n",
        ),
        "tests/unit/local/test_stats.py::test_a_difference_is_what_should_be_counted_and_is_not",
    ),
    broken(
        "interruption-untold",
        "A7",
        "who watches takes a stream with a hole for a whole one",
        Edit(
            file="analytics/handlers/watching.py",
            old="            interrupted = begun\n",
            new="            interrupted = False\n",
        ),
        f"{_WATCHING}::test_the_next_owner_is_found_and_the_interruption_told",
        f"{_WATCHING}::test_a_partition_that_comes_back_is_an_interruption",
    ),
)
