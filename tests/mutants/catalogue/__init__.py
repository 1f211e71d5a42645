"""All mutants, in the order of the rules."""

from tests.mutants.catalogue import changes, consumers, counting, custom, functions, outbox, reads, slow, tables
from tests.mutants.mutant import Mutant

ALL: tuple[Mutant, ...] = (
    *functions.MUTANTS,
    *reads.MUTANTS,
    *changes.MUTANTS,
    *outbox.MUTANTS,
    *tables.MUTANTS,
    *custom.MUTANTS,
    *consumers.MUTANTS,
    *counting.MUTANTS,
    *slow.MUTANTS,
)
