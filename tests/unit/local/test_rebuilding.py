"""Rebuilding all links over pages: what is repeated, what is given up, and where one goes on."""

from collections.abc import Callable, Sequence

import pytest

from chassis.errors import DeadlineExceeded, PermissionDenied, ServiceError, Unavailable
from linkmesh.local.rebuilding import Rebuilt, rebuild_all
from shortener.link.v1 import link_admin_service_pb2 as pb
from tests.fakes.kafka_time import run_virtual

Answer = pb.RebuildLinksResponse | ServiceError


class Service:
    """Answers in this order, the last one for ever; notes what it was asked."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, request: pb.RebuildLinksRequest) -> pb.RebuildLinksResponse:
        """One page."""
        self.asked.append((request.page_token, request.page_size))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, ServiceError):
            raise answer
        return answer


def page(rebuilt: int, unchanged: int, token: str = "", failed: str = "") -> pb.RebuildLinksResponse:
    """A page's answer."""
    failures = [pb.RebuildFailure(short_code=failed, reason="STATE_CONFLICT", message="No.")] if failed else []
    return pb.RebuildLinksResponse(rebuilt=rebuilt, unchanged=unchanged, failures=failures, next_page_token=token)


def run(service: Service, token: str = "", advance: Callable[[int], None] = lambda _count: None) -> Rebuilt:
    """Rebuilds from that page on, in virtual time."""
    return run_virtual(rebuild_all(service, token, advance))


def test_pages_are_added_up() -> None:
    """Counts, failures and progress over all pages; from the page that was named."""
    service, steps = Service([page(1, 2, "b", failed="abc"), page(0, 4)]), list[int]()

    done = run(service, "a", steps.append)

    assert (done.rebuilt, done.unchanged, done.page_token, done.stopped) == (1, 6, "", "")
    assert done.failures == [{"short_code": "abc", "domain": "", "code": "state_conflict", "detail": "No."}]
    assert [token for token, _ in service.asked] == ["a", "b"]
    assert steps == [4, 4]


def test_a_page_that_failed_is_repeated_and_a_slow_one_made_smaller() -> None:
    """A service that is away for a moment costs time only; one that does not answer in time is asked for less."""
    away, late = Unavailable("unavailable", "Away."), DeadlineExceeded("deadline_exceeded", "Late.")
    service = Service([page(1, 0, "b"), away, late, page(0, 1, "c"), page(0, 1)])

    done = run(service)

    assert (done.rebuilt, done.unchanged, done.stopped) == (1, 2, "")
    assert service.asked == [("", 100), ("b", 100), ("b", 100), ("b", 50), ("c", 50)]


def test_a_service_that_stays_away_ends_it_with_the_way_to_go_on() -> None:
    """What was done is told, and which page is next; it is asked a few times, not for ever."""
    service = Service([page(3, 0, "b"), Unavailable("unavailable", "Away.")])

    done = run(service)

    assert (done.rebuilt, done.page_token, done.stopped) == (3, "b", "Away.")
    assert len(service.asked) == 9


def test_a_refusal_is_not_repeated() -> None:
    """Who may not, may not the second time either."""
    service = Service([PermissionDenied("permission_denied", "No.")])

    with pytest.raises(PermissionDenied):
        run(service)
    assert len(service.asked) == 1
