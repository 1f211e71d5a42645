"""Which destinations are allowed: a corpus of evil URLs, and the normal form."""

import pytest
from ada_url import URL
from hypothesis import given
from hypothesis import strategies as st

from link_service.domain.destinations import LONG_URL_MAX, Refused, normal_form, policy_for

POLICY = policy_for("https://go.example.com", allow_private=False)
LOOPBACK = "http://127.0.0.1:8080"

EVIL = [
    # not a web page
    "javascript:alert(1)", "JaVaScRiPt:alert(1)", "java\nscript:alert(1)", "data:text/html,<script>alert(1)</script>",
    "vbscript:x", "file:///etc/passwd", "ftp://example.com/", "mailto:a@example.com", "blob:https://example.com/x",
    "about:blank", "ws://example.com/", "javascript://example.com/%0aalert(1)", "view-source:https://example.com/",
    # no whole URL
    "", " ", "example.com", "//example.com/", "/path", "https://", "http://?q", "https://:443/", "http://%00/",
    "https://exa mple.com/", "http://example.com:65536/", "http://[::1", "http://a\ud800b.com/",
    # somebody else's name before the host
    "https://good.com@evil.com/", "https://user:secret@example.com/", "https://:x@example.com/",
    "http://a@b@example.com/", "https://good.com:443@evil.com/", "https://%65vil@example.com/",
    # this machine, in every spelling that a browser knows
    "http://localhost/", "http://LOCALHOST./", "http://localhost.:80/", "http://a.localhost/", "http://127.0.0.1/",
    "http://127.1/", "http://2130706433/", "http://0x7f.1/", "http://0x7F000001/", "http://0177.0.0.1/",
    "http://①②⑦.⓪.⓪.①/", "http://127。0。0。1/", "http://0/", "http://0.0.0.0/", "http://[::1]/", "http://[::]/",
    "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/", "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/",
    "http://①②⑦.1/", "http:\\\\127.0.0.1\\", "http:127.0.0.1/", "http:///127.0.0.1/", "http://127.0.0.1./",
    # private networks and clouds' own services
    "http://10.0.0.1/", "http://172.16.5.4/", "http://192.168.1.1/", "http://169.254.169.254/latest/meta-data/",
    "http://[fe80::1]/", "http://[fc00::1]/", "http://100.64.0.1/", "http://192.0.0.8/", "http://198.18.0.1/",
    "http://224.0.0.1/", "http://255.255.255.255/", "http://printer.local/", "http://db.internal/", "http://intranet/",
    "http://metadata.google.internal/", "http://x.home.arpa/", "http://3232235777/", "http://x.onion/",
    # names that cannot exist
    "http://a..b/", "http://.example.com/", "http://" + "a" * 64 + ".com/", "http://" + "a.b" * 100 + ".com/",
    "http://example.com../", "https://example.com:0/",
    # this service itself
    "https://go.example.com/abc", "http://go.example.com/", "https://GO.example.com./x", "https://go.example.com:8443/",
    "https://\uff47\uff4f.example.com/",
    # too long
    "https://example.com/" + "a" * LONG_URL_MAX, "https://example.com/" + "é" * (LONG_URL_MAX // 3), "https://" * 9999,
]  # fmt: skip

GOOD = {
    "https://example.com": "https://example.com/",
    "HTTPS://EXAMPLE.com:443/a b?q=\"x\"#é": "https://example.com/a%20b?q=%22x%22#%C3%A9",
    "  http://example.com/\t\n ": "http://example.com/",
    "http://example.com:8080/../x": "http://example.com:8080/x",
    "https://bücher.example/ü": "https://xn--bcher-kva.example/%C3%BC",
    "https://example.com\\@evil.com/": "https://example.com/@evil.com/",
    "https://8.8.8.8/": "https://8.8.8.8/",
    "http://[2606:4700::1111]/": "http://[2606:4700::1111]/",
    "https://example.com/?next=javascript:alert(1)": "https://example.com/?next=javascript:alert(1)",
    "https://example.com/a@b:c": "https://example.com/a@b:c",
    "https://sub.go.example.com/": "https://sub.go.example.com/",
    "https://my_shop.example.com/": "https://my_shop.example.com/",
}  # fmt: skip


@pytest.mark.parametrize("typed", EVIL, ids=[f"{place}:{url[:40]!a}" for place, url in enumerate(EVIL)])
def test_evil_urls_are_refused(typed: str) -> None:
    """Limits: http and https only, no user name, no private, own or impossible host, at most 2048 characters."""
    assert isinstance(normal_form(typed, POLICY), Refused)


@pytest.mark.parametrize("typed", GOOD)
def test_good_urls_get_their_normal_form(typed: str) -> None:
    """Limits: what is stored is the parser's own text, ASCII without spaces or line breaks."""
    assert normal_form(typed, POLICY) == GOOD[typed]


def test_the_longest_url_is_allowed() -> None:
    """Limits: 2048 characters after normalisation."""
    longest = "https://example.com/" + "a" * (LONG_URL_MAX - 20)

    assert normal_form(longest, POLICY) == longest


@given(st.one_of(st.text(), st.from_regex(r"https?://[^\s/]{1,30}\.[a-z]{2,5}(:[0-9]{1,5})?/.{0,60}", fullmatch=True)))
def test_a_normal_form_is_its_own(typed: str) -> None:
    """Limits: normalising twice changes nothing, whatever was typed; and the result can be a header of HTTP."""
    once = normal_form(typed, POLICY)
    if isinstance(once, Refused):
        return

    assert normal_form(once, POLICY) == once
    assert once.isascii()
    assert all(" " < character < "\x7f" for character in once)


@pytest.mark.parametrize(
    ("typed", "allowed"),
    [
        ("http://127.0.0.1:8080/x", False),
        ("http://127.0.0.1:9000/x", True),
        ("http://127.0.0.1/", True),
        ("http://10.1.2.3/", True),
        ("http://intranet/wiki", True),
        ("javascript:alert(1)", False),
        ("http://user@intranet/", False),
    ],
)
def test_a_deployment_may_allow_private_targets(typed: str, *, allowed: bool) -> None:
    """Limits: private targets only where the deployment allows them, and even there never the service itself."""
    policy = policy_for(LOOPBACK, allow_private=True)

    assert isinstance(normal_form(typed, policy), Refused) is not allowed


def test_a_public_url_must_be_one() -> None:
    """A configuration with another scheme is refused at start."""
    with pytest.raises(ValueError, match="http"):
        policy_for("redis://go.example.com", allow_private=False)


@given(
    st.one_of(st.text(), st.from_regex(r"(?i)https?:[/\\]{0,3}[^\s]{0,30}([/?#@:\[\]\\].{0,20}){0,3}", fullmatch=True))
)
def test_who_and_where_stand_in_the_normal_form_as_the_parser_has_them(typed: str) -> None:
    """Between the scheme and the next slash are user, host and port and nothing else, whatever was typed: a check of
    that text is a check of what a browser would read."""
    try:
        url = URL(typed)
    except (ValueError, UnicodeEncodeError):
        return
    scheme, _, rest = url.href.partition("://")
    if f"{scheme}:" not in ("http:", "https:"):
        assert url.protocol not in ("http:", "https:")
        return
    authority = rest.partition("/")[0]

    assert url.protocol == f"{scheme}:"
    assert authority.rpartition("@")[2] == url.host
    assert ("@" in authority) == bool(url.username or url.password)
