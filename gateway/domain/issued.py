"""Which generated codes cannot exist yet, so that guesses cost no look-up [L5]."""

from contracts.codes import NEVER_ISSUED_MARGIN, CodePermutation, is_generated_shape


class IssuedCodes:
    """The known mark of leased ids. `codes` None: the permutation's key is not known here, and nothing is ruled out."""

    def __init__(self, codes: CodePermutation | None) -> None:
        self._codes = codes
        self._mark: int | None = None

    def learn(self, mark: int | None) -> None:
        """What Redis says has been leased; None: it does not know. A mark never goes back: one that does is of a Redis
        that forgot."""
        if mark is not None and (self._mark is None or mark > self._mark):
            self._mark = mark

    def rules_out(self, code: str) -> bool:
        """Whether no instance can have issued this code: its id is further beyond the mark than all of them together
        can lease between two looks at it."""
        if self._codes is None or self._mark is None or not is_generated_shape(code):
            return False
        return self._codes.number_of(code) >= self._mark + NEVER_ISSUED_MARGIN
