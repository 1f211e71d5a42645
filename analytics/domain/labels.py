"""What people's clicks are counted by. A label is one letter for the dimension and the value, so that a row needs one
small map for all five; an unknown value is empty.
"""

from collections.abc import Iterable, Mapping, MutableMapping
from enum import Enum
from functools import lru_cache

from analytics.domain.tallies import REST, add_all, prune
from analytics.domain.user_agents import families

_KNOWN_MAX = 20_000  # User-Agents and referrers whose labels are remembered
_HOST_MAX = 253  # characters of a name in DNS
_COUNTRY_LETTERS = 2
_HOST_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-_[]:")
_LABELS_MAX = 160  # of a row; 40 more than are kept, so that it is not pruned with every new one
_COUNTRIES_KEPT = 40
_HOSTS_KEPT = 40


class Dimension(Enum):
    """What clicks can be grouped by; the value is a label's first letter."""

    COUNTRY = "c"
    REFERRER = "r"
    BROWSER = "b"
    OS = "o"
    DEVICE = "d"


def labels_of(*, country: str, referrer: str, user_agent: str) -> tuple[str, ...]:
    """The labels of a click. The same texts always give the same."""
    return (_country_label(country), _referrer_label(referrer), *_family_labels(user_agent))


def count_labels(counts: MutableMapping[str, int], labels: Iterable[str]) -> None:
    """Count a click with these labels; the map stays bounded."""
    for label in labels:
        if label in counts:
            counts[label] += 1
        else:
            counts[label] = 1
            if len(counts) > _LABELS_MAX:
                prune(counts, keep=_COUNTRIES_KEPT, prefix=Dimension.COUNTRY.value)
                prune(counts, keep=_HOSTS_KEPT, prefix=Dimension.REFERRER.value)


def group(rows: Iterable[Mapping[str, int]], dimension: Dimension) -> Mapping[str, int]:
    """Clicks by value of one dimension over the labels of several rows. Empty: the value is unknown (of a referrer:
    there was none); `REST`: all values that had no room.
    """
    counts: dict[str, int] = {}
    for labels in rows:
        add_all(counts, ((label[1:], clicks) for label, clicks in labels.items() if label[0] == dimension.value))
    return counts


def value_of(labels: Iterable[str], dimension: Dimension) -> str:
    """A click's value in one dimension."""
    return next((label[1:] for label in labels if label[0] == dimension.value), "")


@lru_cache(maxsize=1000)
def _country_label(country: str) -> str:
    known = len(country) == _COUNTRY_LETTERS and country.isascii() and country.isupper() and country.isalpha()
    return Dimension.COUNTRY.value + (country if known else "")


@lru_cache(maxsize=_KNOWN_MAX)
def _referrer_label(referrer: str) -> str:
    return Dimension.REFERRER.value + host_of(referrer)


@lru_cache(maxsize=_KNOWN_MAX)
def _family_labels(user_agent: str) -> tuple[str, str, str]:
    found = families(user_agent)
    return (
        Dimension.BROWSER.value + found.browser,
        Dimension.OS.value + found.os,
        Dimension.DEVICE.value + found.device,
    )


def host_of(referrer: str) -> str:
    """The host of a referring page: lower case, without port and without a leading `www.`; empty if there is none.

    Of android-app://com.example/ it is the app's name. What is not written in the letters of DNS is no host.
    """
    _, found, rest = referrer.partition("://")
    if not found:
        return ""
    authority = rest.replace("\\", "/").partition("/")[0].partition("?")[0].partition("#")[0]
    host = authority.rpartition("@")[2].lower()
    host = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]  # IPv6 has its own colons
    host = host.removesuffix(".").removeprefix("www.")
    return host if len(host) <= _HOST_MAX and _HOST_CHARACTERS.issuperset(host) and host != REST else ""
