"""Several links in one request: each is an operation of its own in the history, made or refused alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.chaos.history import Kind, Operation, Outcome

_UNKNOWN_REASONS = ("outcome_unknown", "deadline_exceeded")
DEFINITE = (400, 401, 403, 404, 409, 410, 412, 422)
PATH = "/api/links:batch"


def outcome_of(one: Operation) -> Outcome:
    """What the client knows after the last answer."""
    if one.status in (200, 201, 204):
        return Outcome.DONE
    if one.status in DEFINITE or one.reason.startswith("not sent"):
        return Outcome.REFUSED
    if one.status == 503 and one.reason not in _UNKNOWN_REASONS:
        return Outcome.REFUSED
    return Outcome.UNKNOWN


def body_of(items: Sequence[Operation]) -> dict[str, object]:
    """The request for these creates; a code that is there already was chosen."""
    return {
        "links": [
            {"long_url": one.url, "title": one.mark, **({"custom_code": one.code} if one.code else {})} for one in items
        ]
    }


class Batch:
    """The creates of one request, over all its tries. `call` is what became of the request as a whole."""

    def __init__(self, items: Sequence[Operation], call: Operation) -> None:
        self.items = items
        self.call = call
        self._uncertain: set[int] = set()  # places whose try may have made a link

    def note(self, told: Mapping[str, Any] | None) -> None:
        """Takes in the answer to a try; None: none came."""
        results = told.get("results") if told is not None and self.call.status == 200 else None
        if results is not None and len(results) != len(self.items):
            self.items[0].complaint = f"{len(results)} results for {len(self.items)} links"
            results = None
        for place, one in enumerate(self.items):
            one.complaint = one.complaint or self.call.complaint
            one.tries = self.call.tries
            self._note(place, one, None if results is None else results[place])

    def _note(self, place: int, one: Operation, result: Mapping[str, Any] | None) -> None:
        link = result.get("link") if result is not None else None
        if one.outcome is Outcome.DONE:  # an earlier try said so: a later one says the same, or nothing
            if link is not None and link["short_code"] != one.code:
                one.complaint = f"repeated under its key, another link: {link['short_code']}"
            return
        if link is not None:
            self._made(one, link)
            return
        problem = self.call_problem() if result is None else result["problem"]
        one.status, one.reason = problem["status"], problem["code"]
        if one.status == 500:
            one.complaint = f"answered 500 {problem}"
        one.outcome = outcome_of(one)
        if one.outcome is Outcome.UNKNOWN:
            self._uncertain.add(place)
        elif place in self._uncertain and one.status not in DEFINITE:
            one.outcome = Outcome.UNKNOWN

    def call_problem(self) -> Mapping[str, Any]:
        """What the answer to the whole request says of each; a success that says nothing of them says nothing."""
        status = 0 if self.call.status == 200 else self.call.status
        return {"status": status, "code": self.call.reason}

    def _made(self, one: Operation, link: Mapping[str, Any]) -> None:
        if one.code and link["short_code"] != one.code:
            one.complaint = f"was told {link['short_code']}"
        if link["user_id"] != one.user or link["long_url"] != one.url:
            one.complaint = f"answered with a link of {link['user_id']} to {link['long_url']}"
        one.code, one.version, one.status, one.reason = link["short_code"], link["version"], 201, ""
        one.outcome = Outcome.DONE

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to be told."""
        return all(one.outcome is Outcome.DONE or one.status in DEFINITE for one in self.items)


def create(user: str, gateway: int, *, mark: str, url: str, code: str, key: str) -> Operation:
    """One of the links."""
    return Operation(Kind.CREATE, user, gateway, code, mark=mark, url=url, key=key)
