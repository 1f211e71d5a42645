"""The open-loop generator's plan and what it takes for an answer."""

from itertools import pairwise

import pytest

from bench.paced import due_moments, is_whole, percentile


def test_requests_are_due_at_the_rate_and_at_random() -> None:
    """A Poisson process: the mean gap is that of the rate, gaps vary as much as they are long, none is negative."""
    due = due_moments(20_000, 1000.0, seed=5)
    gaps = [after - before for before, after in pairwise(due)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5

    assert min(gaps) >= 0
    assert mean == pytest.approx(0.001, rel=0.03)
    assert deviation == pytest.approx(0.001, rel=0.05)


def test_a_closed_loop_has_everything_due_at_once() -> None:
    """Rate 0."""
    assert set(due_moments(5, 0.0)) == {0.0}


@pytest.mark.parametrize(
    ("data", "whole"),
    [
        (b"HTTP/1.1 302 Found\r\nlocation: x\r\ncontent-length: 0\r\n\r\n", True),
        (b"HTTP/1.1 302 Found\r\nlocation: x\r\ncontent-length: 0\r\n\r", False),
        (b"HTTP/1.1 302 Found\r\nContent-Length: 5\r\n\r\nabcd", False),
        (b"HTTP/1.1 302 Found\r\nContent-Length: 5\r\n\r\nabcde", True),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", True),
        (b"", False),
    ],
)
def test_an_answer_is_whole_with_its_body(data: bytes, *, whole: bool) -> None:
    """Half an answer is none."""
    assert is_whole(data) is whole


def test_percentiles_are_values_that_were_measured() -> None:
    """Of one value all are that value; of none they are 0."""
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 3.0
    assert percentile([1.0], 0.99) == 1.0
    assert percentile([], 0.5) == 0.0
