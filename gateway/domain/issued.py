"""Which generated codes cannot exist yet, so that guesses cost no look-up [L5]."""

from contracts.codes import NEVER_ISSUED_MARGIN, CodePermutation, is_generated_shape

_PASSED_MAX = 1 << 16  # codes; 8 MB at most


class IssuedCodes:
    """The known mark of leased ids. `codes` None: the permutation's key is not known here, and nothing is ruled out.
    `passed_max`: how many codes are remembered that passed."""

    def __init__(self, codes: CodePermutation | None, *, passed_max: int = _PASSED_MAX) -> None:
        self._codes = codes
        self._mark: int | None = None
        self._passed: set[str] = set()
        self._passed_max = passed_max

    def learn(self, mark: int | None) -> None:
        """What Redis says has been leased; None: it does not know. A mark never goes back: one that does is of a Redis
        that forgot."""
        if mark is not None and (self._mark is None or mark > self._mark):
            self._mark = mark

    def rules_out(self, code: str) -> bool:
        """Whether no instance can have issued this code: its id is further beyond the mark than all of them together
        can lease between two looks at it. What passed once passes for ever, since the mark never goes back; to ask
        again costs a hundredth."""
        if code in self._passed:
            return False
        if self._codes is None or self._mark is None or not is_generated_shape(code):
            return False
        if self._codes.number_of(code) >= self._mark + NEVER_ISSUED_MARGIN:
            return True
        if len(self._passed) >= self._passed_max:
            self._passed.clear()
        self._passed.add(code)
        return False
