"""Codes that cannot have been issued [L5], and what is remembered of those that can."""

import pytest

from contracts.codes import NEVER_ISSUED_MARGIN, CodePermutation
from gateway.domain.issued import IssuedCodes

CODES = CodePermutation(b"k" * 32)
MARK = 1 << 22


@pytest.mark.rule("L5")
def test_what_passed_vouches_for_itself_alone() -> None:
    """Each is judged by its own id, again and again; and no more of them are remembered than said."""
    issued = IssuedCodes(CODES, passed_max=1)
    issued.learn(MARK)
    far, near, other = (CODES.code_of(MARK + NEVER_ISSUED_MARGIN + offset) for offset in (0, -1, -2))

    assert [issued.rules_out(code) for code in (near, far, near, far, other, near)] == [0, 1, 0, 1, 0, 0]
    assert issued._passed == {near}


@pytest.mark.rule("L5")
def test_what_passed_before_the_mark_was_known_is_judged_by_it() -> None:
    """Nothing is refused until then, and nothing is remembered of that."""
    issued = IssuedCodes(CODES)
    far = CODES.code_of(MARK + NEVER_ISSUED_MARGIN)

    assert not issued.rules_out(far)
    issued.learn(MARK)
    assert issued.rules_out(far)
