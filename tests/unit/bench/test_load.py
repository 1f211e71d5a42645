"""What the load generators print is understood, and only that."""

import pytest

from bench import fixed
from bench.fixed import Exact
from bench.load import parse

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

H2LOAD = """starting benchmark...
finished in 1.03s, 48543.69 req/s, 11.39MB/s
requests: 50000 total, 50000 started, 49998 done, 49990 succeeded, 10 failed, 2 errored, 0 timeout
status codes: 3 2xx, 49987 3xx, 5 4xx, 3 5xx
traffic: 11.73MB (12300000) total, 9.35MB (9800000) headers (space savings 0.00%), 0B (0) data
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


def test_of_a_fixed_count_only_the_wanted_statuses_are_answers() -> None:
    """What failed, broke off or was answered otherwise is an error, also where h2load calls it a success."""
    assert fixed.parse(H2LOAD, "3xx") == Exact(sent=50000, answered=49987)
    assert fixed.parse(H2LOAD, "3xx").errors == 13
    assert fixed.parse(H2LOAD, "2xx").answered == 3


@pytest.mark.parametrize("output", ["", H2LOAD.replace("requests:", ""), H2LOAD.replace("status codes:", "")])
def test_a_fixed_count_without_figures_is_an_error(output: str) -> None:
    """Nothing is made up."""
    with pytest.raises(RuntimeError):
        fixed.parse(output, "3xx")
