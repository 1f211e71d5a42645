"""What the load generator prints is understood, and only that."""

import pytest

from bench.load import parse
from bench.report import Round, summarise, text

OUTPUT = """Running 4s test @ http://127.0.0.1:8080/abc
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.09ms    2.05ms  40.11ms   97.79%
    Req/Sec    40.64k     5.11k   48.53k    75.00%
  Latency Distribution
     50%  650.00us
     75%    0.92ms
     90%    1.35ms
     99%    1.20s
  161712 requests in 4.00s, 39.94MB read
  Socket errors: connect 0, read 1, write 0, timeout 2
  Non-2xx or 3xx responses: 5
Requests/sec:  40426.02
Transfer/sec:      9.98MB
"""


def test_the_figures_of_a_run_are_read() -> None:
    """Requests, rate and latencies with their units; failed sockets and wrong statuses are errors."""
    load = parse(OUTPUT)

    assert (load.requests, load.rps, load.errors) == (161712, 40426.02, 8)
    assert (load.p50_ms, load.p99_ms) == (0.65, 1200.0)


def test_created_links_are_counted_by_their_status() -> None:
    """Where the script counts 201s itself, only these are acknowledged, and whatever else was answered is an error."""
    load = parse(OUTPUT.replace("  Non-2xx or 3xx responses: 5\n", "") + "Created: 161700\nNot created: 12\n")

    assert (load.created, load.errors) == (161700, 15)
    assert parse(OUTPUT).created is None


@pytest.mark.parametrize("output", ["", "unable to connect", OUTPUT.replace("99%", "98%")])
def test_a_run_without_figures_is_an_error(output: str) -> None:
    """Nothing is made up."""
    with pytest.raises(RuntimeError):
        parse(output)


def test_a_row_is_the_median_of_its_rounds() -> None:
    """One noisy round does not move the row; answers and errors add up."""
    rounds = [Round(rps, cpu, 1.0, 2.0, 50.0, 10, 1) for rps, cpu in ((100, 9), (300, 10), (200, 90))]

    row = summarise("x", rounds, counted=30)

    assert (row.rps, row.cpu_us, row.cpu_us_min, row.cpu_us_max) == (200, 10, 9, 90)
    assert (row.answered, row.errors, row.counted) == (30, 3, 30)


def test_cpu_is_told_by_process() -> None:
    """The median of each process over the rounds, in a line under the table."""
    rounds = [
        Round(100, gateway + 9, 1.0, 2.0, 50.0, 10, 0, {"gateway": gateway, "valkey": 9}) for gateway in (90, 70, 80)
    ]

    row = summarise("create-16", rounds)

    assert row.parts_us == {"gateway": 80, "valkey": 9}
    assert "create-16: CPU µs by process: gateway 80, valkey 9." in text([row], [])
