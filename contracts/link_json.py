"""A link as JSON: the same object in the answers of the REST interface and in the bodies of webhooks."""

from datetime import UTC, datetime

from contracts.link import Link

Json = dict[str, object]


def link_json(link: Link, *, public_url: str, at: datetime) -> Json:
    """A link as its owner sees it at that moment. `public_url`: the address of the deployment's own domain."""
    base = f"https://{link.domain}" if link.domain else public_url.rstrip("/")
    return {
        "short_code": link.short_code,
        "short_url": f"{base}/{link.short_code}",
        "long_url": link.long_url,
        "user_id": link.user_id,
        "is_custom": link.is_custom,
        "version": link.version,
        "state": link.state_at(at).value,
        "created_at": time_text(link.created_at),
        "updated_at": time_text(link.updated_at),
        "deleted_at": optional_time_text(link.deleted_at),
        "expires_at": optional_time_text(link.expires_at),
        "starts_at": optional_time_text(link.starts_at),
        "redirect_status": link.redirect_status,
        "title": link.title,
        "tags": list(link.tags),
    }


def time_text(moment: datetime) -> str:
    """RFC 3339 in UTC, ending in Z."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def optional_time_text(moment: datetime | None) -> str | None:
    """The same of a time that may be missing."""
    return None if moment is None else time_text(moment)
