"""When a consumer gets another instance, and when it loses one: a pure rule over measured lag.

Lag above 5 s for 5 minutes adds an instance, up to the number of partitions (a further one would have nothing to
read); lag below 1 s for 15 minutes takes one away, down to one. At least 5 minutes lie between two steps, since each
step moves partitions and makes lag of its own. The gap between 1 s and 5 s keeps the rule from swinging.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

_SAMPLE_GAP_MAX_S = 60.0  # silence is not evidence: a longer gap between samples breaks a window


@dataclass(frozen=True, slots=True)
class LagSample:
    """The greatest lag over all partitions of a group at one moment."""

    at_s: float  # of a monotonic clock
    lag_s: float


@dataclass(frozen=True, slots=True)
class AutoscalingPolicy:
    """The figures of the rule."""

    up_lag_s: float = 5.0
    up_window_s: float = 300.0
    down_lag_s: float = 1.0
    down_window_s: float = 900.0
    between_steps_s: float = 300.0


def decide_instances(
    samples: Sequence[LagSample],
    *,
    now_s: float,
    instances: int,
    partitions: int,
    last_step_s: float = -inf,
    policy: AutoscalingPolicy | None = None,
) -> int:
    """How many instances there should be: one more, one fewer, or as many as there are.

    `samples`: oldest first, reaching back at least 15 minutes if there are so many. `last_step_s`: when the number last
    changed. Always within 1 … partitions, also if `instances` is not.

    Raises:
        ValueError: there is no partition.
    """
    if partitions < 1:
        raise ValueError("a topic has at least one partition")
    policy = policy or AutoscalingPolicy()
    wanted = instances
    if now_s - last_step_s >= policy.between_steps_s:
        if _held(samples, now_s, policy.up_window_s, low_s=policy.up_lag_s):
            wanted = instances + 1
        elif _held(samples, now_s, policy.down_window_s, high_s=policy.down_lag_s):
            wanted = instances - 1
    return max(1, min(wanted, partitions))


def _held(
    samples: Sequence[LagSample], now_s: float, window_s: float, *, low_s: float = -inf, high_s: float = inf
) -> bool:
    """Whether lag was above low_s and below high_s during the whole window, by samples without a long gap."""
    start_s = now_s - window_s
    before = [sample for sample in samples if sample.at_s <= start_s]
    inside = [sample for sample in samples if sample.at_s > start_s]
    if not before or not inside:
        return False  # the window is not covered yet
    moments = [max(before[-1].at_s, start_s), *(sample.at_s for sample in inside), now_s]
    gap_s = max(later - earlier for earlier, later in pairwise(moments))
    covered = start_s - before[-1].at_s <= _SAMPLE_GAP_MAX_S and gap_s <= _SAMPLE_GAP_MAX_S
    return covered and all(low_s < sample.lag_s < high_s for sample in [before[-1], *inside])
