"""Which generated codes cannot exist yet, so that guesses cost no look-up [L5]."""

from contracts.codes import NEVER_ISSUED_MARGIN, CodePermutation, is_generated_shape

_PLACES = 1 << 17  # of codes that passed: 8 MB at most, and as many as a gateway keeps links


class IssuedCodes:
    """The known mark of leased ids. `codes` None: the permutation's key is not known here, and nothing is ruled out.
    `places`: how many codes are remembered that passed."""

    def __init__(self, codes: CodePermutation | None, *, places: int = _PLACES) -> None:
        self._codes = codes
        self._mark: int | None = None
        self._passed: list[str | None] = [None] * places  # each at the place of its hash, the younger one stays

    def learn(self, mark: int | None) -> None:
        """What Redis says has been leased; None: it does not know. A mark never goes back: one that does is of a Redis
        that forgot."""
        if mark is not None and (self._mark is None or mark > self._mark):
            self._mark = mark

    def rules_out(self, code: str) -> bool:
        """Whether no instance can have issued this code: its id is further beyond the mark than all of them together
        can lease between two looks at it. What passed once passes for ever, since the mark never goes back; to ask
        again costs a hundredth."""
        place = hash(code) % len(self._passed)
        if self._passed[place] == code:
            return False
        if self._codes is None or self._mark is None or not is_generated_shape(code):
            return False
        if self._codes.number_of(code) >= self._mark + NEVER_ISSUED_MARGIN:
            return True
        self._passed[place] = code
        return False
