"""Writes files in the MaxMind DB format, small ones, as its specification describes them."""

from collections.abc import Mapping, Sequence
from ipaddress import ip_network

MARK = b"\xab\xcd\xefMaxMind.com"


def country_file(countries: Mapping[str, str], *, width: int = 24, ip_version: int = 6) -> bytes:
    """A file that knows these networks (`10.0.0.0/8`) and the countries they are in."""
    bits = 128 if ip_version == 6 else 32
    nodes: list[list[int | str | None]] = [[None, None]]
    for name, code in countries.items():
        network = ip_network(name)
        length = network.prefixlen + (bits - network.max_prefixlen)
        number, node = int(network.network_address), 0
        for place in range(length - 1):
            side = number >> (bits - 1 - place) & 1
            child = nodes[node][side]
            if not isinstance(child, int):
                nodes.append([None, None])
                child = nodes[node][side] = len(nodes) - 1
            node = child
        nodes[node][number >> (bits - length) & 1] = code
    values, places = _values(sorted(set(countries.values())))
    tree = b"".join(_node([_record(child, len(nodes), places) for child in node], width) for node in nodes)
    metadata = {"node_count": len(nodes), "record_size": width, "ip_version": ip_version}
    return tree + bytes(16) + values + MARK + _map([(name, _unsigned(number)) for name, number in metadata.items()])


def _values(codes: Sequence[str]) -> tuple[bytes, Mapping[str, int]]:
    """Values of these countries, and where each begins. The names of fields are shared, by pointers."""
    data = _text("iso_code") + _text("country")
    places: dict[str, int] = {}
    for code in codes:
        place = _map_of([(_pointer(0), _text(code)), (_text("geoname_id"), _unsigned(7))])
        places[code] = len(data)
        data += _map_of(
            [
                (_text("continent"), _map([("names", _map([("en", _text("A" * 300))]))])),
                (_pointer(len(_text("iso_code"))), place),
                (_text("is_in_european_union"), bytes((1, 14 - 7))),
            ]
        )
    return data, places


def _record(child: int | str | None, node_count: int, places: Mapping[str, int]) -> int:
    if child is None:
        return node_count
    return child if isinstance(child, int) else node_count + 16 + places[child]


def _node(records: Sequence[int], width: int) -> bytes:
    left, right = records
    if width == 28:
        middle = (left >> 24) << 4 | right >> 24
        return (left & 0xFFFFFF).to_bytes(3, "big") + bytes((middle,)) + (right & 0xFFFFFF).to_bytes(3, "big")
    return left.to_bytes(width // 8, "big") + right.to_bytes(width // 8, "big")


def _head(kind: int, size: int) -> bytes:
    if size < 29:
        return bytes((kind << 5 | size,))
    if size < 285:
        return bytes((kind << 5 | 29, size - 29))
    return bytes((kind << 5 | 30,)) + (size - 285).to_bytes(2, "big")


def _text(text: str) -> bytes:
    return _head(2, len(text)) + text.encode()


def _unsigned(number: int) -> bytes:
    return _head(6, 4) + number.to_bytes(4, "big")


def _pointer(to: int) -> bytes:
    return bytes((1 << 5 | to >> 8, to & 0xFF))


def _map(fields: Sequence[tuple[str, bytes]]) -> bytes:
    return _map_of([(_text(name), value) for name, value in fields])


def _map_of(fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    return _head(7, len(fields)) + b"".join(name + value for name, value in fields)
