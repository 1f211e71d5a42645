"""Protobuf answers of the other processes as the JSON of the API."""

from datetime import UTC

from google.protobuf.timestamp_pb2 import Timestamp

from contracts.link_json import Json, time_text
from shortener.analytics.v1 import analytics_service_pb2 as analytics_pb
from shortener.audit.v1 import audit_service_pb2 as audit_pb
from shortener.key.v1 import key_service_pb2 as key_pb
from shortener.webhook.v1 import webhook_service_pb2 as webhook_pb

_DELIVERY_STATES = {
    webhook_pb.DELIVERY_STATE_PENDING: "pending",
    webhook_pb.DELIVERY_STATE_DELIVERED: "delivered",
    webhook_pb.DELIVERY_STATE_FAILED: "failed",
}


def stats_json(stats: analytics_pb.GetClickStatsResponse) -> Json:
    """The clicks of a link."""
    return {
        "short_code": stats.short_code,
        "counted_until": time_or_none(stats.counted_until),
        "clicks": {"total": stats.clicks.total, "human": stats.clicks.human, "bot": stats.clicks.bot},
        "prefetches": stats.prefetches,
        "unique_visitors": stats.unique_visitors,
        "series": [
            {"start": time_or_none(point.start), "clicks": point.clicks, "unique_visitors": point.unique_visitors}
            for point in stats.series
        ],
        "groups": [{"value": group.value, "clicks": group.clicks} for group in stats.groups],
    }


def top_links_json(top: analytics_pb.ListTopLinksResponse) -> Json:
    """The most followed links."""
    return {
        "counted_until": time_or_none(top.counted_until),
        "items": [{"short_code": link.short_code, "clicks": link.clicks} for link in top.links],
        "other_clicks": top.other_clicks,
        "next_page_token": top.next_page_token,
    }


def live_click_json(click: analytics_pb.LiveClick) -> Json:
    """A click as it is shown live; null: not known."""
    return {
        "at": time_or_none(click.at),
        "visitor_class": click.visitor_class,
        "country": click.country or None,
        "referrer": click.referrer or None,
        "browser": click.browser or None,
        "os": click.os or None,
        "device": click.device or None,
    }


def endpoint_json(endpoint: webhook_pb.Endpoint) -> Json:
    """A webhook endpoint, without its secret."""
    return {
        "endpoint_id": endpoint.endpoint_id,
        "user_id": endpoint.user_id,
        "url": endpoint.url,
        "event_types": list(endpoint.event_types),
        "enabled": endpoint.enabled,
        "created_at": time_or_none(endpoint.created_at),
    }


def key_json(key: key_pb.ApiKey) -> Json:
    """An API key, without its secret."""
    return {
        "key_id": key.key_id,
        "user_id": key.user_id,
        "scopes": list(key.scopes),
        "prefix": key.prefix,
        "created_at": time_or_none(key.created_at),
    }


def delivery_json(delivery: webhook_pb.Delivery) -> Json:
    """A delivery."""
    return {
        "endpoint_id": delivery.endpoint_id,
        "event_id": delivery.event_id,
        "event_type": delivery.event_type,
        "short_code": delivery.short_code,
        "state": _DELIVERY_STATES.get(delivery.state, "pending"),
        "attempts": delivery.attempts,
        "last_status": delivery.last_status or None,
        "last_error": delivery.last_error,
        "next_attempt_at": time_or_none(delivery.next_attempt_at),
    }


def audit_entry_json(entry: audit_pb.AuditEntry) -> Json:
    """An entry of the audit log."""
    leaf = entry.leaf
    return {
        "leaf_index": entry.leaf_index,
        "topic": leaf.topic,
        "partition": leaf.partition,
        "offset": leaf.offset,
        "recorded_at": time_or_none(leaf.recorded_at),
        "event_id": leaf.event_id,
        "event_type": leaf.event_type,
        "commitment": leaf.commitment.hex(),
        "short_code": entry.short_code,
        "version": entry.version,
        "user_id": entry.user_id,
    }


def time_or_none(message: Timestamp) -> str | None:
    """A timestamp as text; one that was not set is none."""
    return time_text(message.ToDatetime(tzinfo=UTC)) if message.ByteSize() else None
