"""GET /{code}: a look-up, then the answer; the click is taken before it is written."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from opentelemetry import trace

from chassis.clock import Clock
from chassis.errors import ServiceError
from chassis.http_server import Scope
from chassis.telemetry import current_trace_id, current_traceparent
from contracts.link import Link, link_key
from contracts.reasons import Reason
from gateway.domain.clicks import Click
from gateway.domain.problems import Problem
from gateway.domain.redirects import Outcome, Redirect, Refusal, code_of_path, decide
from gateway.domain.visitors import Visit, classify, client_address, country_of, cut, daily_key, visitor_hash
from gateway.handlers.answers import Answer, header, prefers_html, problem_answer, problem_page
from gateway.handlers.lookups import Lookups
from gateway.handlers.metrics import LOOKUPS, REDIRECTS
from gateway.ports import ClickSink, TooManyMissesError

_REDIRECTED = {outcome: REDIRECTS.labels(outcome.value) for outcome in Outcome}


@dataclass(frozen=True, slots=True)
class Visitors:
    """How to tell visitors apart. `country_header` in lower case; empty: none."""

    key: bytes
    trusted_proxies: int = 0
    country_header: bytes = b""


class Redirects:
    """Answers requests for codes."""

    def __init__(self, lookups: Lookups, *, clicks: ClickSink, visitors: Visitors, clock: Clock) -> None:
        self._lookups = lookups
        self._clicks = clicks
        self._visitors = visitors
        self._clock = clock
        self._daily = _DailyKey(visitors.key)

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
                self._clicks.put(self._click(scope, link))
                _REDIRECTED[Outcome.REDIRECTED].inc()
                return Answer(status, headers)

    async def _look_up(self, scope: Scope, code: str | None) -> Link | None:
        if code is None:
            LOOKUPS.labels("shape").inc()
            return None
        return (await self._lookups.look_up(link_key(code), self._address(scope))).link

    def _address(self, scope: Scope) -> str:
        peer = scope["client"][0] if scope["client"] else ""
        return client_address(peer, header(scope, b"x-forwarded-for"), self._visitors.trusted_proxies)

    def _click(self, scope: Scope, link: Link) -> Click:
        now = self._clock.now()
        user_agent = cut(header(scope, b"user-agent"))
        address = self._address(scope)
        purpose = header(scope, b"sec-purpose") or header(scope, b"purpose")
        country_header = self._visitors.country_header
        return Click(
            link_key=link.key,
            user_id=link.user_id,
            at=now,
            visitor=visitor_hash(self._daily(now.date()), address=address, user_agent=user_agent),
            visitor_class=classify(Visit(scope["method"], user_agent, purpose)),
            user_agent=user_agent,
            referrer=cut(header(scope, b"referer")),
            country=country_of(header(scope, country_header)) if country_header else "",
            traceparent=_kept_traceparent(),
        )


def _kept_traceparent() -> str | None:
    return current_traceparent() if trace.get_current_span().is_recording() else None


def _refuse(scope: Scope, refusal: Refusal, retry_after_s: float | None = None) -> Answer:
    _REDIRECTED[refusal.outcome].inc()
    tell: Callable[[Problem, str], Answer] = problem_page if prefers_html(scope) else problem_answer
    return tell(Problem(refusal.reason, retry_after_s=retry_after_s), current_trace_id())


class _DailyKey:
    """The key of the day, derived once a day."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._day: date | None = None
        self._derived = b""

    def __call__(self, day: date) -> bytes:
        if day != self._day:
            self._day, self._derived = day, daily_key(self._key, day)
        return self._derived
