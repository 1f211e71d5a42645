"""Which destinations a link may have, and their one normal form.

A URL is parsed once, by the WHATWG algorithm (ada), and only the parser's own `href` is stored and sent: it is ASCII
without spaces or line breaks, and a browser reads it the same way. The policy looks at the parsed host, never at the
text, since browsers take `http://2130706433/` and `http://①②⑦.⓪.⓪.①/` for 127.0.0.1.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NewType

from ada_url import URL, normalize_url

from contracts.addresses import host_problem, is_address

LongUrl = NewType("LongUrl", str)

LONG_URL_MAX = 2048  # characters of the normal form
_TYPED_MAX = 8192  # what is parsed at all; the normal form may be shorter than what was typed
_PORTS = {"http": "80", "https": "443"}  # these schemes and no others
_HOST_MAX, _LABEL_MAX = 253, 63  # RFC 1035, section 2.3.4


@dataclass(frozen=True, slots=True)
class DestinationPolicy:
    """What a deployment allows. `own_host` (and `own_port`) is where its links live: a link to a link is a loop."""

    own_host: str
    own_port: str = ""
    allow_private: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """Why something is not allowed, as a sentence for its author."""

    sentence: str


def policy_for(public_url: str, *, allow_private: bool) -> DestinationPolicy:
    """The policy of a deployment whose links live under `public_url`.

    Raises:
        ValueError: that is no http or https URL.
    """
    url = URL(public_url)
    scheme = url.protocol.removesuffix(":")
    if scheme not in _PORTS:
        raise ValueError("the public URL needs http:// or https://")
    return DestinationPolicy(_bare(url.hostname), url.port or _PORTS[scheme], allow_private)


def normal_form(typed: str, policy: DestinationPolicy) -> LongUrl | Refused:
    """The normal form of a destination, or why it is refused. Normal forms are their own normal form."""
    if len(typed) > _TYPED_MAX:
        return Refused(f"The URL is longer than {LONG_URL_MAX} characters.")
    try:
        href = normalize_url(typed)
    except (ValueError, UnicodeEncodeError):
        return Refused("This is not a whole URL; it starts with http:// or https://.")
    problem = _problem(href, policy)
    return Refused(problem) if problem else LongUrl(href)


def _problem(href: str, policy: DestinationPolicy) -> str | None:
    """What is wrong with a URL in normal form. In that, `http://` or `https://` is followed by who, where and a slash,
    and in none of these can be a character that would end them: each attribute of the parser costs a call into it."""
    scheme, _, rest = href.partition("://")
    if scheme not in _PORTS:
        return "Only http:// and https:// URLs are allowed."
    authority = rest.partition("/")[0]
    if "@" in authority:
        return "A URL with a user name or password is not allowed."
    if len(href) > LONG_URL_MAX:
        return f"The URL is longer than {LONG_URL_MAX} characters."
    return _place_problem(authority, _PORTS[scheme], policy)


@lru_cache(maxsize=1024)  # of at most 2 KB
def _place_problem(authority: str, default_port: str, policy: DestinationPolicy) -> str | None:
    """What is wrong with a host and its port: most links of an hour lead to few places."""
    host, colon, port = authority.rpartition(":")
    if not colon or port.endswith("]"):  # an IPv6 address has colons of its own
        host, port = authority, default_port
    if port == "0":
        return "Port 0 is not allowed."
    host = _bare(host)
    if not is_address(host) and not _is_name(host):
        return "The host is not a name that can exist."
    if _is_own(host, port, policy):
        return "A link must not lead to this service itself."
    return None if policy.allow_private else host_problem(host)


def _is_own(host: str, port: str, policy: DestinationPolicy) -> bool:
    """Another port of our own name is ours as well; another port of our address is somebody else's."""
    if host != policy.own_host:
        return False
    return port == policy.own_port or not (is_address(host) or host == "localhost")


def _is_name(host: str) -> bool:
    return len(host) <= _HOST_MAX and all(0 < len(label) <= _LABEL_MAX for label in host.split("."))


def _bare(host: str) -> str:
    """A host without the dot of the root: `example.com.` is example.com."""
    return host.removesuffix(".")
