"""The autoscaling rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linkmesh.local.autoscaling import LagSample, decide_instances


def steady(lag_s: float, *, minutes: float, until_s: float = 10_000.0) -> list[LagSample]:
    """A sample every 15 s of the same lag, over the last minutes."""
    count = int(minutes * 4) + 1
    return [LagSample(until_s - 15 * back, lag_s) for back in reversed(range(count))]


@pytest.mark.parametrize(
    ("samples", "instances", "last_step_s", "expected"),
    [
        (steady(6, minutes=5), 1, 0, 2),
        (steady(6, minutes=4), 1, 0, 1),  # not for long enough
        (steady(5, minutes=9), 1, 0, 1),  # not above
        ([*steady(6, minutes=9)[:-8], LagSample(9_890, 4.9), *steady(6, minutes=1.5)], 1, 0, 1),  # interrupted
        (steady(6, minutes=9), 10, 0, 10),  # no further than the partitions
        (steady(6, minutes=9), 1, 9_701, 1),  # 299 s after the last step
        (steady(6, minutes=9), 1, 9_700, 2),
        (steady(0.2, minutes=15), 3, 0, 2),
        (steady(0.2, minutes=14), 3, 0, 3),
        (steady(1, minutes=20), 3, 0, 3),  # not below
        (steady(0.2, minutes=20), 1, 0, 1),  # at least one
        (steady(0.2, minutes=20), 3, 9_800, 3),
        (steady(3, minutes=60), 4, 0, 4),  # between the two thresholds
        ([], 4, 0, 4),  # nothing known, nothing done
        ([LagSample(1, 9), LagSample(9_999, 9)], 1, 0, 1),  # two samples far apart prove nothing
        (steady(0, minutes=1), 12, 0, 10),  # more than partitions is never right
    ],
)
def test_the_rule(samples: list[LagSample], instances: int, last_step_s: float, expected: int) -> None:
    """Lag > 5 s for 5 min: one more; < 1 s for 15 min: one fewer; 5 min between steps; within 1 to the partitions."""
    decided = decide_instances(samples, now_s=10_000, instances=instances, partitions=10, last_step_s=last_step_s)

    assert decided == expected


@given(
    lags=st.lists(st.floats(0, 100), max_size=120),
    instances=st.integers(1, 10),
    partitions=st.integers(1, 10),
)
def test_one_step_at_a_time_within_bounds(lags: list[float], instances: int, partitions: int) -> None:
    """Whatever was measured, the answer is within 1 to the partitions and at most one step away from there."""
    samples = [LagSample(15.0 * number, lag) for number, lag in enumerate(lags)]

    decided = decide_instances(samples, now_s=15.0 * len(lags), instances=instances, partitions=partitions)

    assert 1 <= decided <= partitions
    assert abs(decided - min(instances, partitions)) <= 1


def test_a_topic_has_partitions() -> None:
    """Asking for a topic without partitions is a mistake, not a decision."""
    with pytest.raises(ValueError, match="at least one partition"):
        decide_instances([], now_s=0, instances=1, partitions=0)
