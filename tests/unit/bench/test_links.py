"""Links that the bench writes past the API are links, and are asked for by Zipf's law."""

from collections import Counter
from urllib.parse import unquote

from bench import links
from bench.targets import encoded
from contracts.cache import decode_entry, url_key
from contracts.codes import is_generated_shape, is_possible_code
from contracts.link import LinkKey
from contracts.link_rows import link_from_row, link_to_row


def test_codes_are_possible_and_differ() -> None:
    """None has the shape of a generated code, which nobody issued and which would be refused without a look."""
    codes = [links.code_of(number) for number in (*range(1000), 999_999, 36**5 - 1)]

    assert len(set(codes)) == len(codes)
    assert all(is_possible_code(code) and not is_generated_shape(code) and len(code) == 7 for code in codes)


def test_values_in_redis_lead_where_the_rows_in_the_table_lead() -> None:
    """The same links, whichever of the two a gateway comes to."""
    values = links.values_of([7, 100_000])

    for number in (7, 100_000):
        cached = decode_entry(values[url_key(LinkKey(links.code_of(number)))])
        stored = link_from_row(link_to_row(links.link_of(number)))
        assert stored is not None
        assert (cached.short_code, cached.long_url) == (links.code_of(number), links.url_of(number))
        assert (cached.short_code, cached.long_url) == (stored.short_code, stored.long_url)


def test_popularity_follows_zipfs_law() -> None:
    """The k-th most popular link is asked for 1/k as often as the first; the same seed asks for the same."""
    asked = links.zipf(1000, 100_000, seed=3)
    often = Counter(asked)

    assert asked == links.zipf(1000, 100_000, seed=3)
    assert max(asked) < 1000
    assert abs(often[0] / often[9] - 10) < 2
    assert abs(often[0] / 100_000 - 1 / 7.485) < 0.01  # 7.485 is the sum of 1/k up to 1000


def test_each_code_has_its_line() -> None:
    """paths.lua finds the n-th line by its place in the file."""
    assert {len(f"{links.code_of(number)}\n".encode()) for number in (0, 35, 36, 10**6)} == {8}


def test_a_code_in_other_bytes_is_the_same_code() -> None:
    """What the app answers is the link that is asked for, though the target differs from what is ready."""
    for code in ("abcdefg", "0Zz9aB3", "b-00001"):
        assert encoded(code) != code
        assert unquote(encoded(code)) == code
