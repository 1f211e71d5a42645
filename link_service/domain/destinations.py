"""Which destinations a link may have, and their one normal form.

A URL is parsed once, by the WHATWG algorithm (ada), and only the parser's own `href` is stored and sent: it is ASCII
without spaces or line breaks, and a browser reads it the same way. The policy looks at the parsed host, never at the
text, since browsers take `http://2130706433/` and `http://①②⑦.⓪.⓪.①/` for 127.0.0.1.
"""

from dataclasses import dataclass
from typing import NewType

from ada_url import URL

from contracts.addresses import host_problem, is_address

LongUrl = NewType("LongUrl", str)

LONG_URL_MAX = 2048  # characters of the normal form
_TYPED_MAX = 8192  # what is parsed at all; the normal form may be shorter than what was typed
_PORTS = {"http:": "80", "https:": "443"}  # these schemes and no others
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
    if url.protocol not in _PORTS:
        raise ValueError("the public URL needs http:// or https://")
    return DestinationPolicy(_bare(url.hostname), url.port or _PORTS[url.protocol], allow_private)


def normal_form(typed: str, policy: DestinationPolicy) -> LongUrl | Refused:
    """The normal form of a destination, or why it is refused. Normal forms are their own normal form."""
    if len(typed) > _TYPED_MAX:
        return Refused(f"The URL is longer than {LONG_URL_MAX} characters.")
    try:
        url = URL(typed)
    except (ValueError, UnicodeEncodeError):
        return Refused("This is not a whole URL; it starts with http:// or https://.")
    href = url.href
    problem = _problem(url, href, policy)
    return Refused(problem) if problem else LongUrl(href)


def _problem(url: URL, href: str, policy: DestinationPolicy) -> str | None:
    """What is wrong with a parsed URL; `href` is its own. Each attribute is a call into the parser: few are asked."""
    protocol = url.protocol
    if protocol not in _PORTS:
        return "Only http:// and https:// URLs are allowed."
    if "@" in href and (url.username or url.password):
        return "A URL with a user name or password is not allowed."
    if len(href) > LONG_URL_MAX:
        return f"The URL is longer than {LONG_URL_MAX} characters."
    host, bracket, port = url.host.partition(":")
    if bracket and not port.isdigit():  # an IPv6 address has colons of its own
        host, port = url.hostname, url.port
    if port == "0":
        return "Port 0 is not allowed."
    host = _bare(host)
    if not is_address(host) and not _is_name(host):
        return "The host is not a name that can exist."
    if _is_own(host, port or _PORTS[protocol], policy):
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
