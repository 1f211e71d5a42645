"""What is counted in plain numbers is there when somebody reads the metrics, in its place."""

from prometheus_client import REGISTRY

from gateway.handlers.metrics import CODE_ROUTE, DURATION, waited_of

_NAME = "http_server_request_duration_seconds"
_BOUNDS = ("0.0005", "0.001", "0.0025", "2.5", "5.0", "+Inf")


def _figures(method: str, status: int) -> list[float]:
    labels = {"method": method, "route": CODE_ROUTE, "status": str(status)}
    buckets = [REGISTRY.get_sample_value(f"{_NAME}_bucket", {**labels, "le": bound}) for bound in _BOUNDS]
    rest = [REGISTRY.get_sample_value(f"{_NAME}_{part}", labels) for part in ("count", "sum")]
    return [figure or 0.0 for figure in (*buckets, *rest)]


def test_redirects_that_waited_are_in_the_buckets_that_observe_would_choose() -> None:
    """At a bound, between two, behind the last; each once, however often it is read."""
    waits = (0.0, 0.0005, 0.001, 0.0011, 5.0, 6.0)
    tallied, observed = _figures("HEAD", 307), _figures("HEAD", 308)
    for seconds in waits:
        waited_of("HEAD")[ord("7")].observe(seconds)
        DURATION.labels("HEAD", CODE_ROUTE, 308).observe(seconds)

    for _ in range(2):
        grown = [
            [after - before for after, before in zip(_figures("HEAD", status), figures, strict=True)]
            for status, figures in ((307, tallied), (308, observed))
        ]
        assert grown[0] == grown[1]
        assert grown[0][:7] == [2, 3, 4, 4, 5, 6, 6]
