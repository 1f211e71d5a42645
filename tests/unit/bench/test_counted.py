"""When a count is taken for final."""

import asyncio
from collections.abc import Sequence

import pytest

from bench.counted import settled


@pytest.mark.parametrize(
    ("seen", "final"),
    [
        ([0, 400, 500], 500),
        ([0, 400, 500, 500, 501], 501),  # what is counted too much shows soon after
        ([0, -1, 300, 499], 499),  # what is missing stays missing
    ],
)
def test_a_count_is_final_a_while_after_it_was_reached(seen: Sequence[int], final: int) -> None:
    """Or when nothing more comes: neither a click that is missing nor one too many is overlooked."""
    looks = iter([*seen, *[seen[-1]] * 10_000])

    async def count() -> int:
        return next(looks)

    assert asyncio.run(settled(count, 500, still_s=0.2, patience_s=1.0)) == final
