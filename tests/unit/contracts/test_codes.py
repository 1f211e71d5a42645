"""The code space."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.codes import (
    SPACE,
    CodePermutation,
    custom_code_problem,
    from_base62,
    is_generated_shape,
    is_possible_code,
    to_base62,
)

PERMUTATION = CodePermutation(bytes(range(32)))
GOLDEN = ["hGQhqQ7", "Xszh9k6", "N3ChvAP"]


@pytest.mark.rule("K1")
@given(number=st.integers(0, SPACE - 1))
def test_every_id_has_its_code_and_back(number: int) -> None:
    """The permutation is inverted exactly, over the whole space."""
    code = PERMUTATION.code_of(number)

    assert is_generated_shape(code)
    assert PERMUTATION.number_of(code) == number


@pytest.mark.rule("K1", "P3")
def test_codes_of_a_run_of_ids_are_distinct_and_tell_no_order() -> None:
    """20 000 consecutive ids: 20 000 codes, as often falling as rising."""
    codes = [PERMUTATION.code_of(number) for number in range(20_000)]

    rising = sum(earlier < later for earlier, later in pairwise(codes))
    assert len(set(codes)) == 20_000
    assert 9_500 < rising < 10_500


@pytest.mark.rule("K1")
def test_the_permutation_is_fixed_for_ever() -> None:
    """Codes are on paper: these pairs were true when the first code was issued."""
    assert [PERMUTATION.code_of(number) for number in (0, 1, SPACE - 1)] == GOLDEN


def test_another_key_is_another_permutation() -> None:
    """Nobody can compute our codes without our key."""
    assert CodePermutation(bytes(32)).code_of(1) != PERMUTATION.code_of(1)


@pytest.mark.parametrize("number", [-1, SPACE])
def test_an_id_outside_of_the_space_is_refused(number: int) -> None:
    """The space ends at 62^7."""
    with pytest.raises(ValueError, match="outside"):
        PERMUTATION.code_of(number)


@given(value=st.integers(0, SPACE - 1))
def test_base62_round_trip(value: int) -> None:
    """Seven digits, always."""
    assert from_base62(to_base62(value)) == value
    assert len(to_base62(value)) == 7


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("abc", True),
        ("my-link", True),
        ("my_link_2026", True),
        ("x" * 64, True),
        ("ab", False),
        ("x" * 65, False),
        ("abcdefg", False),  # the shape of generated codes
        ("ABC1234", False),
        ("abc-def", True),  # seven characters, but not all alphanumeric
        ("api", False),
        ("API", False),
        ("docs", False),
        ("a b", False),
        ("äöü", False),
        ("a/b", False),
        ("", False),
        ("abc\n", False),
    ],
)
def test_which_codes_may_be_chosen(code: str, allowed: bool) -> None:
    """Letters, digits, - and _, 3 to 64 of them, never the shape of a generated code, never a name of ours."""
    assert (custom_code_problem(code) is None) == allowed


@pytest.mark.parametrize(("code", "possible"), [("abcdefg", True), ("my-link", True), ("ab", False), ("a%62c", False)])
def test_what_cannot_be_a_code(code: str, possible: bool) -> None:
    """The gateway answers such paths without looking anything up."""
    assert is_possible_code(code) == possible
