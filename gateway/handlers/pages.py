"""Answers that never change: landing, robots, security contact, and the page about the API."""

import json
from datetime import datetime, timedelta

from gateway.handlers.answers import Answer, content
from gateway.handlers.docs_page import Json, docs_page

_SECURITY_TXT_VALID = timedelta(days=180)  # RFC 9116 asks for less than a year
_TEXT = "text/plain; charset=utf-8"
_PAGE_HEADERS = (
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'"),
    (b"x-content-type-options", b"nosniff"),
)
_DAY = (b"cache-control", b"public, max-age=86400")


def make_pages(public_url: str, openapi: Json, *, security_contact: str, now: datetime) -> dict[str, Answer]:
    """The fixed answers by path. `openapi`: the description of the API; `security_contact`: a URI, or empty."""
    landing = {"service": "linkmesh", "api": f"{public_url}/api/links", "docs": f"{public_url}/docs"}
    robots = "User-agent: *\nDisallow: /\n"  # short links are not pages; a crawler's visits would only be noise
    pages = {
        "/": content(200, "application/json", json.dumps(landing).encode(), _DAY),
        "/docs": content(200, "text/html; charset=utf-8", docs_page(openapi).encode(), _DAY, *_PAGE_HEADERS),
        "/robots.txt": content(200, _TEXT, robots.encode(), _DAY),
    }
    if security_contact:
        expires = (now + _SECURITY_TXT_VALID).strftime("%Y-%m-%dT%H:%M:%SZ")
        text = f"Contact: {security_contact}\nExpires: {expires}\n"  # RFC 9116 section 2.5: both are needed
        pages["/.well-known/security.txt"] = content(200, _TEXT, text.encode(), _DAY)
    return pages
