"""Which hosts and addresses may be pointed at."""

import pytest

from contracts.addresses import host_problem, is_address, is_public_address


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "192.0.0.8",
        "198.18.0.1", "224.0.0.1", "255.255.255.255", "::1", "[::1]", "::", "fe80::1", "fe80::1%eth0", "fc00::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::",
        "2002:c0a8:101::", "ff02::1", "2001:db8::1", "2001::7f00:1", "64:ff9b::808:808", "not an address",
    ],
)  # fmt: skip
def test_what_the_internet_cannot_reach_is_refused(address: str) -> None:
    """Private, loopback, link-local, shared, reserved and multicast, in every disguise IPv6 has for them."""
    assert not is_public_address(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "[2606:4700::1111]", "::ffff:8.8.8.8"])
def test_what_the_internet_can_reach_is_allowed(address: str) -> None:
    """Public addresses pass, also where they are embedded."""
    assert is_public_address(address)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("example.org", True),
        ("example.org.", True),
        ("xn--bcher-kva.example", True),
        ("8.8.8.8", True),
        ("localhost", False),
        ("localhost.", False),
        ("printer.local", False),
        ("db.internal", False),
        ("x.localhost", False),
        ("intranet", False),
        ("127.0.0.1", False),
        ("[::1]", False),
        ("abcdef.onion", False),
    ],
)
def test_hosts_by_their_form(host: str, allowed: bool) -> None:
    """A name needs a public domain, an address must be public."""
    assert (host_problem(host) is None) == allowed


def test_a_name_is_not_an_address() -> None:
    """Names and literals are told apart."""
    assert is_address("[::1]")
    assert is_address("1.2.3.4")
    assert not is_address("example.org")
