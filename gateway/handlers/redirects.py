"""GET /{code}: a look-up, then the answer; the click is taken before it is written."""

from collections.abc import Callable, Sequence

from opentelemetry import trace

from chassis.clock import Clock
from chassis.errors import ServiceError
from chassis.http_server import Scope
from chassis.telemetry import current_trace_id, current_traceparent
from contracts.link import Link, LinkKey, link_key
from contracts.reasons import Reason
from gateway.domain.problems import Problem
from gateway.domain.redirects import Outcome, Redirect, Refusal, code_of_path, decide
from gateway.domain.visitors import Visitors, client_address
from gateway.handlers.answers import Answer, header, prefers_html, problem_answer, problem_page
from gateway.handlers.lookups import Looked, Lookups, Tell, Told
from gateway.handlers.metrics import LOOKUPS, REDIRECTS
from gateway.ports import LOOKED, ClickRecorder, ClickTarget, TooManyMissesError

Headers = Sequence[tuple[bytes, bytes]]
_REDIRECTED = {outcome: REDIRECTS.labels(outcome.value) for outcome in Outcome}


class Redirects:
    """Answers requests for codes."""

    def __init__(self, lookups: Lookups, *, clicks: ClickRecorder, visitors: Visitors, clock: Clock) -> None:
        self._lookups = lookups
        self._clicks = clicks
        self._visitors = visitors
        self._clock = clock

    async def answer(self, scope: Scope) -> Answer:
        """The answer to GET or HEAD of a path with one segment."""
        try:
            link = await self._look_up(scope, code_of_path(scope["path"]))
        except TooManyMissesError as exc:
            return _refuse(scope, Refusal(Outcome.RATE_LIMITED, Reason.RATE_LIMITED), exc.retry_after_s)
        except ServiceError:  # whatever it is: a visitor can only come again
            return _refuse(scope, Refusal(Outcome.UNAVAILABLE, Reason.UNAVAILABLE))
        verdict = decide(link, self._clock.now())
        match verdict:
            case Refusal():
                return _refuse(scope, verdict)
            case Redirect(status, headers):
                assert link is not None, "only a link redirects"
                trace.get_current_span().set_attribute("short_code", link.short_code)  # `linkmesh trace` looks for it
                target = ClickTarget(link.key, link.user_id)
                self.record(target, scope["method"], scope["headers"], _peer(scope), _kept_traceparent())
                return Answer(status, headers)

    def begin(self, key: LinkKey, headers: Headers, peer: str, tell: Tell) -> Looked | None:
        """Begins the look-up for a request whose trace is not kept: an answer that is known, or `tell` is called later.

        Raises:
            TooManyMissesError: `tell` will not be called.
        """
        return self._lookups.begin(key, self._address(headers, peer), tell, traced=False)

    def record(
        self, target: ClickTarget, method: str, headers: Headers, peer: str, traceparent: str | None = None
    ) -> None:
        """Records the click of a request that is about to be answered with a redirect, and counts it as such."""
        self._clicks.record(target, method, headers, peer, traceparent)
        _REDIRECTED[Outcome.REDIRECTED].inc()

    async def _look_up(self, scope: Scope, code: str | None) -> Link | None:
        if code is None:
            LOOKUPS.labels("shape").inc()
            return None
        told: Told | None = scope.pop(LOOKED, None)
        if told is None:
            told = await self._lookups.look_up(link_key(code), self._address(scope["headers"], _peer(scope)))
        if isinstance(told, ServiceError):
            raise told
        return told.link

    def _address(self, headers: Headers, peer: str) -> str:
        proxies = self._visitors.trusted_proxies
        return client_address(peer, header({"headers": headers}, b"x-forwarded-for"), proxies) if proxies else peer


def _peer(scope: Scope) -> str:
    return scope["client"][0] if scope["client"] else ""


def _kept_traceparent() -> str | None:
    return current_traceparent() if trace.get_current_span().is_recording() else None


def _refuse(scope: Scope, refusal: Refusal, retry_after_s: float | None = None) -> Answer:
    _REDIRECTED[refusal.outcome].inc()
    tell: Callable[[Problem, str], Answer] = problem_page if prefers_html(scope) else problem_answer
    return tell(Problem(refusal.reason, retry_after_s=retry_after_s), current_trace_id())
