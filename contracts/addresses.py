"""Which addresses a link or a webhook may point at: only those the whole internet can reach.

`ipaddress.is_global` says True for addresses that embed a private IPv4 one (NAT64, 6to4, IPv4-mapped, Teredo), so these
are unwrapped first (RFC 6052, RFC 3056, RFC 4291 section 2.5.5.2, RFC 4380).
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
_PROTOCOL_ASSIGNMENTS = IPv4Network("192.0.0.0/24")  # RFC 6890; is_global lets parts of it pass
_LOCAL_SUFFIXES = (".local", ".localhost", ".internal", ".onion", ".home.arpa", ".localdomain")


def is_public_address(text: str) -> bool:
    """Whether an IP literal (brackets and zone allowed) is globally reachable unicast; False if it is no address."""
    try:
        address = ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return False
    inner = _embedded_ipv4(address) if isinstance(address, IPv6Address) else None
    if inner is not None and not _is_public(inner):
        return False
    return _is_public(address.ipv4_mapped or address) if isinstance(address, IPv6Address) else _is_public(address)


def host_problem(host: str) -> str | None:
    """Why a host, as the URL parser normalised it (lower case, punycode, dotted IPv4), is no public target; or None.

    Names are judged by their form only; what they resolve to is checked when a connection is made, if one is.
    """
    bare = host.rstrip(".")
    if is_address(bare):
        return None if is_public_address(bare) else "The address is not a public one."
    if bare == "localhost" or bare.endswith(_LOCAL_SUFFIXES):
        return "The host is a local name."
    if "." not in bare:
        return "The host has no domain."
    return None


def is_address(host: str) -> bool:
    """Whether a host is an IP literal, with or without brackets."""
    if ":" not in host and not host[-1:].isdigit():
        return False  # neither form can look so; asking the parser would cost more than all the rest of a check
    try:
        ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return False
    return True


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if address.version == 4 and address in _PROTOCOL_ASSIGNMENTS:
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _embedded_ipv4(address: IPv6Address) -> IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if any(address in network for network in _NAT64):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return None
