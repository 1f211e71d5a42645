"""From messages to the domain's values, and verdicts on fields to errors."""

import hashlib
import re
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from chassis.auth import Principal
from contracts.codes import is_possible_code
from contracts.link import LinkKey, UserId, link_key
from contracts.link_codec import moment
from link_service.domain.changes import Revision
from link_service.domain.links import ALL_FIELDS, Wish
from link_service.handlers.attempts import Repeatable
from link_service.handlers.refusals import invalid_field, not_found
from shortener.key.v1.key_service_pb2 import CreateKeyRequest
from shortener.link.v1 import link_service_pb2 as pb

REQUEST_ID_MAX = 128
Mutation = pb.CreateLinkRequest | pb.UpdateLinkRequest | pb.DeleteLinkRequest | pb.RestoreLinkRequest | CreateKeyRequest
_DOMAIN = re.compile(r"[a-z0-9.-]{1,253}")
_USER_ID = re.compile(r"[A-Za-z0-9._@-]{1,64}")  # becomes part of keys and of names in Redis


def wish_of(request: pb.CreateLinkRequest) -> Wish:
    """The link that a request asks for.

    Raises:
        InvalidArgument: a time is none.
    """
    return Wish(
        long_url=request.long_url,
        custom_code=request.custom_code,
        expires_at=_moment("expires_at", request.expires_at) if request.HasField("expires_at") else None,
        starts_at=_moment("starts_at", request.starts_at) if request.HasField("starts_at") else None,
        redirect_status=request.redirect_status,
        title=request.title,
        tags=tuple(request.tags),
    )


def repeatable_of(request: Mutation, principal: Principal) -> Repeatable:
    """Who asks, under which idempotency key, for what.

    Raises:
        InvalidArgument: the key is too long.
    """
    if len(request.request_id) > REQUEST_ID_MAX:
        raise invalid_field("request_id", f"An idempotency key has at most {REQUEST_ID_MAX} characters.")
    body_hash = ""
    if request.request_id:
        body = type(request)()
        body.MergeFromString(request.SerializeToString())
        body.ClearField("principal")
        name = type(request).DESCRIPTOR.full_name.encode()
        body_hash = hashlib.sha256(name + b"\0" + body.SerializeToString(deterministic=True)).hexdigest()
    return Repeatable(user_id=UserId(principal.user_id), idempotency_key=request.request_id, body_hash=body_hash)


def key_of(short_code: str, domain: str) -> LinkKey:
    """The key of the link that a request names.

    Raises:
        NotFound: no link can have that name.
    """
    if not is_possible_code(short_code) or (domain and not _DOMAIN.fullmatch(domain)):
        raise not_found()
    return link_key(short_code, domain)


def user_id_of(text: str) -> UserId:
    """An account's id.

    Raises:
        InvalidArgument: no account can have that id.
    """
    if not _USER_ID.fullmatch(text):
        raise invalid_field("user_id", "An account's id has 1 to 64 letters, digits, or any of . _ @ -")
    return UserId(text)


def revision_of(request: pb.UpdateLinkRequest) -> Revision:
    """What a request wants changed.

    Raises:
        InvalidArgument: it names another field, or a time is none.
    """
    fields = frozenset(request.update_mask.paths)
    if unknown := sorted(fields - set(ALL_FIELDS)):
        raise invalid_field("update_mask", f"There is no field {unknown[0]!r} to change.")
    return Revision(
        fields=fields,
        long_url=request.long_url,
        title=request.title,
        tags=tuple(request.tags),
        expires_at=_moment("expires_at", request.expires_at) if request.HasField("expires_at") else None,
        starts_at=_moment("starts_at", request.starts_at) if request.HasField("starts_at") else None,
        redirect_status=request.redirect_status,
    )


def version_of(if_version: int) -> int:
    """The version that a caller saw; 0: none in particular.

    Raises:
        InvalidArgument: there is no such version.
    """
    if if_version < 0:
        raise invalid_field("if_version", "A version is a positive number.")
    return if_version


def moment_of(request: pb.GetLinkAtRequest) -> datetime:
    """The time that is asked about.

    Raises:
        InvalidArgument: it is none, or not given.
    """
    if not request.HasField("at"):
        raise invalid_field("at", "A time is needed.")
    return _moment("at", request.at)


def _moment(field: str, message: Timestamp) -> datetime:
    try:
        return moment(message)
    except (ValueError, OverflowError) as exc:
        raise invalid_field(field, "This is not a time.") from exc
