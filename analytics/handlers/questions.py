"""What a request asks for: ranges, zones, groups and pages out of messages, or a sentence about what is wrong."""

from collections.abc import Mapping
from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from google.protobuf.timestamp_pb2 import Timestamp

from analytics.domain.labels import Dimension
from analytics.domain.stats import BadRange, Granularity, decide_hours, decide_zone
from analytics.domain.top import PAGE_DEFAULT, PAGE_MAX
from analytics.ports import LinkFacts, Links
from chassis.auth import Principal
from chassis.errors import FieldViolation, InvalidArgument, NotFound
from contracts.codes import is_possible_code
from contracts.reasons import Reason
from shortener.analytics.v1 import analytics_service_pb2 as pb

_ZONE_CHARACTERS_MAX = 64
_TOKEN_DIGITS_MAX = 6
_GRANULARITIES: Mapping[int, Granularity] = {
    pb.GRANULARITY_UNSPECIFIED: Granularity.DAY,
    pb.GRANULARITY_HOUR: Granularity.HOUR,
    pb.GRANULARITY_DAY: Granularity.DAY,
}
_DIMENSIONS: Mapping[int, Dimension | None] = {
    pb.GROUP_BY_UNSPECIFIED: None,
    pb.GROUP_BY_COUNTRY: Dimension.COUNTRY,
    pb.GROUP_BY_REFERRER: Dimension.REFERRER,
    pb.GROUP_BY_BROWSER: Dimension.BROWSER,
    pb.GROUP_BY_OS: Dimension.OS,
    pb.GROUP_BY_DEVICE: Dimension.DEVICE,
}


def hours_of(request: pb.GetClickStatsRequest | pb.ListTopLinksRequest, now_ms: int) -> range:
    """The hours that are asked for. Raises InvalidArgument."""
    hours = decide_hours(
        from_ms=_moment_ms("from", getattr(request, "from")) if request.HasField("from") else None,
        until_ms=_moment_ms("until", request.until) if request.HasField("until") else None,
        now_ms=now_ms,
    )
    if isinstance(hours, BadRange):
        raise invalid(hours.field, hours.description)
    return hours


def _moment_ms(field: str, moment: Timestamp) -> int:
    """A moment that is asked for. Raises InvalidArgument: whoever speaks protobuf can send one that no calendar has."""
    try:
        return moment.ToMilliseconds()
    except ValueError:
        raise invalid(field, "This is no moment of the years 1 to 9999.") from None


def granularity_of(request: pb.GetClickStatsRequest) -> Granularity:
    """The width of steps. Raises InvalidArgument."""
    if request.granularity not in _GRANULARITIES:
        raise invalid("granularity", "The granularity is an hour or a day.")
    return _GRANULARITIES[request.granularity]


def zone_of(request: pb.GetClickStatsRequest, granularity: Granularity, hours: range) -> tzinfo:
    """The zone whose days are meant. Raises InvalidArgument: there is none of this name, or it has no such days."""
    name = request.time_zone
    if name in ("", "UTC"):
        return UTC
    try:
        if len(name) > _ZONE_CHARACTERS_MAX:
            raise ZoneInfoNotFoundError(name)
        zone = ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise invalid(
            "time_zone", "There is no such time zone; an IANA name is needed, such as Europe/Berlin."
        ) from None
    bad = decide_zone(zone, hours) if granularity is Granularity.DAY else None
    if bad is not None:
        raise invalid(bad.field, bad.description)
    return zone


def dimension_of(request: pb.GetClickStatsRequest) -> Dimension | None:
    """What to group by; None: nothing. Raises InvalidArgument."""
    if request.group_by not in _DIMENSIONS:
        raise invalid("group_by", "Clicks are grouped by country, referrer, browser, os or device.")
    return _DIMENSIONS[request.group_by]


def page_of(request: pb.ListTopLinksRequest) -> range:
    """The places of a page in the list. Raises InvalidArgument."""
    if not 0 <= request.page_size <= PAGE_MAX:
        raise invalid("page_size", f"A page has at most {PAGE_MAX} links.")
    token = request.page_token
    if token and not (token.isascii() and token.isdigit() and len(token) <= _TOKEN_DIGITS_MAX):
        raise invalid("page_token", "There is no such page.")
    start = int(token or 0)
    return range(start, start + (request.page_size or PAGE_DEFAULT))


async def find_own(links: Links, short_code: str, domain: str, principal: Principal) -> LinkFacts:
    """The facts of a link of this account.

    Raises:
        NotFound: there is none, or somebody else has it, which is not told.
        Unavailable, DeadlineExceeded: it cannot be told.
    """
    if not is_possible_code(short_code):
        raise _no_link()
    link = await links.find(short_code, domain)
    if link.user_id != principal.user_id:
        raise _no_link()
    return link


def invalid(field: str, description: str) -> InvalidArgument:
    """A field is at fault."""
    reason = Reason.INVALID_FIELD
    return InvalidArgument(reason.code, reason.title, fields=(FieldViolation(field, description),))


def _no_link() -> NotFound:
    return NotFound(Reason.LINK_NOT_FOUND.code, Reason.LINK_NOT_FOUND.title)
