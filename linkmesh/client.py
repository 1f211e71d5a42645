"""A small client of the REST interface: what the command line uses, and a start for programs of one's own.

Every call has a deadline. What the gateway refuses is raised as `Problem`, with the code that docs/CONTRACTS.md lists.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self
from urllib.parse import quote

import httpx

Json = dict[str, object]
TIMEOUT_S = 10.0
_SILENCE_MAX_S = 30.0  # of a stream, in which something comes every ten seconds


class Problem(Exception):
    """The gateway's refusal (RFC 9457): `status`, the stable `code`, a sentence, the trace to look at, and in `errors`
    what is wrong with which field, where the sentence does not say it."""

    def __init__(
        self, status: int, code: str, detail: str, trace_id: str = "", errors: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.trace_id = trace_id
        self.errors = {field: said for field, said in (errors or {}).items() if said != detail}


class Unreachable(Exception):
    """The gateway does not answer."""


class Client:
    """A context manager around one connection pool. Objects are as docs/CONTRACTS.md shows them in JSON."""

    def __init__(self, gateway: str, api_key: str, *, timeout_s: float = TIMEOUT_S) -> None:
        headers = {"authorization": f"Bearer {api_key}"}
        # No proxy of the environment between this machine and itself; redirects are answers, not detours.
        self._http = httpx.Client(
            base_url=gateway, headers=headers, timeout=timeout_s, trust_env=False, follow_redirects=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def create_link(self, long_url: str, *, custom_code: str = "", idempotency_key: str = "", **fields: object) -> Json:
        """Make a link and return it. With an idempotency key a repeat returns the same link. `fields`: `title`, `tags`,
        `expires_at`, `starts_at`, `redirect_status`."""
        body = {"long_url": long_url, **({"custom_code": custom_code} if custom_code else {}), **fields}
        return self._call("POST", "/api/links", body=body, headers=_preconditions(0, idempotency_key))

    def create_links(self, links: Sequence[Json], *, idempotency_key: str = "") -> list[Json]:
        """Make up to 100 links; `{link}` or `{problem}` for each, in order. A repeat under the same idempotency key
        returns the same links."""
        headers = _preconditions(0, idempotency_key)
        results = self._call("POST", "/api/links:batch", body={"links": list(links)}, headers=headers).get("results")
        if not isinstance(results, list) or len(results) != len(links):
            raise Unreachable("what answers is no gateway: it does not say what became of each link")
        return results

    def get_link(self, code: str, *, at: str = "") -> Json:
        """Return a link; as it was at a time (RFC 3339) if one is given."""
        return self._call("GET", f"/api/links/{_segment(code)}", query={"at": at} if at else {})

    def update_link(
        self, code: str, changes: Mapping[str, object], *, if_version: int = 0, idempotency_key: str = ""
    ) -> Json:
        """Change these fields (None empties) and return the link; only at `if_version` if one is given (else 412)."""
        headers = _preconditions(if_version, idempotency_key)
        return self._call("PATCH", f"/api/links/{_segment(code)}", body=changes, headers=headers)

    def restore_link(self, code: str, *, if_version: int = 0, idempotency_key: str = "") -> Json:
        """Bring a deleted link back and return it; one that is not deleted stays as it is."""
        return self._call(
            "POST", f"/api/links/{_segment(code)}:restore", headers=_preconditions(if_version, idempotency_key)
        )

    def rebuild_link(self, code: str) -> Json:
        """Repair a link's row from its events; return the link and what was changed."""
        return self._call("POST", f"/api/links/{_segment(code)}:rebuild")

    def link_events(self, code: str, **query: str) -> Json:
        """Return a page of a link's history, newest last (`page_size`, `page_token`)."""
        return self._call("GET", f"/api/links/{_segment(code)}/events", query=query)

    def delete_link(self, code: str) -> None:
        """Delete a link; its code answers 410 from now on."""
        self._call("DELETE", f"/api/links/{_segment(code)}")

    def stats(self, code: str, **query: str) -> Json:
        """Return a link's counts; `query` as in the contract (`from`, `to`, `granularity`, `group_by`, `tz`)."""
        return self._call("GET", f"/api/links/{_segment(code)}/stats", query=query)

    def top_links(self, **query: str) -> Json:
        """Return a page of the account's most followed links (`from`, `to`, `page_size`, `page_token`)."""
        return self._call("GET", "/api/stats/top", query=query)

    def watch_clicks(self, code: str, opened: Callable[[], None] = lambda: None) -> Iterator[tuple[str, Json]]:
        """Yield what happens to a link, by name: `click`, `missed`, `interrupted`, `problem`. It ends after a quarter
        of an hour, and when the gateway stops: then ask again. `opened` is called when clicks are told from then on.

        Raises:
            Problem: the gateway refuses.
            Unreachable: it does not answer, or not any more.
        """
        timeout = httpx.Timeout(TIMEOUT_S, read=_SILENCE_MAX_S)
        try:
            with self._http.stream("GET", f"/api/links/{_segment(code)}/clicks/live", timeout=timeout) as answer:
                if not answer.is_success:
                    answer.read()
                    raise _problem(answer)
                opened()
                yield from _events(answer.iter_lines())
        except httpx.HTTPError as error:
            raise Unreachable(f"the gateway does not answer: {error}") from error

    def create_key(self, scopes: list[str]) -> Json:
        """Make another key for the account (no scopes: with those of the key in use); the answer shows it this once."""
        return self._call("POST", "/api/keys", body={"scopes": scopes})

    def create_webhook(self, url: str, event_types: list[str]) -> Json:
        """Add an endpoint; the answer shows its signing secret this once."""
        return self._call("POST", "/api/webhooks", body={"url": url, "event_types": event_types})

    def list_webhooks(self) -> Json:
        """Return the account's endpoints."""
        return self._call("GET", "/api/webhooks")

    def audit_entries(self, **query: str) -> Json:
        """Return what was recorded, of the account or of one code (`short_code`, `page_size`, `page_token`)."""
        return self._call("GET", "/api/audit/entries", query=query)

    def visit(self, code: str) -> tuple[int, str]:
        """Follow a short link by one step: return status and target (empty when it does not redirect)."""
        try:
            answer = self._http.get(f"/{_segment(code)}")
        except httpx.HTTPError as error:
            raise Unreachable(f"the gateway does not answer: {error}") from error
        return answer.status_code, answer.headers.get("location", "")

    def _call(
        self, method: str, path: str, *, body: Mapping[str, object] | None = None,
        query: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None,
    ) -> Json:  # fmt: skip
        """Return the answer's object.

        Raises:
            Problem: the gateway refuses.
            Unreachable: it does not answer.
        """
        try:
            answer = self._http.request(method, path, json=body, params=query, headers=headers)
        except httpx.HTTPError as error:
            raise Unreachable(f"the gateway does not answer: {error}") from error
        if not answer.is_success:
            raise _problem(answer)
        return _object(answer)


def _events(lines: Iterable[str]) -> Iterator[tuple[str, Json]]:
    """The events of a stream (WHATWG HTML, section 9.2.6), as far as the gateway uses them: data is one line."""
    name = data = ""
    for line in lines:
        field, _, value = line.partition(":")
        if field == "event":
            name = value.removeprefix(" ")
        elif field == "data":
            data = value
        elif not line:
            if data:
                yield name, json.loads(data)
            name = data = ""


def _segment(text: str) -> str:
    """What a person typed as one segment of a path, whatever is in it."""
    return quote(text, safe="")


def _preconditions(if_version: int, idempotency_key: str) -> dict[str, str]:
    headers = {"if-match": f'"{if_version}"'} if if_version else {}
    return headers | ({"idempotency-key": idempotency_key} if idempotency_key else {})


def _object(answer: httpx.Response) -> Json:
    if not answer.content:
        return {}
    try:
        decoded = answer.json()
    except ValueError:
        decoded = None
    if not isinstance(decoded, dict):
        raise Unreachable(f"what answers at {answer.request.url.host}:{answer.request.url.port} is no gateway")
    return decoded


def _problem(answer: httpx.Response) -> Problem:
    try:
        told = answer.json()
        detail = str(told.get("detail") or told.get("title") or answer.reason_phrase)
        errors = {str(one.get("field", "")): str(one.get("description", "")) for one in told.get("errors") or ()}
        return Problem(answer.status_code, str(told.get("code", "")), detail, str(told.get("trace_id", "")), errors)
    except (ValueError, AttributeError, TypeError):
        return Problem(answer.status_code, "", f"the gateway answers {answer.status_code} {answer.reason_phrase}")
