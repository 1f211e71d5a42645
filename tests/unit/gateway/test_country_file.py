"""The country of an address, from a file that an operator gives us."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.country_file import CountryFile
from tests.fakes.country_file import MARK, country_file

NETWORKS = {
    "192.0.2.0/24": "DE",
    "198.51.100.0/25": "FR",
    "198.51.100.128/25": "US",
    "203.0.113.7/32": "BR",
    "2001:db8::/32": "IN",
    "2001:db9:1::/48": "GB",
}
ADDRESSES = [
    ("192.0.2.0", "DE"),
    ("192.0.2.255", "DE"),
    ("192.0.3.0", ""),
    ("198.51.100.127", "FR"),
    ("198.51.100.128", "US"),
    ("203.0.113.7", "BR"),
    ("203.0.113.8", ""),
    ("2001:db8:ffff::1", "IN"),
    ("2001:db9:1:2::3", "GB"),
    ("2001:db9:2::", ""),
    ("::ffff:192.0.2.1", "DE"),
    ("no address", ""),
    ("", ""),
]


@pytest.mark.parametrize("width", [24, 28, 32])
@pytest.mark.parametrize(("address", "expected"), ADDRESSES)
def test_an_address_has_a_country(address: str, expected: str, width: int) -> None:
    """Networks of both families, in trees of each width; what is in none of them is unknown."""
    assert CountryFile(country_file(NETWORKS, width=width)).country_of(address) == expected


def test_a_file_of_ipv4_knows_nothing_else() -> None:
    """A tree of 32 bits has no place for an address of 128."""
    countries = CountryFile(country_file({"192.0.2.0/24": "DE"}, ip_version=4))

    assert (countries.country_of("192.0.2.9"), countries.country_of("2001:db8::1")) == ("DE", "")


def test_a_file_is_read(tmp_path: Path) -> None:
    """By its name."""
    path = tmp_path / "countries.mmdb"
    path.write_bytes(country_file(NETWORKS))

    assert CountryFile.read(path).country_of("192.0.2.1") == "DE"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"some text",
        MARK,
        MARK + b"\x40",
        MARK + b"\xe0",
        country_file(NETWORKS)[:-5],
        country_file(NETWORKS)[200:],
        country_file(NETWORKS).replace(b"node_count", b"node_knout"),
    ],
    ids=["empty", "text", "no metadata", "no map", "empty map", "cut at its end", "cut at its start", "a field less"],
)
def test_what_is_no_such_file_is_told(data: bytes) -> None:
    """At the start, in a sentence, not with the first visitor."""
    with pytest.raises(ValueError, match="no MaxMind DB"):
        CountryFile(data)


@given(st.integers(0, 3000), st.integers(0, 255))
def test_a_damaged_file_harms_nobody(place: int, value: int) -> None:
    """Whatever byte of the tree or the values is wrong: an address has some country or none, and nothing is raised.
    Between the two there is nothing but zeros; a file of which that is not true is told at the start."""
    sound = country_file(NETWORKS)
    data = bytearray(sound)
    place %= data.rfind(MARK)
    gap = sound.find(bytes(16))
    data[place] = value
    if value and gap <= place < gap + 16:
        with pytest.raises(ValueError, match="no MaxMind DB"):
            CountryFile(bytes(data))
        return
    countries = CountryFile(bytes(data))

    for address, _ in ADDRESSES:
        found = countries.country_of(address)
        assert found == "" or (len(found) == 2 and found.isalpha())
