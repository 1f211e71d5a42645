"""The country of an address, from a file in the MaxMind DB format 2.0 (GeoLite2-Country and its kin).

A binary tree over the bits of an address, whose leaves point to values behind it. Own, because this one question needs
a hundred lines of the format; no address leaves this process, or is kept beyond a bounded cache in its memory.
Source: the specification "MaxMind DB File Format", version 2.0.
"""

from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address
from pathlib import Path

_MARK = b"\xab\xcd\xefMaxMind.com"
_METADATA_BYTES_MAX = 128 << 10
_SEPARATOR = 16  # zero bytes between tree and values
_DEPTH_MAX = 8  # of values within values: those of countries have three
_EXTENDED, _POINTER, _TEXT, _MAP, _ARRAY, _BOOLEAN = 0, 1, 2, 7, 11, 14
_UNSIGNED = frozenset({5, 6, 9, 10})
_KINDS_MAX = 15
_POINTER_BASES = (0, 2048, 526_336, 0)
_WIDTHS = frozenset({24, 28, 32})
_IPV4_BITS, _IPV6_BITS = 32, 128
_CODE_LETTERS = 2


class CountryFile:
    """A file, read whole.

    Raises:
        ValueError: it is no such file.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        start = data.rfind(_MARK, max(0, len(data) - _METADATA_BYTES_MAX))
        if start < 0:
            raise ValueError("no MaxMind DB: it has no metadata")
        values = _Values(data, start + len(_MARK))
        try:
            metadata, _ = values.read(values.base)
        except (IndexError, UnicodeDecodeError) as error:
            raise ValueError("no MaxMind DB: its metadata is damaged") from error
        if not isinstance(metadata, Mapping):
            metadata = {}  # which lacks everything
        self._nodes, self._width = _number(metadata, "node_count"), _number(metadata, "record_size")
        self._bits = _IPV6_BITS if _number(metadata, "ip_version") == 6 else _IPV4_BITS
        tree_bytes = self._nodes * self._width // 4
        gap = data[tree_bytes : tree_bytes + _SEPARATOR]
        if self._width not in _WIDTHS or tree_bytes + _SEPARATOR > start or any(gap):
            raise ValueError("no MaxMind DB of this format: its tree does not fit")
        self._values = _Values(data, tree_bytes + _SEPARATOR)

    @classmethod
    def read(cls, path: Path) -> "CountryFile":
        """The file of that name. Raises OSError, and ValueError if it is no such file."""
        return cls(path.read_bytes())

    def country_of(self, address: str) -> str:
        """Two letters, upper case; empty if the file does not know, or it is no address. About 20 µs."""
        try:
            found = self._find(address)
        except (ValueError, IndexError):  # no address; or a leaf that points beyond the file
            return ""
        for name in ("country", "registered_country"):
            place = found.get(name) if isinstance(found, Mapping) else None
            code = place.get("iso_code") if isinstance(place, Mapping) else None
            if isinstance(code, str) and len(code) == _CODE_LETTERS and code.isascii() and code.isalpha():
                return code.upper()
        return ""

    def _find(self, address: str) -> object:
        parsed = ip_address(address)
        if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        if parsed.max_prefixlen > self._bits:
            return None  # a file of IPv4 alone
        number = int(parsed)
        node = 0
        for bit in range(self._bits - 1, -1, -1):  # IPv4 is under ::/96
            node = self._child(node, number >> bit & 1)
            if node >= self._nodes:
                break
        if node <= self._nodes:
            return None
        value, _ = self._values.read(self._values.base + node - self._nodes - _SEPARATOR)
        return value

    def _child(self, node: int, side: int) -> int:
        """The left (0) or right (1) record of a node."""
        bytes_of_node = self._width // 4
        start = node * bytes_of_node
        record = self._data[start : start + bytes_of_node]
        half = self._width // 8
        if self._width != 28:
            return int.from_bytes(record[side * half : side * half + half], "big")
        high = record[3] & 0x0F if side else record[3] >> 4
        return high << 24 | int.from_bytes(record[4:7] if side else record[:3], "big")


class _Values:
    """A section of values: each is a byte of kind and length, and what these say."""

    def __init__(self, data: bytes, base: int) -> None:
        self._data = data
        self.base = base  # what pointers count from

    def read(self, at: int, depth: int = 0) -> tuple[object, int]:
        """The value there, and where the next one is. Kinds that no country needs are None.

        Raises:
            IndexError: it goes beyond the file, or too deep.
        """
        kind, size, at = self._head(at, depth)
        if kind == _POINTER:
            return self.read(self.base + size, depth + 1)[0], at
        if kind == _MAP:
            found: dict[str, object] = {}
            for _ in range(size):
                key, at = self.read(at, depth + 1)
                value, at = self.read(at, depth + 1)
                found[str(key)] = value
            return found, at
        if kind == _ARRAY:
            for _ in range(size):
                _, at = self.read(at, depth + 1)
            return None, at
        if kind == _BOOLEAN:
            return bool(size), at
        end = at + size
        if end > len(self._data):
            raise IndexError("a value goes beyond the file")
        content = self._data[at:end]
        if kind == _TEXT:
            return content.decode(), end
        return int.from_bytes(content, "big") if kind in _UNSIGNED else None, end

    def _head(self, at: int, depth: int) -> tuple[int, int, int]:
        """Kind, length (of a pointer: where it leads) and where the content begins."""
        if depth > _DEPTH_MAX:
            raise IndexError("values go too deep")
        control = self._data[at]
        kind, size, at = control >> 5, control & 0x1F, at + 1
        if kind == _POINTER:
            width = (size >> 3) + 1
            high = 0 if width == 4 else (size & 7) << 8 * width
            low = int.from_bytes(self._data[at : at + width], "big")
            return kind, (high | low) + _POINTER_BASES[width - 1], at + width
        if kind == _EXTENDED:
            kind, at = self._data[at] + 7, at + 1
            if kind > _KINDS_MAX:
                raise IndexError("a value of no known kind")
        if size < 29:
            return kind, size, at
        more = size - 28
        length = int.from_bytes(self._data[at : at + more], "big") + (29, 285, 65_821)[more - 1]
        return kind, length, at + more


def _number(metadata: Mapping[object, object], name: str) -> int:
    value = metadata.get(name)
    if not isinstance(value, int):
        raise ValueError(f"no MaxMind DB: {name} is missing")  # noqa: TRY004 (what is wrong is the file)
    return value
