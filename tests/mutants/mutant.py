"""A mutant: one safeguard of the product broken on purpose, and the tests that must notice."""

from dataclasses import dataclass


class DoesNotApplyError(Exception):
    """The text to be replaced is not there exactly once: the product has changed, and the mutant must follow it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """In `file`, `old` (which stands there exactly once) becomes `new`."""

    file: str
    old: str
    new: str

    def applied_to(self, text: str) -> str:
        """The file's text with the edit done.

        Raises:
            DoesNotApplyError: `old` is not there, or more than once; or the edit changes nothing.
        """
        found = text.count(self.old)
        if found != 1:
            raise DoesNotApplyError(f"{self.file} has {found} times, not once:\n{self.old}")
        if self.old == self.new:
            raise DoesNotApplyError(f"{self.file}: the edit changes nothing")
        return text.replace(self.old, self.new)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A product without one of its safeguards.

    `why`: what goes wrong without it. `killed_by`: pytest node ids; each of them must fail in its own body, by an
    assertion, and none of them may fail without the mutant. `dies_of`: they may also fail by an error of this name.
    `slow`: they need Kafka or processes to kill, so `make mutants-long` runs it. `timeout_s`: of the whole pytest run;
    a mutant that hangs is not killed.
    """

    name: str
    rule: str
    why: str
    edits: tuple[Edit, ...]
    killed_by: tuple[str, ...]
    dies_of: str = ""
    slow: bool = False
    timeout_s: float = 60.0


def broken(
    name: str, rule: str, why: str, edit: Edit, *killed_by: str, dies_of: str = "", slow: bool = False
) -> Mutant:
    """A mutant of one edit."""
    timeout_s = 300.0 if slow else 60.0  # a test on Kafka waits long before it says no
    return Mutant(
        name=name,
        rule=rule,
        why=why,
        edits=(edit,),
        killed_by=killed_by,
        dies_of=dies_of,
        slow=slow,
        timeout_s=timeout_s,
    )
