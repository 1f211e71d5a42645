"""What the routes of links share: their names, preconditions and answers."""

import re
from datetime import datetime
from functools import lru_cache
from typing import Annotated

from fastapi import Header
from fastapi.responses import JSONResponse
from pydantic import AfterValidator

from chassis.auth import Principal, principal_to_message
from chassis.errors import Aborted, InvalidArgument, NotFound
from contracts.codes import is_possible_code
from contracts.link_codec import link_from_message, timestamp
from contracts.link_json import link_json
from contracts.reasons import Reason
from gateway.domain.requests import Stale, etag, expected_version
from gateway.handlers.models import NewLink
from shortener.link.v1 import link_pb2
from shortener.link.v1 import link_service_pb2 as pb

MUTATION_TIMEOUT_S = 2.0
READ_TIMEOUT_S = 1.0
_KEY = re.compile(r"[\x21-\x7e]{1,128}")
IfMatch = Annotated[str, Header()]


def _idempotency_key(given: str) -> str:
    """A key that was sent; an empty one is no key at all, and whoever sends it believes to be safe from doing it twice.

    Raises:
        ValueError: it is none.
    """
    if not _KEY.fullmatch(given):
        raise ValueError("an idempotency key has 1 to 128 visible ASCII characters")
    return given


IdempotencyKey = Annotated[
    str,
    Header(json_schema_extra={"pattern": f"^{_KEY.pattern}$"}),
    AfterValidator(_idempotency_key),  # not the pattern: its text is for programs
]


def link_answer(message: link_pb2.Link, *, public_url: str, at: datetime, status: int = 200) -> JSONResponse:
    """The answer that shows a link as it is at a moment, with its version as ETag."""
    link = link_from_message(message)
    headers = {"etag": etag(link.version)}
    if status == 201:
        headers["location"] = f"/api/links/{link.short_code}"
    return JSONResponse(link_json(link, public_url=public_url, at=at), status, headers)


def existing(code: str) -> str:
    """The code, if any link can have it.

    Raises:
        NotFound: none can.
    """
    if not is_possible_code(code):
        raise NotFound(Reason.LINK_NOT_FOUND.code, "There is no such link.")
    return code


def version_of(if_match: str) -> int:
    """The version that If-Match demands; 0: none in particular.

    Raises:
        InvalidArgument: it names several.
        Aborted: no version has such a tag.
    """
    try:
        version = expected_version(if_match)
    except ValueError as exc:
        raise InvalidArgument(Reason.MALFORMED_REQUEST.code, str(exc)) from exc
    if isinstance(version, Stale):
        raise Aborted(Reason.VERSION_CONFLICT.code, "The link has no such version.")
    return version


_stated = lru_cache(maxsize=1024)(principal_to_message)  # never changed, copied into each request


def create_request(body: NewLink, principal: Principal, idempotency_key: str) -> pb.CreateLinkRequest:
    """The creation that a body asks for."""
    request = pb.CreateLinkRequest(principal=_stated(principal), request_id=idempotency_key, long_url=body.long_url)
    if len(body.model_fields_set) == 1:
        return request  # most say no more than where to, and what is not set costs nothing
    request.custom_code = body.custom_code or ""
    if body.expires_at:
        request.expires_at.CopyFrom(timestamp(body.expires_at))
    if body.starts_at:
        request.starts_at.CopyFrom(timestamp(body.starts_at))
    request.redirect_status = body.redirect_status or 0
    request.title = body.title or ""
    request.tags.extend(body.tags)
    return request
