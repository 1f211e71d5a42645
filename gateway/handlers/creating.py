"""POST /api/links without FastAPI, which would cost more than all the rest of a create.

Only the plain request is answered here: the one key, the one content type, a body that the same model takes which the
documented route has. Anything else, also everything that is wrong with a request, is left to that route, so that there
is one place that says so. docs/CONTRACTS.md and /openapi.json describe both.
"""

import asyncio
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

from pydantic import ValidationError
from pydantic_core import to_json

from chassis.auth import Principal
from chassis.clock import Clock
from chassis.errors import ServiceError
from chassis.http_server import Scope
from chassis.telemetry import current_trace_id
from contracts.link import LinkState, link_key
from contracts.link_codec import link_from_message, moment
from contracts.link_json import Json, link_json, time_text
from gateway.domain.requests import etag
from gateway.handlers.answers import Answer, problem_answer, problem_of
from gateway.handlers.link_requests import create_request
from gateway.handlers.models import NewLink
from gateway.handlers.mutations import told_outcome
from gateway.ports import Keys, LinkCreator, Resolver
from shortener.link.v1 import link_pb2

PATH = "/api/links"
Headers = Iterable[tuple[bytes, bytes]]
_JSON = (b"application/json", b"application/json; charset=utf-8")
_BEARER = b"Bearer "
_API_KEY = re.compile(rb"[\x21-\x7e]+")  # an empty one lets the other header speak, and white space is cut off, there
_IDEMPOTENCY_KEY = re.compile(rb"[\x21-\x7e]{1,128}")
_ONE_EACH = (b"authorization", b"x-api-key", b"content-type", b"idempotency-key")  # several lines: not plain
_parse = cast("Callable[[bytes], NewLink]", NewLink.__pydantic_validator__.validate_json)  # compiled, no wrapper


@dataclass(frozen=True, slots=True)
class _Plain:
    """What the headers of a plain request say."""

    api_key: str
    idempotency_key: str


class Creates:
    """Answers plain creates."""

    def __init__(self, *, keys: Keys, creator: LinkCreator, resolver: Resolver, public_url: str, clock: Clock) -> None:
        self._keys = keys
        self._creator = creator
        self._resolver = resolver
        self._public_url = public_url
        self._clock = clock

    def begin(self, headers: Headers, body: bytes, traceparent: str) -> "asyncio.Future[link_pb2.Link] | None":
        """Begins a plain create that waits for nothing but link_service: its key was verified a moment ago, and it goes
        with others. None: it is another one, and nothing was done.

        Raises:
            ServiceError: too many wait.
        """
        plain = _plain(headers)
        if plain is None or plain.idempotency_key:
            return None
        try:
            wanted = _parse(body)
        except (ValidationError, UnicodeDecodeError):
            return None
        principal = self._keys.known(plain.api_key)
        if principal is None or wanted.custom_code:
            return None
        return self._creator.begin(create_request(wanted, principal, ""), traceparent)

    def end(self, made: "asyncio.Future[link_pb2.Link]", trace_id: str) -> Answer:
        """The answer to what `begin` began, once it is done."""
        try:
            if made.exception() is None:
                return self._made(made.result())
            with told_outcome():
                return self._made(made.result())  # raises
        except ServiceError as exc:
            return problem_answer(problem_of(exc), trace_id)

    async def answer(self, scope: Scope, body: bytes) -> Answer | None:
        """The answer; None: this is no plain create, nothing was done, and the API shall answer it."""
        plain = _plain(scope["headers"])
        if plain is None:
            return None
        try:
            wanted = _parse(body)
        except (ValidationError, UnicodeDecodeError):
            return None
        try:
            principal = await self._keys.verify(plain.api_key)
            return self._made(await self._create(wanted, principal, plain.idempotency_key))
        except ServiceError as exc:
            return problem_answer(problem_of(exc), current_trace_id())

    async def _create(self, wanted: NewLink, principal: Principal, idempotency_key: str) -> link_pb2.Link:
        request = create_request(wanted, principal, idempotency_key)
        with told_outcome():
            return await self._creator.create(request)

    def _json(self, message: link_pb2.Link) -> Json:
        return link_json(link_from_message(message), public_url=self._public_url, at=self._clock.now())

    def _made(self, message: link_pb2.Link) -> Answer:
        code = message.short_code
        self._resolver.forget(link_key(code))
        body = to_json(_plain_json(message, self._public_url) or self._json(message))
        headers = [
            (b"etag", etag(message.version).encode()),
            (b"location", f"{PATH}/{code}".encode()),
            (b"content-length", b"%d" % len(body)),
            (b"content-type", b"application/json"),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
        ]
        return Answer(201, headers, body)


def _plain_json(message: link_pb2.Link, public_url: str) -> Json | None:
    """The JSON of a link that was just made on the deployment's own domain and has no times of its own, without the
    detour by a Link; None: another one. Which of the two ways it went nobody can tell from the answer."""
    created, updated = message.created_at, message.updated_at
    if message.version != 1 or message.state != link_pb2.LINK_STATE_ACTIVE or message.domain or created != updated:
        return None
    if message.HasField("expires_at") or message.HasField("starts_at") or message.HasField("deleted_at"):
        return None
    code, at = message.short_code, time_text(moment(created))
    return {
        "short_code": code,
        "short_url": f"{public_url}/{code}",
        "long_url": message.long_url,
        "user_id": message.user_id,
        "is_custom": message.is_custom,
        "version": 1,
        "state": LinkState.ACTIVE.value,
        "created_at": at,
        "updated_at": at,
        "deleted_at": None,
        "expires_at": None,
        "starts_at": None,
        "redirect_status": message.redirect_status or 302,
        "title": message.title,
        "tags": list(message.tags),
    }


def _plain(headers: Headers) -> _Plain | None:
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _ONE_EACH:
            if name in found:
                return None
            found[name] = value
    authorization = found.get(b"authorization", b"")
    api_key = authorization[len(_BEARER) :]
    idempotency_key = found.get(b"idempotency-key")
    if (
        not authorization.startswith(_BEARER)
        or not _API_KEY.fullmatch(api_key)
        or found.get(b"content-type", b"").lower() not in _JSON
        or (idempotency_key is not None and not _IDEMPOTENCY_KEY.fullmatch(idempotency_key))
    ):
        return None
    return _Plain(api_key.decode("ascii"), (idempotency_key or b"").decode("ascii"))
