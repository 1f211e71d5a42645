"""Who follows a link: human, bot or prefetch [S7], and the keyed hash that counts visitors without knowing them."""

import re
from dataclasses import dataclass
from datetime import date
from enum import Enum
from hashlib import blake2b
from ipaddress import ip_address

VISITOR_BYTES = 16
TEXT_BYTES_MAX = 512  # of User-Agent and Referer; what is longer says nothing more

# Words that crawlers, link previews, monitors and HTTP libraries put into their User-Agent. A word list knows the
# honest ones; it needs no update service and no table of a hundred thousand names.
_BOT = re.compile(
    r"(?<!cu)bot(?:\b|_)|crawl|spider|slurp|preview|facebookexternalhit|whatsapp|embedly|"  # a Cubot is a telephone
    r"monitor|uptime|pingdom|headless|phantomjs|lighthouse|curl/|wget/|python|httpx|aiohttp|go-http-client|okhttp|"
    r"java/|apache-httpclient|libwww|^perl|^ruby|node-fetch|axios|undici|postman|insomnia|feedfetcher|"
    r"mediapartners|google-|archiver|validator",
    re.IGNORECASE,
)
_BYTE = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_BYTE}(?:\.{_BYTE}){{3}}")


class VisitorClass(Enum):
    """Who followed a link; never mixed in the counts."""

    HUMAN = "human"
    BOT = "bot"
    PREFETCH = "prefetch"


@dataclass(frozen=True, slots=True)
class Visitors:
    """How to tell visitors apart. `country_header` in lower case; empty: none."""

    key: bytes
    trusted_proxies: int = 0
    country_header: bytes = b""


@dataclass(frozen=True, slots=True)
class Visit:
    """What a request tells of its sender. `purpose` is Sec-Purpose or Purpose."""

    method: str
    user_agent: str
    purpose: str


def classify(visit: Visit) -> VisitorClass:
    """The class of a visit. No User-Agent at all is no browser; HEAD is somebody looking, not going."""
    if is_prefetch(visit.purpose):
        return VisitorClass.PREFETCH
    if visit.method == "HEAD" or not visit.user_agent or _BOT.search(visit.user_agent):
        return VisitorClass.BOT
    return VisitorClass.HUMAN


def is_prefetch(purpose: str) -> bool:
    """Whether Sec-Purpose or Purpose says that a browser looks ahead."""
    return bool(purpose) and ("prefetch" in purpose.lower() or "prerender" in purpose.lower())


def daily_key(key: bytes, day: date) -> bytes:
    """The key of one UTC day, 32 bytes: what was counted on two days cannot be joined without `key`."""
    return blake2b(day.isoformat().encode(), key=key, digest_size=32).digest()


def visitor_hasher(key: bytes, user_agent: str) -> "blake2b":
    """Half a hash: visitors with this User-Agent under this key; a copy of it takes the address."""
    return blake2b(f"{user_agent}|".encode(), key=key, digest_size=VISITOR_BYTES)


def visitor_hash(key: bytes, *, address: str, user_agent: str) -> bytes:
    """16 bytes that are the same for the same address and User-Agent under the same key."""
    hasher = visitor_hasher(key, user_agent)
    hasher.update(address.encode())
    return hasher.digest()


def client_address(peer: str, forwarded_for: str, trusted_proxies: int) -> str:
    """The address of the client. `forwarded_for`: X-Forwarded-For, all its lines joined by commas.

    Our own proxies append what they saw: with n of them, the n-th entry from the right is the client's, and everything
    left of it is hearsay. Fewer entries, or one that is no address: the request came another way; its peer counts.
    """
    if trusted_proxies <= 0 or not forwarded_for:
        return peer
    entries = forwarded_for.rsplit(",", trusted_proxies)
    if len(entries) < trusted_proxies:
        return peer
    candidate = entries[-trusted_proxies].strip()
    if _IPV4.fullmatch(candidate):  # what is most frequent needs no parser, and is written in one way only
        return candidate
    try:
        return str(ip_address(candidate))
    except ValueError:
        return peer


def country_of(stated: str) -> str:
    """The two-letter country a proxy stated, in upper case; empty if it is none (XX and T1 are Cloudflare's none)."""
    country = stated.strip().upper()
    known = len(country) == 2 and country.isascii() and country.isalpha() and country != "XX"
    return country if known else ""


def cut(text: str) -> str:
    """The text without what lies beyond 512 bytes of UTF-8."""
    if len(text) <= TEXT_BYTES_MAX // 4:
        return text
    return text.encode()[:TEXT_BYTES_MAX].decode("utf-8", "ignore")
