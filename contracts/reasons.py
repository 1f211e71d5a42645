"""The closed list of reasons an error can have, shared by gRPC (`ErrorInfo.reason`, upper case) and HTTP (`code`).

docs/CONTRACTS.md lists the same; a test compares them.
"""

from enum import Enum


class Reason(Enum):
    """JSON `code`, HTTP status, and a title that is the same for every occurrence (RFC 9457)."""

    MALFORMED_REQUEST = ("malformed_request", 400, "The request is not well formed")
    UNAUTHENTICATED = ("unauthenticated", 401, "A valid API key is needed")
    PERMISSION_DENIED = ("permission_denied", 403, "The key does not allow this")
    PLAN_REQUIRED = ("plan_required", 403, "The account's plan does not include this")
    LINK_NOT_FOUND = ("link_not_found", 404, "There is no such link")
    ENDPOINT_NOT_FOUND = ("endpoint_not_found", 404, "There is no such webhook endpoint")
    LOG_NOT_FOUND = ("log_not_found", 404, "There is no such audit log")
    NOT_FOUND = ("not_found", 404, "There is nothing here")
    METHOD_NOT_ALLOWED = ("method_not_allowed", 405, "The method is not allowed here")
    CUSTOM_CODE_TAKEN = ("custom_code_taken", 409, "The code is taken")
    STATE_CONFLICT = ("state_conflict", 409, "The link's state does not allow this")
    LINK_DELETED = ("link_deleted", 410, "The link was deleted")
    LINK_EXPIRED = ("link_expired", 410, "The link has expired")
    VERSION_CONFLICT = ("version_conflict", 412, "The link has changed since")
    REQUEST_TOO_LARGE = ("request_too_large", 413, "The request is too large")
    INVALID_LONG_URL = ("invalid_long_url", 422, "The destination is not allowed")
    INVALID_CUSTOM_CODE = ("invalid_custom_code", 422, "The code is not allowed")
    INVALID_FIELD = ("invalid_field", 422, "A field is not valid")
    INVALID_WEBHOOK_URL = ("invalid_webhook_url", 422, "The webhook URL is not allowed")
    IDEMPOTENCY_KEY_REUSED = ("idempotency_key_reused", 422, "The idempotency key was used with another request")
    ENDPOINT_LIMIT = ("endpoint_limit", 422, "The account has all the endpoints it may have")
    RATE_LIMITED = ("rate_limited", 429, "Too many requests")
    HEADERS_TOO_LARGE = ("headers_too_large", 431, "The request's headers are too large")
    LINK_BLOCKED = ("link_blocked", 451, "The link was taken down")
    INTERNAL = ("internal", 500, "Something went wrong on our side")
    UNAVAILABLE = ("unavailable", 503, "Not available for the moment")
    OUTCOME_UNKNOWN = ("outcome_unknown", 503, "The outcome is not known; look before you repeat")
    DEADLINE_EXCEEDED = ("deadline_exceeded", 504, "No answer in time")

    def __init__(self, code: str, http_status: int, title: str) -> None:
        self.code = code
        self.http_status = http_status
        self.title = title


def reason_of(code: str) -> Reason:
    """The reason of a JSON `code` or of an `ErrorInfo.reason`; INTERNAL for one that is not in the list."""
    return Reason.__members__.get(code.upper(), Reason.INTERNAL)
