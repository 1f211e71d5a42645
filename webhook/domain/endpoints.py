"""Endpoints of an account: which URLs may be told, and of what."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NewType

import ada_url

from contracts.addresses import host_problem
from contracts.link import EventType, UserId
from contracts.reasons import Reason

EndpointId = NewType("EndpointId", str)

ENDPOINTS_MAX = 20  # of an account: they stand in one item, which each event of the account reads
EVERY_TYPE = "*"
_URL_CHARACTERS_MAX = 2048
_TYPES = frozenset({EVERY_TYPE, *(kind.value for kind in EventType)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A URL that is told. `secret` is the signing secret, `whsec_…`."""

    endpoint_id: EndpointId
    user_id: UserId
    url: str
    secret: str = field(repr=False)
    event_types: tuple[str, ...]
    created_at: datetime
    enabled: bool = True
    disabled_reason: str = ""

    def wants(self, kind: EventType) -> bool:
        """Whether it is told of events of this type."""
        return EVERY_TYPE in self.event_types or kind.value in self.event_types


@dataclass(frozen=True, slots=True)
class Account:
    """All endpoints of an account; `revision` counts their changes, 0 before the first."""

    user_id: UserId
    endpoints: tuple[Endpoint, ...] = ()
    revision: int = 0

    def find(self, endpoint_id: str) -> Endpoint | None:
        """The endpoint of that id, if it is this account's."""
        return next((item for item in self.endpoints if item.endpoint_id == endpoint_id), None)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not granted; `field` is the field of the request that is at fault, if one is."""

    reason: Reason
    sentence: str
    field: str = ""


@dataclass(frozen=True, slots=True)
class Draft:
    """An endpoint that may be made: the URL in its normal form, the event types each once."""

    url: str
    event_types: tuple[str, ...]


def check_draft(
    url: str, event_types: Sequence[str], *, is_premium: bool, http_hosts: Collection[str]
) -> Draft | Refusal:
    """The endpoint an account asks for, or why it cannot have it."""
    if not is_premium:
        return Refusal(Reason.PLAN_REQUIRED, "Webhooks are part of the premium plan.")
    checked_url = check_url(url, http_hosts=http_hosts)
    checked_types = check_event_types(event_types)
    if isinstance(checked_url, Refusal):
        return checked_url
    if isinstance(checked_types, Refusal):
        return checked_types
    return Draft(checked_url, checked_types)


def check_url(text: str, *, http_hosts: Collection[str]) -> str | Refusal:
    """The normal form of a URL that may be told, or why it may not.

    Hosts in `http_hosts` may be private, and told over plain http. What a name resolves to is looked at when a
    connection is made, not here.
    """
    if len(text) > _URL_CHARACTERS_MAX:
        return _bad_url(f"The URL has more than {_URL_CHARACTERS_MAX} characters.")
    try:
        url = ada_url.URL(text)
    except ValueError:
        return _bad_url("This is not an absolute URL.")
    trusted = url.hostname in http_hosts
    if url.protocol != "https:" and not (url.protocol == "http:" and trusted):
        return _bad_url("The URL must begin with https.")
    if url.username or url.password:
        return _bad_url("The URL must not carry a user name or a password.")
    problem = None if trusted else host_problem(url.hostname)
    if problem is not None:
        return _bad_url(problem)
    url.hash = ""  # never sent
    normal: str = url.href
    return normal if len(normal) <= _URL_CHARACTERS_MAX else _bad_url("The URL is too long in its normal form.")


def check_event_types(types: Sequence[str]) -> tuple[str, ...] | Refusal:
    """The event types an endpoint is told of, each once; none asked for is all."""
    unknown = [kind for kind in types if kind not in _TYPES]
    if unknown:
        return Refusal(Reason.INVALID_FIELD, f"Event types are {', '.join(sorted(_TYPES))}.", "event_types")
    return tuple(dict.fromkeys(types)) or (EVERY_TYPE,)


def add_endpoint(account: Account, endpoint: Endpoint) -> Account | Refusal:
    """The account with one endpoint more."""
    if len(account.endpoints) >= ENDPOINTS_MAX:
        return Refusal(Reason.ENDPOINT_LIMIT, f"An account has at most {ENDPOINTS_MAX} endpoints.")
    return replace(account, endpoints=(*account.endpoints, endpoint))


def remove_endpoint(account: Account, endpoint_id: str) -> Account | Refusal:
    """The account without the endpoint."""
    if account.find(endpoint_id) is None:
        return Refusal(Reason.ENDPOINT_NOT_FOUND, "There is no such endpoint.")
    return replace(account, endpoints=tuple(item for item in account.endpoints if item.endpoint_id != endpoint_id))


def disable_endpoint(account: Account, endpoint_id: str, why: str) -> Account | None:
    """The account with the endpoint disabled; None if there is nothing to change."""
    found = account.find(endpoint_id)
    if found is None or not found.enabled:
        return None
    disabled = replace(found, enabled=False, disabled_reason=why)
    return replace(account, endpoints=tuple(disabled if item is found else item for item in account.endpoints))


def _bad_url(sentence: str) -> Refusal:
    return Refusal(Reason.INVALID_WEBHOOK_URL, sentence, "url")
