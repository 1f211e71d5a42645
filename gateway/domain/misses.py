"""Who asks for too many codes that nobody has: a budget for each network, by GCRA (the generic cell rate algorithm of
ATM traffic management, ITU-T I.371): one number for each network, no window that begins anew.
"""

from ipaddress import IPv6Address, ip_address

_WINDOW_S = 60.0
_NETWORKS_MAX = 10_000  # remembered; whose last miss is the oldest goes first, its budget being the fullest
_IPV4_HOST_BITS = 8  # of a /24
_IPV6_HOST_BITS = 80  # of a /48: what one customer gets, who may give himself any address in it


class MissBudget:
    """At most `per_minute` misses a minute for a network, a minute's worth at once. 0: no bound. Times are monotonic
    seconds."""

    def __init__(self, per_minute: int, *, networks_max: int = _NETWORKS_MAX) -> None:
        self._step_s = _WINDOW_S / per_minute if per_minute > 0 else 0.0
        self._networks_max = networks_max
        self._filled_at: dict[str, float] = {}  # when the whole budget will be there again
        self._spent: dict[str, float] = {}  # until when nothing is left; few, and mostly empty

    def wait_s(self, client: str, now: float) -> float:
        """How long this client must not ask for what may be a miss; 0: it may."""
        if not self._spent:
            return 0.0
        network = network_of(client)
        until = self._spent.get(network, now)
        if until <= now:
            self._spent.pop(network, None)
            return 0.0
        return until - now

    def missed(self, client: str, now: float) -> None:
        """A client was told that nobody has its code."""
        network = network_of(client)
        if not self._step_s or not network:
            return
        filled_at = max(self._filled_at.pop(network, now), now) + self._step_s
        while len(self._filled_at) >= self._networks_max:
            gone = next(iter(self._filled_at))
            del self._filled_at[gone]
            self._spent.pop(gone, None)
        self._filled_at[network] = filled_at
        free_at = filled_at + self._step_s - _WINDOW_S  # when there is room for one more
        if free_at > now:
            self._spent[network] = free_at


def network_of(client: str) -> str:
    """The network an address counts for: /24 of IPv4, /48 of IPv6. Empty, and without a budget: unknown, or this
    machine itself, which is a proxy that nobody told us of."""
    try:
        address = ip_address(client)
    except ValueError:
        return ""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return "" if address.is_loopback else f"6:{int(address) >> _IPV6_HOST_BITS:x}"
        address = address.ipv4_mapped
    return "" if address.is_loopback else f"4:{int(address) >> _IPV4_HOST_BITS:x}"
