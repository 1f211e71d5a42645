"""Rows, tables and the page."""

import dataclasses

import pytest

from bench.pipeline import Figures, problems_of
from bench.pipeline_rates import RateFigures
from bench.report import Counted, Round, replaced, summarise, table

ROUND = Round(rps=100, cpu_us=9, p50_ms=1.0, p99_ms=2.0, rss_mb=50.0, answered=10, errors=0)
RATE = RateFigures(
    rate_per_s=100, answered=800, failed=0, create_p50_ms=6, create_p99_ms=20, samples=200, late=0, table_p50_ms=12,
    table_p99_ms=56,
)  # fmt: skip


def test_a_row_is_the_median_of_its_rounds() -> None:
    """One noisy round does not move the row, but is in its spread; answers and errors add up."""
    rounds = [Round(rps, cpu, 1.0, 2.0, 50.0, 10, 1) for rps, cpu in ((100, 9), (300, 10), (200, 90))]

    row = summarise("x", rounds)

    assert (row.rps, row.rps_min, row.rps_max) == (200, 100, 300)
    assert (row.cpu_us, row.cpu_us_min, row.cpu_us_max) == (10, 9, 90)
    assert (row.answered, row.errors, row.counted) == (30, 3, None)


@pytest.mark.parametrize(("counted", "good"), [(499, False), (500, True), (501, False)])
def test_what_was_answered_must_be_what_was_counted(counted: int, *, good: bool) -> None:
    """Of a fixed number of requests not one click may be missing, and none too many."""
    row = summarise("linkmesh-hot", [ROUND], Counted(sent=500, answered=500, counted=counted))

    assert (row.answered, row.counted, row.good) == (500, counted, good)


def test_a_request_without_its_answer_is_an_error() -> None:
    """Also where what was answered was counted."""
    row = summarise("linkmesh-hot", [ROUND], Counted(sent=500, answered=499, counted=499))

    assert (row.errors, row.good) == (1, False)


def test_a_server_whose_clicks_nobody_counts_is_good_without_errors() -> None:
    """Such as nginx."""
    assert summarise("nginx", [ROUND]).good
    assert not summarise("nginx", [dataclasses.replace(ROUND, errors=1)]).good


def test_cpu_is_told_by_process_and_beside_that_of_nginx() -> None:
    """The median of each process over the rounds, in a line under the table; the ratio is that of the medians."""
    rounds = [
        Round(100, gateway + 9, 1.0, 2.0, 50.0, 10, 0, {"gateway": gateway, "valkey": 9}) for gateway in (90, 70, 80)
    ]

    row = summarise("create-16", rounds)
    text = "\n".join(table([summarise("nginx", [ROUND]), row]))

    assert row.parts_us == {"gateway": 80, "valkey": 9}
    assert "create-16: CPU µs by process: gateway 80.0, valkey 9.0." in text
    assert "| create-16 | 100 | 89.0 (79.0 to 99.0) | 9.9 times |" in text


def test_only_what_stands_between_its_marks_is_replaced() -> None:
    """The words around it are people's, and another section is another bench's."""
    page = (
        "a\n<!-- figures: by x -->\nold\n<!-- end of figures -->\n"
        "b\n<!-- pipeline: by y -->\nkept\n<!-- end of pipeline -->"
    )

    written = replaced(page, "figures", "new")

    assert written == page.replace("old", "new")
    assert replaced(written, "figures", "new") == written
    with pytest.raises(ValueError, match="no marks for clicks"):
        replaced(page, "clicks", "new")


@pytest.mark.parametrize(("wrong", "told"), [({"late": 1}, "1 rows were late"), ({"failed": 2}, "2 creates failed")])
def test_a_rate_that_the_pipeline_does_not_take_is_a_failure(wrong: dict[str, int], told: str) -> None:
    """A create that failed as well as a row that came too late: make bench-pipeline ends with 1."""
    assert not problems_of(Figures(rates=[RATE]))
    assert told in problems_of(Figures(rates=[RATE, dataclasses.replace(RATE, **wrong)]))[0]
