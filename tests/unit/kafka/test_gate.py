"""The breaker in front of a dependency."""

import pytest

from chassis.kafka.gate import Gate


@pytest.mark.rule("C1")
def test_closed_after_a_failure_it_lets_one_probe_through_per_interval() -> None:
    """After a failure nothing passes until the interval is over, then one record, then nothing for an interval more."""
    gate = Gate(batch_max=100, probe_interval_s=1.0)
    gate.failed(10.0)

    allowed = {}
    for now in (10.0, 10.9, 11.0):
        allowed[now] = gate.allowance(now)
    gate.began(11.0)

    assert allowed == {10.0: 0, 10.9: 0, 11.0: 1}
    assert (gate.allowance(11.9), gate.allowance(12.0)) == (0, 1)
    assert gate.away


@pytest.mark.rule("C1")
def test_opens_step_by_step() -> None:
    """After the first success batches double up to the limit, so that one bad record does not fail all at once."""
    gate = Gate(batch_max=10, probe_interval_s=1.0)
    gate.failed(0.0)

    sizes = []
    for _ in range(5):
        gate.answered()
        sizes.append(gate.allowance(0.0))

    assert sizes == [2, 4, 8, 10, 10]
    assert not gate.away
    assert gate.next_probe() is None


def test_open_from_the_start() -> None:
    """Nothing is held to be away before it has failed."""
    gate = Gate(batch_max=10, probe_interval_s=1.0)
    gate.began(0.0)

    assert (gate.allowance(0.0), gate.away) == (10, False)
