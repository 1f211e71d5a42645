"""Answers that never change: landing, robots, security contact, and the page about the API."""

import json

from gateway.handlers.answers import Answer, content

_TEXT = "text/plain; charset=utf-8"
_DAY = (b"cache-control", b"public, max-age=86400")


def make_pages(public_url: str) -> dict[str, Answer]:
    """The fixed answers by path."""
    landing = {"service": "linkmesh", "api": f"{public_url}/api/links", "description": f"{public_url}/openapi.json"}
    robots = "User-agent: *\nDisallow: /\n"  # short links are not pages; a crawler's visits would only be noise
    return {
        "/": content(200, "application/json", json.dumps(landing).encode(), _DAY),
        "/robots.txt": content(200, _TEXT, robots.encode(), _DAY),
    }
