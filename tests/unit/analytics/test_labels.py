"""What people's clicks are counted by: country, referring host, browser, system, device; bounded, exact in sum."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.domain.labels import Dimension, count_labels, group, host_of, labels_of, value_of
from analytics.domain.tallies import REST
from analytics.domain.user_agents import families

_AGENTS = [
    ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
     ("Chrome", "Windows", "Desktop")),
    (("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36 "
     "Edg/126.0.2592.61"), ("Edge", "Windows", "Desktop")),
    (("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/125.0.0.0 Safari/537.36 "
     "OPR/111.0.0.0"), ("Opera", "Windows", "Desktop")),
    (("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 "
     "Safari/605.1.15"), ("Safari", "macOS", "Desktop")),
    (("Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 "
     "Mobile/15E148 Safari/604.1"), ("Safari", "iOS", "Phone")),
    (("Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/126.0 "
     "Mobile/15E148 Safari/604.1"), ("Chrome", "iOS", "Phone")),
    (("Mozilla/5.0 (iPad; CPU OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 "
     "Mobile/15E148 Safari/604.1"), ("Safari", "iPadOS", "Tablet")),
    (("Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Mobile "
     "Safari/537.36"), ("Chrome", "Android", "Phone")),
    (("Mozilla/5.0 (Linux; Android 13; SM-X710) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/25.0 "
     "Chrome/121.0.0.0 Safari/537.36"), ("Samsung Internet", "Android", "Tablet")),
    (("Mozilla/5.0 (Linux; Android 14; Pixel 8; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 "
     "Chrome/126.0.0.0 Mobile Safari/537.36 Instagram 335.0"), ("Instagram", "Android", "Phone")),
    ("Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0", ("Firefox", "Linux", "Desktop")),
    ("Mozilla/5.0 (Android 14; Mobile; rv:127.0) Gecko/127.0 Firefox/127.0", ("Firefox", "Android", "Phone")),
    (("Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 "
     "Safari/537.36"), ("Chrome", "ChromeOS", "Desktop")),
    ("Mozilla/5.0 (Windows NT 10.0; WOW64; Trident/7.0; rv:11.0) like Gecko",
     ("Internet Explorer", "Windows", "Desktop")),
    ("Mozilla/5.0 (Web0S; Linux/SmartTV) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/94.0 Safari/537.36",
     ("Chrome", "webOS", "TV")),
    ("Mozilla/5.0 (PlayStation 5 3.03/SmartTV) AppleWebKit/605.1.15 (KHTML, like Gecko)",
     ("WebKit", "PlayStation", "Console")),
    ("", ("", "", "")),
    ("something else entirely", ("", "", "")),
]  # fmt: skip


@pytest.mark.parametrize(("user_agent", "expected"), _AGENTS)
def test_a_user_agent_tells_its_families(user_agent: str, expected: tuple[str, str, str]) -> None:
    """Browsers that name others are told from those; what is not known stays unknown."""
    assert families(user_agent) == expected


@pytest.mark.parametrize(
    ("referrer", "expected"),
    [
        ("https://news.example/a/b?c#d", "news.example"),
        ("https://WWW.News.Example", "news.example"),
        ("http://news.example:8080/", "news.example"),
        ("http://user:pw@news.example/", "news.example"),
        ("http://news.example./", "news.example"),
        ("http://xn--bcher-kva.example/", "xn--bcher-kva.example"),
        ("android-app://com.example.mail/", "com.example.mail"),
        ("http://[2001:db8::1]:80/x", "[2001:db8::1]"),
        ("http://news.example\\@evil.example/", "news.example"),
        ("https://news.example?x=/y", "news.example"),
        ("", ""),
        ("nonsense", ""),
        ("https:///path", ""),
        ("https://*/", ""),
        ("https://bü cher.example/", ""),
        ("https://" + "a" * 254, ""),
    ],
)
def test_a_referrer_is_its_host(referrer: str, expected: str) -> None:
    """The host alone, written one way; what is no host is none."""
    assert host_of(referrer) == expected


@pytest.mark.parametrize(("country", "expected"), [("DE", "DE"), ("", ""), ("de", ""), ("DEU", ""), ("D1", "")])
def test_a_country_has_two_letters(country: str, expected: str) -> None:
    """Anything else is unknown."""
    labels = labels_of(country=country, referrer="", user_agent="")

    assert value_of(labels, Dimension.COUNTRY) == expected
    assert value_of((), Dimension.COUNTRY) == ""


@pytest.mark.rule("A6")
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), max_size=600))
def test_labels_stay_few_and_their_sums_exact(clicks: list[tuple[int, int]]) -> None:
    """However many hosts and countries come: few are kept, the rest is counted together, and nothing is lost."""
    counts: dict[str, int] = {}
    for country, host in clicks:
        letters = chr(65 + country % 26) + chr(65 + country // 26)
        count_labels(counts, labels_of(country=letters, referrer=f"http://h{host}/", user_agent="Firefox/1"))

    assert len(counts) <= 161
    for dimension in Dimension:
        assert sum(group([counts], dimension).values()) == len(clicks)


@pytest.mark.rule("A6")
def test_the_frequent_are_kept() -> None:
    """A host that many come from keeps its own count, also when it came late; the rare ones make room for it."""
    counts: dict[str, int] = {}
    for number in range(1000):
        count_labels(counts, labels_of(country="DE", referrer=f"http://rare{number}/", user_agent=""))
        if number >= 500:
            count_labels(counts, labels_of(country="DE", referrer="http://often/", user_agent=""))

    hosts = group([counts, {"roften": 3, "cDE": 3}], Dimension.REFERRER)

    assert hosts["often"] == 503
    assert hosts[REST] > 800
    assert sum(hosts.values()) == 1503
