"""All mutants, in the order of the rules; the slow ones last."""

from tests.mutants.catalogue import (
    asking,
    changes,
    consequences,
    consumers,
    counting,
    creating,
    custom,
    functions,
    near_links,
    outbox,
    reads,
    recovery,
    slow,
    spool,
    tables,
)
from tests.mutants.mutant import Mutant

ALL: tuple[Mutant, ...] = (
    *functions.MUTANTS,
    *reads.MUTANTS,
    *near_links.MUTANTS,
    *changes.MUTANTS,
    *creating.MUTANTS,
    *recovery.MUTANTS,
    *outbox.MUTANTS,
    *tables.MUTANTS,
    *custom.MUTANTS,
    *consumers.MUTANTS,
    *spool.MUTANTS,
    *counting.MUTANTS,
    *asking.MUTANTS,
    *consequences.MUTANTS,
    *slow.MUTANTS,
)
